"""Assign: the leaf cluster of every embedded image."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import Execution
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import by_process, one_process
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace, pick
from curate.engine.numbers import count, plural
from curate.engine.show import LIST_KEPT, Beside, Block, Blocks, Heading, Section, Text, gallery
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.clusters.assign import LeafSearch
from curate.ops.clusters.balance import size_figures
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.guide import products_guided
from curate.ops.clusters.nearest import find_nearest
from curate.ops.vectors import VectorSpec, normalize, unpack
from curate.stages.clusters.leaves import count_leaves, leaf_sizes, selected_leaf_sizes
from curate.stages.clusters.levels import SizeFigures, images_section
from curate.stages.search.centroids import is_guided, num_leaves, read_guide, scan_leaves
from curate.tables import ASSIGNMENTS, CENTROIDS, SELECTION, VECTORS

ASSIGNED_BYTES = ID_BYTES + 6
"""Bytes of a row."""
NUM_BIGGEST, NUM_RANDOM = 3, 5
"""Clusters that the report shows: the largest ones, and random others."""
COMPARED = 1024
"""Images that are compared with all leaves, to tell how often the nearest one was found."""
TRUSTED = 0.99
"""Share of them below which the report warns."""
SHOWN = 36
"""Pictures nearest to the centroid of a cluster, and as many random ones."""


class AssignFigures(Figures):
    """Figures of the assigned images."""

    leaves: SizeFigures
    """Sizes of the leaf clusters, all images counted."""
    agreement: float | None = None
    """Share, 0..1, of some images whose leaf is the nearest of all leaves; null: each was compared with all of them."""


class Assign(Map):
    """The leaf cluster of every embedded image: its nearest centroid, where they are many found by their groups.

    Memory: K x D x 8 bytes, read once by a process and kept for its next parts.
    """

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "centroids": whole(CENTROIDS)}
    explained_as: ClassVar[str] = "cluster"
    version: ClassVar[int] = 2

    spherical: bool = True
    """Nearest by cosine, else by squared L2; as the clusters were fitted."""
    device: Annotated[Device, Execution()] = "cpu"
    """Where the nearest centroids are searched; cuda needs the extra `gpu`."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ASSIGNMENTS

    def run(self, part: int, *, embeddings: pa.Table, centroids: Table) -> Batches:
        vectors, rows = unpack(embeddings["vector"], VectorSpec.of(embeddings.schema))
        cluster_id, similarity = self._search(centroids).assign(vectors.astype(np.float32))
        ids = embeddings["image_id"].to_numpy()[rows]
        columns = [ids, cluster_id.astype(np.int32), similarity.astype(np.float32)]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=ASSIGNMENTS)

    def _search(self, centroids: Table) -> LeafSearch:
        content = tuple(part.content for part in centroids.parts())
        return _leaf_search(centroids.store.address, centroids.name, content, self.spherical, self.device)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> AssignFigures:
        sizes = count_leaves(table, [part.number for part in table.parts()])
        leaves = SizeFigures(**size_figures(sizes, num_leaves(inputs["centroids"])))
        return AssignFigures(leaves=leaves, agreement=self._agreement(table, **inputs))

    def _agreement(self, table: Table, *, embeddings: Table, centroids: Table) -> float | None:
        """Share of some images of the largest part whose leaf is the nearest of all; None: each met all leaves.

        Centroids are read some at a time, so that memory does not grow with their number.
        """
        if len(sizes := [(part.rows, -part.number) for part in table.parts()]) == 0 or not is_guided(centroids):
            return None
        part = -max(sizes)[1]
        vectors, _ = unpack(embeddings.read(part, ["vector"])["vector"], VectorSpec.of(embeddings.schema()))
        some = np.linspace(0, len(vectors) - 1, min(COMPARED, len(vectors))).astype(int)
        x = vectors[some].astype(np.float32)
        found = table.read(part, ["cluster_id"])["cluster_id"].to_numpy()[some]
        best, nearest = np.full(len(x), -np.inf, np.float32), np.full(len(x), -1)
        for first, leaves in scan_leaves(centroids):
            unit = normalize(leaves) if self.spherical else leaves
            leaf, score = find_nearest(x, unit, spherical=self.spherical)
            score = score if self.spherical else -score
            closer = score > best
            best[closer], nearest[closer] = score[closer], first + leaf[closer]
        return float((nearest == found).mean()) if len(x) else None

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, leaves = inputs["embeddings"], inputs["centroids"].lists
        made = vectors._replace(row_bytes=ASSIGNED_BYTES, columns=3, lists=leaves)
        demand = Demand(
            products=2 * vectors.rows * products_guided(leaves, self.device) * vectors.dim,
            written=made.num_bytes,
            memory=leaves * vectors.dim * 8,
        )
        counted = one_process([made.scanned(share=4 / ASSIGNED_BYTES)])  # leaves, for their sizes
        return Demand.phases([demand, by_process([inputs["centroids"].scanned()]), counted]), made

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        agreement = AssignFigures.of(table).agreement
        if agreement is not None and agreement < TRUSTED:
            yield (
                f"{table.name}: of {COMPARED} images {agreement:.1%} are in the leaf nearest to them; the groups of "
                "leaves by which it was searched fit these vectors badly"
            )

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        for tree in run.inputs_of(table, "centroids"):
            yield images_section(tree.name, f"leaves in {table.name}, all images", AssignFigures.of(table).leaves)
        examples = tuple(_examples(table, run))
        if examples:
            yield Section("Clusters", examples)

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            yield f"{row['cluster_id']}, similarity {row['similarity']:.4f} to its centroid"


@lru_cache(maxsize=1)
def _leaf_search(root: str, name: str, content: tuple[str, ...], spherical: bool, device: Device) -> LeafSearch:
    """The search among the leaves of a table with this content: read once by a process, not once a part."""
    rows = Store(root).table(name).read_all()
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    leaves = np.ascontiguousarray(vectors[rows["level"].to_numpy() == 0])
    return LeafSearch(leaves, read_guide(rows), spherical=spherical, device=device)


def _examples(table: Table, run: Finished) -> Iterator[Block]:
    """Pictures of the largest clusters of the pool, and of random others."""
    sample = run.sample(table, ["image_id", "cluster_id", "similarity"], role="pool")
    rows = sample.rows.sort_by([("cluster_id", "ascending"), ("similarity", "descending"), ("image_id", "ascending")])
    sizes, selected = leaf_sizes(run, table).images, _selected(table, run)
    if len(sizes) == 0:
        return
    order = np.argsort(-sizes, kind="stable")
    others = np.sort(order[NUM_BIGGEST:][sizes[order[NUM_BIGGEST:]] > 0])
    chosen = np.concatenate([order[:NUM_BIGGEST], pick(others, NUM_RANDOM, run.rng("clusters"))])
    yield Text(f"The {min(NUM_BIGGEST, len(order))} largest clusters, then random ones. {sample.note}".rstrip())
    for cluster in chosen.tolist():
        after = "" if selected is None else f", {count(int(selected[cluster : cluster + 1].sum()))} selected"
        yield Heading(f"Cluster {cluster}: {plural(int(sizes[cluster]), 'image')}{after}")
        mine = rows.filter(pc.equal(rows["cluster_id"], cluster))["image_id"].to_numpy()
        yield _pictures(mine, run, cluster, int(sizes[cluster]))


def _pictures(image_ids: np.ndarray, run: Finished, cluster: int, size: int) -> Beside:
    """Pictures of a cluster whose images are given in order of falling similarity to the centroid."""
    columns: list[Blocks] = [(Text("Nearest to the centroid"), gallery(image_ids[:SHOWN]))]
    random = pick(image_ids[SHOWN:], SHOWN, run.rng(f"cluster {cluster}"))
    if len(random):
        columns.append((Text("Random others"), gallery(random, total=size - SHOWN, rest=LIST_KEPT)))
    return Beside(tuple(columns), wide=True)


def _selected(table: Table, run: Finished) -> np.ndarray | None:
    """(K,) images selected from each leaf; None: nothing was selected from these clusters yet.

    Selection is a later stage: its table is known by what it read, and by its columns.
    """
    for _, other in run.tables:
        read = [assignments.name for assignments in run.inputs_of(other, "assignments")]
        if table.name in read and other.schema().names == SELECTION.names:
            return selected_leaf_sizes(run, other).images
    return None
