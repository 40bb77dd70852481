"""Components that only a chain of pairs holds together, split so that an image goes for one that it resembles.

Where a resembles b, b resembles c and so on to z, all are one component, and a may have nothing in common with z. So
within a component images are asked in order of preference, and one stays if no image that stays already lies within two
pairs of it: neither a copy of it, nor a copy of a copy. Each other image goes for the image that stays with which it
has the strongest pair; one that has no such pair follows its strongest pair with an image that has one. A curated image
stays in any case, and is asked first. So

- no two images that stay are a pair, nor do both resemble a third one;
- an image that goes has a pair with the one that stays, or resembles an image that has;
- a component in which all lie within two pairs of the preferred image is left as it is.

Components of at most four images are left whole (`duplicates.LONG`): on edited photographs, splitting those parts about
as many copies of one picture as different pictures.

Images of equal bytes are one here, and the pairs of each are those of all.

What a person decided fits in: images that must stay are asked before all others, as curated ones are, and images that
must not are never asked; their pairs count.

Why two pairs: copies of one picture often resemble the original alone, and the image that stays may be any of them.
With one pair a tenth of the copies are missed; with three, most chains of look-alikes pass
(`python -m benchmarks chains`).

Asking in order is a greedy maximal independent set, in which each answer depends on those before it. Done in parallel
rounds, the frames of a video in falling preference would take a pass over all edges for each frame. Instead the edges
of as many images as fit in memory are gathered in one pass, these are asked one after the other, and the next are
gathered. Of an image only those next to it matter, and of those only whether one that stays is next to them: one bit.
Images that such a bit decides already need no edges, so that after the first images, which most others are next to,
few are left.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from curate.ops.copies.evidence import strength
from curate.ops.copies.graph import BLOCK_NODES, AcceptedImages, CopyEdges, CopyGraph, Preference
from curate.tables import CURATED, POOL

NO_NODES = np.empty(0, np.int64)
NONE = (1 << 32) - 1
WINDOW_EDGES = 1 << 22
"""Edges, each from both ends, that are gathered in one pass at least; 20 bytes each."""
WINDOW_SHARE = 8
"""More are gathered where the catalog has more than so many images for each."""
ASKED_AT_ONCE = 1 << 16
"""Images looked at together."""


def split_chains(
    graph: CopyGraph,
    components: np.ndarray,
    where: np.ndarray,
    *,
    twins: np.ndarray,
    preference: Preference,
    images: Iterable[AcceptedImages],
    edges: Callable[[], Iterable[CopyEdges]],
    window_edges: int | None = None,
    always: np.ndarray = NO_NODES,
    never: np.ndarray = NO_NODES,
) -> tuple[np.ndarray, np.ndarray]:
    """The image that stays instead of each, in some components.

    Takes 4 bytes an image of the catalog, 17 an image of these components, and a few bytes for each of 20 edges more;
    reads the edges four times, and once more for every `window_edges`.

    Args:
        components: (N,) uint32, the smallest node of each node's component.
        where: (N,) bool, at that node whether the component is to be split; none that touches a held-out image.
        twins: (N,) uint32, see `CopyGraph.twins`.
        images: the accepted images of all roles.
        window_edges: edges that are gathered at once; None: by the size of the catalog.
        always: (H,) int64, nodes that stay in any case; of equal bytes the one in `twins`.
        never: (D,) int64, nodes that do not; of equal bytes all, or another one is in `twins`.

    Returns:
        nodes, stays: (C,) uint32, one of equal bytes, and the node that stays instead: itself, another one of its
        component, or a curated image. Of `never` it may be itself where nothing else is near.
    """
    among = _Images(graph, components, twins)
    among.number(images, where, preference)
    if len(among.nodes) == 0:
        return among.nodes, among.nodes
    window = window_edges or max(WINDOW_EDGES, graph.size // WINDOW_SHARE)
    stays = _ask(among, edges, window, always=among.mask(always), never=among.mask(never))
    return among.nodes, _representatives(among, stays, edges)


class _Pairs(NamedTuple):
    """Of a batch of edges those that matter; images by their place."""

    a: np.ndarray
    """(E,) uint32, with `b` a pair of the pool"""
    b: np.ndarray
    """(E,) uint32"""
    strength: np.ndarray
    """(E,) uint64"""
    touching: np.ndarray
    """(T,) uint32, a pool image with a pair to a curated one"""
    curated: np.ndarray
    """(T,) int64, node of that one"""
    curated_strength: np.ndarray
    """(T,) uint64"""


class _Images:
    """The images of the components to split, one of equal bytes, by their place in order of preference."""

    def __init__(self, graph: CopyGraph, components: np.ndarray, twins: np.ndarray) -> None:
        self._graph, self._components, self._twins = graph, components, twins
        self.nodes = np.empty(0, np.uint32)
        """(C,) uint32: at each place the node."""
        self.place = np.full(graph.size, NONE, np.uint32)
        """(N,) uint32: of each of these nodes its place."""

    def number(self, images: Iterable[AcceptedImages], where: np.ndarray, preference: Preference) -> None:
        """Put the images of components in `where` in order."""
        chosen = [np.empty(0, np.uint64)]
        for some in images:
            if len(some.image_ids) and self._graph.parts.role[some.image_ids[0] >> 32] == POOL:
                nodes = self._graph.nodes(some.image_ids)
                chosen.append(preference.keys(some)[where[self._components[nodes]] & (self._twins[nodes] == nodes)])
        keys = np.concatenate(chosen)
        chosen.clear()
        keys.sort()
        self.nodes = np.empty(len(keys), np.uint32)
        for start in range(0, len(keys), BLOCK_NODES):
            self.nodes[start : start + BLOCK_NODES] = preference.nodes(keys[::-1][start : start + BLOCK_NODES])
        self.place[self.nodes] = np.arange(len(self.nodes), dtype=np.uint32)

    def mask(self, nodes: np.ndarray) -> np.ndarray:
        """(C,) bool: at which places some nodes are."""
        found = np.zeros(len(self.nodes), bool)
        places = self.place[nodes]
        found[places[places != NONE]] = True
        return found

    def pairs(self, edges: Iterable[CopyEdges]) -> Iterator[_Pairs]:
        """The edges within these components, each once, and those to curated images."""
        for batch, role in self._graph.oriented(edges):
            inner, outer = batch.take(role == POOL), batch.take(role == CURATED)
            a, b = (self.place[self._twins[nodes]] for nodes in (inner.query_ids, inner.image_ids))
            counts = (a != NONE) & (b != NONE) & (a != b)
            touching = self.place[self._twins[outer.query_ids]]
            ours = touching != NONE
            yield _Pairs(
                a[counts],
                b[counts],
                strength(inner)[counts],
                touching[ours],
                outer.image_ids[ours],
                strength(outer)[ours],
            )


def _ask(
    among: _Images, edges: Callable[[], Iterable[CopyEdges]], window: int, *, always: np.ndarray, never: np.ndarray
) -> np.ndarray:
    """(C,) bool: which images stay."""
    size = len(among.nodes)
    stays, near, degree = always.copy(), always.copy(), np.zeros(size, np.uint32)
    for pairs in among.pairs(edges()):
        near[pairs.touching] = True  # next to an image that stays
        near[pairs.a[always[pairs.b]]] = near[pairs.b[always[pairs.a]]] = True
        for ends in (pairs.a, pairs.b):
            np.add.at(degree, ends, np.uint32(1))
    start = 0
    while start < size:
        stop = _end_of_window(start, near, degree, window)
        rows, cols = _gather(among.pairs(edges()), start, stop, near)
        for begin in range(start, stop, ASKED_AT_ONCE):
            block = slice(begin, min(begin + ASKED_AT_ONCE, stop))
            asked = (begin + np.flatnonzero(~near[block] & ~never[block])).astype(np.uint32)
            first, last = np.searchsorted(rows, asked), np.searchsorted(rows, asked, side="right")
            for image, low, high in zip(asked.tolist(), first.tolist(), last.tolist(), strict=True):
                if near[image]:
                    continue  # by an image of this window
                around = cols[low:high]
                if not near[around].any():
                    stays[image] = True
                    near[around] = True
        start = stop
    return stays


def _end_of_window(start: int, near: np.ndarray, degree: np.ndarray, window: int) -> int:
    """The place after the last image whose edges fit with those of the images from `start` on; one fits always."""
    left = window
    for begin in range(start, len(near), ASKED_AT_ONCE):
        block = slice(begin, begin + ASKED_AT_ONCE)
        total = np.cumsum(np.where(near[block], 0, degree[block]), dtype=np.int64)
        if total[-1] > left:
            return max(start + 1, begin + int(np.searchsorted(total, left, side="right")))
        left -= int(total[-1])
    return len(near)


def _gather(pairs: Iterable[_Pairs], start: int, stop: int, near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of the undecided images from `start` to `stop`, (E,) uint32 each: image, in order, and other end."""
    gathered = [np.empty(0, np.uint64)]
    for found in pairs:
        for a, b in ((found.a, found.b), (found.b, found.a)):
            asked = (a >= start) & (a < stop)
            asked[asked] = ~near[a[asked]]
            gathered.append(a[asked].astype(np.uint64) << np.uint64(32) | b[asked])
    packed = np.concatenate(gathered)
    gathered.clear()
    packed.sort()
    return (packed >> np.uint64(32)).astype(np.uint32), packed.astype(np.uint32)


def _representatives(among: _Images, stays: np.ndarray, edges: Callable[[], Iterable[CopyEdges]]) -> np.ndarray:
    """(C,) uint32: the node that stays instead of each image."""
    found = _Strongest(len(stays))
    for pairs in among.pairs(edges()):
        for a, b in ((pairs.a, pairs.b), (pairs.b, pairs.a)):
            leads = stays[b] & ~stays[a]
            found.add(a[leads], among.nodes[b[leads]], pairs.strength[leads])
        found.add(pairs.touching, pairs.curated, pairs.curated_strength)
    tied = found.key > 0
    for pairs in among.pairs(edges()):
        for a, b in ((pairs.a, pairs.b), (pairs.b, pairs.a)):
            leads = tied[b] & ~tied[a] & ~stays[a]
            found.add(a[leads], among.nodes[b[leads]], pairs.strength[leads])
    far = found.other == NONE  # of images that never stay, and those that do
    found.other[far] = among.nodes[far]
    behind = np.flatnonzero(~tied & ~stays & ~far)
    found.other[behind] = found.other[among.place[found.other[behind]]]
    return np.where(stays, among.nodes, found.other)


class _Strongest:
    """Of each image its strongest edge, of equal ones that to the smallest node."""

    def __init__(self, size: int) -> None:
        self.key = np.zeros(size, np.uint64)
        self.other = np.full(size, NONE, np.uint32)

    def add(self, a: np.ndarray, b: np.ndarray, key: np.ndarray) -> None:
        """Look at edges from places `a` to nodes `b`, (E,) each."""
        before = self.key[a]
        np.maximum.at(self.key, a, key)
        after = self.key[a]
        self.other[a[after > before]] = NONE
        best = key == after
        np.minimum.at(self.other, a[best], b[best].astype(np.uint32))
