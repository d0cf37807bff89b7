"""Compiled code is used only where it is whole and nobody else's, and made anew elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fasttrain.compiled import CompiledCode, key
from fasttrain.data.store import cache_folder


@pytest.fixture(autouse=True)
def _no_folder_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)


class Place:
    """A user's cache, and runs that use it."""

    def __init__(self, root: Path) -> None:
        self.root, self.said = root, list[str]()
        self.cache = root / "cache"

    def code(self, run: str, name: str = "k") -> CompiledCode:
        return CompiledCode(name, self.root / run, self.cache, self.said.append)

    def generate(self, run: str) -> Path:
        """A run that finds nothing and generates two files."""
        code = self.code(run)
        folder = code.prepare()
        assert list(folder.iterdir()) == []
        (folder / "ab").mkdir()
        (folder / "ab" / "kernel.so").write_bytes(b"\x7fELF and so on")
        (folder / "ab" / "graph.py").write_text("code")
        (folder / "ab" / "x.lock").touch()
        code.seal()
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


WHOLE = {"ab/kernel.so", "ab/graph.py", "sealed.json"}


def test_the_next_run_and_the_run_that_goes_on_find_what_was_generated(place: Place) -> None:
    folder = place.generate("first")
    assert names(place.code("second").prepare()) == WHOLE
    assert names(place.code("first").prepare()) == WHOLE | {"ab/x.lock"}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert place.said == []


def test_a_mask_that_lets_others_write_makes_no_difference(place: Place) -> None:
    before = os.umask(0)
    try:
        place.generate("first")
        assert names(place.code("second").prepare()) == WHOLE
    finally:
        os.umask(before)
    assert place.said == []


def test_a_run_that_goes_on_elsewhere_carries_its_code(place: Place, tmp_path: Path) -> None:
    place.generate("first")
    subprocess.run(["cp", "-r", str(tmp_path / "first"), str(tmp_path / "moved")], check=True)
    elsewhere = CompiledCode("k", tmp_path / "moved", tmp_path / "no-cache", place.said.append)
    assert names(elsewhere.prepare()) >= WHOLE


def test_other_versions_and_settings_have_other_folders(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.generate("first")
    assert names(place.code("second", "other").prepare()) == set()
    cpu = torch.device("cpu")
    one = key(cpu, "model")
    assert one == key(cpu, "model") != key(cpu, "other model")
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert one != key(cpu, "model")


def truncate(folder: Path) -> None:
    (folder / "ab" / "kernel.so").write_bytes(b"\x7fELF")


def unseal(folder: Path) -> None:
    (folder / "sealed.json").unlink()


def garble(folder: Path) -> None:
    (folder / "sealed.json").write_text("{")


def plant(folder: Path) -> None:
    (folder / "ab" / "evil.so").write_bytes(b"\x7fELF")


def share(folder: Path) -> None:
    (folder / "ab").chmod(0o777)


def give_away(folder: Path) -> None:
    os.chown(folder / "ab" / "kernel.so", 12345, -1)


def link(folder: Path) -> None:
    (folder / "ab" / "kernel.so").unlink()
    (folder / "ab" / "kernel.so").symlink_to("/etc/passwd")


@pytest.mark.parametrize("run", ["first", "second"])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "the checksum of ab/kernel.so does not hold"),
        (unseal, "it was not finished"),
        (garble, "it was not finished"),
        (plant, "evil.so was added behind its back"),
        (share, "others can write ab"),
        (link, "kernel.so is not this user's own"),
        (give_away, "kernel.so is not this user's own"),
    ],
)
def test_what_does_not_hold_is_not_used_and_made_anew(
    place: Place, run: str, harm: Callable[[Path], None], reason: str
) -> None:
    if harm is give_away and os.getuid() != 0:
        pytest.skip("only root can give a file away")
    place.generate("first")
    harm(place.cache / "compiled" / "k")
    harm(place.root / "first" / "compiled" / "k")
    assert names(place.code(run).prepare()) == set()
    assert reason in place.said[0]


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "read-only"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_where_nothing_can_be_written_code_is_not_kept(place: Place, read_only: Path) -> None:
    code = CompiledCode("k", read_only / "run", place.cache, place.said.append)
    with code:
        folder = code.prepare()
        assert folder.is_dir()
        assert read_only not in folder.parents
        code.seal()
    assert not folder.exists()
    assert "compiled code is not kept" in place.said[0]


def test_a_cache_that_cannot_be_written_costs_only_the_next_run(
    place: Place, read_only: Path
) -> None:
    code = CompiledCode("k", place.root / "run", read_only / "cache", place.said.append)
    (code.prepare() / "kernel.so").touch()
    code.seal()
    assert "read-only" in place.said[0]
    assert names(place.code("run").prepare()) == {"kernel.so", "sealed.json"}


def test_the_compiler_is_told_and_untold(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    code = place.code("run")
    with code:
        code.use(code.prepare())
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(code.folder)
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    with place.code("other") as code:
        code.use(code.prepare())
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
        code.seal()
    assert not (place.root / "other").exists()


TRAIN_AND_TELL = """
import atexit, sys
from fasttrain.cli import main

atexit.register(lambda: print([name for name in sys.modules if name.startswith("triton.")]))
main()
"""


@pytest.mark.usefixtures("compiler")
def test_a_run_carries_its_compiled_code_and_leaves_it_to_the_next(tmp_path: Path) -> None:
    """In a process of its own: torch names a folder when its compiler is imported first."""
    settings = ["data.dataset=shapes", "data.validation=0", "data.batch_size=1000"]
    settings += ["train.epochs=1", "train.device=cpu", "train.compile=true", "model.widths=[4]"]
    command = [sys.executable, "-c", TRAIN_AND_TELL, "train", str(tmp_path / "empty.yaml")]
    (tmp_path / "empty.yaml").write_text("name: empty\n")
    ended = subprocess.run(
        [*command, *settings, "--run-dir", str(tmp_path / "run")],
        check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert ended.stdout.splitlines()[-1] == "[]", "without a GPU nothing of Triton is wanted"
    (carried,) = (tmp_path / "run" / "compiled").iterdir()
    assert (carried / "sealed.json").exists()
    assert names(cache_folder() / "compiled" / carried.name) >= {"sealed.json"}


def test_what_an_uncompiled_run_imports_names_no_folder_for_later_ones() -> None:
    code = "import os; from fasttrain.config import Train; from fasttrain.runtime import Runtime; "
    code += "Runtime(Train(device='cpu', compile=False)).close(); "
    code += "print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))"
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    assert ended.stdout == "None\n"


@pytest.mark.usefixtures("compiler")
def test_an_evaluation_takes_compiled_code_from_the_cache_and_leaves_the_runs_alone(
    tmp_path: Path,
) -> None:
    run, aside = tmp_path / "run", tmp_path / "tmp"
    aside.mkdir()
    (tmp_path / "empty.yaml").write_text("name: empty\n")
    settings = ["data.dataset=shapes", "data.validation=0", "data.batch_size=1000"]
    settings += ["train.epochs=1", "train.device=cpu", "train.compile=true", "model.widths=[4]"]
    for words in (
        ["train", str(tmp_path / "empty.yaml"), *settings, "--run-dir", str(run)],
        ["evaluate", str(run)],
    ):
        before = sorted(run.rglob("*"))
        subprocess.run(
            [sys.executable, "-m", "fasttrain", *words], check=True, stdout=subprocess.PIPE,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(aside)},
        )  # fmt: skip
    assert before == sorted(run.rglob("*"))
    (carried,) = (run / "compiled").iterdir()
    kept = cache_folder() / "compiled" / carried.name
    assert names(kept) >= {name for name in names(carried) if not name.endswith(".lock")}
    assert not list(aside.glob("fasttrain-*"))


KEPT_WITH_ITS_BACKWARD = """
import sys
from pathlib import Path
import torch
from fasttrain.compiled import CompiledCode

def squared(slope):
    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0] * slope

    return lambda x: Squared.apply(x).sum()

with CompiledCode("k", Path(sys.argv[1]), Path(sys.argv[1]), print) as code:
    code.use(code.prepare())
    from torch._dynamo.utils import counters

    for slope in (2.0, 2.0, 3.0):
        torch._dynamo.reset()
        counters.clear()
        x = torch.ones(4, requires_grad=True)
        torch.compile(squared(slope), dynamic=False)(x).backward()
        found = counters["aot_autograd"]
        print(x.grad[0].item(), found["autograd_cache_hit"], found["autograd_cache_bypass"])
"""


@pytest.mark.usefixtures("compiler")
def test_graphs_with_a_backward_of_their_own_are_kept_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or every warm start traces and derives them anew; or a changed one finds the old code."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    done = subprocess.run(
        [sys.executable, "-c", KEPT_WITH_ITS_BACKWARD, str(tmp_path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2.0 0 0", "2.0 1 0", "3.0 0 0"]
