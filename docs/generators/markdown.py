"""Pieces of Markdown that several pages are made of."""

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are text of one line."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)


def cell(text: str) -> str:
    """A text as a cell holds it: on one line, and shown as it stands."""
    pieces = " ".join(text.replace("|", r"\|").split()).split("`")
    plain = [re.sub(r"\*(?=\*)|(?<=\*)\*", r"\\*", one).replace("<", "&lt;") for one in pieces[::2]]
    pieces[::2] = plain
    return "`".join(pieces)


def code(text: str) -> str:
    """A name as code; empty stays empty."""
    return f"`{text}`" if text else ""


def paragraphs(docstring: str | None) -> str:
    """A docstring of Google's style: its sections become lists."""
    text = (docstring or "").strip()
    found = re.split(r"\n\s*(Args|Returns|Raises|Yields):\n", f"\n{text}")
    parts = [_dedent(found[0])]
    for name, body in zip(found[1::2], found[2::2], strict=True):
        parts.append(f"**{name}**\n\n{_items(body)}" if name in {"Args", "Raises"} else f"**{name}** {_dedent(body)}")
    return "\n\n".join(part for part in parts if part)


def _dedent(text: str) -> str:
    """Paragraphs without the docstring's indentation; blocks that are indented further are code."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(line.strip() for line in block.splitlines()) for block in blocks)


def _items(body: str) -> str:
    items = re.findall(r"^ *(\w+): (.*(?:\n(?! *\w+: ).*)*)", body, re.MULTILINE)
    return "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in items)
