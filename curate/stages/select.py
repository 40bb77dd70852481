"""Select: the union of the routes by which an image enters the curated set, rebalanced over the clusters."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Settings
from curate.errors import ConfigError
from curate.ops.hierarchy import cluster_paths
from curate.ops.sampling import balanced_sample
from curate.stage import Batches, Fold, Input, whole
from curate.stages.catalog import Parts, parts_of
from curate.stages.cluster import read_parents
from curate.stages.deduplicate import curated_heldout
from curate.stages.inspect import accepted_mask
from curate.store import Table
from curate.tables import ASSIGNMENTS, CATALOG, CENTROIDS, DUPLICATES, IMAGES, NEIGHBORS, RETRIEVED, ROLES, SELECTION

POOL, CURATED = ROLES.index("pool"), ROLES.index("curated")


class Balance(Settings):
    """Draws from the pool so that clusters of every level are as even as their sizes allow."""

    target: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Images to draw, repeats included; auto: three quarters of the images left."""
    max_repeats: Annotated[int, Field(ge=1)] = 1
    """Times one image may be drawn."""
    order: Literal["random", "closest"] = "random"
    """Which images of a leaf come first."""


class Select(Fold):
    """The curated set: retrieved images, a balanced sample, or everything kept, and the curated sources as is."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "duplicates": whole(DUPLICATES),
        "neighbors": whole(NEIGHBORS, many=True),
        "retrieved": whole(RETRIEVED, optional=True),
        "assignments": whole(ASSIGNMENTS, optional=True),
        "centroids": whole(CENTROIDS, optional=True),
    }

    include_curated: bool | tuple[str, ...] = True
    """Add the accepted images of the curated sources: of all, of none, or of those named here."""
    drop_contaminated: bool = False
    """Leave out curated images that resemble a held-out one; their number is reported either way."""
    balance: Balance | None = None
    """Add a balanced sample of all pool images that are left; None: no such route."""
    cap: Annotated[int, Field(ge=1)] | None = None
    """Pool images of a leaf cluster at most, over all routes; None: no cap."""
    seed: int | None = None
    """Of every draw; None: the run's seed."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        if (self.balance or self.cap) and inputs["assignments"] is None:
            raise ConfigError("select: balance and cap need clusters; this recipe makes none")
        return SELECTION

    def num_parts(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts())

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        parts = parts_of(inputs["catalog"])
        self._check_names(parts)
        if self.balance is None and self.cap is None:
            return self
        left = sum(part.rows for part in inputs["assignments"].parts() if parts.role[part.number] == POOL)
        if self.cap is not None and self.cap > left:
            raise ConfigError(
                f"select.cap={self.cap}: {left} pool images are left; set it to {left} or less, or leave it out"
            )
        if self.balance is None:
            return self
        most = left * self.balance.max_repeats
        if self.balance.target == "auto":
            return self.model_copy(update=self.estimate(left))
        if self.balance.target > most:
            raise ConfigError(
                f"balance.target={self.balance.target}: {left} pool images are left, with max_repeats="
                f"{self.balance.max_repeats} at most {most} can be drawn; set it to {most} or less, or to auto"
            )
        return self

    def _check_names(self, parts: Parts) -> None:
        known = {name for name, role in zip(parts.source, parts.role, strict=True) if role == CURATED}
        unknown = set() if isinstance(self.include_curated, bool) else set(self.include_curated) - known
        if unknown:
            raise ConfigError(
                f"select.include_curated: {min(unknown)!r} is no curated source; they are {sorted(known)}"
            )

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.balance is None or self.balance.target != "auto":
            return {}
        return {"balance": self.balance.model_copy(update={"target": max(1, num_images * 3 // 4)})}

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        parts = parts_of(tables["catalog"])
        clusters = _Clusters(tables["assignments"], tables["centroids"])
        chosen = _Chosen()
        if tables["retrieved"] is not None:
            chosen.add_retrieved(tables["retrieved"])
        if self.balance is not None:
            self._add_balanced(chosen, clusters, parts)
        if tables["retrieved"] is None and self.balance is None:
            chosen.add(_kept(tables["duplicates"]), route="kept")
        if self.cap is not None:
            chosen.keep_only(self._capped(chosen, clusters))
        if self.include_curated:
            drop = np.empty(0, np.int64)
            if self.drop_contaminated:
                drop = curated_heldout(tables["neighbors"], tables["images"], parts)
            for name, ids in _curated(tables["images"], parts):
                if isinstance(self.include_curated, tuple) and name not in self.include_curated:
                    continue
                chosen.add(ids[~np.isin(ids, drop)], route="curated", name=name)
        yield chosen.batch(clusters)

    def _add_balanced(self, chosen: "_Chosen", clusters: "_Clusters", parts: Parts) -> None:
        assert self.balance is not None
        assert isinstance(self.balance.target, int)
        pool = np.flatnonzero(parts.role[clusters.ids >> 32] == POOL)
        rows, repeats = balanced_sample(
            clusters.leaf[pool],
            clusters.parents,
            self.balance.target,
            seed=self.seed or 0,
            max_repeats=self.balance.max_repeats,
            order=self.balance.order,
            similarity=clusters.similarity[pool],
        )
        chosen.add(clusters.ids[pool[rows]], route="balance", repeats=repeats)

    def _capped(self, chosen: "_Chosen", clusters: "_Clusters") -> np.ndarray:
        """Ids that stay when no leaf gives more than `cap`, drawn at random."""
        assert self.cap is not None
        ids = chosen.ids()
        leaf = clusters.leaf[clusters.rows_of(ids)]
        priority = np.random.default_rng([self.seed or 0, 1]).permutation(len(ids))
        order = np.lexsort((priority, leaf))
        first = np.flatnonzero(np.diff(leaf[order], prepend=-1))
        rank = np.arange(len(ids)) - np.repeat(first, np.diff(first, append=len(ids)))
        return ids[order[rank < self.cap]]

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        ids = state["image_id"].to_numpy()
        start, end = np.searchsorted(ids, [part << 32, (part + 1) << 32])
        yield from state.slice(start, end - start).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        parts = parts_of(inputs["catalog"])
        routes: dict[str, int] = {}
        roles = dict.fromkeys(ROLES, 0)
        for part in table.parts():
            roles[ROLES[parts.role[part.number]]] += part.rows
            for origins in table.read(part.number, ["origins"])["origins"].to_pylist():
                for route in {o["route"] for o in origins}:
                    routes[route] = routes.get(route, 0) + 1
        return {"selected": table.num_rows(), "routes": dict(sorted(routes.items())), "roles": roles}


class _Clusters:
    """Leaf and path of every clustered image; empty where the recipe clusters nothing."""

    def __init__(self, assignments: Table | None, centroids: Table | None) -> None:
        self.ids, self.leaf = np.empty(0, np.int64), np.empty(0, np.int32)
        self.similarity = np.empty(0, np.float32)
        self.parents: list[np.ndarray] = []
        if assignments is not None and centroids is not None:
            rows = assignments.read_all()
            self.ids, self.leaf = rows["image_id"].to_numpy(), rows["cluster_id"].to_numpy()
            self.similarity = rows["similarity"].to_numpy()
            self.parents = read_parents(centroids)

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.ids, ids)

    def paths(self, ids: np.ndarray) -> list[list[int]]:
        if len(self.ids) == 0:
            return [[] for _ in ids]
        paths: list[list[int]] = cluster_paths(self.leaf[self.rows_of(ids)], self.parents).tolist()
        return paths


class _Chosen:
    """Images chosen so far, with every route that chose them and how often they are shown."""

    def __init__(self) -> None:
        self._origins: dict[int, list[tuple[str, str | None, int | None]]] = {}
        self._repeats: dict[int, int] = {}

    def add(self, ids: np.ndarray, *, route: str, name: str | None = None, repeats: np.ndarray | None = None) -> None:
        for place, image_id in enumerate(ids.tolist()):
            self._origins.setdefault(image_id, []).append((route, name, None))
            if repeats is not None:
                self._repeats[image_id] = max(int(repeats[place]), self._repeats.get(image_id, 1))

    def add_retrieved(self, retrieved: Table) -> None:
        rows = retrieved.read_all().sort_by([("image_id", "ascending"), ("similarity", "descending")])
        for row in rows.to_pylist():
            origin = (row["origin"], row["set"], row["query_id"])
            self._origins.setdefault(row["image_id"], []).append(origin)

    def ids(self) -> np.ndarray:
        return np.array(sorted(self._origins), np.int64)

    def keep_only(self, ids: np.ndarray) -> None:
        self._origins = {image_id: self._origins[image_id] for image_id in ids.tolist()}

    def batch(self, clusters: _Clusters) -> pa.RecordBatch:
        ids = self.ids()
        names = ("route", "set", "query_id")
        origins = [[dict(zip(names, origin, strict=True)) for origin in self._origins[i]] for i in ids.tolist()]
        columns = [
            pa.array(ids),
            pa.array(clusters.paths(ids), SELECTION.field("clusters").type),
            pa.array(origins, SELECTION.field("origins").type),
            pa.array([self._repeats.get(i, 1) for i in ids.tolist()], pa.int32()),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SELECTION)


def _kept(duplicates: Table) -> np.ndarray:
    rows = duplicates.read_all(["image_id", "verdict"])
    kept: np.ndarray = rows.filter(pa.compute.equal(rows["verdict"], "kept"))["image_id"].to_numpy()
    return kept


def _curated(images: Table, parts: Parts) -> Iterator[tuple[str, np.ndarray]]:
    """(source, accepted ids) of every curated part."""
    for part in images.parts():
        if parts.role[part.number] == CURATED:
            rows = images.read(part.number, ["image_id", "reject"])
            yield parts.source[part.number], rows["image_id"].to_numpy()[accepted_mask(rows)]
