"""What later stages and the report read of the leaf clusters: their sizes, and what is drawn of each."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from curate.engine.finished import Finished
from curate.engine.table import Table
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
"""`Draws` as rows: a state of one row for each group from which anything is drawn, whatever the number of images."""


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


class LeafSizes(NamedTuple):
    """Images of the pool in each leaf cluster, as far as sampled rows tell; for the report."""

    images: np.ndarray
    """(K,) int64, K the largest leaf that occurs, and one"""
    note: str
    """What to say where only a sample was counted."""


def leaf_sizes(run: Finished, assignments: Table) -> LeafSizes:
    """Sizes of the leaves before a selection: images of the pool that were assigned to them."""
    sample = run.sample(assignments, ["cluster_id"], role="pool")
    return LeafSizes(np.bincount(sample.rows["cluster_id"].to_numpy()), sample.note)


def selected_leaf_sizes(run: Finished, selection: Table) -> LeafSizes:
    """Sizes of the leaves after a selection: images of the pool that were selected from them."""
    sample = run.sample(selection, ["clusters"], role="pool")
    return LeafSizes(np.bincount(_last_steps(sample.rows["clusters"].combine_chunks())), sample.note)


def _last_steps(paths: pa.ListArray) -> np.ndarray:
    """The leaf of each cluster path: its last step; paths without a step are left out."""
    offsets = paths.offsets.to_numpy()
    last: np.ndarray = paths.values.to_numpy()[offsets[1:][np.diff(offsets) > 0] - 1]
    return last


def limit_rows(purpose: str, draws: Draws) -> pa.RecordBatch:
    """A row for each group from which anything is drawn, under the name of a purpose."""
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
