"""The tables of figures in `PAGES`, made from the newest records: none of them is typed by hand.

A table stands between two comments that name it; `python -m benchmarks readme` writes them anew
and a test fails where one says something else than the records do.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from benchmarks.record import FOLDER
from benchmarks.tables import LINK, TABLES
from fasttrain.errors import UserError

_ROOT = Path(__file__).parent.parent
PAGES = (_ROOT / "README.md", _ROOT / "benchmarks" / "README.md")


def render(text: str, records: Path = FOLDER, page: Path = PAGES[0]) -> str:
    """The text of a page with every table between its comments made from the newest records.

    Raises:
        UserError: the text asks for a table that does not exist, or has no records.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UserError(
                f"{page.relative_to(_ROOT)} asks for table {name!r}; there are {', '.join(TABLES)}"
            )
        drawn = TABLES[name](records).replace(LINK, f"]({os.path.relpath(FOLDER, page.parent)}/")
        return f"{match['open']}\n{drawn}\n{match['close']}"

    return _MARKED.sub(table, text)


_MARKED = re.compile(
    r"(?P<open><!-- records: (?P<name>[\w-]+) -->).*?(?P<close><!-- end of records -->)", re.DOTALL
)
