"""Which images are copies: self-deduplication of the pool, and relative to held-out and curated images.

The rules, in the order they apply:

1. Pool images form components: equal sha256, or an edge at the self threshold of its kind. Curated and
   held-out images are never nodes of a component, so they never join two of them.
2. A component that touches a held-out image (equal sha256, or an edge at the relative threshold) is
   `benchmark` as a whole.
3. Otherwise, a component that touches a curated image (equal sha256, or an edge at the self threshold) is
   `duplicate` as a whole: its images are copies of each other, and the curated image represents them.
4. Otherwise one image is `kept`: most pixels, then lowest source rank, then smallest id. The others are its
   `duplicate`s.

The partner in 2 and 3 is the outside image with the strongest edge into the component. Evidence is ranked
by similarity (equal bytes have 1), then sha256 before embedding before aligned before hash, then by smaller id.

The difficulty is size: a billion images have more edges than memory holds, and a verdict needs the whole component
before a single row of it can be written. So images and edges stream by several times, and each pass leaves one
number an image: the component, then by component the image that would stand for it, then by image the strongest edge
of its component (or the one to its partner, where there is one), then the size. What a pass looks for is always a
largest value, so what is compared (pixels and preference; similarity and kind) is packed into one 64-bit key whose
order as an integer is the order of the rule, and a pass is `np.maximum.at` over batches, whose order does not matter.
In all that is 24 bytes an image of the catalog (31 GB for 1.3 billion), and about 50 bytes for each component that an
outside image touches. Sorting the edges by component instead would write and read all of them again.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.3 (self and relative deduplication).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from curate.ops.copies.graph import AcceptedImages, CatalogParts, CopyEdges, CopyGraph, Oversized
from curate.ops.float_order import from_ordered_integers, to_ordered_integers
from curate.tables import HELDOUT, POOL, VERDICTS

KEPT, DUPLICATE, BENCHMARK = (VERDICTS.index(name) for name in ("kept", "duplicate", "benchmark"))
MAX_PIXELS = (1 << 32) - 1
"""Pixels beyond which two pictures count as equally large: half of a key."""
LOW_HALF = np.uint64(0xFFFFFFFF)
DIRECT = np.uint64(40)
"""Bit of an edge's key above its strength (35 bits): the edge leads to the partner."""
EDGES_AT_ONCE = 1 << 20
"""Edges to outside images that are held before they are cut to the strongest of each component."""


class Judged(NamedTuple):
    """One row per accepted pool image of a part, in ascending order of id: the columns of `tables.DUPLICATES`."""

    image_ids: np.ndarray
    """(M,) int64"""
    component_ids: np.ndarray
    """(M,) int64, smallest image_id of the component"""
    component_size: np.ndarray
    """(M,) int64, images of the component"""
    verdict: np.ndarray
    """(M,) int8, index into `tables.VERDICTS`"""
    partner_ids: np.ndarray
    """(M,) int64; -1 when kept"""
    similarity: np.ndarray
    """(M,) float32, of the edge that decided; NaN when kept"""
    kind: np.ndarray
    """(M,) int8, index into `graph.KINDS`; -1 when kept"""
    direct: np.ndarray
    """(M,) bool, whether that edge leads to the partner"""


ImageStream = Callable[[], Iterable[AcceptedImages]]
"""The accepted images of all roles, part by part in order; called three times."""
EdgeStream = Callable[[], Iterable[CopyEdges]]
"""All edges, those of equal bytes among them (see `exact.equal_bytes`); called three times or four."""


def deduplicate(
    parts: CatalogParts, images: ImageStream, edges: EdgeStream, *, oversized: Oversized | None = None
) -> Iterator[Judged]:
    """Judge every accepted pool image by the rules of this module.

    Args:
        oversized: cut chains: inside components above a size only stronger edges count; None: no component is cut.

    Yields:
        One table for each part of the pool that `images` gave.

    Raises:
        ValueError: an edge with an image that is not accepted, or more images than a key can hold.
    """
    graph = CopyGraph(parts, images())
    components = graph.components(edges())
    if oversized is not None:
        components = graph.components(edges(), without=graph.weak_within(components, oversized))
    judge = _Judge(graph, components, images, edges)
    for some in images():
        if len(some.image_ids) and parts.role[some.image_ids[0] >> 32] == POOL:
            yield judge.rows(some.image_ids)


class _Judge:
    """What decides over each component, and the rows that follow from it."""

    def __init__(self, graph: CopyGraph, components: np.ndarray, images: ImageStream, edges: EdgeStream) -> None:
        self.graph, self.root = graph, components
        self.preference = _Preference(graph.parts, graph.first)
        self.best = self._representatives(images())
        self.outside = _OutsideMatches.of(graph, components, edges())
        self.evidence, self.size = self._evidence(edges()), graph.component_sizes(components)

    def _representatives(self, images: Iterable[AcceptedImages]) -> np.ndarray:
        """(N,) uint64: at each root the key of rule 4, pixels and then preference, of the image it chooses."""
        best = np.zeros(self.graph.size, np.uint64)
        for some in images:
            if len(some.image_ids) == 0 or self.graph.parts.role[some.image_ids[0] >> 32] != POOL:
                continue
            node = self.graph.nodes(some.image_ids)
            position = self.preference.positions(node, some.image_ids >> 32).astype(np.uint64)
            pixels = np.minimum(some.num_pixels, MAX_PIXELS).astype(np.uint64)
            # Rule 4 as an integer: more pixels in the upper half, then an earlier position in the lower half.
            np.maximum.at(best, self.root[node], (pixels << np.uint64(32)) | (LOW_HALF - position))
        return best

    def _evidence(self, edges: Iterable[CopyEdges]) -> np.ndarray:
        """(N,) uint64: of each pool image the key of its edge to the partner, else of its strongest one; 0: none."""
        strongest = np.zeros(self.graph.size, np.uint64)
        for batch, role in self.graph.oriented(edges):
            both_ways = batch.take(role == POOL)
            for a, b, key in (
                (batch.query_ids, batch.image_ids, _strength(batch)),
                (both_ways.image_ids, both_ways.query_ids, _strength(both_ways)),
            ):
                direct = b == self._partners(a)  # beats any strength, being the highest bit
                # An edge between components leads to another outside image, or was cut.
                counts = direct | (self.root[a] == self.root[b])
                np.maximum.at(strongest, a[counts], key[counts] | (direct[counts].astype(np.uint64) << DIRECT))
        return strongest

    def _partners(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) int64: the node that stays instead of each, or the node itself."""
        root = self.root[nodes].astype(np.int64)
        outside = self.outside.of_roots(root)  # rules 2 and 3 come before rule 4
        chosen = self.preference.nodes((LOW_HALF - (self.best[root] & LOW_HALF)).astype(np.int64))
        return np.where(outside >= 0, outside, chosen)

    def rows(self, image_ids: np.ndarray) -> Judged:
        """The verdicts on the accepted images of one part of the pool."""
        node = self.graph.nodes(image_ids)
        root, partner, evidence = self.root[node], self._partners(node), self.evidence[node]
        kept, partner_ids = partner == node, self.graph.image_ids(partner)
        verdict = np.where(kept, KEPT, DUPLICATE)
        verdict[self.graph.parts.role[partner_ids >> 32] == HELDOUT] = BENCHMARK
        similarity, kind = _similarity_and_kind(evidence)
        return Judged(
            image_ids,
            self.graph.image_ids(root.astype(np.int64)),
            self.size[root].astype(np.int64),
            verdict.astype(np.int8),
            np.where(kept, -1, partner_ids),
            np.where(kept, np.float32(np.nan), similarity),
            np.where(kept, np.int8(-1), kind),
            (evidence >> DIRECT).astype(bool),
        )


class _Preference:
    """The nodes in order of preference, which differs from that of ids where a later source has a lower rank."""

    def __init__(self, parts: CatalogParts, first: np.ndarray) -> None:
        order = np.lexsort((np.arange(len(parts.rank)), parts.rank))  # parts by rank of their source
        self._order = order
        self._first = np.concatenate([[0], np.cumsum(parts.rows[order])]).astype(np.int64)
        self._shift = np.empty(len(order), np.int64)  # by part: from a node to its position in this order
        self._shift[order] = self._first[:-1] - first[:-1][order]

    def positions(self, nodes: np.ndarray, part: np.ndarray) -> np.ndarray:
        """(M,) int64: positions of nodes, each of the given part."""
        found: np.ndarray = nodes + self._shift[part]
        return found

    def nodes(self, positions: np.ndarray) -> np.ndarray:
        """(M,) int64: the nodes at positions."""
        part = self._order[np.searchsorted(self._first, positions, side="right") - 1]
        found: np.ndarray = positions - self._shift[part]
        return found


class _OutsideMatches(NamedTuple):
    """The outside image that decides over each component that any touches."""

    root: np.ndarray
    """(T,) int64, ascending, smallest node of the component"""
    node: np.ndarray
    """(T,) int64, node of the outside image"""

    @classmethod
    def of(cls, graph: CopyGraph, components: np.ndarray, edges: Iterable[CopyEdges]) -> "_OutsideMatches":
        """By the strongest edge of each component to a held-out image, or else to a curated one."""
        best = np.empty((4, 0), np.int64)
        waiting: list[np.ndarray] = []
        for batch, role in graph.oriented(edges):
            outer = batch.take(role != POOL)
            # Held-out above curated, whatever the similarity: rule 2 comes before rule 3.
            strength = (role[role != POOL] == HELDOUT).astype(np.int64) << 40 | _strength(outer).astype(np.int64)
            root = components[outer.query_ids].astype(np.int64)
            waiting.append(np.stack([root, -strength, outer.image_ids, outer.query_ids]))
            # Wait for as many as are held already, so that those held are not sorted anew for every batch.
            if sum(rows.shape[1] for rows in waiting) > max(EDGES_AT_ONCE, best.shape[1]):
                best, waiting = _first_by_root([best, *waiting]), []
        best = _first_by_root([best, *waiting])
        return cls(best[0], best[2])

    def of_roots(self, root: np.ndarray) -> np.ndarray:
        """(M,) int64: node of the deciding image; -1: none."""
        if len(self.root) == 0:
            return np.full(len(root), -1, np.int64)
        at = np.minimum(np.searchsorted(self.root, root), len(self.root) - 1)
        return np.where(self.root[at] == root, self.node[at], -1)


def _first_by_root(rows: list[np.ndarray]) -> np.ndarray:
    """(4, T): of columns (root, -strength, image, query) the first of each root in ascending order."""
    columns = np.concatenate(rows, axis=1)
    columns = columns[:, np.lexsort(columns[::-1])]
    return columns[:, np.diff(columns[0], prepend=-1) != 0]


def _strength(edges: CopyEdges) -> np.ndarray:
    """(E,) uint64 that ascend with the strength of evidence: 32 bits of similarity, then 3 of the kind."""
    ordered = to_ordered_integers(edges.similarity)
    return (ordered.astype(np.uint64) << np.uint64(3)) | (7 - edges.kind).astype(np.uint64)


def _similarity_and_kind(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `_strength` packed; NaN and -1 for a key of 0."""
    values = from_ordered_integers((keys >> np.uint64(3)).astype(np.uint32))
    similarity = np.where(keys == 0, np.float32(np.nan), values)
    kind = np.where(keys == 0, -1, 7 - (keys & np.uint64(7)).astype(np.int64))
    return similarity.astype(np.float32), kind.astype(np.int8)
