"""Edges of a k-nearest-neighbor graph: pairs of a query and an image with their cosine, merged and cut."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Edges(NamedTuple):
    """Directed pairs (query, image) with their cosine."""

    query_ids: np.ndarray
    """(E,) int64"""
    image_ids: np.ndarray
    """(E,) int64"""
    similarity: np.ndarray
    """(E,) float32, cosine"""

    @property
    def num_edges(self) -> int:
        """How many pairs there are."""
        return len(self.query_ids)

    def take(self, rows: np.ndarray) -> "Edges":
        """The edges at `rows`: (M,) int64 positions, or an (E,) bool mask."""
        return Edges(self.query_ids[rows], self.image_ids[rows], self.similarity[rows])

    def named(self, query_ids: np.ndarray, image_ids: np.ndarray) -> "Edges":
        """The edges between positions as edges between the ids at these positions."""
        return Edges(query_ids[self.query_ids], image_ids[self.image_ids], self.similarity)

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


def merge_top_k(edges: Edges, k: int | None) -> Edges:
    """Keep the `k` strongest edges of each query (None: all), ties by image id; repeated pairs count once.

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
