"""Which images are copies: self-deduplication of the pool, and relative to held-out and curated images.

The rules, in the order they apply:

1. Pool images form components: equal sha256, or an edge at the self threshold of its kind. Curated and
   held-out images are never nodes of a component, so they never join two of them.
2. A component that touches a held-out image (equal sha256, or an edge at the relative threshold) is
   `benchmark` as a whole, chains and bursts included: what leaks is never left to the rules below.
3. Otherwise, a component that touches a curated image (equal sha256, or an edge at the self threshold) is
   `duplicate`: the curated image represents it.
4. Otherwise one image is `kept`: most pixels, then lowest source rank, then smallest id. The others are its
   `duplicate`s.
5. Bursts, where asked for: of a component of rule 4 with more than so many images every n-th stays, see
   `bursts`.
6. Chains are split, where asked for: in other components of rules 3 and 4 with five images or more an image goes
   only for one that it resembles, or that it shares a copy with, see `chains`. The images that go for one image, and
   that image, are the component from then on.
7. What a person decided comes before all of these, see `decided`; what rules reject before that, see `condemned`.

The partner in 2 is the held-out image with the strongest edge into the component, in 3 the curated one, where chains
are not split. Evidence is ranked by similarity (equal bytes have 1), then sha256 before embedding before aligned before
hash, then by smaller id.

The difficulty is size: a billion images have more edges than memory holds, and a verdict needs the whole component
before a single row of it can be written. So images and edges stream by several times, and each pass leaves one
number an image: the component, then by component the image that would stand for it, then the image that stays instead
of each, then by image the strongest edge of its component (or the one to its partner, where there is one), then the
size. What a pass looks for is always a largest value, so what is compared (pixels and preference; similarity and kind)
is packed into one 64-bit key whose order as an integer is the order of the rule, and a pass is `np.maximum.at` over
batches, whose order does not matter. In all that is 20 bytes an image of the catalog (26 GB for 1.3 billion), and about
50 bytes for each component that an outside image touches. Splitting chains takes 20 bytes an image before, and 17 more
for each image of a component of five or more: 26 GB too where a fourth of all images lie in such components. Sorting
the edges by component instead would write and read all of them again.

Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.3 (self and relative deduplication).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from curate.ops.copies.bursts import thin_bursts
from curate.ops.copies.chains import split_chains
from curate.ops.copies.condemned import Condemned, Screened
from curate.ops.copies.decided import Decided, DecidedNodes, is_among
from curate.ops.copies.evidence import STRENGTH_BITS, similarity_and_kind, strength
from curate.ops.copies.graph import (
    BLOCK_NODES,
    SHA256,
    AcceptedImages,
    CatalogParts,
    CopyEdges,
    CopyGraph,
    Oversized,
    Preference,
)
from curate.tables import CURATED, HELDOUT, POOL, VERDICTS

KEPT, DUPLICATE, BENCHMARK, DROPPED, SCREENED = map(VERDICTS.index, VERDICTS)
Chains = Literal["split", "join"]
"""Whether a component may be a chain of pairs, or is split where one end does not resemble the other."""
LONG = 5
"""Images of a component from which on it is looked at as a chain, see `chains`."""
NONE = np.uint32(0xFFFFFFFF)
DIRECT = np.uint64(STRENGTH_BITS)
"""Bit of an edge's key above its strength: the edge leads to the partner."""
_EQUAL = CopyEdges(np.zeros(1, int), np.zeros(1, int), np.ones(1, np.float32), np.full(1, SHA256))
SAME_BYTES = strength(_EQUAL)[0] | np.uint64(1) << DIRECT
"""Key of an edge of equal bytes that leads to the partner."""
EDGES_AT_ONCE = 1 << 20
"""Edges to outside images that are held before they are cut to the strongest of each component."""


class Judged(NamedTuple):
    """One row per accepted pool image of a part, in ascending order of id: the columns of `tables.DUPLICATES`."""

    image_ids: np.ndarray
    """(M,) int64"""
    component_ids: np.ndarray
    """(M,) int64, smallest image_id of the component, chains split"""
    component_size: np.ndarray
    """(M,) int64, images of the component"""
    verdict: np.ndarray
    """(M,) int8, index into `tables.VERDICTS`"""
    partner_ids: np.ndarray
    """(M,) int64; -1 when kept; where a decision alone kept or dropped the image, what it would have gone for"""
    similarity: np.ndarray
    """(M,) float32, of the edge that decided; NaN when kept"""
    kind: np.ndarray
    """(M,) int8, index into `graph.KINDS`; -1 when kept"""
    direct: np.ndarray
    """(M,) bool, whether that edge leads to the partner"""
    decision: np.ndarray
    """(M,) int8, index into `tables.DECISIONS`; -1: nothing was decided"""


ImageStream = Callable[[], Iterable[AcceptedImages]]
"""The accepted images of all roles, part by part in order; called twice, to split chains once more."""
EdgeStream = Callable[[], Iterable[CopyEdges]]
"""All edges, those of equal bytes among them (see `exact.equal_bytes`); called three times, to split chains four times
more and once for as many edges as are gathered at once."""


def deduplicate(
    parts: CatalogParts,
    images: ImageStream,
    edges: EdgeStream,
    *,
    oversized: Oversized | None = None,
    chains: Chains = "split",
    keep_every: int | None = None,
    window_edges: int | None = None,
    decided: Decided | None = None,
    screened: Screened | None = None,
) -> Iterator[Judged]:
    """Judge every accepted pool image by the rules of this module.

    Args:
        oversized: inside components above a size only stronger edges count; None: no component is cut.
        chains: whether images that only a chain of pairs ties to the one that stays are judged on their own.
        keep_every: of components with more than so many images one stays of so many, >= 2; None: one of each component.
        window_edges: edges that `chains` gathers at once; None: by the size of the catalog.
        decided: what a person decided; None: nothing.
        screened: what rules reject; None: nothing.

    Yields:
        One table for each part of the pool that has accepted images.

    Raises:
        ValueError: an edge with an image that is not accepted, or more images than a key can hold.
    """
    graph = CopyGraph(parts, images())
    said, rejected = decided or Decided.nothing(), screened or Screened.nothing()
    by = DecidedNodes(graph, rejected.joined_to(said), said=said, condemning=rejected.condemning)
    counted = partial(_counting, by, edges) if by else edges
    components = graph.components(counted())
    if oversized is not None:
        counted = partial(_strong, graph, counted, components, oversized)
        components = graph.components(counted())
    judge = _Judge(graph, components, images, counted, by, screened=rejected)
    if keep_every is not None or chains == "split" or by.has_pairs or by.moves_twins:
        judge.look_closer(images, counted, chains=chains, keep_every=keep_every, window_edges=window_edges)
    judge.weigh(counted())
    for part in np.flatnonzero(parts.role == POOL).tolist():
        nodes = graph.accepted(int(graph.first[part]), int(graph.first[part + 1]))
        if len(nodes):
            yield judge.rows(graph.image_ids(nodes))


def _counting(by: DecidedNodes, edges: EdgeStream) -> Iterator[CopyEdges]:
    return by.counting.edges(edges())


def _strong(graph: CopyGraph, edges: EdgeStream, components: np.ndarray, oversized: Oversized) -> Iterator[CopyEdges]:
    return graph.strong(edges(), components, oversized)


class _Judge:
    """What stays instead of each image, and the rows that follow from it."""

    def __init__(
        self,
        graph: CopyGraph,
        components: np.ndarray,
        images: ImageStream,
        edges: EdgeStream,
        by: DecidedNodes,
        *,
        screened: Screened,
    ) -> None:
        """Judge components as they are, by rules 2 to 4."""
        self.graph, self.root, self.by = graph, components, by
        self.screened = graph.nodes(screened.image_ids)
        self.condemned = Condemned.of(graph, components, screened, edges())
        self.preference = Preference(graph, chosen=by.represent)
        self.outside = _OutsideMatches.of(graph, components, edges())
        self.stays = self._one_of_each(images())

    def _one_of_each(self, images: Iterable[AcceptedImages]) -> np.ndarray:
        """(N,) uint32: the node that represents the component of each pool image."""
        best = np.zeros(self.graph.size, np.uint64)  # at each root the largest key of its images
        for some in images:
            if len(some.image_ids) and self.graph.parts.role[some.image_ids[0] >> 32] == POOL:
                nodes, keys = self.graph.nodes(some.image_ids), self.preference.keys(some)
                may = ~is_among(nodes, self.by.drop) if len(self.by.drop) else slice(None)
                np.maximum.at(best, self.root[nodes[may]], keys[may])
        stays = np.arange(self.graph.size, dtype=np.uint32)
        for start in range(0, self.graph.size, BLOCK_NODES):
            root = self.root[start : start + BLOCK_NODES].astype(np.int64)
            pool = np.flatnonzero(best[root])
            outside = self.outside.of_roots(root[pool])  # rules 2 and 3 come before rule 4
            chosen = np.where(outside >= 0, outside, self.preference.nodes(best[root[pool]]))
            stays[start + pool] = chosen
            at = self.condemned.place(root)
            stays[start + np.flatnonzero(at >= 0)] = self.condemned.node[at[at >= 0]]
        return stays

    def look_closer(
        self,
        images: ImageStream,
        edges: EdgeStream,
        *,
        chains: Chains,
        keep_every: int | None,
        window_edges: int | None,
    ) -> None:
        """Apply rules 5 and 6: thin bursts, split chains, and components of images that are no copies of each other."""
        twins = self.by.choose_twins(self.graph.twins(edges(), self.preference), self.preference)
        heldout, curated = (self.outside.touched(self.graph, role) for role in (HELDOUT, CURATED))
        heldout |= self.condemned.mask(self.graph.size)  # these components are never split either
        heads = self.by.heads(self.root, heldout, twins)
        burst = np.zeros(self.graph.size, bool)
        if keep_every is not None:
            alone, best = ~heldout & ~curated, self.stays
            nodes, stays, burst = thin_bursts(
                self.graph,
                self.root,
                alone,
                twins=twins,
                best=best,
                every=keep_every,
                also=heads,
                never=self.by.drop,
            )
            self._replace(twins, burst, nodes, stays)
        if chains == "split" or len(heads):
            long = LONG if chains == "split" else np.iinfo(np.uint32).max
            where = (self.graph.component_sizes(self.root) >= long) & ~heldout & ~burst
            where[self.root[heads[~burst[self.root[heads]]]]] = True
            nodes, stays = split_chains(
                self.graph,
                self.root,
                where,
                twins=twins,
                preference=self.preference,
                images=images(),
                edges=edges,
                window_edges=window_edges,
                always=heads,
                never=self.by.drop,
            )
            self._replace(twins, where, nodes, stays)
        apart = self.by.not_for(self.stays)
        alone = twins[apart]
        del twins
        if chains == "split" or len(heads):
            self._regroup(where)
        self.stays[apart] = alone  # in the component still: others may hang together with the curated image through it

    def _replace(self, twins: np.ndarray, where: np.ndarray, nodes: np.ndarray, stays: np.ndarray) -> None:
        """Let `stays` stay instead of `nodes`, and instead of those of equal bytes; `where`: roots of them all."""
        self.stays[nodes] = stays
        for start in range(0, self.graph.size, BLOCK_NODES):
            block = slice(start, start + BLOCK_NODES)
            changed = start + np.flatnonzero(where[self.root[block]])
            self.stays[changed] = self.stays[twins[changed]]

    def _regroup(self, where: np.ndarray) -> None:
        """Split components: images that go for one image are a component, whose smallest node is its root."""
        smallest = np.full(self.graph.size, NONE, np.uint32)  # at each image that stays
        outer, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for nodes, inside in self._changed(where):
            np.minimum.at(smallest, self.stays[nodes[inside]], nodes[inside].astype(np.uint32))
            # A curated image may stay instead of images of several components, and joins none of them.
            mine = nodes[~inside]
            outer.append(mine)
            keys.append(self.root[mine].astype(np.uint64) << np.uint64(32) | self.stays[mine])
        for nodes, inside in self._changed(where):
            self.root[nodes[inside]] = smallest[self.stays[nodes[inside]]]
        ordered = np.concatenate(outer)
        _, first, group = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
        self.root[ordered] = ordered[first][group]

    def _changed(self, where: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of the nodes, in ascending order, of roots in `where`; and whether each goes for an image of the pool.

        A root may change after its node was given.
        """
        for block in self.graph.accepted_blocks():
            nodes = block[where[self.root[block]]]
            part = self.graph.image_ids(self.stays[nodes].astype(np.int64)) >> 32
            yield nodes, self.graph.parts.role[part] == POOL

    def weigh(self, edges: Iterable[CopyEdges]) -> None:
        """Find the evidence of each image, and the sizes of components."""
        self.evidence, self.size = self._evidence(edges), self.graph.component_sizes(self.root)

    def _evidence(self, edges: Iterable[CopyEdges]) -> np.ndarray:
        """(N,) uint64: of each pool image the key of its edge to the partner, else of its strongest one; 0: none."""
        strongest = np.zeros(self.graph.size, np.uint64)
        for batch, role in self.graph.oriented(edges):
            both_ways = batch.take(role == POOL)
            for a, b, key in (
                (batch.query_ids, batch.image_ids, strength(batch)),
                (both_ways.image_ids, both_ways.query_ids, strength(both_ways)),
            ):
                direct = b == self.stays[a]  # beats any strength, being the highest bit
                # An edge between components leads to another outside image, or its component was split.
                counts = direct | (self.root[a] == self.root[b])
                np.maximum.at(strongest, a[counts], key[counts] | (direct[counts].astype(np.uint64) << DIRECT))
        strongest[self.by.equal_to_their_stay(self.stays)] = SAME_BYTES
        return strongest

    def rows(self, image_ids: np.ndarray) -> Judged:
        """The verdicts on the accepted images of one part of the pool."""
        node = self.graph.nodes(image_ids)
        root, partner, evidence = self.root[node], self.stays[node].astype(np.int64), self.evidence[node]
        kept, partner_ids = partner == node, self.graph.image_ids(partner)
        verdict = np.where(kept, KEPT, DUPLICATE)
        verdict[self.graph.parts.role[partner_ids >> 32] == HELDOUT] = BENCHMARK
        back = is_among(node, self.by.keep) | (is_among(node, self.by.represent) & (verdict != BENCHMARK))
        verdict[back] = KEPT
        verdict[is_among(node, self.by.drop)] = DROPPED
        screened, alone = self._screened(node, root)
        verdict[screened], kept = SCREENED, kept | alone
        similarity, kind = similarity_and_kind(evidence)
        return Judged(
            image_ids,
            self.graph.image_ids(root.astype(np.int64)),
            self.size[root].astype(np.int64),
            verdict.astype(np.int8),
            np.where(kept, -1, partner_ids),
            np.where(kept, np.float32(np.nan), similarity),
            np.where(kept, np.int8(-1), kind),
            (evidence >> DIRECT).astype(bool),
            self.by.names(node),
        )

    def _screened(self, nodes: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) bool: images that rules take; and those of them that are rejected themselves, for no other image."""
        alone = is_among(nodes, self.screened)
        at = self.condemned.place(roots.astype(np.int64))
        condemned = at >= 0
        condemned[condemned] = self.condemned.listed[at[condemned]] | ~is_among(nodes[condemned], self.by.keep)
        return alone | condemned, alone


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
            key = (role[role != POOL] == HELDOUT).astype(np.int64) << STRENGTH_BITS | strength(outer).astype(np.int64)
            root = components[outer.query_ids].astype(np.int64)
            waiting.append(np.stack([root, -key, outer.image_ids, outer.query_ids]))
            # Wait for as many as are held already, so that those held are not sorted anew for every batch.
            if sum(rows.shape[1] for rows in waiting) > max(EDGES_AT_ONCE, best.shape[1]):
                best, waiting = _first_by_root([best, *waiting]), []
        best = _first_by_root([best, *waiting])
        return cls(best[0], best[2])

    def touched(self, graph: CopyGraph, role: int) -> np.ndarray:
        """(N,) bool: at their smallest nodes, components whose deciding image has a role."""
        roots = np.zeros(graph.size, bool)
        roots[self.root[graph.parts.role[graph.image_ids(self.node) >> 32] == role]] = True
        return roots

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
