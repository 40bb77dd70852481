"""Tables of centroids as other stages read them: inverted lists of `FitLists`, clusters of `FitClusters`."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.ops.clusters.coarse import CoarseLists
from curate.ops.clusters.guide import Groups, Guide
from curate.ops.vectors import VectorSpec, normalize, pack, unpack

SCANNED_ROWS = 16_384
"""Centroids that are held at once where they are read some at a time."""


def read_centroids(centroids: Table, *, level: int = 0) -> np.ndarray:
    """(K, D) float32: the centroids of one level, by default of the lists or leaf clusters."""
    rows = centroids.read_all(["level", "centroid"])
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    return np.ascontiguousarray(vectors[rows["level"].to_numpy() == level])


def is_guided(centroids: Table) -> bool:
    """Whether the leaves have groups by which they are searched."""
    return any(pc.min(rows["level"]).as_py() < 0 for rows in centroids.scan(["level"]) if len(rows))


def scan_leaves(centroids: Table) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, (K, D) float32 centroids) of some leaves at a time, in their order."""
    first = 0
    for part in centroids.parts():
        with centroids.open(part.number) as file:
            spec = VectorSpec.of(file.schema_arrow)
            for batch in file.iter_batches(SCANNED_ROWS, columns=["level", "centroid"]):
                vectors, _ = unpack(batch["centroid"], spec)
                leaves = vectors[batch["level"].to_numpy() == 0]
                if len(leaves):
                    yield first, np.ascontiguousarray(leaves)
                first += len(leaves)


def num_leaves(centroids: Table) -> int:
    """Inverted lists, or clusters of the lowest level."""
    return sum(int(np.count_nonzero(rows["level"].to_numpy() == 0)) for rows in centroids.scan(["level"]))


def read_parents(centroids: Table) -> list[np.ndarray]:
    """`parents[l]` (K_l,): node of level l+1 above each node of level l; see `cluster_paths`."""
    rows = centroids.read_all(["level", "parent_id"])
    levels, parents = rows["level"].to_numpy(), rows["parent_id"].fill_null(-1).to_numpy()
    return [parents[levels == level] for level in range(int(levels.max(initial=0)))]


def read_lists(centroids: Table) -> CoarseLists:
    """The centroids of inverted lists, and their groups where there are any; clusters taken as lists have theirs."""
    return lists_of(centroids.read_all())


def lists_of(rows: pa.Table) -> CoarseLists:
    """The same, from all rows of the table."""
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    level = rows["level"].to_numpy()
    leaf, of_groups = level == 0, level == (-1 if "group_id" in rows.schema.names else 1)
    if not of_groups.any():
        return CoarseLists.flat(vectors[leaf])
    column = rows["group_id" if "group_id" in rows.schema.names else "parent_id"]
    group = column.combine_chunks().filter(pa.array(leaf)).to_numpy().astype(np.int32)
    return CoarseLists(normalize(vectors[leaf]), group, normalize(vectors[of_groups]))


def read_guide(rows: pa.Table) -> Guide:
    """The groups of leaf clusters, from the rows of a table of clusters or of the state that it is made of."""
    if "group_id" not in rows.schema.names:
        return ()
    level, found = rows["level"].to_numpy(), []
    for depth in range(1, 1 - int(level.min(initial=0))):
        below, own = rows.filter(pa.array(level == 1 - depth)), rows.filter(pa.array(level == -depth))
        vectors, _ = unpack(own["centroid"], VectorSpec.of(rows.schema))
        found.append(Groups(np.ascontiguousarray(vectors), below["group_id"].to_numpy()))
    return tuple(found)


def list_rows(lists: CoarseLists, sizes: np.ndarray, schema: pa.Schema) -> Batches:
    """Rows that `read_lists` reads: the lists, then their groups.

    Args:
        sizes: (K,) vectors of the fitting sample in each list.
    """
    grouped = len(lists.group) > 0
    parents = pa.array(lists.group, pa.int32()) if grouped else pa.nulls(len(sizes), pa.int32())
    levels = [(lists.centroids, parents, sizes)]
    if grouped:
        in_group = np.bincount(lists.group, weights=sizes, minlength=len(lists.group_centroids))
        levels.append((lists.group_centroids, pa.nulls(len(lists.group_centroids), pa.int32()), in_group))
    for level, (centroids, parent, members) in enumerate(levels):
        columns = [
            pa.array(np.full(len(centroids), level, np.int16)),
            pa.array(np.arange(len(centroids), dtype=np.int32)),
            parent,
            pack(centroids),
            pa.array(members.astype(np.int64)),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
