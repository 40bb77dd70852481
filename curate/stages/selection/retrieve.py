"""Retrieve: the pool images that resemble each curated set, by sample and by cluster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution, Settings
from curate.engine.stage import Batches, Fold, Input, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.ops.random_keys import nearest_keys, random_keys
from curate.ops.selection.draws import Draws, Keyed, draw_smallest
from curate.ops.selection.retrieval import cluster_draws
from curate.stages.clusters.leaves import LIMITS, count_leaves, limit_rows
from curate.stages.images.catalog import Parts, parts_of
from curate.tables import ASSIGNMENTS, CATALOG, NEAREST, RETRIEVED, ROLES

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
    """Chooses pool images for each curated source; large sources by sample, small ones by cluster.

    `combine` keeps a few numbers for each leaf that a set hit; `run` writes what was retrieved of one pool part,
    from the part's own assignments and the row groups of `nearest` that name its images.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "nearest": whole(NEAREST, optional=True),
        "assignments": whole(ASSIGNMENTS),
    }
    version: ClassVar[int] = 2

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
    max_bytes: Annotated[int, Field(ge=1), Execution()] = 1 << 30
    """Working memory of the draws; less means more passes over the assignments."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if inputs["nearest"] is None and self.route != "cluster":
            raise ConfigError(f"retrieve.route={self.route}: needs the neighbours of each query; give `nearest`")
        return RETRIEVED

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

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
        counts = count_leaves(inputs["assignments"], [part.number for part in pool])
        return self.model_copy(update={"cluster": self._with_caps(left, int(np.count_nonzero(counts)))})

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
        parts, assignments = parts_of(tables["catalog"]), tables["assignments"]
        hits = self._hits(assignments, parts)
        if not hits:
            return
        first = np.cumsum([0, *(len(hit.leaves) for hit in hits)])  # groups of all sets, one after the other
        draws = draw_smallest(
            lambda: self._candidates(hits, first, assignments, parts),
            np.concatenate([hit.sizes for hit in hits]),
            np.concatenate([hit.draws for hit in hits]),
            max_bytes=self.max_bytes,
        )
        for hit, start in zip(hits, first, strict=False):
            mine = Draws(*(column[start : start + len(hit.leaves)] for column in draws))
            rows = limit_rows(hit.name, mine)
            place = rows["group"].to_numpy()
            columns = [*rows.set_column(1, "group", pa.array(hit.leaves[place], pa.int32())), hit.central[place]]
            yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=STATE)

    def _hits(self, assignments: Table, parts: Parts) -> list["_Hit"]:
        """The leaves that each set of the cluster route draws from."""
        names = [name for name, routes in self._sets(parts).items() if "cluster" in routes]
        if not names:
            return []
        sizes = count_leaves(assignments, np.flatnonzero(parts.role == POOL).tolist())
        return [self._hit(name, sizes, assignments, parts) for name in names]

    def _hit(self, name: str, sizes: np.ndarray, assignments: Table, parts: Parts) -> "_Hit":
        queries = pa.concat_tables(assignments.read(part) for part in _parts_of_set(name, parts))
        ids, leaf, similarity = (queries[c].to_numpy() for c in ASSIGNMENTS.names)
        num_queries = np.bincount(leaf, minlength=len(sizes))
        sizes = np.pad(sizes, (0, len(num_queries) - len(sizes)))
        assert isinstance(self.cluster.per_cluster, int)
        assert isinstance(self.cluster.max_per_set, int)
        draws = cluster_draws(
            num_queries,
            sizes,
            min_queries=self.cluster.min_queries,
            per_cluster=self.cluster.per_cluster,
            max_per_set=self.cluster.max_per_set,
        )
        leaves = np.flatnonzero(draws)
        central = _most_central(leaf, similarity, ids, len(sizes))
        return _Hit(name, leaves, sizes[leaves], draws[leaves], central[leaves])

    def _candidates(self, hits: list["_Hit"], first: np.ndarray, assignments: Table, parts: Parts) -> Iterator[Keyed]:
        for part in np.flatnonzero(parts.role == POOL).tolist():
            rows = assignments.read(part)
            for hit, start in zip(hits, first, strict=False):
                place, mine = _places(hit.leaves, rows["cluster_id"].to_numpy())
                yield Keyed(start + place, self._keys(hit.name, rows)[mine], rows["image_id"].to_numpy()[mine])

    def _keys(self, name: str, rows: pa.Table) -> np.ndarray:
        """The order in which a set draws; each set has its own, so that they overlap no more than chance has it."""
        ids, purpose = rows["image_id"].to_numpy(), f"retrieve {name}"
        if self.cluster.order == "random":
            return random_keys(ids, seed=self.seed or 0, purpose=purpose)
        return nearest_keys(rows["similarity"].to_numpy(), ids, seed=self.seed or 0, purpose=purpose)

    def _sets(self, parts: Parts) -> dict[str, tuple[str, ...]]:
        """Curated sources in the order of the config, with their routes."""
        found = {}
        for rank in np.unique(parts.rank[parts.role == CURATED]):
            mine = np.flatnonzero(parts.rank == rank)
            found[parts.source[mine[0]]] = self._routes(int(parts.rows[mine].sum()))
        return found

    def _routes(self, num_images: int) -> tuple[str, ...]:
        if self.route == "auto":
            return ("sample",) if num_images > self.sample_min_images else ("cluster",)
        return ("sample", "cluster") if self.route == "both" else (self.route,)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        parts = parts_of(tables["catalog"])
        if parts.role[part] != POOL:
            return
        routes = self._sets(parts)
        found = [RETRIEVED.empty_table(), *self._by_sample(part, routes, parts, tables["nearest"])]
        found += self._by_cluster(routes, state, tables["assignments"].read(part))
        yield from _in_order(pa.concat_tables(found)).to_batches()

    def _by_sample(
        self, part: int, routes: Mapping[str, tuple[str, ...]], parts: Parts, nearest: Table | None
    ) -> Iterator[pa.Table]:
        if nearest is None or not any("sample" in route for route in routes.values()):
            return
        k = np.array([self.sample.of(name) if "sample" in routes.get(name, ()) else 0 for name in parts.source])
        numbers = [known.number for known in nearest.parts()]
        for rows in (rows for n in numbers for rows in nearest.read_images(n, part << 32, (part + 1) << 32)):
            query_part = rows["query_id"].to_numpy() >> 32
            chosen = np.flatnonzero(rows["rank"].to_numpy() < k[query_part])
            names = _names(parts.rank[query_part[chosen]], _source_names(parts))
            yield _table(*rows.take(chosen).columns[:3], origin="sample", names=names)

    def _by_cluster(self, routes: Mapping[str, tuple[str, ...]], state: pa.Table, rows: pa.Table) -> Iterator[pa.Table]:
        for name in (name for name, route in routes.items() if "cluster" in route):
            mine = state.filter(pa.compute.equal(state["purpose"], name))
            leaves = mine["group"].to_numpy()
            draws = Draws(*(mine[column].to_numpy() for column in LIMITS.names[2:]))
            place, inside = _places(leaves, rows["cluster_id"].to_numpy())
            keyed = Keyed(place, self._keys(name, rows)[inside], rows["image_id"].to_numpy()[inside])
            drawn = draws.repeats(keyed) > 0
            chosen = rows.take(np.flatnonzero(inside)[drawn])
            queries = pa.array(mine["query_id"].to_numpy()[place[drawn]])
            names = _names(np.zeros(len(chosen), np.int32), [name])
            yield _table(queries, chosen["image_id"], chosen["similarity"], origin="cluster", names=names)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        """Images are in one part only, so unique counts of parts add up."""
        unique, sets = 0, dict[str, dict[str, int]]()
        figures = [("image_id", "count"), ("image_id", "count_distinct")]
        for rows in table.scan(["image_id", "origin", "set"]):
            unique += pa.compute.count_distinct(rows["image_id"]).as_py()
            counted = rows.group_by(["set", "origin"]).aggregate(figures)
            for row in counted.to_pylist():
                found = sets.setdefault(f"{row['set']}/{row['origin']}", {"retrieved": 0, "unique": 0})
                found["retrieved"] += row["image_id_count"]
                found["unique"] += row["image_id_count_distinct"]
        return {"unique": unique, "sets": dict(sorted(sets.items()))}


STATE = pa.schema([*LIMITS, pa.field("query_id", pa.int64(), nullable=False)])
"""Purpose: the set; group: the leaf; query_id: the query of the set that is nearest to the leaf's centroid."""


@dataclass(frozen=True)
class _Hit:
    """The leaves that one set draws from."""

    name: str
    leaves: np.ndarray
    """(H,) int64, ascending"""
    sizes: np.ndarray
    """(H,) int64, pool images"""
    draws: np.ndarray
    """(H,) int64, pool images to draw"""
    central: np.ndarray
    """(H,) int64, the query nearest to the centroid"""


def _places(leaves: np.ndarray, leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M,) int64 places in the ascending `leaves` of those images whose leaf is among them, and (N,) bool who is."""
    place = np.searchsorted(leaves, leaf)
    inside = place < len(leaves)
    inside[inside] = leaves[place[inside]] == leaf[inside]
    return place[inside], inside


def _parts_of_set(name: str, parts: Parts) -> list[int]:
    pairs = zip(parts.source, parts.role, strict=True)
    return [number for number, (source, role) in enumerate(pairs) if source == name and role == CURATED]


def _source_names(parts: Parts) -> list[str]:
    """Names by rank."""
    names = dict(zip(parts.rank.tolist(), parts.source, strict=True))
    return [names.get(rank, "") for rank in range(max(names, default=-1) + 1)]


def _most_central(cluster: np.ndarray, similarity: np.ndarray, ids: np.ndarray, num_clusters: int) -> np.ndarray:
    """(K,) int64: of each cluster the query nearest to its centroid; -1 where it has none."""
    best = np.full(num_clusters, -1, np.int64)
    order = np.lexsort((-ids, similarity))  # the last write wins: most similar, then smallest id
    best[cluster[order]] = ids[order]
    return best


def _names(codes: np.ndarray, names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(codes.astype(np.int32), names).cast(pa.string())


def _table(queries: Any, ids: Any, similarity: Any, *, origin: str, names: pa.Array) -> pa.Table:
    origins = _names(np.zeros(len(names), np.int32), [origin])
    return pa.Table.from_arrays([queries, ids, similarity, origins, names], schema=RETRIEVED)


def _in_order(rows: pa.Table) -> pa.Table:
    """By image, then strongest first: the order in which `selection` tells them."""
    keys = [("image_id", "ascending"), ("similarity", "descending"), ("set", "ascending"), ("origin", "ascending")]
    return rows.sort_by([*keys, ("query_id", "ascending")])
