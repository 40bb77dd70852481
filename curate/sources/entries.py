"""How people name images: a SHA-256 in hex, a `key`, a `uri`, or `SOURCE/KEY` where two sources have images of one key.

Removal lists and decisions are written so. The key of an archive's member begins with the archive, so that an entry
never means a namesake in another one.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.sources.secrets import MARK, NUMBERED, strip_text

SHA256 = re.compile(r'("?)(?:sha256:)?([0-9a-fA-F]{64})\1')
"""In quotation marks, too, as a column cut out of a CSV has it."""
NUM_TOLD = 5
"""Entries that a warning names at most."""


class Hit(NamedTuple):
    """An image that an entry names."""

    row: int
    """Of its part of the catalog."""
    entry: str


def normalize_entry(text: str) -> str:
    """An entry as tables spell what it names: a SHA-256 in lower case, a URL without secrets."""
    digest = SHA256.fullmatch(text)
    return digest.group(2).lower() if digest else strip_text(text)


@dataclass(frozen=True)
class Entries:
    """Entries in the form that `normalize_entry` gives."""

    entries: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Entries":
        """The entries of texts as people write them."""
        return cls(frozenset(map(normalize_entry, texts)))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def hits(self, catalog: pa.Table, images: pa.Table) -> Iterator[Hit]:
        """The images of a part of the catalog that entries name; an image twice where two entries name it.

        Args:
            catalog: columns source, key and uri.
            images: the aligned column sha256.
        """
        if not self.entries or len(catalog) == 0:
            return
        before = f"{catalog['source'][0].as_py()}/"
        within = {entry.removeprefix(before): entry for entry in self.entries if entry.startswith(before)}
        yield from _named(catalog["key"], self._plain)
        yield from _named(catalog["uri"], self._plain)
        for column in ("uri", "key") if self._marked else ():  # lines of a list, unknown to who names a picture
            yield from _named(pc.replace_substring_regex(catalog[column], NUMBERED, MARK), self._marked)
        yield from _named(catalog["key"], within)
        yield from _named(images["sha256"], self._digests)

    def named(self, catalog: pa.Table, images: pa.Table) -> np.ndarray:
        """(N,) bool: the images of a part that any entry names; arguments as of `hits`."""
        mask = np.zeros(len(catalog), bool)
        mask[[hit.row for hit in self.hits(catalog, images)]] = True
        return mask

    def endings(self, catalog: pa.Table, *, most: int) -> Iterator[tuple[str, str]]:
        """(entry, key) of keys within folders or archives whose last step is an entry: so many of each entry.

        Args:
            catalog: the column key.
        """
        if not self.entries:
            return
        told = Counter[str]()
        last = pc.replace_substring_regex(catalog["key"], "(?s)^.*/", "")
        for hit in _named(last, self._plain):
            key = catalog["key"][hit.row].as_py()
            if key != hit.entry and told[hit.entry] < most:
                told[hit.entry] += 1
                yield hit.entry, key

    @cached_property
    def _plain(self) -> dict[str, str]:
        return {entry: entry for entry in self.entries}

    @cached_property
    def _marked(self) -> dict[str, str]:
        return {entry: entry for entry in self.entries if MARK in entry}

    @cached_property
    def _digests(self) -> dict[bytes, str]:
        return {bytes.fromhex(entry): entry for entry in self.entries if SHA256.fullmatch(entry)}


def _named(column: pa.ChunkedArray, entries: Mapping[str, str] | Mapping[bytes, str]) -> Iterator[Hit]:
    """Rows whose value is one of `entries`, with the entry that the value stands for."""
    if entries:
        found = pc.is_in(column, pa.array(list(entries), column.type))
        for row in np.flatnonzero(found.to_numpy()).tolist():
            yield Hit(row, entries[column[row].as_py()])


# -- telling of them -----------------------------------------------------------------------------------------


def shown_entry(entry: str) -> str:
    """An entry as pages show it: they name no place on a machine."""
    return f".../{entry.rsplit('/', 1)[-1]}" if entry.startswith("/") else entry


def hint(named_so: Iterable[str]) -> str:
    """What may be meant by an entry that names no image: keys that end with it; empty: nothing is known."""
    keys = ", ".join(named_so)
    return f" (give the whole key: {keys})" if keys else ""


def few(texts: Iterable[str], total: int) -> str:
    """The first of so many texts, in one line."""
    told = list(itertools.islice(texts, NUM_TOLD))
    return ", ".join(told) + (", ..." if total > len(told) else "")
