"""How strong the evidence of an edge is, as one integer, so that the strongest edge is a largest number."""

import numpy as np

from curate.ops.copies.graph import CopyEdges
from curate.ops.float_order import from_ordered_integers, to_ordered_integers

STRENGTH_BITS = 35
"""Bits that `strength` uses."""


def strength(edges: CopyEdges) -> np.ndarray:
    """(E,) uint64 > 0 that ascend with the strength of evidence: 32 bits of similarity, then 3 of the kind."""
    ordered = to_ordered_integers(edges.similarity)
    return (ordered.astype(np.uint64) << np.uint64(3)) | (7 - edges.kind).astype(np.uint64)


def similarity_and_kind(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `strength` packed, bits above it aside; NaN and -1 for a key of 0."""
    values = from_ordered_integers((keys >> np.uint64(3)).astype(np.uint32))
    similarity = np.where(keys == 0, np.float32(np.nan), values)
    kind = np.where(keys == 0, -1, 7 - (keys & np.uint64(7)).astype(np.int64))
    return similarity.astype(np.float32), kind.astype(np.int8)
