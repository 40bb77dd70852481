"""How people name images: a SHA-256 in hex, a `key`, a `uri`, or `SOURCE/KEY` where two sources have images of one key;
or `pdq:HASH`, all pictures whose PDQ hash differs in at most 31 bits, `pdq:HASH~BITS` for another radius.

Removal lists and decisions are written so. The key of an archive's member begins with the archive, so that an entry
never means a namesake in another one. A PDQ hash also means mirrored and turned copies of its picture, and what a
border of one color surrounds.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ops.images.hashes import HASH_BYTES
from curate.ops.screening.near_hashes import MAX_RADIUS, NearHashes
from curate.sources.secrets import MARK, NUMBERED, strip_text

SHA256 = re.compile(r'("?)(?:sha256:)?([0-9a-fA-F]{64})\1')
"""In quotation marks, too, as a column cut out of a CSV has it."""
PDQ = re.compile(r'("?)pdq:([0-9a-fA-F]{64})(?:~([0-9]{1,2}))?\1', re.IGNORECASE)
PDQ_BITS = 31
"""Bits in which PDQ hashes may differ where an entry does not say so."""
NUM_TOLD = 5
"""Entries that a warning names at most."""


class Hit(NamedTuple):
    """An image that an entry names."""

    row: int
    """Of its part of the catalog."""
    entry: str


def normalize_entry(text: str) -> str:
    """An entry as tables spell what it names: hashes in lower case, a URL without secrets."""
    digest = SHA256.fullmatch(text)
    if digest:
        return digest.group(2).lower()
    near = PDQ.fullmatch(text)
    if near:
        return f"pdq:{near.group(2).lower()}" + (f"~{_bits(near)}" if _bits(near) != PDQ_BITS else "")
    return strip_text(text)


@dataclass(frozen=True)
class Entries:
    """Entries in the form that `normalize_entry` gives."""

    entries: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Entries":
        """The entries of texts as people write them."""
        return cls(frozenset(map(normalize_entry, texts)))

    @property
    def columns(self) -> list[str]:
        """Columns of `images` that tell what the entries name."""
        return ["sha256", *(HASH_COLUMNS if self._near else ())]

    def __bool__(self) -> bool:
        return bool(self.entries)

    def hits(self, catalog: pa.Table, images: pa.Table) -> Iterator[Hit]:
        """The images of a part of the catalog that entries name; an image twice where two entries name it.

        Args:
            catalog: columns source, key and uri.
            images: the aligned columns that `columns` says.
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
        if self._near is not None:
            for column in HASH_COLUMNS:
                yield from self._near.hits(images[column])

    def named(self, catalog: pa.Table, images: pa.Table) -> np.ndarray:
        """(N,) bool: the images of a part that any entry names; arguments as of `hits`."""
        mask = np.zeros(len(catalog), bool)
        mask[[hit.row for hit in self.hits(catalog, images)]] = True
        return mask

    def near(self, hashes: Iterable[bytes]) -> set[str]:
        """The entries that name a picture with one of these PDQ hashes."""
        column = pa.chunked_array([pa.array(list(hashes), pa.binary(HASH_BYTES))])
        return set() if self._near is None else {hit.entry for hit in self._near.hits(column)}

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

    @cached_property
    def _near(self) -> "_NearEntries | None":
        """The entries that are perceptual hashes; None: there are none."""
        found = sorted(
            entry for entry in self.entries if (match := PDQ.fullmatch(entry)) and _bits(match) <= MAX_RADIUS
        )
        return _NearEntries(found) if found else None


HASH_COLUMNS = ("pdq", "pdq_within_border")


def _bits(entry: re.Match[str]) -> int:
    return int(entry.group(3) or PDQ_BITS)


class _NearEntries:
    """Entries that name all pictures near a perceptual hash."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = entries
        parsed = [match for entry in entries if (match := PDQ.fullmatch(entry))]
        self._bits = np.array([_bits(match) for match in parsed])
        hashes = np.frombuffer(bytes.fromhex("".join(match.group(2) for match in parsed)), np.uint8)
        numbers = np.arange(len(entries))
        self._hashes = NearHashes(hashes.reshape(-1, HASH_BYTES), numbers, radius=int(self._bits.max()))

    def hits(self, column: pa.ChunkedArray) -> Iterator[Hit]:
        """Rows of a column of hashes that an entry names."""
        rows = np.flatnonzero(column.is_valid().to_numpy())
        known = np.frombuffer(b"".join(column.drop_null().to_pylist()), np.uint8).reshape(-1, HASH_BYTES)
        for query, near, bits in self._hashes.find_pairs(known):
            within = bits <= self._bits[near]
            for row, entry in set(zip(rows[query[within]].tolist(), near[within].tolist(), strict=True)):
                yield Hit(row, self._entries[entry])


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
