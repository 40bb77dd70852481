"""The true pairs of sampled queries, read for those who choose and those who judge; the recall that they measure."""

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from curate.engine.figures import Figures
from curate.engine.table import Table
from curate.ops.copies.components import connected_components
from curate.ops.search.recall import recall
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack


class TruePairs(NamedTuple):
    """Pairs of a query and one of its true neighbors."""

    ids: np.ndarray
    """(E, 2) int64, query and image"""
    query: np.ndarray
    """(E, D) float32, unit L2"""
    image: np.ndarray
    """(E, D) float32, unit L2"""


class RecallFigures(Figures):
    """How many of the true pairs a search has found."""

    recall: float | None = None
    """Share of the true pairs that were found, 0..1; null: none are known."""
    recall_stderr: float | None = None
    """Standard error of the recall; null: none is known."""
    recall_pairs: int = 0
    """True pairs that were looked for."""


def read_pairs(queries: Table, truth: Table, *, half: int) -> TruePairs:
    """The pairs of every other query in order of ids: half 0 chooses, half 1 judges."""
    rows, asked = truth.read_all(), queries.read_all()
    _, number = np.unique(rows["query_id"].to_numpy(), return_inverse=True)
    mine, spec = np.flatnonzero(number % 2 == half), VectorSpec.of(rows.schema)
    ids = np.stack([rows["query_id"].to_numpy()[mine], rows["image_id"].to_numpy()[mine]], axis=1)
    place = np.searchsorted(asked["image_id"].to_numpy(), ids[:, 0])
    query, image = unpack(asked["vector"], spec)[0][place], unpack(rows["vector"], spec)[0][mine]
    return TruePairs(ids, normalize(to_float32(query, spec)), normalize(to_float32(image, spec)))


def measured_recall(queries: Table, truth: Table, neighbors: Table, *, both_ways: bool) -> RecallFigures:
    """Share of the true pairs of the judging half that a table of neighbors holds, with its standard error.

    Images that edges of similarity 1 tie together count as one: FindNeighbors lets the first stand for all of them.

    Args:
        both_ways: either image of a pair may have found the other.
    """
    wanted = read_pairs(queries, truth, half=1).ids
    if len(wanted) == 0:
        return RecallFigures()
    members, group = _identical(neighbors, np.unique(wanted))
    found = [np.stack([np.unique(group)] * 2, axis=1)]  # an image and its equal are a pair that the tie has found
    for rows in neighbors.scan(["query_id", "image_id"]):
        pairs = np.stack([rows["query_id"].to_numpy(), rows["image_id"].to_numpy()], axis=1)
        found.append(group[np.searchsorted(members, pairs[np.isin(pairs, members).all(axis=1)])])
    pairs = np.concatenate(found)
    if both_ways:
        wanted, pairs = np.unique(np.sort(wanted, axis=1), axis=0), np.sort(pairs, axis=1)
    standing = group[np.searchsorted(members, wanted)]
    share, error = recall(np.sort(standing, axis=1) if both_ways else standing, pairs)
    return RecallFigures(recall=round(share, 5), recall_stderr=round(error, 5), recall_pairs=len(wanted))


def _identical(neighbors: Table, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images that edges of similarity 1 reach from `ids`, (M,) int64 ascending, and the group of each, (M,) int64."""
    while True:
        ties = [np.empty((0, 2), np.int64)]
        for rows in neighbors.scan(["query_id", "image_id", "similarity"]):
            equal = rows.filter(pc.greater_equal(rows["similarity"], 1.0))
            pairs = np.stack([equal["query_id"].to_numpy(), equal["image_id"].to_numpy()], axis=1)
            ties.append(pairs[np.isin(pairs, ids).any(axis=1)])
        reached = np.union1d(ids, np.concatenate(ties))
        if len(reached) == len(ids):
            rows, cols = np.searchsorted(ids, np.concatenate(ties)).T
            return ids, connected_components(len(ids), rows, cols)
        ids = reached
