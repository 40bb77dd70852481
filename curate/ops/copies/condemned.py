"""Images that rules reject, as deduplication applies it.

A rejected image is treated like one that a person drops: it never stays and nothing goes for it, while it still ties
its copies to each other, so that the search for copies does not depend on rules. Of some rules the copies go as well: a
whole component is then condemned, as one that touches a held-out image is, and is never split. A curated image takes
the components with it that touch it.

What a person keeps stays, unless a list names it, or names the image that condemns its component.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np

from curate.ops.copies.decided import Decided
from curate.ops.copies.graph import CopyEdges, CopyGraph
from curate.tables import CURATED, POOL


class Screened(NamedTuple):
    """Images that rules reject, and that no decision of a person saves."""

    image_ids: np.ndarray
    """(K,) int64, ascending, of pool and curated images"""
    condemning: np.ndarray
    """(C,) int64, ascending: those of them whose copies go too"""
    listed: np.ndarray
    """(L,) int64, ascending: those of these whose copies go whatever a person keeps"""

    @classmethod
    def nothing(cls) -> Self:
        """No image."""
        none = np.empty(0, np.int64)
        return cls(none, none, none)

    def joined_to(self, decided: Decided) -> Decided:
        """Decisions under which these images never stay."""
        stay = {name: np.setdiff1d(getattr(decided, name), self.image_ids) for name in ("keep", "represent")}
        return decided._replace(drop=np.union1d(decided.drop, self.image_ids), **stay)


class Condemned(NamedTuple):
    """The image that condemns each condemned component."""

    root: np.ndarray
    """(T,) int64, ascending, smallest node of the component"""
    node: np.ndarray
    """(T,) int64, node of the image: a listed one rather than another, then the smallest"""
    listed: np.ndarray
    """(T,) bool: whether a list names it"""

    @classmethod
    def of(cls, graph: CopyGraph, components: np.ndarray, screened: Screened, edges: Iterable[CopyEdges]) -> Self:
        """Of the components of a graph, from all edges that count."""
        if len(screened.condemning) == 0:
            return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))
        role = graph.parts.role[screened.condemning >> 32]
        inner = graph.nodes(screened.condemning[role == POOL])
        outer = graph.nodes(screened.condemning[role == CURATED])
        nodes, roots = [inner], [components[inner].astype(np.int64)]
        for batch, _ in graph.oriented(edges) if len(outer) else ():
            touching = batch.take(np.isin(batch.image_ids, outer))
            nodes.append(touching.image_ids)
            roots.append(components[touching.query_ids].astype(np.int64))
        node, root = np.concatenate(nodes), np.concatenate(roots)
        listed = np.isin(node, graph.nodes(screened.listed))
        order = np.lexsort((node, ~listed, root))
        _, first = np.unique(root[order], return_index=True)
        chosen = order[first]
        return cls(root[chosen], node[chosen], listed[chosen])

    def place(self, roots: np.ndarray) -> np.ndarray:
        """(M,) int64: where each root is among the condemned ones; -1: it is not."""
        if len(self.root) == 0:
            return np.full(len(roots), -1)
        at = np.minimum(np.searchsorted(self.root, roots), len(self.root) - 1)
        return np.where(self.root[at] == roots, at, -1)

    def mask(self, size: int) -> np.ndarray:
        """(N,) bool: at their smallest nodes, the condemned components."""
        roots = np.zeros(size, bool)
        roots[self.root] = True
        return roots
