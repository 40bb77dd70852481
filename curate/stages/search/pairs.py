"""The true pairs of sampled queries, read for those who choose and those who judge."""

from typing import NamedTuple

import numpy as np

from curate.engine.table import Table
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack


class TruePairs(NamedTuple):
    """Pairs of a query and one of its true neighbors."""

    ids: np.ndarray
    """(E, 2) int64, query and image"""
    query: np.ndarray
    """(E, D) float32, unit L2"""
    image: np.ndarray
    """(E, D) float32, unit L2"""


def read_pairs(queries: Table, truth: Table, *, half: int) -> TruePairs:
    """The pairs of every other query in order of ids: half 0 chooses, half 1 judges."""
    rows, asked = truth.read_all(), queries.read_all()
    _, number = np.unique(rows["query_id"].to_numpy(), return_inverse=True)
    mine, spec = np.flatnonzero(number % 2 == half), VectorSpec.of(rows.schema)
    ids = np.stack([rows["query_id"].to_numpy()[mine], rows["image_id"].to_numpy()[mine]], axis=1)
    place = np.searchsorted(asked["image_id"].to_numpy(), ids[:, 0])
    query, image = unpack(asked["vector"], spec)[0][place], unpack(rows["vector"], spec)[0][mine]
    return TruePairs(ids, normalize(to_float32(query, spec)), normalize(to_float32(image, spec)))
