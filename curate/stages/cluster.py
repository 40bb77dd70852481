"""FitClusters and Assign: k-means over the pool's embeddings, flat or as a tree, and every image's leaf."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.errors import ConfigError
from curate.ops.entropy import effective_number
from curate.ops.hierarchy import Hierarchy, auto_levels, check_levels, fit_hierarchy
from curate.ops.kmeans import assign
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.stage import Batches, Fold, Input, Map, each, whole
from curate.stages.catalog import parts_of
from curate.stages.lists import Role, count_vectors, read_centroids, sample_schema, sample_vectors, share_of
from curate.store import Table
from curate.tables import ASSIGNMENTS, CATALOG, CENTROIDS, ROLES, VECTORS, centroids_schema

PAPER_POINTS = (0, 10, 5, 3)
"""r of the four levels of Vo et al. 2024, leaves first."""


class FitClusters(Fold):
    """Cluster centres, fitted on a sample of the embedded images."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "catalog": whole(CATALOG)}
    pinned: ClassVar[bool] = True

    levels: tuple[Annotated[int, Field(ge=1)], ...] | Literal["auto", "auto_flat"] = "auto_flat"
    """Clusters per level, leaves first. auto_flat: one level, one cluster for 20 images; auto: a tree on top."""
    roles: tuple[Role, ...] = ("pool",)
    """Whose images are fitted."""
    max_points_per_cluster: Annotated[int, Field(ge=1)] = 256
    """Images sampled for each leaf at most; more change little, as in faiss."""
    num_iterations: Annotated[int, Field(ge=1)] = 20
    """Lloyd iterations of each k-means at most."""
    num_resamplings: Annotated[int, Field(ge=0)] = 0
    """Rounds of resampling per level above the leaves; 10 in the paper, 0 for plain k-means."""
    points_per_centroid: tuple[int, ...] = ()
    """r per level while resampling; empty: 0 for the leaves, then 10, 5, 3 as in the paper, and 3 above these."""
    spherical: bool = True
    """Cosine instead of squared L2."""
    seed: int | None = None
    """Of sample and k-means; None: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that k-means sees; None: as many as `max_points_per_cluster` allows."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if not isinstance(self.levels, str):  # told before any compute
            check_levels(self.levels, self._points_per_centroid(len(self.levels)))
        spec = VectorSpec.of(inputs["embeddings"])
        return centroids_schema(spec.dim, model=spec.model, weights=spec.weights)

    def _points_per_centroid(self, num_levels: int) -> tuple[int, ...]:
        if self.points_per_centroid:
            return self.points_per_centroid
        return (*PAPER_POINTS, *[PAPER_POINTS[-1]] * num_levels)[:num_levels]

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return sample_schema(VectorSpec.of(inputs["embeddings"]))

    def num_parts(self, **inputs: Any) -> int:
        return 1

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
        levels, r = resolved.levels, resolved._points_per_centroid(len(resolved.levels))
        check_levels(levels, r)  # levels of auto, with lengths given for others
        if self.sample_share is not None:
            return resolved
        share = share_of(levels[0] * self.max_points_per_cluster, num_images)
        return resolved.model_copy(update={"sample_share": share})

    def estimate(self, num_images: int) -> dict[str, Any]:
        if not isinstance(self.levels, str):
            return {}
        levels = auto_levels(num_images)
        return {"levels": tuple(levels if self.levels == "auto" else levels[:1])}

    def partial(self, part: int, *, embeddings: pa.Table, catalog: Table) -> Batches:
        if ROLES[parts_of(catalog).role[part]] in self.roles:
            spec = VectorSpec.of(embeddings.schema)
            vectors, _ = unpack(embeddings["vector"], spec)
            yield sample_vectors(vectors, spec, self.sample_share, seed=[self.seed or 0, part])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        assert not isinstance(self.levels, str)
        pieces = [partials.read(part) for part in sorted(partials.committed())]
        spec = VectorSpec.of(pieces[0].schema)
        x = normalize(unpack(pa.concat_tables(pieces)["vector"], spec)[0])
        tree = fit_hierarchy(
            x,
            self.levels,
            points_per_centroid=self._points_per_centroid(len(self.levels)),
            seed=self.seed or 0,
            num_resamplings=self.num_resamplings,
            num_iterations=self.num_iterations,
            spherical=self.spherical,
        )
        yield from _centroid_rows(tree, centroids_schema(spec.dim, model=spec.model, weights=spec.weights))

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        levels = table.read_all(["level"])["level"].to_numpy()
        return {"clusters": np.bincount(levels).tolist()}


class Assign(Map):
    """The leaf cluster of every embedded image."""

    inputs: ClassVar[dict[str, Input]] = {"embeddings": each(VECTORS), "centroids": whole(CENTROIDS)}

    spherical: bool = True
    """Nearest by cosine, else by squared L2; as the clusters were fitted."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ASSIGNMENTS

    def run(self, part: int, *, embeddings: pa.Table, centroids: Table) -> Batches:
        vectors, rows = unpack(embeddings["vector"], VectorSpec.of(embeddings.schema))
        cluster_id, similarity = assign(vectors.astype(np.float32), read_centroids(centroids), spherical=self.spherical)
        ids = embeddings["image_id"].to_numpy()[rows]
        columns = [ids, cluster_id.astype(np.int32), similarity.astype(np.float32)]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=ASSIGNMENTS)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        clusters = table.read_all(["cluster_id"])["cluster_id"].to_numpy()
        sizes = np.bincount(clusters) if len(clusters) else np.zeros(1, np.int64)
        return {"largest": int(sizes.max()), "effective_clusters": round(float(effective_number(sizes)), 2)}


def read_parents(centroids: Table) -> list[np.ndarray]:
    """`parents[l]` (K_l,): node of level l+1 above each node of level l; see `Hierarchy.parents`."""
    rows = centroids.read_all(["level", "parent_id"])
    levels, parents = rows["level"].to_numpy(), rows["parent_id"].fill_null(-1).to_numpy()
    return [parents[levels == level] for level in range(int(levels.max(initial=0)))]


def _centroid_rows(tree: Hierarchy, schema: pa.Schema) -> Batches:
    for number, level in enumerate(tree.levels):
        count = len(level.centroids)
        columns = [
            pa.array(np.full(count, number, np.int16)),
            pa.array(np.arange(count, dtype=np.int32)),
            pa.array(level.parent.astype(np.int32), mask=level.parent < 0),
            pack(level.centroids.astype(np.float32)),
            pa.array(level.num_images.astype(np.int64)),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
