"""The k-NN join: exact nearest neighbors by blocked matrix products.

All cosines of Q queries and N base vectors are one matrix product, the fastest thing that a processor does. What is
difficult lies around it.

The result must not depend on how it was computed, since tables are compared byte by byte. But a matrix product adds
up its terms in an order that depends on the shape of the block, on the threads and on the library, and in float16 or
bfloat16 it is off by as much as 0.016. So a product only proposes pairs: all whose cosine may be high enough, given
`product_error`. Each of them is then scored by a float32 product of its own two rows, whose order of additions
depends on the number of dimensions alone.

The product is larger than its result, so a block of queries meets a block of base vectors at a time, and memory is
`block_bytes`. In most rows of a block nothing is similar enough: one pass takes the maximum of each row, and only rows
whose maximum reaches the threshold are looked at value by value. Where the k best of a row are wanted, a pair must also
come near the k-th best product of its row within the block, or where it counts in both directions near that of its
column; and once k pairs of a row are held, the weakest of them
is the threshold of that row in all further blocks.

A pair of a self-join need be computed once. Blocks below the diagonal are left out; where one block would hold the
whole list it is cut into strips, or nothing would be saved. A proposed pair then counts in both directions, so the
lower of its two thresholds decides.

Searching the lists with faiss's IndexIVFFlat instead, query by query, took several times as long at the same recall
(`python -m benchmarks join`).
"""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from curate.ops.blocks import blocks
from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.ops.search.products import product_error, proposal_dtype

if TYPE_CHECKING:
    import torch

BYTES_PER_PAIR = 16
"""Working memory of one (query, base) pair: the product, and masks and positions where a row has a neighbor."""
SCORED_ROWS = 1 << 14
"""Pairs whose vectors are gathered at once to be scored."""
HELD_EDGES = 1 << 22
"""Edges that are held before they are cut to the k best of each query."""
STRIPS = 4
"""Strips that a list is cut into at least, so that little below the diagonal is computed."""


def find_neighbors(
    queries: np.ndarray,
    base: np.ndarray,
    *,
    query_ids: np.ndarray,
    base_ids: np.ndarray,
    threshold: float,
    max_neighbors: int | None,
    block_bytes: int = 256 << 20,
    device: str = "cpu",
) -> Edges:
    """Pairs of a query and a base vector whose cosine is at least `threshold`.

    The result does not depend on blocks, threads or the dtype of the products; see the module.

    Args:
        queries: (Q, D) float32, unit L2.
        base: (N, D) float32, unit L2.
        query_ids: (Q,) int64; an id may repeat (picture and mirror image), and has the neighbors of all its rows.
        base_ids: (N,) int64, without repeats; a pair of equal ids is never returned.
        threshold: least cosine of a pair; -inf for all.
        max_neighbors: keep the most similar per row of `queries`, ties by the smaller image id; None: all.
        block_bytes: working memory beyond inputs and result.
        device: a torch device.

    Returns:
        Edges in order of (query_id, similarity descending, image_id); similarity never exceeds 1.

    Raises:
        ValueError: shapes that do not fit, repeated ids, values that are not finite, `max_neighbors` < 1.
    """
    _check_vectors(queries, query_ids, "queries")
    _check_vectors(base, base_ids, "base")
    if queries.shape[1] != base.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dims, base has {base.shape[1]}; use one backbone")
    base, base_ids = _ascending(base, base_ids)
    own = _positions(query_ids, base_ids)
    join = _Join(queries, base, own, threshold=threshold, max_neighbors=max_neighbors, device=device)
    num_queries, num_base = _block_shape(len(queries), len(base), block_bytes)
    for q in blocks(len(queries), num_queries):
        for b in blocks(len(base), num_base):
            join.block(q, b)
    # Rows of one id each have their k best; where several rows found one image, the strongest edge stays.
    return merge_top_k(join.edges().named(query_ids, base_ids), None)


def join_within(
    vectors: np.ndarray,
    ids: np.ndarray,
    *,
    threshold: float,
    max_neighbors: int | None,
    block_bytes: int = 256 << 20,
    device: str = "cpu",
) -> Edges:
    """`find_neighbors` of vectors among themselves, at half the products: each pair is computed once.

    Args:
        vectors: (N, D) float32, unit L2.
        ids: (N,) int64, without repeats.
        threshold, max_neighbors, block_bytes, device: as for `find_neighbors`.

    Returns:
        Edges of both directions, as `find_neighbors` returns them.

    Raises:
        ValueError: as for `find_neighbors`.
    """
    _check_vectors(vectors, ids, "vectors")
    vectors, ids = _ascending(vectors, ids)
    rows = np.arange(len(ids))
    # Blocks on the diagonal and to the right of it; every pair lies in exactly one of them.
    join = _Join(vectors, vectors, rows, threshold=threshold, max_neighbors=max_neighbors, device=device)
    num_rows, num_base = _block_shape(len(ids), len(ids), block_bytes)
    for q in blocks(len(ids), min(num_rows, max(1, -(-len(ids) // STRIPS)))):
        for b in blocks(len(ids), num_base, start=q.start):
            join.block(q, b, both_ways=True)
    return merge_top_k(join.edges().named(ids, ids), None)


class _Join:
    """Neighbors of rows among rows, found block by block; edges hold positions until they are named.

    Base rows are in order of their ids, so that the smaller position wins a tie as the smaller id would.
    """

    def __init__(
        self,
        queries: np.ndarray,
        base: np.ndarray,
        own: np.ndarray,
        *,
        threshold: float,
        max_neighbors: int | None,
        device: str,
    ) -> None:
        import torch

        if max_neighbors is not None and max_neighbors < 1:
            raise ValueError(f"max_neighbors={max_neighbors}: at least 1 is needed; None keeps all")
        self.queries, self.base = queries, base  # (Q, D), (N, D)
        self.own = own  # (Q,) int64, the base row of the same image, which is no neighbor; -1: none
        self.threshold, self.max_neighbors = np.float32(threshold), max_neighbors
        dtype = proposal_dtype(device)
        self.slack = product_error(dtype, queries.shape[1])
        self._q = torch.from_numpy(np.ascontiguousarray(queries)).to(device, dtype)
        self._b = self._q if queries is base else torch.from_numpy(np.ascontiguousarray(base)).to(device, dtype)
        self._least = np.full(len(queries), self.threshold)  # (Q,) threshold of each row; rises as k of it are known
        self._found: list[Edges] = []
        self._held = 0

    def block(self, q: slice, b: slice, *, both_ways: bool = False) -> None:
        """Search one block of products.

        Args:
            q, b: rows of the queries and of the base.
            both_ways: the queries are the base, and this block lies on or above the diagonal: a pair counts for
                both of its rows.
        """
        import torch

        product = self._q[q] @ self._b[b].T  # (rows of q, rows of b), in the dtype of proposals
        if both_ways:
            if b.start == q.start:
                product.masked_fill_(_below_diagonal(product.shape, product.device), -torch.inf)
        else:  # an image is no neighbor of itself
            rows = np.flatnonzero((self.own[q] >= b.start) & (self.own[q] < b.stop))
            product[torch.from_numpy(rows), torch.from_numpy(self.own[q][rows] - b.start)] = -torch.inf
        rows, cols = self._propose(product, q, b if both_ways else None)
        self._keep(self._scored(rows + q.start, cols + b.start), both_ways)

    def _propose(self, product: torch.Tensor, q: slice, b: slice | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the block whose exact cosine may reach the threshold; `b`: that of columns counts too."""
        import torch

        device = product.device
        least = torch.from_numpy(self._least[q]).to(device) - self.slack
        if b is None:
            lowest = least
        else:  # the pair is wanted by whichever of its rows has the lower threshold
            across = torch.from_numpy(self._least[b]).to(device) - self.slack
            lowest = torch.minimum(least, across.min())
        # Rows with any pair to look at: one pass over the block, which then mostly is done.
        hit = torch.nonzero(product.amax(dim=1) >= lowest)[:, 0] if product.shape[1] else product.new_empty(0).long()
        near = product[hit]  # (R, rows of b)
        if b is None:
            enough = near >= self._cut(near, least[hit])[:, None]
        else:
            enough = near >= torch.minimum(least[hit][:, None], across[None])
            if self.max_neighbors is not None and enough.sum() > self.max_neighbors * sum(near.shape):
                # More than the k best of each row and of each column: a pair must come near one of either.
                rows_least, columns_least = self._cut(near, least[hit]), self._cut(near.T, across)
                enough = near >= torch.minimum(rows_least[:, None], columns_least[None])
        enough &= near > -torch.inf  # what was masked above stays out where the threshold is -inf
        rows, cols = torch.nonzero(enough, as_tuple=True)
        return hit[rows].cpu().numpy(), cols.cpu().numpy()

    def _cut(self, near: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """(R,) what a product must reach in its row: `least`, or nearly the k-th best of the block.

        Twice the error is allowed for: the k-th best may be too high by it, and the pair that belongs there too low.
        """
        import torch

        k = self.max_neighbors
        if k is None or k >= near.shape[1]:
            return least
        last = torch.topk(near.float(), k, dim=1, sorted=False).values.amin(dim=1)
        return torch.maximum(least, last - 2 * self.slack)

    def _scored(self, rows: np.ndarray, cols: np.ndarray) -> Edges:
        """The pairs with their exact cosines, each by a product of its own."""
        similarity = np.empty(len(rows), np.float32)
        for s in blocks(len(rows), SCORED_ROWS):
            similarity[s] = np.einsum("ed,ed->e", self.queries[rows[s]], self.base[cols[s]])
        return Edges(rows.astype(np.int64), cols.astype(np.int64), np.minimum(similarity, np.float32(1)))

    def _keep(self, edges: Edges, both_ways: bool) -> None:
        """Hold those that reach the thresholds of their rows."""
        if both_ways:
            edges = Edges.concat([edges, Edges(edges.image_ids, edges.query_ids, edges.similarity)])
        edges = edges.take(edges.similarity >= self._least[edges.query_ids])
        self._found.append(edges)
        self._held += edges.num_edges
        if self.max_neighbors is not None and self._held > max(HELD_EDGES, 2 * len(self.queries) * self.max_neighbors):
            self._cut_to_best()

    def _cut_to_best(self) -> None:
        """Hold the k best of each row alone; where there are k, the last is the row's threshold from here on."""
        assert self.max_neighbors is not None
        best = merge_top_k(Edges.concat(self._found), self.max_neighbors)
        last = rank_in_group(best.query_ids) == self.max_neighbors - 1
        self._least[best.query_ids[last]] = best.similarity[last]
        self._found, self._held = [best], best.num_edges

    def edges(self) -> Edges:
        """The edges between positions, at most `max_neighbors` a row."""
        return merge_top_k(Edges.concat(self._found), self.max_neighbors)


def _below_diagonal(shape: torch.Size, device: torch.device) -> torch.Tensor:
    """(Q, B) bool: on or below the diagonal of a block that begins on it."""
    import torch

    return torch.arange(shape[0], device=device)[:, None] >= torch.arange(shape[1], device=device)[None]


def _positions(ids: np.ndarray, sorted_ids: np.ndarray) -> np.ndarray:
    """(Q,) int64: where each id stands among others; -1 for those that are not there."""
    if len(sorted_ids) == 0:
        return np.full(len(ids), -1)
    at = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
    return np.where(sorted_ids[at] == ids, at, -1)


def _ascending(vectors: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in order of their ids.

    Raises:
        ValueError: ids repeat.
    """
    if (np.diff(ids) > 0).all():
        return vectors, ids
    order = np.argsort(ids)
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(repeated):
        known = ids[order][repeated[0]]
        raise ValueError(f"base: id {known} occurs {int((ids == known).sum())} times; ids must differ")
    return vectors[order], ids[order]


def _block_shape(num_queries: int, num_base: int, block_bytes: int) -> tuple[int, int]:
    """Rows of queries and of base per block: nearly square, since a product is fastest so, and never higher than wide
    where both are as many: then a block that begins on the diagonal holds all of it that its rows have."""
    pairs = max(1, block_bytes // BYTES_PER_PAIR)
    q = max(1, min(num_queries, isqrt(pairs)))
    b = max(1, min(num_base, pairs // q))
    return max(1, min(num_queries, pairs // b)), b


def _check_vectors(vectors: np.ndarray, ids: np.ndarray, name: str) -> None:
    """Refuse (ValueError) shapes that do not fit and values that are not finite."""
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise ValueError(f"{name}: shape {vectors.shape} with {len(ids)} ids; needed is (N, D) with N ids")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name}: NaN or infinite values; leave out the null rows before the search")
