"""What each stage does to how much: its products, pixels, rows and bytes, from the laws of its own code.

A law holds for a stage class and says nothing of machines. Where data decide (how many copies there are, how large an
image is), it takes what the user assumes, see `Assumptions`.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from curate.config import Settings
from curate.engine.stage import Stage
from curate.models.backbones.load import describe
from curate.ops.images.hashes import DIHEDRAL, HASH_BYTES
from curate.scale.forward import forward_flops
from curate.stages.clusters.cluster import Assign, FitClusters
from curate.stages.clusters.screen import MeasureDensity, Screen
from curate.stages.copies.calibrate import CURVE_POINTS, PER_COPY, CalibrateCopies
from curate.stages.copies.copyspace import FitCopySpace, ProjectCopies
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.exact import FindExact
from curate.stages.copies.plant import PlantCopies
from curate.stages.copies.semdedup import DropSimilar, RankWithin
from curate.stages.copies.verify import FindCandidates, KeepNear, VerifyCopies
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.search.lists import AUTO_PROBES, MAX_SAMPLE, ROWS_PER_PART, SAMPLE_PER_LIST, BuildLists, FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.search.rank_neighbors import RankNeighbors
from curate.stages.search.truth import FindTruth, SampleQueries
from curate.stages.selection.describe import DescribeSet
from curate.stages.selection.match_queries import MatchQueries
from curate.stages.selection.retrieve import Retrieve
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards
from curate.tables import PICTURE_DIM

EDGE_BYTES = 24
"""Of an edge or another narrow row in a table."""
FACT_BYTES = 180
"""Of a row of `images`."""
PLACE_BYTES = 120
"""Of a row of `catalog`."""
SEEDING_PASSES = 8
"""Products of greedy k-means++ or k-means||, in Lloyd iterations."""
LISTS_SKEW = 2.0
"""Products of lists of uneven length, in those of even ones."""
GROUPS = 16
"""Groups of lists that a vector is compared with the lists of, about."""
JUDGED_BYTES = 26
"""Memory of an image in Deduplicate, see `ops/copies/duplicates.py`."""
EDITING = 4
"""Megapixels handled to edit, encode and prepare one of a copy."""
SPECTRUM = 20
"""Products of the eigenvalues of a matrix, in those of its square."""
PART_ROWS = 65_536
"""Images of a part, as recipes cut the catalog."""
EXACT_SHARE = 0.1
"""Of the images, those with the bytes of another."""
JUDGED_ROWS = 1
"""Rows sorted or joined in Deduplicate for each image and for each edge."""


class Assumptions(Settings):
    """What no law can know."""

    images: Annotated[int, Field(ge=1)]
    """Images of the pool."""
    curated: Annotated[int, Field(ge=0)] = 0
    """Images of the curated sets."""
    heldout: Annotated[int, Field(ge=0)] = 0
    """Images of the held-out sets."""
    kept: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the pool that deduplication keeps."""
    selected: Annotated[int, Field(ge=1)] | None = None
    """Images of the selection; None: as the config says, where it does."""
    image_bytes: Annotated[int, Field(ge=1)] = 100_000
    """Of an encoded image."""
    megapixels: Annotated[float, Field(gt=0)] = 0.35
    """Of an image; 0.35 have 512 pixels on the short side."""
    pairs: Annotated[float, Field(ge=0)] = 2.0
    """Pairs of copies that a search finds, for each image."""

    @property
    def kept_images(self) -> int:
        return round(self.kept * self.images)

    def asking(self, roles: tuple[str, ...]) -> int:
        """Images of these roles."""
        sizes = {"pool": self.images, "curated": self.curated, "heldout": self.heldout}
        return sum(sizes[role] for role in roles)


@dataclass(frozen=True)
class Demand:
    """What a stage does, in all its tasks together."""

    megapixels: float = 0
    """Read, decoded and resized."""
    rows: float = 0
    """Sorted, joined or drawn, in parallel."""
    pairs: float = 0
    """Of small pictures laid over each other."""
    forward: float = 0
    """flop through networks."""
    products: float = 0
    """flop in searches and k-means, in parallel."""
    serial_rows: float = 0
    """As `rows`, in one process."""
    serial_products: float = 0
    """As `products`, in one process."""
    read: float = 0
    """Bytes."""
    written: float = 0
    """Bytes that stay."""
    scratch: float = 0
    """Bytes that are written, and removed when the table is complete."""
    memory: float = 0
    """Bytes of the largest task, beside code and models."""
    tasks: float = 0
    note: str = ""

    @classmethod
    def sum(cls, demands: "list[Demand]") -> "Demand":
        """Of stages that work side by side, over the same parts."""
        names = [field.name for field in fields(cls) if field.name not in ("tasks", "note")]
        added = {name: sum(getattr(demand, name) for demand in demands) for name in names}
        return cls(**added, tasks=max(d.tasks for d in demands), note=", ".join(d.note for d in demands if d.note))


class Shape(NamedTuple):
    """What a later law needs of a table."""

    pool: float = 0
    """Rows of the pool, or all rows where roles do not matter."""
    curated: float = 0
    heldout: float = 0
    row_bytes: float = EDGE_BYTES
    dim: int = 0
    lists: int = 0
    homes: float = 0
    """Of the rows of lists, those that are stored and not only look in."""

    @property
    def rows(self) -> float:
        return self.pool + self.curated + self.heldout

    @property
    def num_bytes(self) -> float:
        return self.rows * self.row_bytes

    def of(self, roles: tuple[str, ...]) -> float:
        """Rows of these roles."""
        return sum(getattr(self, role) for role in roles)


Inputs = Mapping[str, Any]
"""Shapes by input; None: left out; a list where the stage takes many."""
Law = Callable[[Any, Inputs, Assumptions], tuple[Demand, Shape]]


def demand_of(stage: Stage, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    """What `stage` does, and the shape of its table; nothing, with a note, for a stage without a law."""
    law = next((LAWS[kind] for kind in type(stage).__mro__ if kind in LAWS), None)
    return law(stage, inputs, given) if law else (Demand(note="not estimated"), Shape())


def _catalog(stage: Catalog, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    made = Shape(given.images, given.curated, given.heldout, PLACE_BYTES)
    parts = math.ceil(made.rows / stage.rows_per_part)
    return Demand(serial_rows=made.rows, written=made.num_bytes, tasks=parts, memory=stage.rows_per_part * 1e3), made


def _inspect(stage: Inspect, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    made = inputs["catalog"]._replace(row_bytes=FACT_BYTES)
    return _with_reading(Demand(written=made.num_bytes), made.rows, given), made


def _with_reading(demand: Demand, images: float, given: Assumptions) -> Demand:
    """The same, and images read and decoded."""
    return replace(demand, megapixels=images * given.megapixels, read=demand.read + images * given.image_bytes)


def _embed(stage: Embed, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    """Within a pass; where it inspects, decoding is counted there."""
    info = describe(stage.model)
    row_bytes = 8 + info.dim * (2 if stage.dtype == "float16" else 4)
    all_of: Shape = inputs["catalog"]
    later = inputs.get("duplicates") is not None
    made = Shape(given.kept_images, given.curated, 0, row_bytes, info.dim) if later else all_of
    made = made._replace(row_bytes=row_bytes, dim=info.dim)
    demand = Demand(forward=made.rows * forward_flops(stage.model), written=made.num_bytes)
    return _with_reading(demand, made.rows, given) if later else demand, made


def _vectors(inputs: Inputs) -> Shape:
    """Of embeddings, or of the hashes in `images`."""
    if inputs.get("embeddings") is not None:
        shape: Shape = inputs["embeddings"]
        return shape
    hashes: Shape = inputs["hashes"]
    return hashes._replace(row_bytes=8 + HASH_BYTES, dim=8 * HASH_BYTES)


def _plant(stage: PlantCopies, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    images = min(stage.num_images, given.images)
    info, rows = describe(stage.embed.model), images * (1 + stage.copies_each)
    made = Shape(pool=rows, row_bytes=4 * info.dim + 4 * PICTURE_DIM, dim=info.dim)
    demand = Demand(forward=rows * forward_flops(stage.embed.model), written=made.num_bytes)
    edited = replace(demand, megapixels=EDITING * rows * given.megapixels, read=images * given.image_bytes)
    return edited, made


def _fit_space(stage: FitCopySpace, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors, planted = inputs["embeddings"], inputs["planted"]
    sample, dim = min(stage.num_images, vectors.pool), vectors.dim
    products = 2 * dim * dim * (2 * sample + planted.rows + SPECTRUM * dim)
    memory = 3 * sample * dim * 8
    made = Shape(pool=stage.dim, row_bytes=4 * dim, dim=dim)
    return Demand(serial_products=products, read=vectors.num_bytes, written=made.num_bytes, memory=memory), made


def _project(stage: ProjectCopies, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors: Shape = inputs["embeddings"]
    made = vectors._replace(row_bytes=8 + 2 * stage.dim, dim=stage.dim)
    products = 2 * vectors.rows * vectors.dim * stage.dim
    return Demand(products=products, read=vectors.num_bytes, written=made.num_bytes), made


def _calibrate(stage: CalibrateCopies, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors, asking = inputs["embeddings"], inputs["planted"].rows / 2
    found = asking * min(PER_COPY * vectors.rows / PART_ROWS, vectors.rows)
    products = 2 * asking * vectors.rows * vectors.dim
    made = Shape(pool=CURVE_POINTS)
    return Demand(products=products, pairs=found, read=vectors.num_bytes, scratch=found * 6), made


def _fit_lists(stage: FitLists, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors = _vectors(inputs)
    count = int(vectors.of(stage.homes))
    lists = stage.model_copy(update=stage.estimate(count)).num_lists
    assert isinstance(lists, int)
    sample = min(MAX_SAMPLE, lists * SAMPLE_PER_LIST, count)
    # In two levels: a group's vectors meet the lists of the group, so that all meet the square root of them twice.
    products = 2 * sample * 2 * math.sqrt(lists) * vectors.dim * (stage.num_iterations + SEEDING_PASSES)
    memory = 3 * sample * vectors.dim * 4
    made = Shape(pool=lists, row_bytes=4 * vectors.dim, dim=vectors.dim, lists=lists)
    return Demand(serial_products=products, read=vectors.num_bytes, written=made.num_bytes, memory=memory), made


def _sample_queries(stage: SampleQueries, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors = _vectors(inputs)
    count = min(stage.num_queries, vectors.of(stage.queries))
    return Demand(read=vectors.num_bytes), vectors._replace(pool=count, curated=0, heldout=0)


def _find_truth(stage: FindTruth, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors, queries = _vectors(inputs), inputs["queries"]
    forms = len(DIHEDRAL) if inputs.get("hashes") is not None and stage.dihedral else 1
    products = 2 * forms * queries.rows * vectors.of(stage.answers) * vectors.dim
    return Demand(products=products, read=vectors.num_bytes), queries


def _build_lists(stage: BuildLists, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors, lists = _vectors(inputs), inputs["centroids"].lists
    probes = min(lists, AUTO_PROBES if stage.num_probes == "auto" else stage.num_probes)
    forms = len(DIHEDRAL) if inputs.get("hashes") is not None and stage.dihedral else 1
    homes, asking = vectors.of(stage.homes), vectors.of(stage.probes)
    both = vectors.of(tuple(role for role in stage.probes if role in stage.homes))
    rows = homes + asking * probes * forms - both
    compared = min(lists, (1 + GROUPS) * math.sqrt(lists))
    made = Shape(pool=rows, row_bytes=vectors.row_bytes + 5, dim=vectors.dim, lists=lists, homes=homes)
    largest = max(ROWS_PER_PART, rows / max(1, lists)) * LISTS_SKEW
    return (
        Demand(
            products=2 * (homes + asking * forms) * compared * vectors.dim,
            rows=2 * rows,
            read=vectors.num_bytes + made.num_bytes,
            written=made.num_bytes,
            scratch=made.num_bytes,
            memory=largest * made.row_bytes * 3,
            tasks=math.ceil(rows / ROWS_PER_PART),
            note=f"{lists} lists, {probes} probes",
        ),
        made,
    )


def _find_neighbors(stage: FindNeighbors, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    lists: Shape = inputs["lists"]
    products = 2 * LISTS_SKEW * lists.rows * lists.homes / max(1, lists.lists) * lists.dim
    nearest = stage.threshold == -1
    asking = min(lists.rows, given.asking(stage.queries))
    found = asking * (stage.max_neighbors if nearest else given.pairs)
    made = Shape(pool=found)
    largest = max(ROWS_PER_PART, lists.rows / max(1, lists.lists)) * LISTS_SKEW
    memory = largest * (lists.row_bytes + 4 * lists.dim)
    tasks = math.ceil(lists.rows / ROWS_PER_PART)
    return Demand(products=products, read=lists.num_bytes, written=made.num_bytes, memory=memory, tasks=tasks), made


def _keep_near(stage: KeepNear, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    found: Shape = inputs["neighbors"]
    return Demand(rows=found.rows, read=found.num_bytes, written=found.num_bytes / 2), found._replace(
        pool=found.rows / 2
    )


def _find_candidates(stage: FindCandidates, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    found, pictures = inputs["neighbors"], inputs["pictures"]
    made = Shape(pool=found.rows / 2, row_bytes=EDGE_BYTES + pictures.row_bytes)
    read = 2 * found.num_bytes + pictures.num_bytes
    return Demand(rows=2 * found.rows, read=read, written=made.num_bytes, scratch=found.num_bytes), made


def _verify(stage: VerifyCopies, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    pairs, pictures = inputs["candidates"], inputs["pictures"]
    read = 2 * pairs.num_bytes + pictures.num_bytes
    made = Shape(pool=pairs.rows / 2)
    demand = Demand(pairs=pairs.rows, rows=pairs.rows, read=read, written=made.num_bytes, scratch=pairs.num_bytes)
    return demand, made


def _deduplicate(stage: Deduplicate, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    images, edges = inputs["images"], sum(table.rows for table in inputs["neighbors"])
    made = Shape(pool=given.images, row_bytes=50)
    return (
        Demand(
            serial_rows=JUDGED_ROWS * (images.rows + edges),
            read=images.rows * 40 + 3 * edges * EDGE_BYTES,
            written=made.num_bytes,
            scratch=made.num_bytes,
            memory=JUDGED_BYTES * images.rows,
            note="one process",
        ),
        made,
    )


def _find_exact(stage: FindExact, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    images: Shape = inputs["images"]
    hashed = images.rows * 40
    made = Shape(pool=images.rows * EXACT_SHARE)
    return Demand(rows=3 * images.rows, read=2 * hashed, written=made.num_bytes, scratch=hashed), made


def _fit_clusters(stage: FitClusters, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors: Shape = inputs["embeddings"]
    count = vectors.of(stage.roles)
    levels = stage.model_copy(update=stage.estimate(int(count))).levels
    assert not isinstance(levels, str)
    sample = min(count, levels[0] * stage.max_points_per_cluster, stage.sample_bytes // (4 * vectors.dim))
    above = sum(2 * a * b for a, b in itertools.pairwise(levels)) * (1 + stage.num_resamplings)
    once = 2 * sample * levels[0] * vectors.dim
    passes = stage.num_iterations if stage.fit == "all" else 0
    made = Shape(pool=sum(levels), row_bytes=4 * vectors.dim + 40, dim=vectors.dim, lists=levels[0])
    return (
        Demand(
            serial_products=once * (stage.num_iterations + SEEDING_PASSES) + above * vectors.dim * stage.num_iterations,
            products=passes * 2 * count * levels[0] * vectors.dim,
            read=(1 + passes) * vectors.num_bytes,
            written=made.num_bytes,
            scratch=passes and stage.num_groups * levels[0] * vectors.dim * 8,
            memory=sample * vectors.dim * 4 + levels[0] * vectors.dim * 60,
            note=f"{levels[0]} leaves on {sample:.3g} images",
        ),
        made,
    )


def _assign(stage: Assign, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors, leaves = inputs["embeddings"], inputs["centroids"].lists
    made = vectors._replace(row_bytes=16)
    products = 2 * vectors.rows * leaves * vectors.dim
    return Demand(
        products=products, read=vectors.num_bytes, written=made.num_bytes, memory=leaves * vectors.dim * 8
    ), made


def _rank_neighbors(stage: RankNeighbors, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    found: Shape = inputs["neighbors"]
    made = Shape(pool=min(found.rows, given.curated * stage.k))
    read = found.num_bytes * 2
    return Demand(rows=3 * found.rows, read=read, written=made.num_bytes, scratch=found.num_bytes), made


def _match(stage: MatchQueries, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    found: Shape = inputs["nearest"]
    memory = 120 * found.rows
    made = Shape(pool=given.curated * stage.sample.largest_k)
    return Demand(serial_rows=4 * found.rows, read=found.num_bytes, written=made.num_bytes, memory=memory), made


def _retrieve(stage: Retrieve, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    leaves, near = inputs["assignments"], inputs.get("nearest")
    made = Shape(pool=max(given.curated, near.rows if near is not None else 0), row_bytes=60)
    made = made._replace(pool=min(made.pool * 2, leaves.rows))
    rows = 2 * leaves.rows + (near.rows if near is not None else 0)
    memory = stage.max_bytes
    return Demand(rows=rows, read=2 * leaves.num_bytes, written=made.num_bytes, memory=memory), made


def _select(stage: Select, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    kept, found = given.kept_images + given.curated, inputs.get("retrieved")
    chosen: float = kept
    if stage.mix is not None and stage.mix.total is not None:
        chosen = stage.mix.total
    elif stage.balance is not None:
        chosen = 0.75 * kept if stage.balance.target == "auto" else stage.balance.target
    elif found is not None:
        chosen = min(kept, found.rows + given.curated)
    made = Shape(pool=given.selected or chosen, row_bytes=60)
    passes = 3 if inputs.get("assignments") is not None else 1
    memory = stage.max_bytes if passes > 1 else 0
    return Demand(rows=passes * kept, read=passes * kept * EDGE_BYTES, written=made.num_bytes, memory=memory), made


def _describe_set(stage: DescribeSet, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    vectors: Shape = inputs["embeddings"]
    asking = stage.num_samples if given.curated else 0
    products = 2 * vectors.rows * asking * vectors.dim
    return Demand(serial_products=products, serial_rows=vectors.rows, read=3 * vectors.num_bytes), Shape()


def _density(stage: MeasureDensity, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    found: Shape = inputs["neighbors"]
    made = Shape(pool=given.kept_images, row_bytes=12)
    read = 2 * found.num_bytes
    return Demand(rows=2 * found.rows, read=read, written=made.num_bytes, scratch=found.num_bytes / 2), made


def _screen(stage: Screen, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    density, leaves = inputs["density"], inputs["assignments"]
    made = density._replace(row_bytes=17)
    return Demand(rows=2 * density.rows, read=2 * leaves.num_bytes, written=made.num_bytes), made


def _rank_within(stage: RankWithin, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    lists: Shape = inputs["lists"]
    products = 2 * LISTS_SKEW * lists.rows * lists.rows / max(1, lists.lists) * lists.dim
    made = Shape(pool=lists.rows, row_bytes=32)
    return Demand(products=products, rows=lists.rows, read=lists.num_bytes, written=made.num_bytes), made


def _drop_similar(stage: DropSimilar, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    made = Shape(pool=given.images, row_bytes=40)
    return Demand(rows=3 * made.rows, read=2 * made.num_bytes, written=made.num_bytes, scratch=made.num_bytes), made


def _write(stage: WriteShards, inputs: Inputs, given: Assumptions) -> tuple[Demand, Shape]:
    rows = inputs["selection"].rows
    size = rows * given.image_bytes
    shards = math.ceil(size / stage.shard_bytes)
    demand = Demand(
        rows=2 * rows, read=2 * size, written=size, scratch=size, memory=3 * stage.shard_bytes, tasks=shards
    )
    return demand, Shape(pool=rows, row_bytes=given.image_bytes)


LAWS: dict[type[Stage], Law] = {
    Catalog: _catalog,
    Inspect: _inspect,
    Embed: _embed,
    PlantCopies: _plant,
    FitCopySpace: _fit_space,
    ProjectCopies: _project,
    CalibrateCopies: _calibrate,
    FitLists: _fit_lists,
    SampleQueries: _sample_queries,
    FindTruth: _find_truth,
    BuildLists: _build_lists,
    FindNeighbors: _find_neighbors,
    KeepNear: _keep_near,
    FindCandidates: _find_candidates,
    VerifyCopies: _verify,
    FindExact: _find_exact,
    Deduplicate: _deduplicate,
    FitClusters: _fit_clusters,
    Assign: _assign,
    RankNeighbors: _rank_neighbors,
    MatchQueries: _match,
    Retrieve: _retrieve,
    Select: _select,
    DescribeSet: _describe_set,
    MeasureDensity: _density,
    Screen: _screen,
    RankWithin: _rank_within,
    DropSimilar: _drop_similar,
    WriteShards: _write,
}
"""By class of the stage."""
