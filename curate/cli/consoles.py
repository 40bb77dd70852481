"""Text and tables that commands print, with names of strangers made visible (`curate/text.py`). `rich` is imported at
the first of them, so that commands start fast.

Tables follow the terminal: a column of text is folded between words and steps of a path, one of numbers never; where
that does not suffice, each row becomes a few lines. Where the output is a file or a pipe, a row is one line.
"""

import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from curate.interrupt import die
from curate.text import visible_line, visible_text

if TYPE_CHECKING:
    from rich.console import Console

LEAST = 14
"""Characters to which a column of text is folded at most."""
GAP = 2
"""Characters between columns."""
_UNLIMITED = 1 << 20
_NUMBER = re.compile(r"[-+~<>= ]*[\d,.]+(/[\d,.]+| of [\d,.]+)?( ?[%a-zA-Z]{1,4}| px)?")


@cache
def console() -> "Console":
    """The console of standard output; brackets in messages are plain text. A command ends without a word once nobody
    reads it, such as `head` that has seen enough."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            die(signal.SIGPIPE)

    return Piped(markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print text; lines of usual length are left whole, so that paths in them can be copied."""
    console().print(visible_text(text), soft_wrap=True)


def say_json(text: str) -> None:
    """Print JSON, for programs; `json.dumps` has escaped what is no ASCII."""
    assert text.isascii()
    console().print(text, soft_wrap=True)


def say_heading(text: str) -> None:
    """Print a line that stands out on a terminal."""
    console().print(visible_text(text), style="bold", soft_wrap=True)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and what is known of them, in two columns; long texts are folded on a terminal."""
    rows = [(visible_line(name), visible_text(text)) for name, text in facts]
    left = max((len(name) for name, _ in rows), default=0) + GAP
    narrow = 2 * left > width()
    left = 2 if narrow else left
    for name, text in rows:
        lines = [part for line in text.split("\n") for part in fold(line, max(width() - left - 2, LEAST))]
        if narrow:
            say(f"  {name}")
            say("\n".join(f"    {line}" for line in lines))
            continue
        say("\n".join(f"  {name if number == 0 else '':<{left}}{line}" for number, line in enumerate(lines)))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that fits the terminal; nothing in it is cut."""
    cells = [[*map(visible_line, row)] for row in rows]
    for line, is_head in layout(columns, cells, width()):
        console().print(line, style="bold" if is_head else None, soft_wrap=True)


def layout(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[tuple[str, bool]]:
    """The lines of a table for so many characters, each with whether it is one of the head."""
    places = range(len(columns))
    whole = [max([len(columns[n]), *(len(row[n]) for row in rows)]) for n in places]
    numeric = [any(row[n] for row in rows) and all(_is_number(row[n]) for row in rows) for n in places]
    least = [
        max([_longest_word(columns[n]), *(len(row[n]) for row in rows)]) if numeric[n] else min(whole[n], LEAST)
        for n in places
    ]
    room = width - GAP * (len(columns) - 1)
    if sum(least) > room:
        return _as_blocks(columns, rows, width)
    widths = _shared(whole, least, room)
    lines = [(line, True) for line in _row(columns, widths, numeric)]
    return [*lines, *((line, False) for row in rows for line in _row(row, widths, numeric))]


def fold(text: str, width: int) -> list[str]:
    """Lines of a text, folded between words, then after `/`, `_`, `-`, `.` and `,`, and only then within a word."""
    lines = [""]
    for spaced in re.findall(r"\s*\S+", text):
        if len(lines[-1]) + len(spaced) <= width:
            lines[-1] += spaced
            continue
        word = spaced.lstrip() if lines[-1] else spaced
        if len(word) <= width:
            lines.append(word)
            continue
        lines.append("")
        for piece in re.findall(r"[^/_\-.,]*[/_\-.,]|[^/_\-.,]+", word):
            for part in textwrap.wrap(piece, width, break_on_hyphens=False, drop_whitespace=False) or [""]:
                lines = [*lines, part] if len(lines[-1]) + len(part) > width else [*lines[:-1], lines[-1] + part]
    return [line for line in lines if line] or [""]


def width() -> int:
    """Characters of a line: those of the terminal; of a file or a pipe any number."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED


def _is_number(cell: str) -> bool:
    return not cell or _NUMBER.fullmatch(cell) is not None


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _shared(whole: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of columns that fit in `room`: the widest columns of text give up what is too much."""
    widths = list(whole)
    while sum(widths) > room:
        widest = max((n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n])
        widths[widest] -= 1
    return widths


def _row(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> list[str]:
    folded = [fold(cell, width) for cell, width in zip(cells, widths, strict=True)]
    lines = []
    for number in range(max(map(len, folded))):
        parts = [column[number] if number < len(column) else "" for column in folded]
        placed = [
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(parts, widths, numeric, strict=True)
        ]
        lines.append((" " * GAP).join(placed).rstrip())
    return lines


def _as_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[tuple[str, bool]]:
    """Of each row its first cell, and below it the others that say something with the name of their column."""
    lines: list[tuple[str, bool]] = []
    for row in rows:
        lines += [(line, True) for line in fold(row[0], width)]
        told = [f"{name} {cell}" for name, cell in zip(columns[1:], row[1:], strict=True) if cell]
        lines += [(f"  {line}", False) for line in fold("; ".join(told), max(width - 2, LEAST))]
    return lines
