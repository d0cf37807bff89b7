"""The commands: parse, call, print.

Heavy imports stand inside the commands, so that `--help` answers at once.
"""

from fasttrain.cli import about, data, models, runs, settings, status
from fasttrain.cli.group import Group, main

__all__ = ["Group", "about", "data", "main", "models", "runs", "settings", "status"]
