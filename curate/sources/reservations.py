"""What the owner of a picture says against its use, as servers and lists tell it.

Three ways are in use. A server sends the directives `noai` or `noimageai` in `X-Robots-Tag`, a convention that
img2dataset follows. It sends `TDM-Reservation: 1` (W3C community group, TDM Reservation Protocol: rights for text and
data mining are reserved, as article 4 (3) of the European directive 2019/790 provides), with `TDM-Policy` naming the
terms. Or a list of URLs has a column in which somebody wrote down what such a server said.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from curate.sources.attribution import plain_name

DIRECTIVES = ("noai", "noimageai")
"""Directives of `X-Robots-Tag` that are about training."""
ROBOTS_COLUMNS = frozenset({"xrobotstag", "robotstag", "robots"})
"""Names of columns that hold an `X-Robots-Tag`, as names are compared."""
TRUE_COLUMNS = frozenset({"tdmreservation", "tdmrep", "noai", "noimageai", "optout", "optedout", "donottrain"})
"""Names of columns that reserve rights where they say yes."""
MINING_COLUMNS = frozenset({"datamining", "plusdatamining"})
"""Names of columns that hold the PLUS or IPTC property of that name."""
PROHIBITED = "DMI-PROHIBITED"
"""How the terms of the PLUS vocabulary begin that forbid data mining, wholly or in part."""
_YES = frozenset({"1", "1.0", "true", "yes", "y"})
MAX_TEXT = 200
"""Characters of a reservation that are kept."""


def reservation_of_headers(directive: str | None, tdm: Iterable[str], policy: str | None) -> str | None:
    """What the headers of an answer reserve, in words; None: nothing.

    Args:
        directive: the directive of `X-Robots-Tag` that is about training; None: there is none.
        tdm: values of `TDM-Reservation`.
        policy: of `TDM-Policy`.
    """
    found = [f"X-Robots-Tag: {directive}"] if directive else []
    if any(value.strip() == "1" for value in tdm):
        found.append(f"TDM-Reservation: 1{f', policy {policy.strip()}' if policy else ''}")
    return _shown(found)


def reservation_of_columns(columns: Mapping[str, Any] | None) -> str | None:
    """What the own columns of an image reserve, in words; None: nothing."""
    return _shown([f"column {name}: {value}" for name, value in (columns or {}).items() if _reserves(name, value)])


def _reserves(column: str, value: Any) -> bool:
    name, text = plain_name(column), str(value).strip().lower()
    if name in ROBOTS_COLUMNS:
        words = {word.rpartition(":")[2].strip() for word in text.replace(";", ",").split(",")}
        return bool(words & {*DIRECTIVES})
    if name in MINING_COLUMNS:
        return PROHIBITED.lower() in text
    return name in TRUE_COLUMNS and text in _YES


def _shown(found: list[str]) -> str | None:
    text = " ".join("; ".join(found).split())
    return text.encode("utf-8", "replace").decode()[:MAX_TEXT] or None
