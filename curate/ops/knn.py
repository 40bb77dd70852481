"""Exact nearest neighbours by blocked matrix products, and the edges they give."""

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np

BYTES_PER_PAIR = 64
"""Working memory of one (query, base) pair at worst: product, masks, indices, edges and their sort keys."""


class Edges(NamedTuple):
    """Directed pairs (query, image) with their cosine; always in order of (query, strongest first, image)."""

    query_ids: np.ndarray
    """(E,) int64"""
    image_ids: np.ndarray
    """(E,) int64"""
    similarity: np.ndarray
    """(E,) float32, cosine"""

    @property
    def num_edges(self) -> int:
        return len(self.query_ids)

    def take(self, rows: np.ndarray) -> "Edges":
        """The edges at `rows`: (M,) int64 positions, or an (E,) bool mask."""
        return Edges(self.query_ids[rows], self.image_ids[rows], self.similarity[rows])

    @classmethod
    def empty(cls) -> "Edges":
        """No edges, with the right dtypes."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    @classmethod
    def concat(cls, parts: Sequence["Edges"]) -> "Edges":
        """All edges of `parts` in their order, repeated pairs included (`merge_top_k` removes and sorts)."""
        if not parts:
            return cls.empty()
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def find_neighbors(
    queries: np.ndarray,
    base: np.ndarray,
    *,
    query_ids: np.ndarray,
    base_ids: np.ndarray,
    threshold: float,
    max_neighbors: int | None,
    block_bytes: int = 256 << 20,
) -> Edges:
    """Pairs of a query and a base vector whose cosine is at least `threshold`.

    Args:
        queries: (Q, D) float32, unit L2.
        base: (N, D) float32, unit L2.
        query_ids: (Q,) int64, without repeats.
        base_ids: (N,) int64, without repeats; a pair of equal ids is never returned.
        threshold: least cosine of a pair; -inf for all.
        max_neighbors: keep the most similar per query, ties by the smaller image id; None: all.
        block_bytes: working memory beyond inputs and result.

    Returns:
        Edges in order of (query_id, similarity descending, image_id); similarity never exceeds 1.

    Raises:
        ValueError: shapes that do not fit, repeated ids, values that are not finite, `max_neighbors` < 1.
    """
    _check_vectors(queries, query_ids, "queries")
    _check_vectors(base, base_ids, "base")
    if queries.shape[1] != base.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dims, base has {base.shape[1]}; use one backbone")
    if max_neighbors is not None and max_neighbors < 1:
        raise ValueError(f"max_neighbors={max_neighbors}: at least 1 is needed; None keeps all")
    num_queries, num_base = _block_shape(len(queries), len(base), block_bytes)
    found = []
    for q in _slices(len(queries), num_queries):
        best = Edges.empty()
        least = np.full(len(queries[q]), threshold, np.float32)  # rises as better neighbours are found
        for b in _slices(len(base), num_base):
            new = _neighbors_in_block(
                queries[q],
                base[b],
                query_ids=query_ids[q],
                base_ids=base_ids[b],
                least=least,
                max_neighbors=max_neighbors,
            )
            best = Edges.concat([best, new])
            if max_neighbors is not None:  # keeps the running result small
                best = merge_top_k(best, max_neighbors)
                least = _raise_least(least, best, query_ids[q], max_neighbors)
        found.append(best)
    return merge_top_k(Edges.concat(found), max_neighbors)


def top_k(
    queries: np.ndarray,
    base: np.ndarray,
    k: int,
    *,
    query_ids: np.ndarray,
    base_ids: np.ndarray,
    block_bytes: int = 256 << 20,
) -> Edges:
    """The `k` most similar base vectors of each query, however dissimilar; see `find_neighbors`."""
    return find_neighbors(
        queries,
        base,
        query_ids=query_ids,
        base_ids=base_ids,
        threshold=-np.inf,
        max_neighbors=k,
        block_bytes=block_bytes,
    )


def merge_top_k(edges: Edges, k: int | None) -> Edges:
    """Per query the `k` strongest edges (None: all), ties by image id; repeated pairs count once.

    Of a repeated (query, image) pair the highest similarity stays. Results of several lists or parts are
    merged by `merge_top_k(Edges.concat(parts), k)`.

    Returns:
        Edges in order of (query_id, similarity descending, image_id).
    """
    order = np.lexsort((-edges.similarity, edges.image_ids, edges.query_ids))
    edges = edges.take(order)
    repeated = (np.diff(edges.query_ids) == 0) & (np.diff(edges.image_ids) == 0)
    edges = edges.take(np.concatenate([np.ones(min(1, edges.num_edges), bool), ~repeated]))
    edges = edges.take(np.lexsort((edges.image_ids, -edges.similarity, edges.query_ids)))
    return edges if k is None else edges.take(rank_in_group(edges.query_ids) < k)


def rank_in_group(keys: np.ndarray) -> np.ndarray:
    """(E,) int64: position of each element within its run of equal `keys`, from 0; `keys` are sorted."""
    if len(keys) == 0:
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    lengths = np.diff(np.append(starts, len(keys)))
    return np.arange(len(keys), dtype=np.int64) - np.repeat(starts, lengths)


def _neighbors_in_block(
    queries: np.ndarray,
    base: np.ndarray,
    *,
    query_ids: np.ndarray,
    base_ids: np.ndarray,
    least: np.ndarray,
    max_neighbors: int | None,
) -> Edges:
    """Neighbours within one block; ties at the last place are all kept, for `merge_top_k` to decide by id."""
    similarity = np.minimum(queries @ base.T, np.float32(1))  # (q, b); rounding may exceed 1
    same = _same_id_pairs(query_ids, base_ids)
    similarity[same] = -np.inf
    keep = similarity >= least[:, None]
    if max_neighbors is not None and max_neighbors < len(base):
        crowded = np.flatnonzero(np.count_nonzero(keep, axis=1) > max_neighbors)
        rows = similarity[crowded]
        last = np.partition(rows, -max_neighbors, axis=1)[:, -max_neighbors]
        keep[crowded] &= rows >= last[:, None]
    keep[same] = False  # -inf is not below a threshold of -inf
    q, b = np.nonzero(keep)
    return Edges(query_ids[q], base_ids[b], similarity[q, b])


def _raise_least(least: np.ndarray, best: Edges, query_ids: np.ndarray, max_neighbors: int) -> np.ndarray:
    """Nothing below the last neighbour of a query that has enough can matter; equals can, by their ids."""
    last = rank_in_group(best.query_ids) == max_neighbors - 1
    by_id = np.argsort(query_ids)
    rows = by_id[np.searchsorted(query_ids, best.query_ids[last], sorter=by_id)]
    raised = least.copy()
    raised[rows] = best.similarity[last]
    return raised


def _same_id_pairs(query_ids: np.ndarray, base_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of queries and base that carry one id."""
    _, q, b = np.intersect1d(query_ids, base_ids, assume_unique=True, return_indices=True)
    return q, b


def _block_shape(num_queries: int, num_base: int, block_bytes: int) -> tuple[int, int]:
    """Rows of queries and of base per block: nearly square, since a product is fastest so."""
    pairs = max(1, block_bytes // BYTES_PER_PAIR)
    q = max(1, min(num_queries, isqrt(pairs)))
    b = max(1, min(num_base, pairs // q))
    return max(1, min(num_queries, pairs // b)), b


def _slices(total: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, total, step))


def _check_vectors(vectors: np.ndarray, ids: np.ndarray, name: str) -> None:
    if vectors.ndim != 2 or len(ids) != len(vectors):
        raise ValueError(f"{name}: shape {vectors.shape} with {len(ids)} ids; needed is (N, D) with N ids")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name}: NaN or infinite values; leave out the null rows before the search")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) < len(ids):
        raise ValueError(f"{name}: id {unique[counts.argmax()]} occurs {counts.max()} times; ids must differ")
