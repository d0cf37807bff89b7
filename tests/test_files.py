"""Whatever ends a write, what stands under the final name is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fasttrain.errors import UserError
from fasttrain.files import (
    atomic_folder,
    explain_write_errors,
    write_bytes,
    write_output,
    write_text,
)

REPOSITORY = Path(__file__).parent.parent
NOBODY = 65534


def fill_folder(path: Path) -> None:
    with atomic_folder(path) as aside:
        (aside / "file").write_bytes(b"new" * 50_000)


WRITERS: list[Callable[[Path], None]] = [
    lambda path: write_bytes(path, b"new" * 50_000),
    lambda path: write_text(path, "new" * 50_000),
    fill_folder,
]
every_writer = pytest.mark.parametrize("write", WRITERS, ids=["bytes", "text", "folder"])


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A folder in which this process may not write, even where the tests run as root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True).returncode == 0:
            yield folder
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
            return
    pytest.skip("this process may not mount a file system")


def refusal(write: Callable[[Path], None], path: Path) -> str:
    with pytest.raises(UserError) as caught:
        write(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"cannot write {path}: ")
    return message


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# The good case


def test_bytes_appear_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folders" / "file"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file"]


def test_text_is_written_as_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "häuser")
    assert (tmp_path / "file").read_bytes() == "häuser".encode()


def test_a_folder_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder"
    with atomic_folder(path) as aside:
        (aside / "file").write_text("content")
        assert not path.exists()
        assert aside.parent == path.parent  # or a rename would not be one
    assert (path / "file").read_text() == "content"
    assert names(path.parent) == ["folder"]


@every_writer
def test_what_is_written_can_be_read_by_others(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "target"
    write(path)
    expected = 0o755 if path.is_dir() else 0o644
    assert path.stat().st_mode & 0o777 == expected


@every_writer
@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_the_umask_says_who_may_do_what(
    write: Callable[[Path], None], tmp_path: Path, mask: int
) -> None:
    path, before = tmp_path / "target", os.umask(mask)
    try:
        write(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "file", tmp_path / "link"
    link.symlink_to(Path("folder") / "file")
    for content in (b"made", b"replaced"):
        write_output(link, content)
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert names(tmp_path) == ["folder", "link"]
    assert names(tmp_path / "folder") == ["file"]


def test_what_is_no_file_is_written_into_and_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write_output(path, b"content")
        assert os.read(reader, 100) == b"content"
        os.close(reader)
    assert pipe.is_fifo()
    assert names(tmp_path) == ["link", "pipe"]


def test_standard_output_can_be_written_to() -> None:
    script = """
from pathlib import Path
from fasttrain.files import write_output
write_output(Path("/proc/self/fd/1"), b"content")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=True)
    assert done.stdout == b"content"


def test_a_link_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("theirs")
    link.symlink_to(target)
    monkeypatch.setattr(os, "getuid", lambda: 12_345)
    if link.lstat().st_uid == 0:
        os.chown(link, 54_321, -1, follow_symlinks=False)
    with pytest.raises(UserError, match="is a link of another user; choose another file"):
        write_output(link, b"ours")
    assert target.read_text() == "theirs"


def test_files_of_the_house_replace_links(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("theirs")
    link.symlink_to(target)
    write_bytes(link, b"ours")
    assert (target.read_text(), link.read_bytes(), link.is_symlink()) == ("theirs", b"ours", False)


@every_writer
def test_everything_is_flushed_before_it_gets_its_name(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "target"
    named_when_flushed: list[tuple[int, bool]] = []
    flush = os.fsync

    def record(descriptor: int) -> None:
        named_when_flushed.append((os.fstat(descriptor).st_ino, path.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write(path)
    content = path / "file" if path.is_dir() else path
    assert (content.stat().st_ino, False) in named_when_flushed
    assert named_when_flushed[-1] == (tmp_path.stat().st_ino, True)  # then the name itself


# Errors


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt(), SystemExit(1)])
def test_after_an_error_no_folder_appears_and_nothing_is_left(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)), atomic_folder(tmp_path / "folder") as aside:
        (aside / "file").write_text("half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyboardInterrupt()])
def test_after_an_error_the_old_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_bytes(path, b"new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_an_error_that_is_not_about_writing_passes_unchanged(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output") as caught, explain_write_errors(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, UserError)


# Kills


@pytest.mark.parametrize(
    ("write", "moment"),
    [
        ("write_bytes(path, b'new' * 50_000)", "os.fsync"),
        ("write_bytes(path, b'new' * 50_000)", "pathlib.Path.replace"),
        ("fill_folder(path)", "os.fsync"),
        ("fill_folder(path)", "pathlib.Path.rename"),
    ],
)
def test_a_kill_at_any_moment_leaves_the_old_or_nothing(
    tmp_path: Path, write: str, moment: str
) -> None:
    path = tmp_path / "target"
    if "bytes" in write:
        path.write_text("old")
    before = names(tmp_path)
    script = f"""
import os, pathlib, signal
from fasttrain.files import write_bytes
from tests.test_files import fill_folder
path = pathlib.Path({str(path)!r})
{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
{write}
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=REPOSITORY)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert [name for name in names(tmp_path) if not name.endswith(".part")] == before
    assert not before or path.read_text() == "old"


# No right, no room, no way


@every_writer
def test_no_right_to_write_is_one_line(write: Callable[[Path], None], unwritable: Path) -> None:
    for path in (unwritable / "file", unwritable / "folder" / "file"):
        assert "no right to write there" in refusal(write, path)
    assert names(unwritable) == []


@every_writer
def test_no_room_is_one_line_and_leaves_nothing(
    write: Callable[[Path], None], small_disk: Path
) -> None:
    assert "no space left" in refusal(write, small_disk / "target")
    assert names(small_disk) == []


def test_where_there_is_no_room_the_old_file_stands(small_disk: Path) -> None:
    path = small_disk / "file"
    write_bytes(path, b"old")
    refusal(WRITERS[0], path)
    assert path.read_bytes() == b"old"


@every_writer
def test_a_read_only_file_system_is_one_line(
    write: Callable[[Path], None], small_disk: Path
) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(remount, capture_output=True).returncode:
        pytest.skip("this process may not remount a file system")
    assert "read-only" in refusal(write, small_disk / "target")


@every_writer
def test_a_full_disk_found_at_the_flush_is_one_line_and_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "no space left" in refusal(write, tmp_path / "target")
    assert names(tmp_path) == []


@every_writer
def test_a_path_through_a_file_is_one_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "target", tmp_path / "file" / "more" / "target"):
        assert "file" in refusal(write, path)
    assert (tmp_path / "file").read_bytes() == b""


@every_writer
def test_a_place_where_nothing_can_be_made_is_one_line(write: Callable[[Path], None]) -> None:
    refusal(write, Path("/proc/fasttrain/target"))


@every_writer
def test_a_name_that_is_too_long_is_one_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    assert "too long" in refusal(write, tmp_path / ("n" * 300))
    assert names(tmp_path) == []


def test_so_it_is_where_a_user_wants_it(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        write_output(path, b"whole")

    assert "too long" in refusal(write, tmp_path / ("n" * 300))


def test_a_folder_in_the_way_of_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    assert "in the way" in refusal(WRITERS[0], tmp_path / "target")
    assert names(tmp_path) == ["target"]


def test_a_folder_in_the_way_of_a_folder_is_one_line_and_stands(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "old").touch()
    assert "in the way" in refusal(fill_folder, tmp_path / "target")
    assert names(tmp_path) == ["target"]
    assert names(tmp_path / "target") == ["old"]
