"""Removal lists (takedown): which images their entries name, and what to say of entries that name none or several.

What an entry may be: see `sources/entries.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.figures import Figures
from curate.engine.numbers import count, plural
from curate.sources.entries import Entries, few, hint, shown_entry
from curate.text import read_lines

NUM_KEPT = 1000
"""Entries that figures name at most, of each kind."""
MAX_NEAR = 3
"""Keys at most that are told of an entry that names no image."""
NUM_LOGGED = 20
"""Entries at most whose hits are logged one by one."""


class EntryFigures(Figures):
    """What one entry named."""

    images: int = 0
    """Images of the catalog."""
    selected: int = 0
    """Those of them that were selected, so that the shards go without them."""
    named_so: tuple[str, ...] = ()
    """Where it named none: keys of images of that name within a folder or archive, a few of them."""


class RemovalFigures(Figures):
    """What a removal list named."""

    entries: dict[str, EntryFigures] = Field(default_factory=dict)
    """By entry, in alphabetical order; the first ones where there are many, those that named none or several first."""
    num_entries: int = 0
    none: int = 0
    """Entries that named no image."""
    several: int = 0
    """Entries that named more than one."""
    removed: int = 0
    """Selected images that were named."""
    equal_left: int = 0
    """Selected images that were not named and have the bytes of one that was."""

    def hits(self) -> Iterator[str]:
        """A line for each entry that figures name."""
        for entry, found in self.entries.items():
            yield f"{shown_entry(entry)}: {plural(found.images, 'image')}, {count(found.selected)} of the selection"

    def warnings(self) -> Iterator[str]:
        """What to look at: an entry that names nothing may be a typing error, one that names several too wide."""
        if self.none:
            told = (
                f"{shown_entry(entry)}{hint(found.named_so)}"
                for entry, found in self.entries.items()
                if not found.images
            )
            yield f"removal_list: {self.none} of {self.num_entries} entries match no image: {few(told, self.none)}"
        if self.several:
            told = (
                f"{shown_entry(entry)} ({found.images})" for entry, found in self.entries.items() if found.images > 1
            )
            text = f"removal_list: {self.several} of {self.num_entries} entries match several images, and remove all: "
            yield text + few(told, self.several)
        if self.equal_left:
            yield (
                f"removal_list: {plural(self.equal_left, 'image')} left in the shards with the same bytes as one that "
                "was removed; give the sha256 in place of the key to remove these, too"
            )


def read_removal_list(path: Path) -> Entries:
    """The entries of a text file, one a line; blank lines and those that begin with `#` say nothing.

    Raises:
        ValueError: the file is no text.
    """
    lines = (line.strip() for line in read_lines(path))
    return Entries.of(line for line in lines if line and not line.startswith("#"))


class PartRows(NamedTuple):
    """A part of the catalog, as counting needs it."""

    catalog: pa.Table
    images: pa.Table
    selected: np.ndarray
    """(N,) bool"""


def removal_figures(wanted: Entries, parts: Callable[[], Iterable[PartRows]]) -> RemovalFigures:
    """Count what every entry named.

    Args:
        parts: reads all parts of the catalog, one after the other; called up to three times.
    """
    images, chosen, gone = Counter[str](), Counter[str](), set[bytes]()
    removed = 0
    for part in parts() if wanted else ():
        rows: dict[int, set[str]] = {}
        for hit in wanted.hits(part.catalog, part.images):
            rows.setdefault(hit.row, set()).add(hit.entry)
        for row, entries in rows.items():
            images.update(entries)
            chosen.update(entries if part.selected[row] else ())
            removed += int(part.selected[row])
        gone |= {digest for row in rows if (digest := part.images["sha256"][row].as_py()) is not None}
    none = sorted(wanted.entries - images.keys())
    several = sorted(entry for entry, found in images.items() if found > 1)
    once = sorted(images.keys() - set(several))
    hints = _named_so(none[:NUM_KEPT], parts)
    named = [*none[:NUM_KEPT], *several[:NUM_KEPT], *once[:NUM_KEPT]]
    figures: dict[str, EntryFigures] = {}
    for entry in sorted(named):
        # They travel with the shards: no path of this machine may. Of two of one name the last step tells too little.
        number, name = 2, shown_entry(entry)
        while name in figures:
            name, number = f"{shown_entry(entry)} ({number})", number + 1
        figures[name] = EntryFigures(images=images[entry], selected=chosen[entry], named_so=hints.get(entry, ()))
    return RemovalFigures(
        entries=figures,
        num_entries=len(wanted.entries),
        none=len(none),
        several=len(several),
        removed=removed,
        equal_left=_equal_left(gone, wanted, parts),
    )


def _named_so(entries: Iterable[str], parts: Callable[[], Iterable[PartRows]]) -> dict[str, tuple[str, ...]]:
    """Of entries that name no image: keys whose last step they are, at most three each."""
    missed = Entries(frozenset(entries))
    found: dict[str, tuple[str, ...]] = dict.fromkeys(missed.entries, ())
    for part in parts() if found else ():
        for entry, key in missed.endings(part.catalog, most=MAX_NEAR):
            found[entry] = (*found[entry], key)[:MAX_NEAR]
    return found


def _equal_left(gone: set[bytes], wanted: Entries, parts: Callable[[], Iterable[PartRows]]) -> int:
    """Selected images that stay, of these SHA-256."""
    left = 0
    for part in parts() if gone else ():
        equal = pc.is_in(part.images["sha256"], pa.array(list(gone), pa.binary(32))).to_numpy()
        left += int((equal & part.selected & ~wanted.named(part.catalog, part.images)).sum())
    return left
