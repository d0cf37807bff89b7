"""Writing files so that what stands under its final name is whole.

Everything is written aside (`.name.<random>.part`), flushed to the device, then renamed: a
process killed at any moment leaves the old content or the new one, never a piece of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fasttrain.errors import UserError

_MENDS = {
    errno.ENOSPC: "no space left on the device; free some room or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some room or choose another folder",
    errno.EACCES: "no right to write there; change the permissions or choose another folder",
    errno.EPERM: "no right to write there; change the permissions or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder cannot be made or has gone; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENXIO: "nothing can be written into it; choose a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a file of that name is in the way; choose another folder",
    errno.EISDIR: "a folder of that name is in the way; choose another folder",
    errno.ENOTEMPTY: "a folder of that name is in the way; choose another folder",
}


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a `UserError` of one line."""
    try:
        yield
    except OSError as error:
        reason = _MENDS.get(error.errno or 0)
        if reason is None:
            raise
        raise UserError(f"cannot write {path}: {reason}") from error


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made, before anything long is begun.

    Raises:
        UserError: a file is in the way, or there is no right to write there.
    """
    with explain_write_errors(folder):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise OSError(errno.ENOTDIR, "not a folder", str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            mounted_so = os.statvfs(there).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if mounted_so else errno.EACCES, "", str(there))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; a link that stands there is replaced.

    Raises:
        UserError: there is no room, or no right to write there.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        try:
            with aside.open("xb") as file:
                file.write(content)
            put_in_place(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def put_in_place(aside: Path, path: Path) -> None:
    """Let a file that was written aside, on the same disk, appear under its final name, whole."""
    _fsync(aside)
    aside.replace(path)
    _fsync(path.parent)


def write_output(path: Path, content: bytes) -> None:
    """Write `content` where a user wants it, atomically where that is a file.

    A link stays, and what it points to is replaced; so does a device or a pipe, which is written
    into.

    Raises:
        UserError: as `write_bytes`; or it is a link that somebody else has put there.
    """
    with explain_write_errors(path):
        if path.is_symlink() and path.lstat().st_uid not in (os.getuid(), 0):
            raise UserError(f"{path}: is a link of another user; choose another file")
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            write_bytes(Path(os.path.realpath(path)), content)


def _aside(path: Path) -> Path:
    """A name that nobody else uses; what is made under it has the rights that the umask leaves.

    `tempfile` would make it for this user alone.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8; errors as `write_bytes`."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def atomic_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """Fill a folder aside, then let it appear under its final name at once.

    Yields the folder to write into. When the block ends without an error its files, not those of
    folders in it, are flushed to the device and it is renamed to `path`, which must not exist;
    after an error it is removed and nothing appears.

    Raises:
        UserError: there is no room, or no right to write there.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        aside.mkdir(mode)
        try:
            yield aside
            for file in aside.iterdir():
                _fsync(file)
            _fsync(aside)
            aside.rename(path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _fsync(path.parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; `None` where there is none, or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return None


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
