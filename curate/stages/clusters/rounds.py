"""What the rounds of FitClusters write and read: a sample, sums of groups of parts, and the leaves so far.

Lloyd over all images needs only K sums of vectors and K sizes from each part. A task adds up those of a group of parts
in float64 and writes them; the next task adds up the groups in their order. So the centroids do not depend on how many
workers there are or which was first, and a killed run goes on from the leaves of the last finished round.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.stage import Batches
from curate.engine.table import Table
from curate.ops.blocks import blocks
from curate.ops.clusters.guide import Guide, build_guide
from curate.ops.clusters.hierarchy import Nodes, TreeLevel
from curate.ops.clusters.kmeans import Sums
from curate.ops.vectors import VectorSpec, normalize, pack, unpack

SUMS_ROWS = 4096
"""Clusters whose sums are packed or read at once."""


def read_leaves(state: pa.Table) -> Nodes:
    """The leaves that a round left."""
    rows = state.filter(pc.equal(state["level"], 0))
    centroids, _ = unpack(rows["centroid"], VectorSpec.of(state.schema))
    return Nodes(np.ascontiguousarray(centroids), rows["num_images"].to_numpy(), rows["inertia"].to_numpy())


def read_sample(partials: Table, spec: VectorSpec) -> np.ndarray:
    """(N, D) float32 of unit norm: every sampled vector, read piece by piece into one array."""
    numbers = sorted(partials.committed())
    rows = [footer.rows for number in numbers if (footer := partials.footer(number))]
    x = np.empty((sum(rows), spec.dim), np.float32)
    for number, stop in zip(numbers, np.cumsum(rows), strict=True):
        piece, _ = unpack(partials.read(number)["vector"], VectorSpec("float32", spec.dim, spec.model, spec.weights))
        x[stop - len(piece) : stop] = normalize(piece)
    return x


def sums_schema(dim: int) -> pa.Schema:
    """Schema of what a group of parts adds to a round; clusters that none of its images is nearest to are left out."""
    fields = [("cluster_id", pa.int32()), ("sum", pa.binary(8 * dim)), ("size", pa.int64()), ("inertia", pa.float64())]
    return pa.schema(fields)


def sums_rows(total: Sums) -> Batches:
    """The sums of a group of parts as rows, some clusters at a time."""
    present = np.flatnonzero(total.sizes)
    for rows in blocks(len(present), SUMS_ROWS):
        some = present[rows]
        columns = [
            pa.array(some.astype(np.int32)),
            pack(total.sums[some]),
            pa.array(total.sizes[some]),
            pa.array(total.inertias[some]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=sums_schema(total.sums.shape[1]))


def read_sums(partials: Table, num_leaves: int, dim: int) -> Sums:
    """The sums of all groups, added in their order, so that the total is the same wherever they were made."""
    total = Sums.zero(num_leaves, dim)
    for number in sorted(partials.committed()):
        with partials.open(number) as file:
            for group in range(file.num_row_groups):  # of which one at a time is fetched
                for batch in file.iter_batches(SUMS_ROWS, row_groups=[group]):
                    sums = np.frombuffer(batch["sum"].buffers()[1], np.float64)
                    rows = sums.reshape(-1, dim)[batch["sum"].offset :][: len(batch)]
                    ids, sizes, inertias = (batch[name].to_numpy() for name in ("cluster_id", "size", "inertia"))
                    total.add(rows, sizes, inertias, ids)
    return total


def sorted_by_group(leaves: Nodes, *, seed: int) -> tuple[Nodes, Guide]:
    """Leaves in the order of their groups, and the groups; where they are few, as they are and none."""
    guide = build_guide(leaves.centroids, seed=seed)
    if not guide:
        return leaves, guide
    order = np.argsort(guide[0].member, kind="stable")
    first = guide[0]._replace(member=guide[0].member[order])
    return Nodes(*(column[order] for column in leaves)), (first, *guide[1:])


def state_rows(leaves: Nodes, guide: Guide, schema: pa.Schema, *, iteration: int, finished: bool) -> Batches:
    """Leaves and groups as rows of the state that a round leaves.

    Args:
        iteration: Lloyd iterations over all images so far.
    """
    count = len(leaves.centroids)
    top = TreeLevel(leaves.centroids, np.full(count, -1, np.int32), leaves.num_images, leaves.inertia)
    for rows in (level_rows(top, 0, guide, schema), *guide_rows(leaves, guide, schema)):
        rounds = [pa.array(np.full(len(rows), iteration, np.int32)), pa.array(np.full(len(rows), finished))]
        yield pa.RecordBatch.from_arrays([*rows.columns, *rounds], schema=schema)


def level_rows(level: TreeLevel, number: int, guide: Guide, schema: pa.Schema) -> pa.RecordBatch:
    """A level of the tree as rows of the table of centroids; number 0 are the leaves, which have groups."""
    return _rows(level, number, guide[0].member if guide and number == 0 else None, schema)


def guide_rows(leaves: Nodes, guide: Guide, schema: pa.Schema) -> Batches:
    """The groups of leaves as rows, below the leaves: level -1, and so on."""
    sizes = leaves.num_images
    for depth, groups in enumerate(guide, start=1):
        count = len(groups.centroids)
        sizes = np.bincount(groups.member, weights=sizes, minlength=count)
        above = guide[depth].member if depth < len(guide) else None
        yield _rows(TreeLevel(groups.centroids, np.full(count, -1), sizes, np.zeros(count)), -depth, above, schema)


def _rows(level: TreeLevel, number: int, group: np.ndarray | None, schema: pa.Schema) -> pa.RecordBatch:
    count = len(level.centroids)
    columns = [
        pa.array(np.full(count, number, np.int16)),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.array(level.parent.astype(np.int32), mask=level.parent < 0),
        pack(level.centroids.astype(np.float32)),
        pa.array(level.num_images.astype(np.int64)),
        pa.array(level.inertia.astype(np.float64)),
        pa.nulls(count, pa.int32()) if group is None else pa.array(group.astype(np.int32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(list(schema)[: len(columns)], schema.metadata))
