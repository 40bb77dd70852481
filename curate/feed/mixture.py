"""An endless sequence of random kinds, with any place in it reached at once."""

from collections.abc import Sequence

import numpy as np

from curate.feed.lru import LruCache

CHUNK = 2**16
"""Places drawn together."""


class Mixture:
    """Place 0, 1, ... -> the kind drawn there, and how many places before have the same kind.

    Both are pure functions of (seed, place). The second says how far the sequence of each kind has come: the batch at a
    place is the so-manieth of its stream.
    """

    def __init__(self, chances: Sequence[float], *, seed: Sequence[int]) -> None:
        """`chances`: probability of each kind, summing to 1; `seed`: words of the seed."""
        self._chances, self._seed = np.asarray(chances), tuple(seed)
        self._chunks: LruCache[int, tuple[np.ndarray, np.ndarray]] = LruCache(2)

    def locate(self, place: int) -> tuple[int, int]:
        """The kind at `place` >= 0, and the number of places before it that have this kind."""
        chunk, offset = divmod(place, CHUNK)
        kinds, earlier = self._chunks.get(chunk, self._make_chunk)
        return int(kinds[offset]), int(earlier[offset])

    def _make_chunk(self, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """(CHUNK,) kinds, and (CHUNK,) places of the same kind before each; a millisecond for each chunk before."""
        earlier = sum((self._count(self._draw(i)) for i in range(chunk)), np.zeros(len(self._chances), np.int64))
        kinds = self._draw(chunk)
        numbers = np.empty(CHUNK, np.int64)
        counts = self._count(kinds)
        order = np.argsort(kinds, kind="stable")
        numbers[order] = np.concatenate([first + np.arange(n) for first, n in zip(earlier, counts, strict=True)])
        return kinds, numbers

    def _draw(self, chunk: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, chunk]).choice(len(self._chances), CHUNK, p=self._chances)

    def _count(self, kinds: np.ndarray) -> np.ndarray:
        return np.bincount(kinds, minlength=len(self._chances))
