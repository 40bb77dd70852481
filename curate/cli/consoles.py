"""Text and tables that commands print, with names of strangers made visible (`curate/text.py`). `rich` is imported at
the first of them, so that commands start fast."""

import signal
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from curate.interrupt import die
from curate.text import visible_line, visible_text

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_OF_FILES = 160
"""Characters of a line where the output is a file or a pipe."""


@cache
def console() -> "Console":
    """The console of standard output; brackets in messages are plain text. A command ends without a word once nobody
    reads it, such as `head` that has seen enough."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            die(signal.SIGPIPE)

    return Piped(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_FILES)


def say(text: str) -> None:
    """Print text; lines of usual length are left whole, so that paths in them can be copied."""
    console().print(visible_text(text), soft_wrap=True)


def say_json(text: str) -> None:
    """Print JSON, for programs; `json.dumps` has escaped what is no ASCII."""
    assert text.isascii()
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
        table.add_row(*map(visible_line, row))
    console().print(table)
