"""The graph of copies: its nodes are the images of the catalog, its edges arrive in batches and are not kept.

An image id is `part << 32 | row`, so ids are far apart, while arrays with a value for each image need numbers without
gaps. A node is such a number: the images of all parts before, and then the row. Nodes ascend with ids, so that the
smallest node of a component is its smallest id. Rejected rows are nodes too, alone and never asked for: leaving them
out would cost a table of 8 bytes an image, and with them the number of rows of each part tells everything.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from curate.config import Settings
from curate.ops.copies.components import DisjointSet
from curate.tables import POOL

KINDS = ("sha256", "embedding", "aligned", "hash")
"""Evidence that two images are copies; tables hold the name, arrays the index."""
SHA256 = KINDS.index("sha256")
MAX_NODES = 1 << 32
"""Images of the catalog at most: a node takes half of a 64-bit key, see `duplicates`."""
BLOCK_NODES = 1 << 19
"""Nodes looked at together, a multiple of eight."""
FIRST = (1 << 32) - 1
"""Pixels of an image that is preferred to all others, whatever it has: half of a key."""
MAX_PIXELS = FIRST - 1
"""Pixels beyond which two pictures count as equally large."""
LOW_HALF = np.uint64(0xFFFFFFFF)


class CatalogParts(NamedTuple):
    """The parts of the catalog, by number; an image is `part << 32 | row`."""

    role: np.ndarray
    """(P,) int8, index into `tables.ROLES`"""
    rank: np.ndarray
    """(P,) int, position of the source in the config; lower is preferred"""
    rows: np.ndarray
    """(P,) int64, images of the part, rejected ones included"""


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


class Oversized(Settings):
    """When a component is cut, and how."""

    size: Annotated[int, Field(ge=1)]
    """Images beyond which a component is cut."""
    threshold: Annotated[float, Field(ge=-1, le=1)]
    """Least similarity, of any kind, of a pair inside it; equal bytes always count."""


class CopyGraph:
    """The nodes of a catalog, which of them are accepted, and the components that edges give."""

    def __init__(self, parts: CatalogParts, images: Iterable[AcceptedImages]) -> None:
        """Number the images of `parts`, and mark those that `images` has.

        Raises:
            ValueError: more images than a key can hold.
        """
        self.parts = parts
        self.first = np.concatenate([[0], np.cumsum(parts.rows)]).astype(np.int64)
        self.size = int(self.first[-1])
        if self.size > MAX_NODES:
            raise ValueError(f"{self.size} images: {MAX_NODES} can be deduplicated together")
        self._accepted = np.zeros(self.size // 8 + 1, np.uint8)  # a bit a node
        for some in images:
            node = self.nodes(some.image_ids)
            np.bitwise_or.at(self._accepted, node >> 3, np.left_shift(1, node & 7).astype(np.uint8))

    def nodes(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int64: the nodes of images that the catalog has."""
        return self.first[image_ids >> 32] + (image_ids & 0xFFFFFFFF)

    def image_ids(self, nodes: np.ndarray) -> np.ndarray:
        """(N,) int64: the ids of nodes."""
        part = np.searchsorted(self.first, nodes, side="right") - 1
        return (part << 32) | (nodes - self.first[part])

    def oriented(self, edges: Iterable[CopyEdges]) -> Iterator[tuple[CopyEdges, np.ndarray]]:
        """Edges between nodes that leave a pool image, and (E,) int8 the role of the image they lead to.

        An edge between pool images is given once, in the direction in which it came. Edges without a pool image, and
        from an image to itself, are left out. Their images must be accepted, which `components` has checked.
        """
        for batch in edges:
            role_a, role_b = (self.parts.role[ids >> 32] for ids in (batch.query_ids, batch.image_ids))
            a, b = self.nodes(batch.query_ids), self.nodes(batch.image_ids)
            swap = role_a > role_b  # the indices of roles: pool first, then curated, then held-out
            a, b = np.where(swap, b, a), np.where(swap, a, b)
            first, second = np.minimum(role_a, role_b), np.maximum(role_a, role_b)
            matter = (a != b) & (first == POOL)
            yield CopyEdges(a, b, batch.similarity, batch.kind).take(matter), second[matter]

    def _checked(self, edges: Iterable[CopyEdges]) -> Iterator[CopyEdges]:
        """The same edges."""
        for batch in edges:
            self._check(batch.query_ids)
            self._check(batch.image_ids)
            yield batch

    def _check(self, image_ids: np.ndarray) -> None:
        """Refuse (ValueError) ids of images that are not accepted or not in the catalog at all."""
        # Step by step, since a part that does not exist has no number of rows, and an unknown image no node.
        part, row = image_ids >> 32, image_ids & 0xFFFFFFFF
        known = (part >= 0) & (part < len(self.parts.rows))
        known[known] = row[known] < self.parts.rows[part[known]]
        node = self.nodes(np.where(known, image_ids, 0)) if self.size else np.zeros(len(image_ids), np.int64)
        known &= self._is_accepted(node)
        if not known.all():
            raise ValueError(
                f"edges: image {image_ids[~known][0]} is none of the accepted images; were the neighbors computed "
                "before the images were judged anew?"
            )

    def _is_accepted(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) bool."""
        bits: np.ndarray = (self._accepted[nodes >> 3] >> (nodes & 7).astype(np.uint8)) & 1
        return bits.astype(bool)

    def components(self, edges: Iterable[CopyEdges]) -> np.ndarray:
        """(N,) uint32: the smallest node of each node's component, by the edges between pool images.

        Raises:
            ValueError: an edge with an image that is not accepted.
        """
        forest = DisjointSet(self.size)
        for batch, role in self.oriented(self._checked(edges)):
            inner = batch.take(role == POOL)
            forest.union(inner.query_ids, inner.image_ids)
        return forest.roots()

    def strong(self, edges: Iterable[CopyEdges], components: np.ndarray, oversized: Oversized) -> Iterator[CopyEdges]:
        """The edges without those between pool images of an oversized component that are too weak for it."""
        large = np.bincount(components, minlength=self.size) > oversized.size
        for batch in edges:
            a, b = self.nodes(batch.query_ids), self.nodes(batch.image_ids)
            inner = large[components[a]] & (components[a] == components[b])  # outside images are in no component
            weak = (batch.similarity < np.float32(oversized.threshold)) & (batch.kind != SHA256)
            yield batch.take(~(inner & weak))

    def twins(self, edges: Iterable[CopyEdges], preference: "Preference") -> np.ndarray:
        """(N,) uint32: of pool images of equal bytes the preferred one, at each of them; other nodes as they are.

        Edges of equal bytes form stars about that image, see `exact.equal_bytes`.
        """
        same = np.arange(self.size, dtype=np.uint32)
        for batch, role in self.oriented(batch.take(batch.kind == SHA256) for batch in edges):
            equal = batch.take(role == POOL)
            a, b = equal.query_ids, equal.image_ids
            first = preference.of_nodes(a) < preference.of_nodes(b)
            same[np.where(first, b, a)] = np.where(first, a, b)
        return same

    def accepted_blocks(self) -> Iterator[np.ndarray]:
        """(M,) int64: the nodes of accepted images in ascending order, a block at a time."""
        for start in range(0, self.size, BLOCK_NODES):  # all bits at once would take a byte a node
            yield self.accepted(start, min(start + BLOCK_NODES, self.size))

    def accepted(self, start: int, stop: int) -> np.ndarray:
        """(M,) int64: the nodes of accepted images from `start` to before `stop`, in ascending order."""
        bits = np.unpackbits(self._accepted[start >> 3 : -(-stop // 8)], bitorder="little")
        return start + np.flatnonzero(bits[start & 7 : (start & 7) + stop - start])

    def component_sizes(self, components: np.ndarray) -> np.ndarray:
        """(N,) uint32: accepted images of the component that each node is the smallest of; 0 at other nodes."""
        sizes = np.zeros(len(components), np.uint32)
        for nodes in self.accepted_blocks():
            np.add.at(sizes, components[nodes], np.uint32(1))
        return sizes


class Preference:
    """Which image of a component would rather stay: most pixels, then lowest source rank, then smallest id.

    Before all of them come those that are chosen, by source rank, then id.

    Nodes have a position in the order of the last two, which differs from that of ids where a later source has a
    lower rank.
    """

    def __init__(self, graph: CopyGraph, *, chosen: np.ndarray | None = None) -> None:
        """Order the nodes of a graph.

        Args:
            chosen: (K,) int64, nodes that are preferred to all others; None: there are none.
        """
        self._chosen = chosen
        rank, rows, first = graph.parts.rank, graph.parts.rows, graph.first
        order = np.lexsort((np.arange(len(rank)), rank))  # parts by rank of their source
        self._graph, self._order = graph, order
        self._first = np.concatenate([[0], np.cumsum(rows[order])]).astype(np.int64)
        self._shift = np.empty(len(order), np.int64)  # by part: from a node to its position in this order
        self._shift[order] = self._first[:-1] - first[:-1][order]

    def of_nodes(self, nodes: np.ndarray) -> np.ndarray:
        """(M,) int64: positions of nodes."""
        return self._positions(nodes, np.searchsorted(self._graph.first, nodes, side="right") - 1)

    def keys(self, images: AcceptedImages) -> np.ndarray:
        """(M,) uint64: the larger, the rather an image stays; pixels in the upper half, the position in the lower."""
        nodes, part = self._graph.nodes(images.image_ids), images.image_ids >> 32
        position = self._positions(nodes, part).astype(np.uint64)
        pixels = np.minimum(images.num_pixels, MAX_PIXELS).astype(np.uint64)
        if self._chosen is not None and len(self._chosen):
            pixels[np.isin(nodes, self._chosen)] = FIRST
        return (pixels << np.uint64(32)) | (LOW_HALF - position)

    def nodes(self, keys: np.ndarray) -> np.ndarray:
        """(M,) int64: the nodes whose images have these keys."""
        positions = (LOW_HALF - (keys & LOW_HALF)).astype(np.int64)
        part = self._order[np.searchsorted(self._first, positions, side="right") - 1]
        found: np.ndarray = positions - self._shift[part]
        return found

    def _positions(self, nodes: np.ndarray, part: np.ndarray) -> np.ndarray:
        found: np.ndarray = nodes + self._shift[part]
        return found
