"""What sections and settings mean: the strings that stand under them in the source.

pydantic can read those by itself (`use_attribute_docstrings`), but would read them at every start:
the configuration took a fifth longer to import.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from fasttrain.config.fields import Section

Texts = dict[str, str]


def about(section: type[Section]) -> str:
    """What a section is for: the first paragraph under its class."""
    return _texts(section.__module__)[section.__name__].get("", "")


def meaning(section: type[Section], key: str) -> str:
    """What a setting means, the section's own or inherited; empty where nothing is said."""
    owner = next(kind for kind in section.__mro__ if key in inspect.get_annotations(kind))
    return _texts(owner.__module__)[owner.__name__].get(key, "")


@cache
def _texts(module: str) -> dict[str, Texts]:
    """By class the strings under its fields; under no name that under the class."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _under(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _under(node: ast.ClassDef) -> Texts:
    first, *_ = (ast.get_docstring(node) or "").split("\n\n")
    found = {"": _on_one_line(first)}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=key)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[key] = _on_one_line(text)
    return found


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
