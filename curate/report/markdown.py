"""Text of strangers in a Markdown document: shown as it is, and taken for no markup."""

import re

from curate.text import visible


def safe(text: str) -> str:
    """Text from outside as plain text, within a line or a table cell of Markdown: no markup, link or HTML."""
    plain = re.sub(r"[\\\[\]*|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", without_html(text))
    return re.sub(r"^([-+#=~]|\d+[.)])", lambda mark: f"{mark[0][:-1]}\\{mark[0][-1]}", plain)


def code(text: str) -> str:
    """The same between backticks, where nothing else is markup; a cell of a table ends at a bar even there."""
    return "`" + without_html(text).replace("|", "\\|") + "`"


def without_html(text: str) -> str:
    """On one line, without characters that cannot be seen, and without HTML."""
    flat = visible(" ".join(text.split()), keep="")
    for found, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("`", "'")):
        flat = flat.replace(found, shown)
    return flat
