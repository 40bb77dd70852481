"""HTML that is escaped by construction: only `el` makes markup, and it escapes every plain string it is given, and
writes out control characters and those that turn the direction of text."""

import json
from collections.abc import Iterable
from html import escape
from typing import Any, TypeAlias

from curate.text import visible


class Markup(str):
    """Text that is HTML already. Only this package's own functions make it, never data."""

    __slots__ = ()


Content: TypeAlias = str | int | Iterable["Content"] | None
"""A child of an element: markup goes in as it is, any other text is escaped, None is nothing."""

VOID = frozenset({"meta", "img", "br", "hr"})
"""Elements without children."""


def el(tag: str, *children: Content, **attributes: str | int | float | None) -> Markup:
    """An HTML or SVG element; `class_` is `class`, other underscores become hyphens, None leaves out."""
    named = [(name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None]
    opened = "".join([f"<{tag}", *(f' {name}="{escape(visible(str(value)))}"' for name, value in named), ">"])
    return Markup(opened if tag in VOID else f"{opened}{join(children)}</{tag}>")


def join(content: Content) -> Markup:
    """All of `content` as one piece of markup."""
    if content is None:
        return Markup()
    if isinstance(content, Markup):
        return content
    if isinstance(content, str | int):
        return Markup(escape(visible(str(content))))
    return Markup("".join(join(child) for child in content))


def data_block(values: Any, *, name: str | None = None) -> Markup:
    """Values for the page's own script, as JSON that no browser runs and that cannot end its element."""
    text = json.dumps(values, separators=(",", ":"))  # ASCII: what would act unseen is written out
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return el("script", Markup(text), type="application/json", id=name)
