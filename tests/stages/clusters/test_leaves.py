"""Sizes of leaves, counted from the tables that tell them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.engine.finished import open_finished
from curate.engine.pipeline import Ref
from curate.ops.selection.draws import Draws
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.leaves import count_leaves, leaf_sizes, limit_rows, read_limits, selected_leaf_sizes
from curate.tables import ASSIGNMENTS
from tests.stages.clusters.clustered import clustered
from tests.stages.clusters.test_assign import EverySecond
from tests.stages.planted import make


def test_leaves_are_counted_in_the_parts_that_are_asked_for(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12,)))
    p.add("selection", EverySecond(), assignments=Ref("assignments", ASSIGNMENTS))
    make(p)
    table = p.store.table("assignments")
    leaves = [table.read(part)["cluster_id"].to_numpy() for part in range(4)]
    assert count_leaves(table, [1, 3]).tolist() == np.bincount(np.concatenate([leaves[1], leaves[3]])).tolist()
    run = open_finished(p.store, "toy", {}, p.steps)
    assert leaf_sizes(run, table).images.tolist() == count_leaves(table, [0, 1]).tolist()
    after = np.bincount(np.concatenate([leaves[part][::2] for part in (0, 1)]))
    assert selected_leaf_sizes(run, p.store.table("selection")).images.tolist() == after.tolist()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(-1, 9)), max_size=6))
def test_limits_are_read_as_they_were_written(groups: list[tuple[int, int, int]]) -> None:
    every, key, last = (np.array(column) for column in zip(*groups, strict=True)) if groups else [np.zeros(0, int)] * 3
    draws = Draws(every.astype(np.int32), key.astype(np.uint64), last.astype(np.int64))
    nothing = (draws.every == 0) & (draws.limit_id < 0)
    draws.limit_key[nothing] = 0
    state = pa.Table.from_batches([limit_rows("a", draws), limit_rows("b", draws)])
    for purpose in ("a", "b"):
        found = read_limits(state, purpose, len(groups))
        assert all((one == other).all() for one, other in zip(found, draws, strict=True))
