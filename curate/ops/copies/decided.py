"""What a person decided about images, as deduplication applies it.

- `not-copies`: the pair counts no longer, nor does any pair of an image that is a copy of none. Equal bytes count in
  any case: no decision makes two of one picture.
- Two images that are no copies of each other may still hang together by others. Then both stay, and each other image of
  the component goes for one of those that stay as in a chain, see `chains`: the two are asked before all others.
- `represent`: the image is preferred to all others, and stays.
- `drop`: the image never stays, nor goes anything for it. It still ties its copies to each other. A curated image that
  is dropped has no copies.
- `keep`: the image stays whatever follows from the pairs, and nothing else changes.

A component that touches a held-out image goes as a whole. Of it, an image stays that is named by `keep` alone.

All is looked up in short sorted arrays, so that memory grows with the decisions and not with the images.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from curate.ops.copies.graph import BLOCK_NODES, SHA256, CopyEdges, CopyGraph, Preference
from curate.tables import CURATED, DECISIONS, POOL


class Decided(NamedTuple):
    """Decisions by image; of an image that several name, one of the first three at most."""

    keep: np.ndarray
    """(K,) int64, ascending"""
    drop: np.ndarray
    """(K,) int64, ascending"""
    represent: np.ndarray
    """(K,) int64, ascending"""
    alone: np.ndarray
    """(K,) int64, ascending: copies of none"""
    apart: np.ndarray
    """(P, 2) int64, pairs that are no copies of each other; of equal bytes all, and the same images in `alone`"""

    @classmethod
    def nothing(cls) -> "Decided":
        """No decision."""
        none = np.empty(0, np.int64)
        return cls(none, none, none, none, np.empty((0, 2), np.int64))


_SINGLE = ("keep", "drop", "represent", "alone")


def is_among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """(N,) bool: which of `values` are in a short array."""
    if len(ascending) == 0:
        return np.zeros(len(values), bool)
    found: np.ndarray = ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)] == values
    return found


class Counting:
    """Which edges count: by ids, so that edges need not have been checked."""

    def __init__(self, decided: Decided, *, without: np.ndarray | None = None) -> None:
        """Look up the pairs of some decisions.

        Args:
            without: (K,) int64, ascending, images of which no edge counts at all, not even one of equal bytes.
        """
        self._alone, self._without = decided.alone, np.empty(0, np.int64) if without is None else without
        self._ends = np.unique(decided.apart)
        self._pairs = np.unique(self._codes(decided.apart[:, 0], decided.apart[:, 1]))

    def _codes(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N,) int64: numbers of pairs, the same in either order, of images that are in some pair."""
        low, high = (np.searchsorted(self._ends, pick(a, b)) for pick in (np.minimum, np.maximum))
        found: np.ndarray = low * len(self._ends) + high
        return found

    def off(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(N,) bool: pairs of images that are no copies of each other, unless their bytes are equal."""
        found = is_among(a, self._alone) | is_among(b, self._alone)
        both = np.flatnonzero(is_among(a, self._ends) & is_among(b, self._ends))
        found[both] |= is_among(self._codes(a[both], b[both]), self._pairs)
        return found

    def edges(self, edges: Iterable[CopyEdges]) -> Iterator[CopyEdges]:
        """The edges without those that count no longer."""
        for batch in edges:
            off = self.off(batch.query_ids, batch.image_ids) & (batch.kind != SHA256)
            off |= is_among(batch.query_ids, self._without) | is_among(batch.image_ids, self._without)
            yield batch.take(~off) if off.any() else batch


class DecidedNodes:
    """Decisions, as the nodes of a graph."""

    def __init__(
        self, graph: CopyGraph, decided: Decided, *, said: Decided | None = None, condemning: np.ndarray | None = None
    ) -> None:
        """Look up the images that decisions name.

        Args:
            said: what a person decided, where rules add to it; None: `decided`.
            condemning: (C,) int64, images whose copies go with them; None: there are none. The edges of a curated one
                count, though it never stays.
        """
        self._graph, self._decided = graph, decided
        self._said = [graph.nodes(getattr(decided if said is None else said, name)) for name in _SINGLE]
        self.keep, self.drop, self.represent, self._alone = (graph.nodes(getattr(decided, name)) for name in _SINGLE)
        self._apart = graph.nodes(decided.apart)
        curated = decided.drop[graph.parts.role[decided.drop >> 32] == CURATED]
        self.counting = Counting(decided, without=curated if condemning is None else np.setdiff1d(curated, condemning))
        self._members = self._hubs = np.empty(0, np.int64)  # of equal bytes with an image that is dropped or represents

    def __bool__(self) -> bool:
        return any(map(len, self._decided))

    @property
    def has_pairs(self) -> bool:
        """Whether any two images are no copies of each other."""
        return len(self._apart) > 0

    def choose_twins(self, twins: np.ndarray, preference: Preference) -> np.ndarray:
        """Of images of equal bytes one that may stay, where the preferred one may not or another represents them.

        Args:
            twins: (N,) uint32, see `CopyGraph.twins`; changed in place.
        """
        hubs = np.unique(twins[np.concatenate([self.drop, self.represent])])
        if len(hubs) == 0:
            return twins
        found = [np.empty(0, np.int64)]
        for start in range(0, len(twins), BLOCK_NODES):
            found.append(start + np.flatnonzero(is_among(twins[start : start + BLOCK_NODES], hubs)))
        members = np.concatenate(found)
        hub = twins[members]
        self._members, self._hubs = members, hub.astype(np.int64)
        worth = 2 * is_among(members, self.represent) - is_among(members, self.drop).astype(int)
        order = np.lexsort((preference.of_nodes(members), -worth, hub))
        _, first, group = np.unique(hub[order], return_index=True, return_inverse=True)
        twins[members[order]] = members[order][first][group]
        return twins

    def equal_to_their_stay(self, stays: np.ndarray) -> np.ndarray:
        """(M,) int64: images that go for one of equal bytes which is not the center of the star of these edges.

        No edge leads there, see `exact.equal_bytes`; asked after `choose_twins`.
        """
        other = stays[self._members].astype(np.int64)
        known = is_among(other, self._members) & (other != self._members)
        place = np.searchsorted(self._members, other[known])
        equal = np.flatnonzero(known)[self._hubs[place] == self._hubs[known]]
        found: np.ndarray = self._members[equal]
        return found

    @property
    def moves_twins(self) -> bool:
        """Whether another one of equal bytes may stay than without decisions."""
        return len(self.drop) + len(self.represent) > 0

    def heads(self, components: np.ndarray, whole: np.ndarray, twins: np.ndarray) -> np.ndarray:
        """(H,) int64, ascending: images that stay since they hang together and are no copies of each other.

        Args:
            whole: (N,) bool, at their smallest nodes components that are never split.
        """
        pool = self._role(self._apart) == POOL
        pairs = self._apart[pool.all(axis=1) & ~is_among(self._apart.ravel(), self.drop).reshape(-1, 2).any(axis=1)]
        a, b = components[pairs[:, 0]], components[pairs[:, 1]]
        found: np.ndarray = np.unique(twins[pairs[(a == b) & ~whole[a]]]).astype(np.int64)
        return found

    def not_for(self, stays: np.ndarray) -> np.ndarray:
        """(M,) int64: images that would go for a curated one that they are no copies of."""
        role = self._role(self._apart)
        swap = role[:, 0] != POOL
        inner, outer = (np.where(swap, self._apart[:, 1 - end], self._apart[:, end]) for end in (0, 1))
        across = (role.min(axis=1) == POOL) & (role.max(axis=1) == CURATED)
        return np.unique(inner[across & (stays[inner] == outer)])

    def _role(self, nodes: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._graph.parts.role[self._graph.image_ids(nodes) >> 32]
        return found

    def names(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) int8: what was decided about each, index into `tables.DECISIONS`; -1: nothing."""
        found = np.full(len(nodes), -1, np.int8)
        apart = np.union1d(self._alone, self._apart.ravel())
        for name, named in (("not-copies", apart), *zip(_SINGLE[:3], self._said[:3], strict=True)):
            found[is_among(nodes, named)] = DECISIONS.index(name)
        return found
