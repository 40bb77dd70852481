"""Connected components of a graph whose edges arrive in batches; a node costs four bytes.

The textbook union-find takes one edge after the other, which is slow in Python. Here whole batches are joined by array
operations: find the roots of both ends of all edges, let each larger root point to the smallest root that an edge joins
it to, and repeat with the edges whose ends still have different roots. Every link points to a smaller node. So there
are no cycles, the order of edges does not matter, and the root of a component is its smallest member.

Long chains of links are the danger, since each array step follows one link. Following two links at once and
writing down where they lead (pointer jumping) halves a chain with each step. scipy's `connected_components` needs all
edges in memory at once, as a sparse matrix (`python -m benchmarks components`).
"""

import numpy as np

FLATTEN_AFTER = 32
"""Steps of one search for roots after which all nodes are pointed at their roots."""
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
        a, b = self._find(self._checked(rows)), self._find(self._checked(cols))
        while True:
            apart = a != b
            if not apart.any():
                return
            low, high = np.minimum(a[apart], b[apart]), np.maximum(a[apart], b[apart])
            np.minimum.at(self.parent, high, low)  # any of them would be right, but then a star takes a round per edge
            self._flatten(high)
            a, b = self.parent[low], self.parent[high]

    def roots(self) -> np.ndarray:
        """(N,) uint32 or uint64, the set's own array: the smallest node of each node's component."""
        self._flatten_all()
        return self.parent

    def labels(self) -> np.ndarray:
        """(N,) int64: the smallest node of each node's component."""
        return self.roots().astype(np.int64)

    def _checked(self, nodes: np.ndarray) -> np.ndarray:
        """In the type of a node; refuse (ValueError) those outside of the set."""
        nodes = np.asarray(nodes)
        if nodes.size and (nodes.min() < 0 or nodes.max() >= len(self.parent)):
            raise ValueError(f"nodes {nodes.min()}..{nodes.max()}: the set has {len(self.parent)} nodes, from 0")
        return nodes.astype(self.parent.dtype)

    def _find(self, nodes: np.ndarray) -> np.ndarray:
        """(E,) the root of each node; the nodes point at their roots from here on."""
        roots = self.parent[nodes]
        for _ in range(FLATTEN_AFTER):  # one link at a time: trees are rarely deeper than a few
            above = self.parent[roots]
            if np.array_equal(above, roots):
                self.parent[nodes] = roots
                return roots
            roots = above
        self._flatten_all()  # deep trees come from many small unions in an unlucky order
        return self.parent[nodes]

    def _flatten(self, nodes: np.ndarray) -> None:
        """Point `nodes` at their roots; links among them halve with each step, so long chains are cheap."""
        while True:
            above = self.parent[self.parent[nodes]]
            if np.array_equal(above, self.parent[nodes]):
                return
            self.parent[nodes] = above

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
