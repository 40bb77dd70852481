"""FitClusters and Assign: k-means over the pool's embeddings, flat or as a tree, and every image's leaf."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Batches, Input, IteratedFold, Map, each, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.ops.blocks import blocks
from curate.ops.clusters.balance import level_figures, size_figures
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.hierarchy import LevelFit, Nodes, TreeLevel, auto_levels, check_levels, fit_leaves, grow_tree
from curate.ops.clusters.kmeans import Sums, assign, has_converged, move_centroids, sum_by_nearest
from curate.ops.clusters.seeding import Seeding
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.stages.images.catalog import parts_of
from curate.stages.search.lists import Role, count_vectors, read_centroids, sample_schema, sample_vectors, share_of
from curate.tables import ASSIGNMENTS, CATALOG, CENTROIDS, ROLES, VECTORS, clusters_schema

PAPER_POINTS = (0, 10, 5, 3)
"""r of the four levels of Vo et al. 2024, leaves first."""
SUMS_ROWS = 4096
"""Clusters whose sums are packed or read at once."""


class FitClusters(IteratedFold):
    """Cluster centres, fitted on a sample of the embedded images, or on all of them part by part.

    Round 0 draws the sample and fits the leaves on it. With `fit: all` Lloyd goes on over all images: a round sums
    up groups of parts, and moves the centroids. The levels above are then clusters of the leaves.

    Memory: the task that seeds holds the sample (at most `sample_bytes`) and what `fit_kmeans` takes beside it; a task
    of a round one part of the embeddings and K x D x 24 bytes; the task that moves the centroids K x D x 36 bytes.
    Disk: K x D x 8 bytes for each of `num_groups`, of one round at a time.
    """

    inputs: ClassVar[dict[str, Input]] = {"embeddings": whole(VECTORS), "catalog": whole(CATALOG)}
    pinned: ClassVar[bool] = True
    version: ClassVar[int] = 2

    levels: tuple[Annotated[int, Field(ge=1)], ...] | Literal["auto", "auto_flat"] = "auto_flat"
    """Clusters per level, leaves first. auto_flat: one level, one cluster for 20 images; auto: a tree on top."""
    roles: tuple[Role, ...] = ("pool",)
    """Whose images are fitted."""
    fit: Literal["sample", "all"] = "sample"
    """sample: k-means on a sample in memory. all: from there Lloyd goes on over all images, one pass an iteration."""
    max_points_per_cluster: Annotated[int, Field(ge=1)] = 256
    """Images sampled for each leaf at most; more change little, as in faiss."""
    sample_bytes: Annotated[int, Field(ge=1)] = 4 << 30
    """The sample in float32 at most; where it binds, fewer images are sampled for each leaf."""
    num_iterations: Annotated[int, Field(ge=1)] = 20
    """Lloyd iterations of each k-means at most."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-4
    """Lloyd stops when an iteration lowers the inertia by no more than this fraction."""
    seeding: Seeding = "auto"
    """plusplus: greedy k-means++; parallel: k-means||; auto: k-means|| beyond 2**34 products of image and leaf."""
    num_resamplings: Annotated[int, Field(ge=0)] = 0
    """Rounds of resampling per level above the leaves; 10 in the paper, 0 for plain k-means."""
    points_per_centroid: tuple[int, ...] = ()
    """r per level while resampling; empty: 0 for the leaves, then 10, 5, 3 as in the paper, and 3 above these."""
    spherical: bool = True
    """Cosine instead of squared L2; by L2 large clusters, whose centroids are short, end apart from small ones."""
    num_groups: Annotated[int, Field(ge=1)] = 64
    """Groups of consecutive parts, each summed by one task of a round; sums are of K x D float64 a group."""
    seed: int | None = None
    """Of sample and k-means; None: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that is sampled; None: as many as `max_points_per_cluster` and `sample_bytes` allow."""
    device: Annotated[Device, Execution()] = "cpu"
    """Where the nearest centroids are searched; cuda needs the extra `gpu`."""

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if self.device == "cuda" else {}

    def max_rounds(self) -> int:
        return 1 if self.fit == "sample" else self.num_iterations + 2

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if not isinstance(self.levels, str):  # told before any compute
            self._check_levels(self.levels)
        spec = VectorSpec.of(inputs["embeddings"])
        return clusters_schema(spec.dim, model=spec.model, weights=spec.weights)

    def _check_levels(self, levels: Sequence[int]) -> None:
        points = self._points_per_centroid(len(levels))
        check_levels(levels, points)
        if self.fit == "all" and self.num_resamplings and points[0]:
            raise ConfigError(
                f"clusters.fit=all with points_per_centroid={list(points)}: Lloyd over all images would undo the "
                "resampling of the leaves; set its first number to 0, or fit to sample"
            )

    def _points_per_centroid(self, num_levels: int) -> tuple[int, ...]:
        if self.points_per_centroid:
            return self.points_per_centroid
        return (*PAPER_POINTS, *[PAPER_POINTS[-1]] * num_levels)[:num_levels]

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def num_partials(self, **inputs: Any) -> int:
        return max(1, min(self.num_groups, len(inputs["embeddings"].parts())))

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["embeddings"])
        return sample_schema(spec) if number == 0 else _sums_schema(spec.dim)

    def state_schema(self, **inputs: Any) -> pa.Schema:
        leaves = self.output_schema(**inputs)
        extra = [pa.field("iteration", pa.int32()), pa.field("finished", pa.bool_())]
        return pa.schema([*leaves, *extra], metadata=leaves.metadata)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_images = count_vectors(inputs["embeddings"], self.roles, parts_of(inputs["catalog"]))
        if num_images == 0:
            raise ConfigError("clusters: no image of the pool is left to cluster; look at `curate status`")
        if not isinstance(self.levels, str) and self.levels[0] > num_images:
            raise ConfigError(
                f"clusters.levels={list(self.levels)}: {num_images} images are left to cluster; "
                f"the first level can have at most {num_images}, or set levels to auto"
            )
        resolved = self.model_copy(update=self.estimate(num_images))
        assert not isinstance(resolved.levels, str)
        resolved._check_levels(resolved.levels)  # levels of auto, with lengths given for others
        dim = VectorSpec.of(inputs["embeddings"].schema()).dim
        return resolved.model_copy(update={"sample_share": resolved._share(num_images, dim)})

    def _share(self, num_images: int, dim: int) -> float:
        """What is sampled of `num_images` vectors.

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
            raise ConfigError(
                f"clusters.sample_bytes={self.sample_bytes}: holds {room} vectors of {dim} dims, needed are at least "
                f"{least}; set it to {4 * dim * least} or more, or lower levels or sample_share"
            )
        return self.sample_share or share_of(min(wanted, room), num_images)

    def estimate(self, num_images: int) -> dict[str, Any]:
        if not isinstance(self.levels, str):
            return {}
        levels = auto_levels(num_images)
        return {"levels": tuple(levels if self.levels == "auto" else levels[:1])}

    def partial(self, part: int, *, state: pa.Table | None, embeddings: Table, catalog: Table) -> Batches:
        spec = VectorSpec.of(embeddings.schema())
        parts = self._group(part, embeddings, catalog)
        if state is None:
            for number in parts:
                vectors, _ = unpack(embeddings.read(number, ["vector"])["vector"], spec)
                yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, number])
            return
        leaves = read_leaves(state)
        total = Sums.zero(*leaves.centroids.shape)
        for number in parts:
            x = normalize(unpack(embeddings.read(number, ["vector"])["vector"], spec)[0])
            found = sum_by_nearest(x, leaves.centroids, spherical=self.spherical, device=self.device)
            total.add(*found)
        yield from _sums_rows(total)

    def _group(self, group: int, embeddings: Table, catalog: Table) -> list[int]:
        """The parts that one task sums, in order, of the roles that are fitted."""
        numbers, roles = len(embeddings.parts()), parts_of(catalog).role
        start, stop = (i * numbers // self.num_partials(embeddings=embeddings) for i in (group, group + 1))
        return [part for part in range(start, stop) if ROLES[roles[part]] in self.roles]

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert partials is not None
        assert not isinstance(self.levels, str)
        stored = tables["embeddings"].schema()
        schema = self.state_schema(embeddings=stored)
        if state is None:
            x = _read_sample(partials, VectorSpec.of(stored))
            r = self._points_per_centroid(len(self.levels))[0]
            leaves = fit_leaves(x, self.levels[0], r=r, how=self._how())
            yield _state_rows(leaves, schema, iteration=0, finished=self.fit == "sample")
        else:
            yield self._move(read_leaves(state), _read_sums(partials, state), state["iteration"][0].as_py(), schema)

    def _move(self, leaves: Nodes, found: Sums, iteration: int, schema: pa.Schema) -> pa.RecordBatch:
        """The next state: moved centroids, or where Lloyd ends the same ones with their true sizes."""
        before = float(leaves.inertia.sum())
        converged = iteration > 0 and has_converged(before, found.inertia, self.tolerance)
        if converged or iteration >= self.num_iterations:
            kept = found.sizes > 0
            final = Nodes(leaves.centroids[kept], found.sizes[kept], found.inertias[kept])
            return _state_rows(final, schema, iteration=iteration, finished=True)
        moved = Nodes(move_centroids(leaves.centroids, found, spherical=self.spherical), found.sizes, found.inertias)
        return _state_rows(moved, schema, iteration=iteration + 1, finished=False)

    def _how(self) -> LevelFit:
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
        tree = grow_tree(read_leaves(state), self.levels[1:], points_per_centroid=points[1:], how=self._how())
        schema = self.output_schema(embeddings=tables["embeddings"].schema())
        for number, level in enumerate(tree):
            yield _level_rows(level, number, schema)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        rows = table.read_all(["level", "num_images", "inertia"])
        levels = rows["level"].to_numpy()
        assert not isinstance(self.levels, str)
        per_level = [
            level_figures(
                rows["num_images"].to_numpy()[levels == level], rows["inertia"].to_numpy()[levels == level], wanted
            )
            for level, wanted in enumerate(self.levels)
        ]
        return {"clusters": np.bincount(levels).tolist(), "levels": per_level}


class Assign(Map):
    """The leaf cluster of every embedded image."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "centroids": whole(CENTROIDS)}

    spherical: bool = True
    """Nearest by cosine, else by squared L2; as the clusters were fitted."""
    device: Annotated[Device, Execution()] = "cpu"
    """Where the nearest centroids are searched; cuda needs the extra `gpu`."""

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if self.device == "cuda" else {}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ASSIGNMENTS

    def run(self, part: int, *, embeddings: pa.Table, centroids: Table) -> Batches:
        vectors, rows = unpack(embeddings["vector"], VectorSpec.of(embeddings.schema))
        x, leaves = vectors.astype(np.float32), read_centroids(centroids)
        cluster_id, similarity = assign(x, leaves, spherical=self.spherical, device=self.device)
        ids = embeddings["image_id"].to_numpy()[rows]
        columns = [ids, cluster_id.astype(np.int32), similarity.astype(np.float32)]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=ASSIGNMENTS)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        sizes = np.zeros(inputs["centroids"].metrics["clusters"][0], np.int64)
        for rows in table.scan(["cluster_id"]):
            sizes += np.bincount(rows["cluster_id"].to_numpy(), minlength=len(sizes))
        return {"leaves": size_figures(sizes, len(sizes))}


def read_parents(centroids: Table) -> list[np.ndarray]:
    """`parents[l]` (K_l,): node of level l+1 above each node of level l; see `cluster_paths`."""
    rows = centroids.read_all(["level", "parent_id"])
    levels, parents = rows["level"].to_numpy(), rows["parent_id"].fill_null(-1).to_numpy()
    return [parents[levels == level] for level in range(int(levels.max(initial=0)))]


def read_leaves(state: pa.Table) -> Nodes:
    """The leaves that a round left."""
    centroids, _ = unpack(state["centroid"], VectorSpec.of(state.schema))
    return Nodes(np.ascontiguousarray(centroids), state["num_images"].to_numpy(), state["inertia"].to_numpy())


def _read_sample(partials: Table, spec: VectorSpec) -> np.ndarray:
    """(N, D) float32 of unit norm: every sampled vector, read piece by piece into one array."""
    numbers = sorted(partials.committed())
    rows = [footer.rows for number in numbers if (footer := partials.footer(number))]
    x = np.empty((sum(rows), spec.dim), np.float32)
    for number, stop in zip(numbers, np.cumsum(rows), strict=True):
        piece, _ = unpack(partials.read(number)["vector"], VectorSpec("float32", spec.dim, spec.model, spec.weights))
        x[stop - len(piece) : stop] = normalize(piece)
    return x


def _sums_schema(dim: int) -> pa.Schema:
    """What a group of parts adds to a round; clusters that none of its images is nearest to are left out."""
    fields = [("cluster_id", pa.int32()), ("sum", pa.binary(8 * dim)), ("size", pa.int64()), ("inertia", pa.float64())]
    return pa.schema(fields)


def _sums_rows(total: Sums) -> Batches:
    present = np.flatnonzero(total.sizes)
    for rows in blocks(len(present), SUMS_ROWS):
        some = present[rows]
        columns = [
            pa.array(some.astype(np.int32)),
            pack(total.sums[some]),
            pa.array(total.sizes[some]),
            pa.array(total.inertias[some]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_sums_schema(total.sums.shape[1]))


def _read_sums(partials: Table, state: pa.Table) -> Sums:
    """The sums of all groups, added in their order, so that the total is the same wherever they were made."""
    dim = VectorSpec.of(state.schema).dim
    total = Sums.zero(len(state), dim)
    for number in sorted(partials.committed()):
        with partials.open(number) as file:
            for batch in file.iter_batches(SUMS_ROWS):
                sums = np.frombuffer(batch["sum"].buffers()[1], np.float64)
                rows = sums.reshape(-1, dim)[batch["sum"].offset :][: len(batch)]
                total.add(rows, batch["size"].to_numpy(), batch["inertia"].to_numpy(), batch["cluster_id"].to_numpy())
    return total


def _state_rows(leaves: Nodes, schema: pa.Schema, *, iteration: int, finished: bool) -> pa.RecordBatch:
    count = len(leaves.centroids)
    top = TreeLevel(leaves.centroids, np.full(count, -1, np.int32), leaves.num_images, leaves.inertia)
    rounds = [pa.array(np.full(count, iteration, np.int32)), pa.array(np.full(count, finished))]
    return pa.RecordBatch.from_arrays([*_level_columns(top, 0), *rounds], schema=schema)


def _level_rows(level: TreeLevel, number: int, schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(_level_columns(level, number), schema=schema)


def _level_columns(level: TreeLevel, number: int) -> list[pa.Array]:
    count = len(level.centroids)
    return [
        pa.array(np.full(count, number, np.int16)),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.array(level.parent.astype(np.int32), mask=level.parent < 0),
        pack(level.centroids.astype(np.float32)),
        pa.array(level.num_images.astype(np.int64)),
        pa.array(level.inertia.astype(np.float64)),
    ]
