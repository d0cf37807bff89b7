"""What a user names to be predicted: files, folders, standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasttrain.data.members import MOST_BYTES
from fasttrain.data.pictures import SUFFIXES
from fasttrain.errors import UserError

STDIN = "-"
_ENOUGH = MOST_BYTES + 1  # to see that it is no picture; some, such as /dev/zero, have no end


@dataclass(frozen=True)
class Input:
    """A picture that is to be read.

    Attributes:
        name: What it is called: its path, or `-`.
        content: Its bytes where they are known already.
    """

    name: str
    content: bytes | None = None

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises:
            UserError: it cannot be read, or is no picture by its size alone.
        """
        content = self.content
        try:
            if content is None:
                with Path(self.name).open("rb") as file:
                    content = file.read(_ENOUGH)
        except (OSError, ValueError) as error:  # a ValueError: a null character in the name
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{self.name}: cannot be read: {reason}") from error
        if len(content) > MOST_BYTES:
            raise UserError(f"{self.name}: has more than {MOST_BYTES:,} bytes; no picture does")
        return content


def list_names(stream: bytes) -> list[str]:
    """The paths in a list, one a line; empty lines are passed over."""
    lines = (line.rstrip(b"\r") for line in stream.split(b"\n"))
    return [os.fsdecode(line) for line in lines if line]


def find_inputs(names: Sequence[str], listed: bool = False) -> Iterator[Input | UserError]:
    """Find the pictures, in the order of the names and in folders by path.

    In folders, however deep, all files with a picture's suffix count that are not hidden; a file
    that is named is tried whatever it is called.

    Args:
        names: Files, folders, and `-` for standard input.
        listed: Standard input holds such names, one a line, and not a picture.

    Yields:
        A picture, or why a name stands for none.
    """
    for name in names:
        if name == STDIN and listed:
            yield from find_inputs(list_names(sys.stdin.buffer.read()))
        elif name == STDIN:
            yield Input(STDIN, sys.stdin.buffer.read(_ENOUGH))
        elif os.path.isdir(name):  # noqa: PTH112 - it is False, too, where no one may look
            yield from _in_folder(name)
        else:
            yield Input(name)


def _in_folder(top: str) -> Iterator[Input | UserError]:
    found = False
    errors: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, onerror=errors.append, followlinks=True):
        try:
            about = os.stat(folder)  # noqa: PTH116 - of a path that os.walk gives as text
        except OSError as error:  # it has gone meanwhile
            errors.append(error)
            continue
        if (about.st_dev, about.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = os.path.join(folder, file)  # noqa: PTH118 - keeps the name as the user gave it
            if _is_picture(file, path):
                found = True
                yield Input(path)
    yield from (
        UserError(f"{error.filename}: cannot be read: {error.strerror}") for error in errors
    )
    if not found and not errors:
        yield UserError(f"{top}: no picture in this folder ({' '.join(SUFFIXES)})")


def _is_picture(file: str, path: str) -> bool:
    """By its name alone, and no pipe that would never end."""
    if file.startswith(".") or not file.lower().endswith(SUFFIXES):
        return False
    return not os.path.exists(path) or os.path.isfile(path)  # noqa: PTH110, PTH113
