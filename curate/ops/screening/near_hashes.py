"""Which perceptual hashes of a list lie near a query, exactly, without comparing all of them.

A list of a million hashes of 256 bits takes 32 MB, so comparing a query with all of it costs as much as decoding a
small picture; and each query comes in eight orientations. Hashes that differ in at most r bits agree almost everywhere,
so the bits are cut into m chunks, and each chunk gets its own number of bits t in which it may differ, with
sum(t + 1) = r + 1: were every chunk beyond its number, the sum of the differences would exceed r. So it is enough to
look up, in a table of each chunk, all values within t bits of the query's, and to compare with those hashes alone. That
is multi-index hashing (Norouzi et al. 2012, arXiv:1307.2982) with the general pigeonhole of Qin et al. 2018 (GPH).

Mirrored copies cost little more. Mirroring complements the coefficients of odd frequency (see `ops/images/hashes.py`),
so chunks hold bits of one parity of rows and columns: their values are then the same in several orientations, and what
one lookup finds is compared in all of these.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from curate.ops.images.hashes import GRID, HASH_BYTES, dihedral

BITS = 8 * HASH_BYTES
NONE = BITS + 1
"""Distance that stands for: no hash within the radius."""
MAX_RADIUS = 63
"""Largest radius: pictures that have nothing in common are about 128 bits apart, and the search takes long beyond."""
CHUNKS_PER_PARITY = (3, 4, 5, 6, 8)
"""Ways to cut the 64 bits of a parity; of many chunks each is short, so that tables are small and buckets large."""
LOOKUP_COST, COMPARE_COST, SCAN_COST = 20.0, 60.0, 6.0
"""What it takes to look up a value, to fetch and compare a hash, and to compare a hash in order: nanoseconds, of which
only the ratios matter."""
QUERIES = 512
"""Queries that are looked up together."""
PAIRS = 1 << 20
"""Pairs that are compared together, about."""
BLOCK = 1 << 16
"""Hashes that are unpacked together."""


class _Chunk(NamedTuple):
    """A table of the values that the hashes have in some of their bits."""

    bits: np.ndarray
    """(B,) int64: their places."""
    changes: np.ndarray
    """(F,) uint32: what to change in a value to reach all values near it."""
    starts: np.ndarray
    """(2^B + 1,) uint32: where the hashes of each value begin."""
    hashes: np.ndarray
    """(N,) uint32: numbers of the hashes, by value."""
    orientations: tuple[tuple[int, ...], ...]
    """Orientations of a query in which its value is the same, together."""


class NearHashes:
    """Hashes in groups (lists, say), to be asked which groups have one near a query.

    Memory: 80 bytes a hash and 150 MB for tables where there are a million; little where there are few.
    """

    def __init__(self, hashes: np.ndarray, groups: np.ndarray, *, radius: int, oriented: bool = True) -> None:
        """Build the tables.

        Args:
            hashes: (N, 32) uint8.
            groups: (N,) int, the group of each hash, 0..G-1.
            radius: bits in which hashes may differ at most, 0..MAX_RADIUS.
            oriented: whether queries also mean their mirrored and turned copies.

        Raises:
            ValueError: the radius is out of range.
        """
        if not 0 <= radius <= MAX_RADIUS:
            raise ValueError(f"radius={radius}: give 0 to {MAX_RADIUS} of {BITS} bits")
        self.radius, self._oriented = radius, oriented
        self._groups = np.ascontiguousarray(groups, np.int64)
        self.num_groups = int(self._groups.max(initial=-1)) + 1
        self._words = np.ascontiguousarray(hashes, np.uint8).view(np.uint64)  # (N, 4)
        self._half = np.ascontiguousarray(self._words[:, :2])  # (N, 2): 128 bits tell nearly all far hashes
        self._chunks = _chunks(np.ascontiguousarray(hashes, np.uint8), radius, oriented=oriented)

    def find(self, queries: np.ndarray) -> np.ndarray:
        """The distance to the nearest hash of each group, in whichever orientation it is nearest.

        Args:
            queries: (Q, 32) uint8.

        Returns:
            (Q, G) int16, bits that differ; NONE where no hash lies within the radius.
        """
        found = np.full((len(queries), self.num_groups), NONE, np.int16)
        for query, near, bits in self.find_pairs(queries):
            np.minimum.at(found, (query, self._groups[near]), bits)
        return found

    def find_pairs(self, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """All pairs within the radius, at times one of them again.

        Args:
            queries: (Q, 32) uint8.

        Yields:
            Of some of the pairs the (P,) queries, the (P,) hashes and the (P,) bits that differ.
        """
        for start in range(0, len(queries), QUERIES):
            some = np.ascontiguousarray(queries[start : start + QUERIES], np.uint8)
            forms = dihedral(some) if self._oriented else some[:, None]  # (q, 8, 32)
            for query, near, bits in self._pairs(np.ascontiguousarray(forms)):
                yield query + start, near, bits

    def _pairs(self, forms: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """((P,) queries, (P,) hashes, (P,) distances) of all pairs within the radius, at times the same pair again."""
        words = np.ascontiguousarray(forms.transpose(1, 0, 2)).view(np.uint64)  # (8, q, 4)
        every = tuple(range(forms.shape[1]))
        if not self._chunks:
            for one in range(len(forms)):
                for start in range(0, len(self._words), PAIRS):
                    compared = np.arange(start, min(start + PAIRS, len(self._words)))
                    yield self._within(words, np.full(len(compared), one), compared, every)
            return
        unpacked = np.unpackbits(forms, axis=2)
        for chunk in self._chunks:
            values = _values(unpacked[:, :, chunk.bits])  # (q, 8)
            for orientations in chunk.orientations:
                for query, near in _candidates(chunk, values[:, orientations[0]]):
                    yield self._within(words, query, near, orientations)

    def _within(
        self, words: np.ndarray, query: np.ndarray, near: np.ndarray, orientations: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Those of (P,) pairs that lie within the radius in one of these orientations, and how near."""
        # `take` of whole rows is ten times as fast as indexing with an array.
        maybe = np.zeros(len(near), bool)
        listed = self._half.take(near, axis=0)  # (P, 2)
        for orientation in orientations:
            bits = np.bitwise_count(listed ^ words[orientation, :, :2].take(query, axis=0))
            maybe |= bits[:, 0] + bits[:, 1] <= self.radius
        query, near = query[maybe], near[maybe]
        listed, least = self._words.take(near, axis=0), np.full(len(near), NONE, np.int16)
        for orientation in orientations:
            bits = np.bitwise_count(listed ^ words[orientation].take(query, axis=0))
            np.minimum(least, bits.sum(axis=1, dtype=np.int16), out=least)
        kept = np.flatnonzero(least <= self.radius)
        return query[kept], near[kept], least[kept]


def _candidates(chunk: _Chunk, values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """((P,) queries, (P,) hashes) of all hashes whose value in a chunk is near that of a query, (q,) uint32."""
    near = (values[:, None] ^ chunk.changes).ravel()
    starts = chunk.starts.take(near)
    counts = chunk.starts.take(near + 1) - starts
    hit = np.flatnonzero(counts)
    starts, counts = starts[hit].astype(np.int64), counts[hit].astype(np.int64)
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(PAIRS, int(ends[-1]) if len(ends) else 0, PAIRS)) + 1
    query = hit // len(chunk.changes)
    for some in map(slice, [0, *cuts.tolist()], [*cuts.tolist(), len(hit)]):
        many = counts[some]
        first = np.repeat(starts[some] - (np.cumsum(many) - many), many)
        yield np.repeat(query[some], many), chunk.hashes.take(first + np.arange(len(first)))


def _chunks(hashes: np.ndarray, radius: int, *, oriented: bool) -> list[_Chunk]:
    """The tables that make a search cheapest; none where comparing with all hashes is cheaper."""
    costs = {number: _cost(len(hashes), number, radius) for number in CHUNKS_PER_PARITY}
    number = min(costs, key=lambda one: costs[one])
    if costs[number] >= SCAN_COST * len(hashes):
        return []
    bits = _cut(number)
    return [
        _chunk(hashes, places, near, oriented=oriented)
        for places, near in zip(bits, _allowed(len(bits), radius), strict=True)
        if near >= 0
    ]


def _chunk(hashes: np.ndarray, places: np.ndarray, near: int, *, oriented: bool) -> _Chunk:
    values = np.empty(len(hashes), np.uint32)
    for start in range(0, len(hashes), BLOCK):  # bits unpacked take eight times the memory
        values[start : start + BLOCK] = _values(np.unpackbits(hashes[start : start + BLOCK], axis=1)[:, places])
    starts = np.zeros((1 << len(places)) + 1, np.uint32)
    np.cumsum(np.bincount(values, minlength=1 << len(places)), out=starts[1:])
    orientations = _same_values(places) if oriented else ((0,),)
    by_value = np.argsort(values, kind="stable").astype(np.uint32)
    return _Chunk(places, _changes(len(places), near), starts, by_value, orientations)


def _cut(number: int) -> list[np.ndarray]:
    """Places of the bits of each chunk, where each parity of row and column is cut into so many chunks."""
    row, column = np.divmod(np.arange(BITS), GRID)
    parity = 2 * (row % 2) + column % 2
    # Neighboring frequencies hang together: a chunk takes bits from all over the grid.
    by_parity = (np.flatnonzero(parity == one) for one in range(4))
    return [places[part::number] for places in by_parity for part in range(number)]


def _allowed(chunks: int, radius: int) -> list[int]:
    """Bits in which each chunk may differ at most, -1: it is not looked at; their sum is radius - chunks + 1."""
    each, more = divmod(radius + 1, chunks)
    return [each - 1 + (number < more) for number in range(chunks)]


def _cost(num_hashes: int, number: int, radius: int) -> float:
    """What it takes to look up a query in one orientation."""
    total = 0.0
    for places, near in zip(_cut(number), _allowed(4 * number, radius), strict=True):
        values = len(_changes(len(places), near)) if near >= 0 else 0
        total += values * (LOOKUP_COST + COMPARE_COST * num_hashes / (1 << len(places)))
    return total


def _changes(length: int, near: int) -> np.ndarray:
    """(F,) uint32: all masks of so many bits with at most `near` ones."""
    ones = itertools.chain.from_iterable(itertools.combinations(range(length), number) for number in range(near + 1))
    return np.array([sum(1 << bit for bit in places) for places in ones], np.uint32)


def _values(bits: np.ndarray) -> np.ndarray:
    """(...,) uint32: (..., B) bits as numbers, the first bit counting one."""
    found = np.zeros(bits.shape[:-1], np.uint32)
    for place in range(bits.shape[-1]):
        found |= bits[..., place].astype(np.uint32) << np.uint32(place)
    return found


def _same_values(places: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The orientations in groups in which any hash has one and the same value in these bits."""
    tried = np.random.default_rng(0).integers(0, 256, (64, HASH_BYTES), np.uint8)
    values = _values(np.unpackbits(dihedral(tried), axis=2)[:, :, places])  # (64, 8)
    groups: dict[bytes, list[int]] = {}
    for orientation, column in enumerate(values.T):
        groups.setdefault(column.tobytes(), []).append(orientation)
    return tuple(map(tuple, groups.values()))
