"""Text and tables that commands print. `rich` is imported at the first of them, so that commands start fast."""

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 160
"""Characters of a line where the output is a file or a pipe."""


@cache
def console() -> "Console":
    """The console of standard output; brackets in messages are plain text."""
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)


def say(text: str) -> None:
    """Print text; long lines are left whole, so that paths in them can be copied."""
    console().print(text, soft_wrap=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, boxed: bool = True) -> None:
    """Print a table; cells that are too wide are folded, never cut.

    Args:
        boxed: draw the lines of the table also where the output is a file or a pipe.
    """
    from rich.box import HEAVY_HEAD
    from rich.table import Table

    table = Table(box=HEAVY_HEAD if boxed or console().is_terminal else None)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
