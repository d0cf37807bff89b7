"""The folders of checkpoints: their names tell the step, and what else lies there is the user's."""

from __future__ import annotations

import re
from pathlib import Path

from fasttrain.errors import UserError

_NAME = re.compile(r"step-(\d{8,})", re.ASCII)


def by_step(root: Path) -> list[tuple[int, Path]]:
    """Checkpoints with their steps, oldest first; one that is still being written has another name.

    A copy under a name of the user's own, such as `step-00000012.bak`, is none.

    Raises:
        UserError: the folder is there, and cannot be read.
    """
    try:
        paths = list(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{root}: cannot be read: {error.strerror}") from error
    named = ((_NAME.fullmatch(path.name), path) for path in paths)
    return sorted((int(name[1]), path) for name, path in named if name)
