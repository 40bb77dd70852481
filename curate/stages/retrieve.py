"""Retrieve: the pool images that resemble each curated set, by sample and by cluster."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.errors import ConfigError
from curate.ops.knn import Edges, merge_top_k
from curate.ops.retrieval import retrieve_by_cluster, retrieve_by_sample
from curate.stage import Batches, Fold, Input, whole
from curate.stages.catalog import Parts, parts_of
from curate.store import Table
from curate.tables import ASSIGNMENTS, CATALOG, NEIGHBORS, RETRIEVED, ROLES

AUTO_K = 4
POOL, CURATED = ROLES.index("pool"), ROLES.index("curated")


class BySample(Settings):
    """The k nearest pool images of each curated image."""

    k: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images per query; auto: 4 as in the paper, or all where fewer are left. The paper has 32 for ImageNet-1k."""
    k_per_set: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Another k for single curated sources, by name."""
    refill: bool = False
    """An image serves one query only, and the others go on to their next nearest."""

    @property
    def default_k(self) -> int:
        """Images per query of a source without a k of its own, where enough are left."""
        return AUTO_K if self.k == "auto" else self.k

    @property
    def largest_k(self) -> int:
        return max([self.default_k, *self.k_per_set.values()])

    def of(self, name: str) -> int:
        return self.k_per_set.get(name, self.default_k)


class ByCluster(Settings):
    """Images from every cluster that receives more than `min_queries` curated images."""

    min_queries: Annotated[int, Field(ge=0)] = 3
    """A cluster needs strictly more."""
    per_cluster: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images of a cluster at most; auto: half of the mean number of pool images of a cluster. The paper has 10,000."""
    max_per_set: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images for a curated source at most; auto: no such limit. The paper has 1,000,000."""
    order: Literal["random", "nearest"] = "random"
    """Which images of a cluster come first."""


class Retrieve(Fold):
    """Chooses pool images for each curated source; large sources by sample, small ones by cluster."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "neighbors": whole(NEIGHBORS),
        "assignments": whole(ASSIGNMENTS),
    }

    route: Literal["auto", "sample", "cluster", "both"] = "auto"
    """auto: by sample for sources of more than `sample_min_images`, else by cluster; both: the union."""
    sample_min_images: int = 1_000_000
    """The paper's border between large and small curated sets."""
    sample: BySample = BySample()
    """Sample-based retrieval."""
    cluster: ByCluster = ByCluster()
    """Cluster-based retrieval."""
    seed: int | None = None
    """Of random order in clusters; None: the run's seed."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return RETRIEVED

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        parts = parts_of(inputs["catalog"])
        names = {name for name, role in zip(parts.source, parts.role, strict=True) if role == CURATED}
        unknown = self.sample.k_per_set.keys() - names
        if unknown:
            raise ConfigError(
                f"retrieve.sample.k_per_set: {sorted(unknown)[0]!r} is no curated source; they are {sorted(names)}"
            )
        pool = [part for part in inputs["assignments"].parts() if parts.role[part.number] == POOL]
        left = sum(part.rows for part in pool)
        given = [*self.sample.k_per_set.values(), *([] if self.sample.k == "auto" else [self.sample.k])]
        if self.route != "cluster" and max(given, default=0) > left:
            raise ConfigError(
                f"retrieve.sample.k={max(given)}: {left} pool images are left; set it to {left} or less, or to auto"
            )
        if self.route == "sample":
            return self
        num_clusters = _num_clusters(inputs["assignments"], [part.number for part in pool])
        return self.model_copy(update={"cluster": self._with_caps(left, num_clusters)})

    def _with_caps(self, left: int, num_clusters: int) -> ByCluster:
        given = {"per_cluster": self.cluster.per_cluster, "max_per_set": self.cluster.max_per_set}
        for name, value in given.items():
            if value != "auto" and value > left:
                raise ConfigError(
                    f"retrieve.cluster.{name}={value}: {left} pool images are left; "
                    f"set it to {left} or less, or to auto"
                )
        auto = {"per_cluster": max(1, left // max(1, num_clusters) // 2), "max_per_set": max(1, left)}
        return self.cluster.model_copy(update={name: auto[name] for name, value in given.items() if value == "auto"})

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = parts_of(tables["catalog"])
        neighbors = list(tables["neighbors"].scan())
        edges = Edges(
            *(np.concatenate([t[c].to_numpy() for t in neighbors]) for c in ("query_id", "image_id", "similarity"))
        )
        assigned = tables["assignments"].read_all()
        for rank in np.unique(parts.rank[parts.role == CURATED]):
            mine = np.flatnonzero(parts.rank == rank)
            name = parts.source[mine[0]]
            routes = self._routes(int(parts.rows[mine].sum()))
            if "sample" in routes:
                yield from self._by_sample(name, edges.take(np.isin(edges.query_ids >> 32, mine)))
            if "cluster" in routes:
                yield from self._by_cluster(name, mine, assigned, parts)

    def _routes(self, num_images: int) -> tuple[str, ...]:
        if self.route == "auto":
            return ("sample",) if num_images > self.sample_min_images else ("cluster",)
        return ("sample", "cluster") if self.route == "both" else (self.route,)

    def _by_sample(self, name: str, edges: Edges) -> Iterator[pa.RecordBatch]:
        chosen = retrieve_by_sample(merge_top_k(edges, None), self.sample.of(name), refill=self.sample.refill).edges
        yield _batch(chosen.query_ids, chosen.image_ids, chosen.similarity, origin="sample", name=name)

    def _by_cluster(
        self, name: str, set_parts: np.ndarray, assigned: pa.Table, parts: Parts
    ) -> Iterator[pa.RecordBatch]:
        ids, cluster, similarity = (assigned[c].to_numpy() for c in ("image_id", "cluster_id", "similarity"))
        assert isinstance(self.cluster.per_cluster, int)
        assert isinstance(self.cluster.max_per_set, int)
        part = ids >> 32
        queries, pool = np.flatnonzero(np.isin(part, set_parts)), np.flatnonzero(parts.role[part] == POOL)
        rows = pool[
            retrieve_by_cluster(
                cluster[queries],
                cluster[pool],
                similarity[pool],
                min_queries=self.cluster.min_queries,
                per_cluster=self.cluster.per_cluster,
                max_per_set=self.cluster.max_per_set,
                order=self.cluster.order,
                seed=self.seed or 0,
            )
        ]
        asking = _most_central(cluster[queries], similarity[queries], ids[queries], int(cluster.max(initial=0)) + 1)
        yield _batch(asking[cluster[rows]], ids[rows], similarity[rows], origin="cluster", name=name)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        rows = table.read_all(["image_id", "origin", "set"]).to_pandas()
        sets = {
            f"{name}/{origin}": {"retrieved": len(group), "unique": int(group["image_id"].nunique())}
            for (name, origin), group in rows.groupby(["set", "origin"])
        }
        return {"unique": int(rows["image_id"].nunique()), "sets": sets}


def _num_clusters(assignments: Table, numbers: list[int]) -> int:
    """Clusters that hold images of these parts."""
    found = [np.unique(assignments.read(part, ["cluster_id"])["cluster_id"].to_numpy()) for part in numbers]
    return len(np.unique(np.concatenate([np.empty(0, np.int32), *found])))


def _most_central(cluster: np.ndarray, similarity: np.ndarray, ids: np.ndarray, num_clusters: int) -> np.ndarray:
    """(K,) int64: of each cluster the query nearest to its centroid; -1 where it has none."""
    best = np.full(num_clusters, -1, np.int64)
    order = np.lexsort((-ids, similarity))  # the last write wins: most similar, then smallest id
    best[cluster[order]] = ids[order]
    return best


def _batch(queries: np.ndarray, ids: np.ndarray, similarity: np.ndarray, *, origin: str, name: str) -> pa.RecordBatch:
    columns = [
        pa.array(queries.astype(np.int64)),
        pa.array(ids.astype(np.int64)),
        pa.array(similarity.astype(np.float32)),
        pa.array([origin] * len(ids), pa.string()),
        pa.array([name] * len(ids), pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=RETRIEVED)
