"""FitClusters: k-means over the pool's embeddings, flat or as a tree.

The vectors of a large pool do not fit into memory, and k-means needs all of them several times. So it begins with a
sample that does fit: some hundred images for each leaf move the centroids nearly as far as all would. Where leaves are
so many that their sample does not fit, or would take long to compare with all of them, they come from `FitLeaves`,
which splits few cells into many leaves, task by task. Where a sample is not enough (`fit: all`), Lloyd goes on over all
images in rounds. In each, tasks sum up the images nearest to each centroid, group of parts by group of parts, and one
task moves the centroids (`rounds.py`). The levels above the leaves are clusters of centroids, which are few enough for
one process; resampling keeps them from crowding where images are many (`ops/clusters/hierarchy.py`).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.show import Section
from curate.engine.stage import Batches, Input, IteratedFold, whole
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.ops.clusters.balance import level_figures
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.guide import NearestSearch, building_products, follow, products_guided
from curate.ops.clusters.hierarchy import LevelFit, Nodes, auto_levels, check_levels, fit_leaves, grow_tree
from curate.ops.clusters.kmeans import Sums, has_converged, move_centroids, sum_up
from curate.ops.clusters.seeding import Seeding
from curate.ops.clusters.split import LEAST_SAMPLE, LEAVES_PER_CELL, SPLIT_FROM, dividing_products, split_products
from curate.ops.vectors import VectorSpec, normalize, unpack
from curate.stages.clusters.levels import LevelFigures, tree_section
from curate.stages.clusters.rounds import (
    guide_rows,
    level_rows,
    read_leaves,
    read_sample,
    read_sums,
    sorted_by_group,
    state_rows,
    sums_rows,
    sums_schema,
)
from curate.stages.search.centroids import read_guide
from curate.stages.search.fit_lists import SEEDING_PASSES
from curate.stages.search.vectors import Role, count_vectors, sample_schema, sample_vectors, share_of
from curate.tables import CATALOG, CENTROIDS, ROLES, VECTORS, clusters_schema

PAPER_POINTS = (0, 10, 5, 3)
"""r of the four levels of Vo et al. 2024, leaves first."""


class TreeFigures(Figures):
    """Figures of a table of clusters."""

    levels: tuple[LevelFigures, ...]
    """Those of each level, leaves first."""


class FitClusters(IteratedFold):
    """Cluster centers, fitted on a sample of the embedded images, or on all of them part by part.

    Round 0 draws the sample and fits the leaves on it, or takes those of `FitLeaves`. With `fit: all` Lloyd goes on
    over all images: a round sums up groups of parts, and moves the centroids. The levels above are then clusters of the
    leaves.

    Memory: the task that seeds holds the sample (at most `sample_bytes`) and what `fit_kmeans` takes beside it; a task
    of a round one part of the embeddings and K x D x 24 bytes; the task that moves the centroids K x D x 36 bytes; the
    one that clusters the leaves K x D x 24 bytes.
    Disk: K x D x 8 bytes for each of `num_groups`, of one round at a time.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": whole(VECTORS),
        "catalog": whole(CATALOG),
        "leaves": whole(CENTROIDS, optional=True),
    }
    pinned: ClassVar[bool] = True
    version: ClassVar[int] = 3

    levels: tuple[Annotated[int, Field(ge=1)], ...] | Literal["auto", "auto_flat"] = "auto_flat"
    """Number of clusters on each level, leaves first. auto_flat: one level, with one cluster for every 20 images, and
    beyond a million 50 times the square root of their number; auto: a tree on top of it."""
    roles: tuple[Role, ...] = ("pool",)
    """Roles whose images are fitted."""
    fit: Literal["sample", "all"] = "sample"
    """sample: k-means on a sample in memory. all: from there Lloyd goes on over all images, one pass an iteration."""
    max_points_per_cluster: Annotated[int, Field(ge=1)] = 256
    """Largest number of images sampled for each leaf; more change little, as in faiss."""
    sample_bytes: Annotated[int, Field(ge=1)] = 512 << 20
    """Largest size of the vectors that one task fits on, in float32, in bytes; where fewer than 32 for each leaf fit,
    leaves are fitted cell by cell."""
    num_iterations: Annotated[int, Field(ge=1)] = 20
    """Largest number of Lloyd iterations of each k-means."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-4
    """Lloyd stops when an iteration lowers the inertia by no more than this fraction."""
    seeding: Seeding = "auto"
    """plusplus: greedy k-means++; parallel: k-means||; auto: k-means|| beyond 2**34 products of image and leaf."""
    num_resamplings: Annotated[int, Field(ge=0)] = 0
    """Rounds of resampling on each level above the leaves; 10 in the paper, 0 for plain k-means."""
    points_per_centroid: tuple[int, ...] = ()
    """Images or lower centroids kept around each centroid while resampling (r in the paper), for each level; empty: 0
    for the leaves, then 10, 5, 3 as in the paper, and 3 above these."""
    spherical: bool = True
    """Cosine instead of squared L2; by L2 large clusters, whose centroids are short, end apart from small ones."""
    num_groups: Annotated[int, Field(ge=1)] = 64
    """Number of groups of consecutive parts, each summed by one task of a round into K x D float64."""
    seed: int | None = None
    """Seed of the sampling and of k-means; null: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that is sampled, 0..1; null: what `max_points_per_cluster` and `sample_bytes` allow, or all
    that `FitLeaves` took."""
    device: Annotated[Device, Execution()] = "cpu"
    """Where the nearest centroids are searched; cuda needs the extra `gpu`."""

    def max_rounds(self) -> int:
        return 1 if self.fit == "sample" else self.num_iterations + 2

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if not isinstance(self.levels, str):  # told before any compute
            self._check_levels(self.levels)
        spec = VectorSpec.of(inputs["embeddings"])
        return clusters_schema(spec.dim, model=spec.model, weights=spec.weights)

    def _check_levels(self, levels: Sequence[int]) -> None:
        points = self._points_per_centroid(len(levels))
        try:
            check_levels(levels, points)
        except ConfigError as error:  # its text begins with the name of the field
            raise self.field_error("", str(error)) from error
        if self.fit == "all" and self.num_resamplings and points[0]:
            raise self.field_error(
                "fit",
                f"=all with points_per_centroid={list(points)}: Lloyd over all images would undo the resampling of the "
                "leaves; set its first number to 0, or fit to sample",
            )

    def _points_per_centroid(self, num_levels: int) -> tuple[int, ...]:
        if self.points_per_centroid:
            return self.points_per_centroid
        return (*PAPER_POINTS, *[PAPER_POINTS[-1]] * num_levels)[:num_levels]

    def of_leaves(self) -> Self:
        """What of this decides leaves that are fitted cell by cell: other levels and rounds need not fit them again."""
        r = self.points_per_centroid[:1]
        kept: dict[str, Any] = {
            "levels": "auto_flat" if isinstance(self.levels, str) else self.levels[:1],
            "points_per_centroid": r,
            "num_resamplings": self.num_resamplings if any(r) else 0,
        }
        return self.model_copy(update=kept | {"fit": "sample", "num_groups": 1, "seed": None})

    def num_cells(self, num_leaves: int, num_images: int, dim: int) -> int:
        """Cells that are split into the leaves; 0: leaves are few enough to be fitted as one.

        Raises:
            ConfigError: a task of `sample_bytes` holds too few vectors for the cells, or for the leaves of one.
        """
        room = self.sample_bytes // (4 * dim)
        if num_leaves < SPLIT_FROM and min(num_images, LEAST_SAMPLE * num_leaves) <= room:
            return 0
        most = room // LEAST_SAMPLE
        if num_leaves > most**2:
            few = min(num_images, LEAST_SAMPLE * num_leaves) if num_leaves < SPLIT_FROM else num_images
            needed = 4 * dim * min(few, LEAST_SAMPLE * math.ceil(num_leaves**0.5))
            raise self.field_error(
                "sample_bytes",
                f"={self.sample_bytes}: holds {room} vectors of {dim} dims, with {LEAST_SAMPLE} for a leaf enough for "
                f"{most**2} leaves, and {num_leaves} are wanted: lower the first of levels to {most**2}, or set it to "
                f"{needed} or more",
            )
        return min(most, -(-num_leaves // LEAVES_PER_CELL))

    def num_partials(self, **inputs: Any) -> int:
        return max(1, min(self.num_groups, len(inputs["embeddings"].parts())))

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema | None:
        spec = VectorSpec.of(inputs["embeddings"])
        if number == 0 and self.sample_share is None:
            return None
        return sample_schema(spec) if number == 0 else sums_schema(spec.dim)

    def state_schema(self, **inputs: Any) -> pa.Schema:
        leaves = self.output_schema(**inputs)
        extra = [pa.field("iteration", pa.int32()), pa.field("finished", pa.bool_())]
        return pa.schema([*leaves, *extra], metadata=leaves.metadata)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        resolved, num_images = self.with_levels(inputs["embeddings"], inputs["catalog"])
        leaves = inputs.get("leaves")
        if leaves is not None and leaves.num_rows():
            return resolved.model_copy(update={"sample_share": None})
        dim = VectorSpec.of(inputs["embeddings"].schema()).dim
        return resolved.model_copy(update={"sample_share": resolved._share(num_images, dim)})

    def with_levels(self, embeddings: Table, catalog: Table) -> tuple[Self, int]:
        """The same with numbers for `auto`, and how many images are clustered.

        Raises:
            ConfigError: there are none, or fewer than leaves.
        """
        num_images = count_vectors(embeddings, self.roles, Parts.of(catalog))
        if num_images == 0:
            raise self.field_error(
                "roles", f"={list(self.roles)}: no image of these is left to cluster; look at `curate status`"
            )
        if not isinstance(self.levels, str) and self.levels[0] > num_images:
            raise self._too_many(f"{num_images} images are left to cluster", num_images)
        resolved = self.model_copy(update=self.estimate(num_images))
        assert not isinstance(resolved.levels, str)
        resolved._check_levels(resolved.levels)  # levels of auto, with lengths given for others
        return resolved, num_images

    def _too_many(self, what: str, most: int) -> ConfigError:
        assert not isinstance(self.levels, str)
        return self.field_error(
            "levels",
            f"={list(self.levels)}: {what}; the first level can have at most {most}, or set levels to auto",
        )

    def _share(self, num_images: int, dim: int) -> float:
        """What is sampled of `num_images` vectors, where leaves are fitted as one.

        Raises:
            ConfigError: `sample_bytes` holds fewer vectors than there are leaves, or than a share given by hand.
        """
        assert not isinstance(self.levels, str)
        room, num_leaves = self.sample_bytes // (4 * dim), self.levels[0]
        wanted = min(num_images, num_leaves * self.max_points_per_cluster)
        if self.sample_share is not None:
            wanted = least = int(self.sample_share * num_images)
        else:
            least = num_leaves
        if room < least:
            raise self.field_error(
                "sample_bytes",
                f"={self.sample_bytes}: holds {room} vectors of {dim} dims, needed are at least {least}; set it to "
                f"{4 * dim * least} or more, or lower levels or sample_share",
            )
        return self.sample_share or share_of(min(wanted, room), num_images)

    def estimate(self, num_images: int) -> dict[str, Any]:
        if not isinstance(self.levels, str):
            if self.levels[0] > num_images:
                raise self._too_many(f"there are {num_images} images", num_images)
            return {}
        levels = auto_levels(num_images)
        return {"levels": tuple(levels if self.levels == "auto" else levels[:1])}

    def check_size(self, num_images: int, **inputs: Any) -> None:
        levels = self.model_copy(update=self.estimate(num_images)).levels
        assert not isinstance(levels, str)
        self.num_cells(levels[0], num_images, VectorSpec.of(inputs["embeddings"]).dim)

    def partial(
        self, part: int, *, state: pa.Table | None, embeddings: Table, catalog: Table, leaves: Table | None
    ) -> Batches:
        spec = VectorSpec.of(embeddings.schema())
        parts = self._group(part, embeddings, catalog)
        if state is None:
            for number in parts:
                vectors, _ = unpack(embeddings.read(number, ["vector"])["vector"], spec)
                yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, number])
            return
        centroids = read_leaves(state).centroids
        search = NearestSearch(centroids, read_guide(state), spherical=self.spherical, device=self.device)
        total = Sums.zero(*centroids.shape)
        for number in parts:
            x = normalize(unpack(embeddings.read(number, ["vector"])["vector"], spec)[0])
            total.add(*sum_up(x, *search.with_distance(x), len(centroids)))
        yield from sums_rows(total)

    def _group(self, group: int, embeddings: Table, catalog: Table) -> list[int]:
        """The parts that one task sums, in order, of the roles that are fitted."""
        numbers, roles = len(embeddings.parts()), Parts.of(catalog).role
        start, stop = (i * numbers // self.num_partials(embeddings=embeddings) for i in (group, group + 1))
        return [part for part in range(start, stop) if ROLES[roles[part]] in self.roles]

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert not isinstance(self.levels, str)
        stored = tables["embeddings"].schema()
        schema = self.state_schema(embeddings=stored)
        if state is None:
            found = self._first_leaves(partials, tables["leaves"], VectorSpec.of(stored))
            leaves, guide = sorted_by_group(found, seed=self.seed or 0)
            yield from state_rows(leaves, guide, schema, iteration=0, finished=self.fit == "sample")
        else:
            assert partials is not None
            yield from self._move(state, partials, schema)

    def _first_leaves(self, partials: Table | None, fitted: Table | None, spec: VectorSpec) -> Nodes:
        """The leaves of the sample, or those that were fitted cell by cell."""
        if self.sample_share is None:
            assert fitted is not None
            return read_leaves(fitted.read_all())
        assert partials is not None
        assert not isinstance(self.levels, str)
        r = self._points_per_centroid(len(self.levels))[0]
        return fit_leaves(read_sample(partials, spec), self.levels[0], r=r, how=self.how())

    def _move(self, state: pa.Table, partials: Table, schema: pa.Schema) -> Batches:
        """The next state: moved centroids, or where Lloyd ends the same ones with their true sizes."""
        leaves, guide, iteration = read_leaves(state), read_guide(state), state["iteration"][0].as_py()
        found, before = read_sums(partials, *leaves.centroids.shape), float(leaves.inertia.sum())
        converged = iteration > 0 and has_converged(before, found.inertia, self.tolerance)
        if converged or iteration >= self.num_iterations:
            kept = found.sizes > 0
            final = Nodes(leaves.centroids[kept], found.sizes[kept], found.inertias[kept])
            ordered = sorted_by_group(final, seed=self.seed or 0)
            yield from state_rows(*ordered, schema, iteration=iteration, finished=True)
            return
        moved = Nodes(move_centroids(leaves.centroids, found, spherical=self.spherical), found.sizes, found.inertias)
        followed = follow(guide, moved.centroids)
        yield from state_rows(moved, followed, schema, iteration=iteration + 1, finished=False)

    def how(self) -> LevelFit:
        """How each level is fitted."""
        return LevelFit(
            seed=self.seed or 0,
            num_resamplings=self.num_resamplings,
            num_iterations=self.num_iterations,
            tolerance=self.tolerance,
            spherical=self.spherical,
            seeding=self.seeding,
            device=self.device,
        )

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        assert not isinstance(self.levels, str)
        points = self._points_per_centroid(len(self.levels))
        leaves, guide = read_leaves(state), read_guide(state)
        tree = grow_tree(leaves, self.levels[1:], points_per_centroid=points[1:], how=self.how())
        schema = self.output_schema(embeddings=tables["embeddings"].schema())
        for number, level in enumerate(tree):
            yield level_rows(level, number, guide, schema)
        yield from guide_rows(leaves, guide, schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> TreeFigures:
        rows = table.read_all(["level", "num_images", "inertia"])
        of, sizes, inertia = (rows[name].to_numpy() for name in rows.column_names)
        assert not isinstance(self.levels, str)
        found = (
            level_figures(sizes[of == level], inertia[of == level], wanted) for level, wanted in enumerate(self.levels)
        )
        return TreeFigures(levels=tuple(LevelFigures(**figures) for figures in found))

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors: Shape = inputs["embeddings"]
        count = vectors.of(self.roles)
        levels = self.model_copy(update=self.estimate(int(count))).levels
        assert not isinstance(levels, str)
        split = self.num_cells(levels[0], int(count), vectors.dim) > 0
        room = self.sample_bytes // (4 * vectors.dim)
        sample = 0 if split else min(count, levels[0] * self.max_points_per_cluster, room)
        above = sum(self._level_products(a, b) for a, b in itertools.pairwise(levels))
        passes = self.num_iterations if self.fit == "all" else 0
        made = Shape(pool=sum(levels), row_bytes=4 * vectors.dim + 40, dim=vectors.dim, lists=levels[0])
        once = sample * levels[0] * (self.num_iterations + SEEDING_PASSES)
        demand = Demand(
            serial_products=2 * vectors.dim * (once + above + building_products(levels[0])),
            products=passes * 2 * count * products_guided(levels[0], self.device) * vectors.dim,
            written=made.num_bytes,
            memory=sample * vectors.dim * 4 + levels[0] * vectors.dim * (60 if passes else 24),
            note=f"{levels[0]} leaves" + (", fitted cell by cell" if split else f" on {sample:.3g} images"),
        )
        groups = max(1, min(self.num_groups, vectors.parts))
        first = None if split else Shape(pool=sample, row_bytes=4 * vectors.dim, parts=groups, columns=1)
        sums = Shape(pool=groups * levels[0], row_bytes=8 * vectors.dim + 16, parts=groups)
        rounds = [folded(first, made, made)] + [folded(sums, made, made, rounds=passes + 1)] * (passes > 0)
        # Each group opens a part more, for its schema; what was sampled is read twice, first to be counted.
        partial = passes + (not split)  # rounds that read the vectors
        read = [vectors.scanned(partial), vectors.opened(partial * groups / vectors.parts)]
        read += [] if first is None else [first.scanned()]
        read += [inputs["leaves"].scanned()] if split and inputs.get("leaves") else []
        return Demand.phases([demand, *rounds, *read]), made

    def _level_products(self, points: float, clusters: float) -> float:
        """Products by which a level above the leaves is fitted and resampled."""
        iterations = self.num_iterations + SEEDING_PASSES
        fitted = split_products(points, clusters) * iterations + dividing_products(points, clusters)
        return (fitted + points * products_guided(clusters, self.device)) * (1 + self.num_resamplings)

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        yield tree_section(table.name, TreeFigures.of(table).levels)
