"""Tables of centroids as other stages read them: inverted lists of `FitLists`, clusters of `FitClusters`."""

import numpy as np
import pyarrow as pa

from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.ops.clusters.coarse import CoarseLists
from curate.ops.vectors import VectorSpec, normalize, pack, unpack


def read_centroids(centroids: Table, *, level: int = 0) -> np.ndarray:
    """(K, D) float32: the centroids of one level, by default of the lists or leaf clusters."""
    rows = centroids.read_all(["level", "centroid"])
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    return np.ascontiguousarray(vectors[rows["level"].to_numpy() == level])


def num_leaves(centroids: Table) -> int:
    """Inverted lists, or clusters of the lowest level."""
    return sum(int(np.count_nonzero(rows["level"].to_numpy() == 0)) for rows in centroids.scan(["level"]))


def read_parents(centroids: Table) -> list[np.ndarray]:
    """`parents[l]` (K_l,): node of level l+1 above each node of level l; see `cluster_paths`."""
    rows = centroids.read_all(["level", "parent_id"])
    levels, parents = rows["level"].to_numpy(), rows["parent_id"].fill_null(-1).to_numpy()
    return [parents[levels == level] for level in range(int(levels.max(initial=0)))]


def read_lists(centroids: Table) -> CoarseLists:
    """The centroids of inverted lists, and their groups where there are any."""
    rows = centroids.read_all()
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    leaf = rows["level"].to_numpy() == 0
    if leaf.all():
        return CoarseLists.flat(vectors)
    group = rows["parent_id"].combine_chunks().filter(pa.array(leaf)).to_numpy().astype(np.int32)
    return CoarseLists(normalize(vectors[leaf]), group, normalize(vectors[~leaf]))


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
