"""The files in a folder or zip: their names, what tells a change of them, and their bytes.

Nothing is ever extracted: members of a zip are read into memory, against the checksums that the
zip carries. Names that point out of a zip and links in it are refused all the same.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fasttrain.errors import UserError

MOST_BYTES = 2**30  # of one file that is read whole
_READ_ERRORS = (
    OSError,
    zipfile.BadZipFile,  # damaged; also where a member's checksum does not hold
    zlib.error,
    EOFError,
    NotImplementedError,  # a compression this Python lacks
    RuntimeError,  # encrypted
)


@dataclass(frozen=True)
class Member:
    """A file in a folder or zip, or a folder in it where the name ends in `/`.

    Attributes:
        place: The folder or zip.
        name: The path in it, its parts joined by `/`.
        stamp: Numbers that change when the content does.
    """

    place: Path
    name: str
    stamp: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}{'/' if self.place.is_dir() else '!'}{self.name}"


def members(place: Path, folders: Sequence[str] = (".",)) -> Iterator[Member]:
    """List a zip, or what lies in some `folders` of a folder, by default in it, however deep.

    Raises:
        UserError: something cannot be read, or the zip is damaged or holds unsafe names.
    """
    return _walk(place, folders) if place.is_dir() else _list_zip(place)


def _walk(place: Path, tops: Sequence[str]) -> Iterator[Member]:
    def fail(error: OSError) -> None:
        raise error  # by default os.walk leaves out what it cannot read

    try:
        for top in filter(Path.is_dir, (place / name for name in tops)):
            for folder, below, files in os.walk(top, onerror=fail, followlinks=True):
                below[:] = filter(_is_visible, below)
                inside = Path(folder).relative_to(place)
                lead = "" if inside == Path() else f"{inside.as_posix()}/"
                if lead:
                    yield Member(place, lead)
                for file in filter(_is_visible, files):
                    about = os.stat(f"{folder}/{file}")  # noqa: PTH116 - for 60,000 files
                    if stat.S_ISREG(about.st_mode):  # and no pipe or device, which may never end
                        yield Member(place, f"{lead}{file}", (about.st_size, about.st_mtime_ns))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _is_visible(name: str) -> bool:
    """What programs hide need not be readable, or small."""
    return not name.startswith(".")


def _list_zip(place: Path) -> Iterator[Member]:
    try:
        with zipfile.ZipFile(place) as archive:
            infos = archive.infolist()
    except _READ_ERRORS as error:
        raise UserError(
            f"{place}: cannot be read as a zip file ({error}); copy or download it again"
        ) from error
    seen: set[str] = set()
    for info in infos:
        _refuse_unsafe(place, info, seen)
        seen.add(info.filename)
        yield Member(place, info.filename, (info.file_size, info.CRC))


def _refuse_unsafe(place: Path, info: zipfile.ZipInfo, seen: set[str]) -> None:
    """Refuse names that point out of the zip or stand there twice, and links."""
    name = info.filename
    plain = name.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/"):
        raise UserError(f"{place}!{name}: points out of the zip; make the zip anew without it")
    if plain != name:  # as some programs for Windows write them
        raise UserError(
            f"{place}!{name}: has backslashes where folders are divided by /; zip it again with "
            "another program"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{place}!{name}: is a symbolic link; make the zip anew with files only")
    if name in seen:
        raise UserError(f"{place}!{name}: stands twice in the zip; make the zip anew")


def contents(files: Iterable[Member]) -> Iterator[tuple[Member, bytes]]:
    """Yield every file with its bytes; each folder or zip is opened once.

    Raises:
        UserError: a file cannot be read, or a checksum in a zip does not hold; it is named.
    """
    for place, group in groupby(files, key=lambda member: member.place):
        with _reader(place) as read:
            for member in group:
                yield member, _read_one(read, member)


def _read_one(read: Callable[[str], bytes], member: Member) -> bytes:
    if member.stamp[:1] > (MOST_BYTES,):  # a small zip may hold them; no more than it says is read
        raise UserError(f"{member}: has more than {MOST_BYTES:,} bytes; no picture does; remove it")
    try:
        return read(member.name)
    except _READ_ERRORS as error:
        raise UserError(
            f"{member}: cannot be read ({error}); replace it or copy the data again"
        ) from error


@contextlib.contextmanager
def _reader(place: Path) -> Iterator[Callable[[str], bytes]]:
    if place.is_dir():
        yield lambda name: (place / name).read_bytes()
    else:
        with zipfile.ZipFile(place) as archive:
            yield archive.read
