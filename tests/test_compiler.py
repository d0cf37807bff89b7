"""A CPU's compiler does without what only a GPU's needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_A_GPU = """
import importlib.util, sys
import torch
from fasttrain import compiler

there = importlib.util.find_spec("triton")
with compiler.without_triton():
    assert compiler.settle("auto")
    compiler.hash_ahead()
    x = torch.ones(2, 2, requires_grad=True)
    torch.compile(lambda x: x @ x, dynamic=False)(x).backward(torch.eye(2))
assert x.grad[0, 0].item() == 2
print([name for name in sys.modules if name.startswith("triton.")])
print(importlib.util.find_spec("triton") == there)
"""


@pytest.mark.usefixtures("compiler")
def test_a_cpu_compiles_without_triton_which_others_still_find(tmp_path: Path) -> None:
    """It takes 70 MB of memory, and 500 MB of it would be hashed at every start."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_GPU],
        check=True, capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split() == ["[]", "True"], done.stderr
    assert "triton" not in done.stderr
