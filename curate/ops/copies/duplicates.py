"""Which images are copies: self-deduplication of the pool, and relative to held-out and curated images.

The rules, in the order they apply:

1. Pool images form components: equal sha256, or an edge at the self threshold of its kind. Curated and
   held-out images are never nodes, so they never join two components.
2. A component that touches a held-out image (equal sha256, or an edge at the relative threshold) is
   `benchmark` as a whole.
3. Otherwise, a component that touches a curated image (equal sha256, or an edge at the self threshold) is
   `duplicate` as a whole: its images are copies of each other, and the curated image represents them.
4. Otherwise one image is `kept`: most pixels, then lowest source rank, then smallest id. The others are its
   `duplicate`s.

The partner of 2 and 3 is the outside image with the strongest edge into the component. Evidence is ranked
by similarity (equal bytes have 1), then sha256 before embedding before aligned before hash, then by smaller id.

Images and edges stream by, three times the edges; what stays is 24 bytes an image of the catalog (31 GB for 1.3
billion), and about 50 bytes for each component that an outside image touches.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.3 (self and relative deduplication).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from curate.config import Settings
from curate.ops.copies.components import DisjointSet
from curate.ops.roles import HELDOUT, POOL
from curate.tables import VERDICTS

KINDS = ("sha256", "embedding", "aligned", "hash")
"""Evidence that two images are copies; tables hold the name, arrays the index."""

SHA256 = KINDS.index("sha256")
KEPT, DUPLICATE, BENCHMARK = (VERDICTS.index(name) for name in ("kept", "duplicate", "benchmark"))
MOST_IMAGES = 1 << 32
"""Images of the catalog at most: a place takes half of a 64-bit key."""
MOST_PIXELS = (1 << 32) - 1
TIES_AT_ONCE = 1 << 20
BLOCK_ROWS = 1 << 22
"""Images looked at together, a multiple of eight."""
LOW = np.uint64(0xFFFFFFFF)
DIRECT = np.uint64(40)
"""Bit of a key of evidence above its strength."""


class CatalogParts(NamedTuple):
    """The parts of the catalog, by number; an image is `part << 32 | row`."""

    role: np.ndarray
    """(P,) int8, index into `tables.ROLES`"""
    rank: np.ndarray
    """(P,) int, place of the source in the config; lower is preferred"""
    rows: np.ndarray
    """(P,) int64"""


class AcceptedImages(NamedTuple):
    """The accepted images of one part, in ascending order of id."""

    image_ids: np.ndarray
    """(M,) int64, strictly ascending"""
    num_pixels: np.ndarray
    """(M,) int64, width * height"""


class CopyEdges(NamedTuple):
    """Pairs of images that resemble each other, thresholds applied; either order, repeats allowed."""

    query_ids: np.ndarray
    """(E,) int64"""
    image_ids: np.ndarray
    """(E,) int64"""
    similarity: np.ndarray
    """(E,) float32, cosine"""
    kind: np.ndarray
    """(E,) int8, index into KINDS"""

    def take(self, rows: np.ndarray) -> "CopyEdges":
        """The edges at `rows`: (M,) int64 positions, or an (E,) bool mask."""
        return CopyEdges(*(column[rows] for column in self))


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
    """(M,) int8, index into KINDS; -1 when kept"""
    direct: np.ndarray
    """(M,) bool, whether that edge leads to the partner"""


class Oversized(Settings):
    """When a component is cut, and how."""

    size: Annotated[int, Field(ge=1)]
    """Images beyond which a component is cut."""
    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Least similarity, of any kind, of a pair inside it; equal bytes always count."""


ImageStream = Callable[[], Iterable[AcceptedImages]]
"""The accepted images of all roles, part by part in order; called three times."""
EdgeStream = Callable[[], Iterable[CopyEdges]]
"""All edges, those of equal bytes among them (see `exact.equal_bytes`); called three times or four."""


def deduplicate(
    parts: CatalogParts, images: ImageStream, edges: EdgeStream, *, oversized: Oversized | None = None
) -> Iterator[Judged]:
    """Judge every accepted pool image by the rules of this module.

    Args:
        oversized: cut chains; equal bytes always count.

    Yields:
        One table for each part of the pool that `images` gave.

    Raises:
        ValueError: an edge with an image that is not accepted, or more images than a key can hold.
    """
    graph = _Graph(parts, images)
    components = graph.components(edges)
    if oversized is not None:
        components = graph.components(edges, without=graph.weak_within(components, oversized))
    found = _Found(components, graph.representatives(components, images), graph.ties(components, edges))
    evidence, size = graph.evidence(found, edges), _sizes(components, graph.accepted)
    for some in images():
        if len(some.image_ids) and parts.role[some.image_ids[0] >> 32] == POOL:
            yield graph.judge(some.image_ids, found, evidence, size)


class _Ties(NamedTuple):
    """The outside image that decides over each component that any touches."""

    root: np.ndarray
    """(T,) int64, ascending"""
    image: np.ndarray
    """(T,) int64, place of the image"""

    def of(self, root: np.ndarray) -> np.ndarray:
        """(M,) int64: place of the deciding image; -1: none."""
        if len(self.root) == 0:
            return np.full(len(root), -1, np.int64)
        at = np.minimum(np.searchsorted(self.root, root), len(self.root) - 1)
        return np.where(self.root[at] == root, self.image[at], -1)


class _Found(NamedTuple):
    """Components, and what decides over each."""

    root: np.ndarray
    """(N,) uint, first place of each image's component"""
    best: np.ndarray
    """(N,) uint64 by root: key of the image that would stand for it, see `_Graph.representatives`"""
    ties: _Ties


class _Graph:
    """Images by place: their number in the catalog, so that places ascend with the ids."""

    def __init__(self, parts: CatalogParts, images: ImageStream) -> None:
        self.parts = parts
        self.first = np.concatenate([[0], np.cumsum(parts.rows)]).astype(np.int64)
        self.size = int(self.first[-1])
        if self.size > MOST_IMAGES:
            raise ValueError(f"{self.size} images: {MOST_IMAGES} can be deduplicated together")
        order = np.lexsort((np.arange(len(parts.rank)), parts.rank))
        self._preferred = order  # parts by rank of their source
        self._preferred_first = np.concatenate([[0], np.cumsum(parts.rows[order])]).astype(np.int64)
        self._shift = np.empty(len(order), np.int64)  # of a part: from place to place in order of preference
        self._shift[order] = self._preferred_first[:-1] - self.first[:-1][order]
        self.accepted = np.zeros(self.size // 8 + 1, np.uint8)
        for some in images():
            place = self.place(some.image_ids)
            np.bitwise_or.at(self.accepted, place >> 3, np.left_shift(1, place & 7).astype(np.uint8))

    def place(self, image_ids: np.ndarray) -> np.ndarray:
        return self.first[image_ids >> 32] + (image_ids & 0xFFFFFFFF)

    def ids(self, place: np.ndarray) -> np.ndarray:
        part = np.searchsorted(self.first, place, side="right") - 1
        return (part << 32) | (place - self.first[part])

    def oriented(self, edges: Iterable[CopyEdges]) -> Iterator[tuple[CopyEdges, np.ndarray]]:
        """Edges between places, pool before curated before held-out, loops left out; and the role of the second.

        Edges without a pool image are left out.
        """
        for batch in edges:
            self._check(batch.query_ids)
            self._check(batch.image_ids)
            role_a, role_b = (self.parts.role[ids >> 32] for ids in (batch.query_ids, batch.image_ids))
            a, b = self.place(batch.query_ids), self.place(batch.image_ids)
            swap = role_a > role_b
            a, b = np.where(swap, b, a), np.where(swap, a, b)
            first, second = np.minimum(role_a, role_b), np.maximum(role_a, role_b)
            matter = (a != b) & (first == POOL)
            yield CopyEdges(a, b, batch.similarity, batch.kind).take(matter), second[matter]

    def _check(self, image_ids: np.ndarray) -> None:
        part, row = image_ids >> 32, image_ids & 0xFFFFFFFF
        known = (part >= 0) & (part < len(self.parts.rows))
        known[known] = row[known] < self.parts.rows[part[known]]
        place = self.place(np.where(known, image_ids, 0)) if self.size else np.zeros(len(image_ids), np.int64)
        known &= self._is_accepted(place)
        if not known.all():
            raise ValueError(
                f"edges: image {image_ids[~known][0]} is none of the accepted images; were the neighbours computed "
                "before the images were judged anew?"
            )

    def _is_accepted(self, place: np.ndarray) -> np.ndarray:
        bits: np.ndarray = (self.accepted[place >> 3] >> (place & 7).astype(np.uint8)) & 1
        return bits.astype(bool)

    def components(self, edges: EdgeStream, *, without: Callable[[CopyEdges], np.ndarray] | None = None) -> np.ndarray:
        """(N,) uint: the first place of each image's component, of edges within the pool.

        Args:
            without: (E,) bool of edges, those that do not count.
        """
        forest = DisjointSet(self.size)
        for batch, role in self.oriented(edges()):
            inner = batch.take(role == POOL)
            counted = inner if without is None else inner.take(~without(inner))
            forest.union(counted.query_ids, counted.image_ids)
        return forest.roots()

    def weak_within(self, components: np.ndarray, oversized: Oversized) -> Callable[[CopyEdges], np.ndarray]:
        """Which edges lie within an oversized component and are too weak for it."""
        large = np.bincount(components, minlength=self.size) > oversized.size

        def weak(edges: CopyEdges) -> np.ndarray:
            inside: np.ndarray = large[components[edges.query_ids]]
            return inside & (edges.similarity < np.float32(oversized.threshold)) & (edges.kind != SHA256)

        return weak

    def representatives(self, components: np.ndarray, images: ImageStream) -> np.ndarray:
        """(N,) uint64: for each root the key of the image that would stand for its component, see `_chosen`."""
        best = np.zeros(self.size, np.uint64)
        for some in images():
            if len(some.image_ids) == 0 or self.parts.role[some.image_ids[0] >> 32] != POOL:
                continue
            place = self.place(some.image_ids)
            preferred = (place + self._shift[some.image_ids >> 32]).astype(np.uint64)
            pixels = np.minimum(some.num_pixels, MOST_PIXELS).astype(np.uint64)
            np.maximum.at(best, components[place], (pixels << np.uint64(32)) | (LOW - preferred))
        return best

    def _chosen(self, keys: np.ndarray) -> np.ndarray:
        """(M,) int64: the places that keys of `representatives` name."""
        preferred = (LOW - (keys & LOW)).astype(np.int64)
        part = self._preferred[np.searchsorted(self._preferred_first, preferred, side="right") - 1]
        chosen: np.ndarray = preferred - self._shift[part]
        return chosen

    def ties(self, components: np.ndarray, edges: EdgeStream) -> _Ties:
        """The strongest edge of each component to a held-out image, or else to a curated one."""
        best = np.empty((4, 0), np.int64)
        waiting: list[np.ndarray] = []
        for batch, role in self.oriented(edges()):
            outer = batch.take(role != POOL)
            strength = (role[role != POOL] == HELDOUT).astype(np.int64) << 40 | _strength(outer).astype(np.int64)
            root = components[outer.query_ids].astype(np.int64)
            waiting.append(np.stack([root, -strength, outer.image_ids, outer.query_ids]))
            if sum(rows.shape[1] for rows in waiting) > max(TIES_AT_ONCE, best.shape[1]):
                best, waiting = _first_by_root([best, *waiting]), []
        best = _first_by_root([best, *waiting])
        return _Ties(best[0], best[2])

    def partners(self, place: np.ndarray, found: _Found) -> np.ndarray:
        """(M,) int64: place of the image that stays instead of each, or of itself."""
        root = found.root[place].astype(np.int64)
        tied = found.ties.of(root)
        return np.where(tied >= 0, tied, self._chosen(found.best[root]))

    def evidence(self, found: _Found, edges: EdgeStream) -> np.ndarray:
        """(N,) uint64: of each pool image the key of its edge to the partner, else of its strongest one; 0: none."""
        strongest = np.zeros(self.size, np.uint64)
        for batch, role in self.oriented(edges()):
            both_ways = batch.take(role == POOL)
            for a, b, key in (
                (batch.query_ids, batch.image_ids, _strength(batch)),
                (both_ways.image_ids, both_ways.query_ids, _strength(both_ways)),
            ):
                direct = b == self.partners(a, found)
                # An edge between components is one to another outside image, or one that was cut.
                counts = direct | (found.root[a] == found.root[b])
                np.maximum.at(strongest, a[counts], key[counts] | (direct[counts].astype(np.uint64) << DIRECT))
        return strongest

    def judge(self, image_ids: np.ndarray, found: _Found, evidence: np.ndarray, size: np.ndarray) -> Judged:
        """The rows of one part of the pool."""
        place = self.place(image_ids)
        root, partner = found.root[place], self.partners(place, found)
        kept, partner_ids = partner == place, self.ids(partner)
        verdict = np.where(kept, KEPT, DUPLICATE)
        verdict[self.parts.role[partner_ids >> 32] == HELDOUT] = BENCHMARK
        similarity, kind = _similarity_and_kind(evidence[place])
        return Judged(
            image_ids,
            self.ids(root.astype(np.int64)),
            size[root].astype(np.int64),
            verdict.astype(np.int8),
            np.where(kept, -1, partner_ids),
            np.where(kept, np.float32(np.nan), similarity),
            np.where(kept, np.int8(-1), kind),
            (evidence[place] >> DIRECT).astype(bool),
        )


def _sizes(components: np.ndarray, accepted: np.ndarray) -> np.ndarray:
    """(N,) uint32: accepted images by root."""
    sizes = np.zeros(len(components), np.uint32)
    for start in range(0, len(components), BLOCK_ROWS):
        block = components[start : start + BLOCK_ROWS]
        bits = np.unpackbits(accepted[start >> 3 :], count=len(block), bitorder="little")
        np.add.at(sizes, block, bits.astype(np.uint32))
    return sizes


def _first_by_root(rows: list[np.ndarray]) -> np.ndarray:
    """(4, T): of columns (root, -strength, image, query) the first of each root in ascending order."""
    columns = np.concatenate(rows, axis=1)
    columns = columns[:, np.lexsort(columns[::-1])]
    return columns[:, np.diff(columns[0], prepend=-1) != 0]


def _strength(edges: CopyEdges) -> np.ndarray:
    """(E,) uint64 that ascend with the strength of evidence: 32 bits of similarity, then the kind."""
    bits = np.ascontiguousarray(edges.similarity, np.float32).view(np.uint32)
    ordered = np.where(bits >> 31 == 0, bits | np.uint32(1 << 31), ~bits)  # floats in the order of integers
    return (ordered.astype(np.uint64) << np.uint64(3)) | (7 - edges.kind).astype(np.uint64)


def _similarity_and_kind(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `_strength` packed; NaN and -1 for a key of 0."""
    ordered = (keys >> np.uint64(3)).astype(np.uint32)
    bits = np.where(ordered >> 31 == 1, ordered & np.uint32((1 << 31) - 1), ~ordered)
    similarity = np.where(keys == 0, np.float32(np.nan), bits.astype(np.uint32).view(np.float32))
    kind = np.where(keys == 0, -1, 7 - (keys & np.uint64(7)).astype(np.int64))
    return similarity.astype(np.float32), kind.astype(np.int8)
