"""Compiled code that is kept: from run to run, and with a run that goes on elsewhere.

torch's compiler keeps what it generates in a folder and trusts what it finds there: it loads
shared libraries and unpickles. So the folder belongs to this user alone, every file in it is held
to a checksum before it is used, and what does not hold is thrown away and made again.

<run folder>/compiled/<key>   what this run uses; no other process writes there
<user's cache>/compiled/<key> what the next run of the kind begins with
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch._functorch.config

from fasttrain.errors import UserError
from fasttrain.files import atomic_folder, read_json, sha256, write_text

_SEAL = "sealed.json"
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# torch's compiler sets it, once, to a folder in its own; a later run in this process has another.
_TRITON_VARIABLE = "TRITON_CACHE_DIR"
# Whether graphs with an `autograd.Function` are kept with all that is traced and derived of them.
_WITH_OWN_BACKWARD = "autograd_cache_allow_custom_autograd_functions"


@contextmanager
def user_decides() -> Iterator[None]:
    """Put the variable back that names the compiler's folder.

    torch sets it to a folder of its own as soon as one asks for anything of its compiler, and
    then it looks as if the user had.
    """
    before = os.environ.get(_VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)
        if before is not None:
            os.environ[_VARIABLE] = before


def key(device: torch.device, settings: str) -> str:
    """Name what compiled code depends on: torch, Python, the processor, and what is compiled.

    Args:
        device: Where it runs.
        settings: What of the configuration tells runs of a kind from others; torch keeps all their
            graphs apart.
    """
    cpu = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    gpu = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    parts = [torch.__version__, platform.python_version(), *cpu, *gpu, settings]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class CompiledCode:
    """The folder of a run's compiled code, while the run goes.

    Whoever has set `TORCHINDUCTOR_CACHE_DIR` is obeyed, and nothing is done.

    Args:
        name: `key(...)`.
        run: The run folder.
        cache: The user's cache folder.
        tell: Shows the user a line.
        active: Whether anything is compiled.
        main: Whether this rank looks after the folder.
    """

    def __init__(
        self,
        name: str,
        run: Path,
        cache: Path,
        tell: Callable[[str], None],
        active: bool = True,
        main: bool = True,
    ) -> None:
        self.folder = run / "compiled" / name
        self._kept = cache / "compiled" / name
        self._tell, self._main = tell, main
        self._ours = active and _VARIABLE not in os.environ
        self._sealed = False
        self._with_backward: bool | None = None
        self._triton = os.environ.get(_TRITON_VARIABLE)
        self._stand_in: tempfile.TemporaryDirectory[str] | None = None

    def prepare(self) -> Path:
        """Fill the folder with what is at hand and whole; the main rank does it for all.

        Returns the folder to use: a temporary one, on this machine, where it cannot be made.
        """
        if not self._ours:
            return self.folder
        try:
            self._throw_away_what_does_not_hold()
            if not self.folder.exists() and self._is_usable(self._kept):
                _copy(self._kept, self.folder)
                self._throw_away_what_does_not_hold()  # it changed meanwhile
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self.folder
        except (OSError, UserError) as error:
            self._stand_in = tempfile.TemporaryDirectory(prefix="fasttrain-compiled-")
            self._tell(f"warning: compiled code is not kept: {error}")
            return Path(self._stand_in.name)

    def use(self, folder: Path) -> None:
        """Let torch's compiler use `folder`, until this object's end."""
        if self._ours:
            os.environ[_VARIABLE] = str(folder)
            # Left out by default; our own functions are traced whole: their code is in the keys.
            self._with_backward = getattr(torch._functorch.config, _WITH_OWN_BACKWARD, None)
            _keep_backward(True)

    def __enter__(self) -> CompiledCode:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._sealed:  # other ranks may have added to it
            self.seal()
        if self._ours:
            os.environ.pop(_VARIABLE, None)
            if self._triton is None:
                os.environ.pop(_TRITON_VARIABLE, None)
            _keep_backward(self._with_backward)
        if self._stand_in is not None:
            self._stand_in.cleanup()

    def seal(self) -> None:
        """Note the checksum of all that was generated so far; keep a copy for the next run."""
        if not (self._ours and self._main) or self._stand_in is not None:
            return
        try:
            _withdraw_from_others(self.folder)
            digests = {str(path.relative_to(self.folder)): sha256(path) for path in self._files()}
            write_text(self.folder / _SEAL, json.dumps(digests, indent=1))
            (self.folder / _SEAL).chmod(0o600)  # as all others
            self._sealed = True
            if read_json(self._kept / _SEAL) != digests:
                shutil.rmtree(self._kept, ignore_errors=True)
                _copy(self.folder, self._kept)
        except (OSError, UserError) as error:
            self._tell(f"warning: compiled code is not kept: {error}")

    def _files(self) -> list[Path]:
        found = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path for path in found if path.name != _SEAL and path.suffix != ".lock")

    def _is_usable(self, folder: Path) -> bool:
        """Whether a folder of the user's cache may be used; says why not."""
        if not folder.exists():
            return False
        flaw = _flaw(folder)
        if flaw:
            self._tell(f"compiles anew: {folder} is not used, {flaw}")
        return flaw is None

    def _throw_away_what_does_not_hold(self) -> None:
        """What a killed process left unfinished, what was damaged, what others could write."""
        if self.folder.exists() and not self._is_usable(self.folder):
            shutil.rmtree(self.folder)


def _keep_backward(wanted: bool | None) -> None:
    if wanted is not None and hasattr(torch._functorch.config, _WITH_OWN_BACKWARD):
        setattr(torch._functorch.config, _WITH_OWN_BACKWARD, wanted)


def _flaw(folder: Path) -> str | None:
    """Why compiled code is not to be trusted; `None` where it is."""
    for path in (folder, *folder.rglob("*")):
        about = path.lstat()
        if about.st_uid != os.getuid() or stat.S_ISLNK(about.st_mode):
            return f"{path.name} is not this user's own"
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others can write {path.name}"
    digests = read_json(folder / _SEAL)
    if digests is None:
        return "it was not finished"
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            return f"the checksum of {name} does not hold"
    known = {str(folder / name) for name in digests} | {str(folder / _SEAL)}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".lock" and str(path) not in known:
            return f"{path.name} was added behind its back"
    return None


def _withdraw_from_others(folder: Path) -> None:
    """Take the right to write from all but the owner, whatever the user's mask gives."""
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # the compiler's own temporary files
            path.chmod(path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))


def _copy(source: Path, target: Path) -> None:
    """Copy a folder; it appears whole, for this user alone, or not at all."""
    if target.exists():
        return
    with atomic_folder(target, 0o700) as aside:
        shutil.copytree(source, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.lock"))
        aside.chmod(0o700)  # not as the source is
