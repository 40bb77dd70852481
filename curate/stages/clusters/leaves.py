"""What retrieval and selection read of the clusters, part by part: sizes, and what is drawn of each leaf."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from curate.engine.store import Table
from curate.ops.selection.draws import Draws

LIMITS = pa.schema(
    [
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("every", pa.int32(), nullable=False),
        pa.field("limit_key", pa.uint64(), nullable=False),
        pa.field("limit_id", pa.int64(), nullable=False),
    ]
)
"""`ops.draws.Draws` as rows: a state of one row for each group that gives anything, whatever the number of images."""


def count_leaves(assignments: Table, numbers: Iterable[int]) -> np.ndarray:
    """(K,) int64: images of these parts in each leaf, K the largest leaf that occurs and one."""
    counts = np.zeros(0, np.int64)
    for number in numbers:
        leaf = assignments.read(number, ["cluster_id"])["cluster_id"].to_numpy()
        most = int(leaf.max(initial=-1)) + 1
        if most > len(counts):
            counts = np.pad(counts, (0, most - len(counts)))
        np.add.at(counts, leaf, 1)
    return counts


def num_leaves(centroids: Table) -> int:
    """Clusters of the lowest level."""
    return sum(int(np.count_nonzero(rows["level"].to_numpy() == 0)) for rows in centroids.scan(["level"]))


def limit_rows(purpose: str, draws: Draws) -> pa.RecordBatch:
    """The groups that give anything."""
    (group,) = np.nonzero((draws.every > 0) | (draws.limit_id >= 0))
    columns = [group.astype(np.int32), *(column[group] for column in draws)]
    names = pa.DictionaryArray.from_arrays(np.zeros(len(group), np.int32), [purpose]).cast(pa.string())
    return pa.RecordBatch.from_arrays([names, *map(pa.array, columns)], schema=LIMITS)


def read_limits(state: pa.Table, purpose: str, num_groups: int) -> Draws:
    """What `limit_rows` wrote, for groups 0..num_groups-1."""
    rows = state.filter(pa.compute.equal(state["purpose"], purpose))
    group = rows["group"].to_numpy()
    every, limit_key = np.zeros(num_groups, np.int32), np.zeros(num_groups, np.uint64)
    limit_id = np.full(num_groups, -1, np.int64)
    every[group], limit_key[group] = rows["every"].to_numpy(), rows["limit_key"].to_numpy()
    limit_id[group] = rows["limit_id"].to_numpy()
    return Draws(every, limit_key, limit_id)
