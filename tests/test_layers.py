"""The plan of the house holds: imports go down only, and heavy ones wait until they are needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
HEAVY = {
    "torch", "torchvision", "numpy", "pydantic", "yaml", "accelerate", "wandb", "nvidia", "PIL",
    "onnx", "onnxscript", "onnxruntime",
}  # fmt: skip


def check_contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_imports_go_down_only() -> None:
    found = check_contracts(REPOSITORY)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("data/store.py", "from fasttrain.training import clock"),
        ("models/cnn.py", "from fasttrain.data import plan"),
        ("observe/journal.py", "from fasttrain.training import schedule"),
        ("config/fields.py", "import fasttrain.data.plan"),
        ("training/step.py", "import accelerate"),
        ("data/resident.py", "import nvidia.dali"),
        ("observe/progress.py", "import wandb"),
    ],
)
def test_an_import_that_goes_up_or_aside_would_be_noticed(
    tmp_path: Path, file: str, line: str
) -> None:
    shutil.copytree(REPOSITORY / "fasttrain", tmp_path / "fasttrain")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (tmp_path / "fasttrain" / file).open("a") as module:
        module.write(f"\n{line}\n")
    found = check_contracts(tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "1 broken" in found.stdout


def imported_by(script: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after `script`."""
    command = [sys.executable, "-c", f"import sys\n{script}\nprint(*sys.modules)"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return HEAVY & set(found.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["data", "--help"],
        ["data", "prepare", "--help"],
        ["config", "--help"],
        ["predict", "--help"],
        ["export", "--help"],
    ],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = f"from fasttrain.cli import main\nmain({arguments!r}, standalone_mode=False)"
    assert imported_by(script) == set()


def test_what_can_be_set_is_told_without_torch() -> None:
    script = "from fasttrain.cli import main\nmain(['config', 'train'], standalone_mode=False)"
    assert imported_by(script) == {"pydantic", "yaml"}


def test_what_settings_mean_is_read_only_when_it_is_asked_for() -> None:
    imported_by("import fasttrain.config\nassert 'fasttrain.config.meanings' not in sys.modules")


def test_importing_fasttrain_loads_nothing_heavy() -> None:
    assert imported_by("import fasttrain\nassert 'train' in dir(fasttrain)") == set()
    assert "torch" in imported_by("import fasttrain\nfasttrain.load_model")


def test_a_wrong_setting_is_told_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("trian: {}")
    script = f"""
from fasttrain.cli import main
try:
    main(["train", {str(tmp_path / "bad.yaml")!r}])
except SystemExit as ended:
    assert ended.code == 2, ended.code
"""
    assert imported_by(script) == {"pydantic", "yaml"}


def test_what_is_looked_for_would_be_found() -> None:
    assert imported_by("import numpy, yaml") == {"numpy", "yaml"}
