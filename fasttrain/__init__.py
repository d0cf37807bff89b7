"""fasttrain trains image classifiers on CIFAR-10-class data quickly.

The functions are described in `fasttrain.api`; they are loaded when they are first asked for, so
that `import fasttrain` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fasttrain.api import (
        Batches,
        Classifier,
        Config,
        DivergedError,
        FasttrainError,
        StoppedError,
        UserError,
        evaluate,
        load_config,
        load_model,
        loader,
        train,
    )

__all__ = [
    "Batches",
    "Classifier",
    "Config",
    "DivergedError",
    "FasttrainError",
    "StoppedError",
    "UserError",
    "evaluate",
    "load_config",
    "load_model",
    "loader",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load what is public when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'fasttrain' has no attribute {name!r}")
    value = getattr(import_module("fasttrain.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
