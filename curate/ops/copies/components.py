"""Connected components of a graph whose edges arrive in batches; a node costs four bytes.

The textbook union-find takes one edge after the other, which is slow in Python, and its cost is the search for roots:
each step of it is a cache miss. Here a batch is joined by array operations that never search (Rem's algorithm). Each
edge goes down the links of its larger end only, and on its way lets that node point to the smaller end:

    parent[high] = low, and the edge goes on between low and the node that high pointed to before.

So whatever an edge visits is linked to something smaller, which also shortens the links for those that come after, and
most edges of a batch need two or three steps. Edges that meet at one node agree by the minimum, and go on between that
minimum and their own ends. Every link points to a smaller node: there are no cycles, the order of edges does not
matter, and the root of a component is its smallest member.

Long chains of links are the danger, since each step follows one link. Where a batch has not ended after some steps,
all nodes are pointed at their roots by pointer jumping, in which a chain halves with each step. Finding the roots of
both ends first took 3.4 times as long. scipy's `connected_components` needs all edges in memory at once, as a
sparse matrix (`python -m benchmarks components`).

Source: Patwary, Blair and Manne 2010 (SEA), "Experiments on union-find algorithms for the disjoint-set data structure".
"""

import itertools

import numpy as np

FLATTEN_AFTER = 32
"""Steps of a batch after which all nodes are pointed at their roots."""
BLOCK_ROWS = 1 << 22
"""Nodes that are pointed at their roots at once."""


class DisjointSet:
    """Union-find over nodes 0..N-1 with vectorized unions; the root of a component is its smallest member.

    Nodes are uint32 up to 2**32 nodes (4.8 GB for 1.2 billion), else uint64.
    """

    def __init__(self, num_nodes: int) -> None:
        """Begin with every node alone.

        Raises:
            ValueError: `num_nodes` is negative.
        """
        if num_nodes < 0:
            raise ValueError(f"num_nodes={num_nodes}: 0 or more are needed")
        self.parent = np.arange(num_nodes, dtype=np.uint32 if num_nodes <= 1 << 32 else np.uint64)

    def union(self, rows: np.ndarray, cols: np.ndarray) -> None:
        """Join the components of `rows[i]` and `cols[i]`, (E,) integers, for every i.

        Raises:
            ValueError: lengths differ, or a node lies outside 0..N-1.
        """
        if len(rows) != len(cols):
            raise ValueError(f"{len(rows)} rows and {len(cols)} cols: an edge needs one of each")
        a, b = self.parent[self._checked(rows)], self.parent[self._checked(cols)]
        for step in itertools.count(1):
            apart = np.flatnonzero(a != b)
            if len(apart) == 0:
                return
            a, b = a.take(apart), b.take(apart)
            high, low = np.maximum(a, b).astype(np.intp), np.minimum(a, b)
            above = self.parent.take(high)
            np.minimum.at(self.parent, high, low)  # any low would be right, but then a star takes a step per edge
            a, b = np.where(above == high, self.parent.take(high), above), low  # a root has nothing above it
            if step % FLATTEN_AFTER == 0:  # deep trees come from many small unions in an unlucky order
                self._flatten_all()
                a, b = self.parent.take(a), self.parent.take(b)

    def roots(self) -> np.ndarray:
        """(N,) uint32 or uint64, the set's own array: the smallest node of each node's component."""
        self._flatten_all()
        return self.parent

    def labels(self) -> np.ndarray:
        """(N,) int64: the smallest node of each node's component."""
        return self.roots().astype(np.int64)

    def _checked(self, nodes: np.ndarray) -> np.ndarray:
        """As indices; refuse (ValueError) those outside of the set."""
        nodes = np.asarray(nodes)
        if nodes.size and (nodes.min() < 0 or nodes.max() >= len(self.parent)):
            raise ValueError(f"nodes {nodes.min()}..{nodes.max()}: the set has {len(self.parent)} nodes, from 0")
        return nodes.astype(np.intp, copy=False)

    def _flatten_all(self) -> None:
        """Point every node at its root."""
        for start in range(0, len(self.parent), BLOCK_ROWS):  # links go down, so earlier blocks are flat
            block = self.parent[start : start + BLOCK_ROWS]
            while True:
                above = self.parent[block]
                if np.array_equal(above, block):
                    break
                block[:] = above


def connected_components(num_nodes: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """(N,) int64: the smallest node of each node's component, in the graph of edges `rows[i] - cols[i]`.

    Args:
        rows, cols: (E,) integers, 0..num_nodes-1.

    Raises:
        ValueError: as `DisjointSet.union`.
    """
    forest = DisjointSet(num_nodes)
    forest.union(rows, cols)
    return forest.labels()
