"""The routes by which images enter the selection, one part of the catalog at a time, as arrays."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.image_ids import Parts, part_of
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import TableError
from curate.ops.clusters.hierarchy import cluster_paths
from curate.ops.codes import names_of
from curate.ops.copies.decided import Decided
from curate.stages.copies.resolve_decisions import read_decided
from curate.stages.images.pictures import accepted_mask
from curate.stages.search.centroids import num_leaves, read_parents
from curate.stages.selection.retrieved import source_names
from curate.tables import ASSIGNMENTS, ORIGIN, POOL, SELECTION

ROUTES = ("sample", "cluster", "balance", "kept", "curated", "decision")
"""Values of `origins.route`."""
NO_SET, NO_QUERY = -1, -1


class Assigned(NamedTuple):
    """The clustered images of a part."""

    image_ids: np.ndarray
    """(N,) int64, ascending"""
    leaf: np.ndarray
    """(N,) int32"""
    similarity: np.ndarray
    """(N,) float32, cosine to the centroid; 0 where it was not read"""
    junk: np.ndarray
    """(N,) bool"""

    def leaf_of(self, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M,) int32 leaf and (M,) bool: is clustered."""
        place = np.minimum(np.searchsorted(self.image_ids, image_ids), max(0, len(self.image_ids) - 1))
        known = self.image_ids[place] == image_ids if len(self.image_ids) else np.zeros(len(image_ids), bool)
        leaf = self.leaf[place] if len(self.image_ids) else np.zeros(len(image_ids), np.int32)
        return leaf, known


class Origins(NamedTuple):
    """Why images were chosen, a row a reason; those of one image in the order in which they are told."""

    image_ids: np.ndarray
    """(R,) int64"""
    route: np.ndarray
    """(R,) int8, index into ROUTES"""
    set: np.ndarray
    """(R,) int32, rank of the curated source; -1: none"""
    query_ids: np.ndarray
    """(R,) int64; -1: none"""

    @classmethod
    def of(cls, image_ids: np.ndarray, route: str, *, rank: int = NO_SET) -> "Origins":
        """One reason for all of them, without a query."""
        count = len(image_ids)
        return cls(
            image_ids,
            np.full(count, ROUTES.index(route), np.int8),
            np.full(count, rank, np.int32),
            np.full(count, NO_QUERY, np.int64),
        )

    @classmethod
    def concat(cls, several: list["Origins"]) -> "Origins":
        """By image; those of one image in the order of `several`."""
        columns = [np.concatenate(column) for column in zip(*several, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    def take(self, rows: np.ndarray) -> "Origins":
        """The reasons at these rows, or where a mask is true."""
        return Origins(*(column[rows] for column in self))


@dataclass(frozen=True)
class RouteTables:
    """What selection reads; every method reads one part."""

    parts: Parts
    images: Table
    duplicates: Table
    contaminated: Table
    retrieved: Table | None
    assignments: Table | None
    centroids: Table | None
    junk: Table | None
    decided: Decided
    scores: Table | None
    similarity: bool
    """Whether the similarities to the centroids are read: a draw at random can do without."""

    @classmethod
    def of(cls, tables: dict[str, Any], *, similarity: bool) -> "RouteTables":
        """From the inputs of `Select`."""
        names = ("images", "duplicates", "contaminated", "retrieved", "assignments", "centroids", "junk", "scores")
        given = {name: tables[name] for name in names}
        decided = read_decided(tables["decided"]) or Decided.nothing()
        return cls(Parts.of(tables["catalog"]), **given, decided=decided, similarity=similarity)

    def tree(self) -> tuple[int, list[np.ndarray]]:
        """The number of leaves, and the parents above them; see `cluster_paths`."""
        if self.centroids is None:
            return 0, []
        contents = tuple(part.content for part in self.centroids.parts())
        return _tree(self.centroids.store.address, self.centroids.name, contents)

    def assigned(self, part: int) -> Assigned:
        """The clustered images of a part; none where the recipe clusters nothing."""
        if self.assignments is None:
            return Assigned(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, bool))
        rows = self.assignments.read(part, ASSIGNMENTS.names if self.similarity else ASSIGNMENTS.names[:2])
        ids, leaf = rows["image_id"].to_numpy(), rows["cluster_id"].to_numpy()
        similarity = rows["similarity"].to_numpy() if self.similarity else np.zeros(len(ids), np.float32)
        return Assigned(ids, leaf, similarity, self._junk(part, ids))

    def _junk(self, part: int, ids: np.ndarray) -> np.ndarray:
        if self.junk is None or self.parts.role[part] != POOL:
            return np.zeros(len(ids), bool)
        rows = self.junk.read(part, ["image_id", "junk"])
        if not np.array_equal(rows["image_id"].to_numpy(), ids):
            raise TableError(
                f"{self.junk.name} part {part}: {len(rows)} images, assignments have {len(ids)} or others; make "
                f"it again with --rebuild {self.junk.name}"
            )
        junk: np.ndarray = rows["junk"].to_numpy()
        return junk

    def retrieved_rows(self, part: int) -> Origins:
        """Why the images of a part were retrieved, by image and strongest first."""
        if self.retrieved is None:
            return Origins.of(np.empty(0, np.int64), "sample")
        rows = self.retrieved.read(part)
        route = pc.index_in(rows["origin"], value_set=pa.array(ROUTES))
        rank = pc.index_in(rows["set"], value_set=pa.array(source_names(self.parts)))
        return Origins(
            rows["image_id"].to_numpy(),
            route.to_numpy().astype(np.int8),
            rank.to_numpy().astype(np.int32),
            rows["query_id"].to_numpy(),
        )

    def kept(self, part: int) -> np.ndarray:
        """(N,) int64, ascending: pool images that deduplication kept."""
        rows = self.duplicates.read(part, ["image_id", "verdict"])
        kept: np.ndarray = rows.filter(pc.equal(rows["verdict"], "kept"))["image_id"].to_numpy()
        return kept

    def wanted(self, part: int) -> np.ndarray:
        """(N,) int64, ascending: pool images that a person keeps."""
        mine = self.decided.keep[part_of(self.decided.keep) == part]
        return np.intersect1d(mine, self.kept(part)) if len(mine) else mine

    def listed(self, part: int) -> np.ndarray:
        """(N,) int64: curated images that a rule rejects: those that a list names."""
        if self.scores is None:
            return np.empty(0, np.int64)
        rows = self.scores.read(part, ["image_id", "reject"])
        ids: np.ndarray = rows.filter(rows["reject"].is_valid())["image_id"].to_numpy()
        return ids

    def touching(self, part: int) -> np.ndarray:
        """(N,) int64, ascending: images that resemble a held-out one."""
        touching: np.ndarray = self.contaminated.read(part, ["image_id"])["image_id"].to_numpy()
        return touching

    def accepted(self, part: int) -> np.ndarray:
        """(N,) int64, ascending: images that were not rejected."""
        rows = self.images.read(part, ["image_id", "reject"])
        accepted: np.ndarray = rows["image_id"].to_numpy()[accepted_mask(rows)]
        return accepted


@lru_cache(maxsize=1)
def _tree(root: str, name: str, contents: tuple[str, ...]) -> tuple[int, list[np.ndarray]]:
    """Read once by a process, not once a part; `contents` of the parts tell one table from another of that name."""
    centroids = Store(root).table(name)
    return num_leaves(centroids), read_parents(centroids)


def selection_batch(
    image_ids: np.ndarray, repeats: np.ndarray, origins: Origins, tables: RouteTables, assigned: Assigned
) -> pa.RecordBatch:
    """Rows of `selection`, without a Python object for each.

    Args:
        image_ids: (N,) int64, ascending.
        repeats: (N,) int32.
        origins: of these images and no others, by image.
    """
    columns = [
        pa.array(image_ids),
        _paths(image_ids, tables, assigned),
        _lists(np.searchsorted(origins.image_ids, image_ids), len(origins.route), _structs(origins, tables)),
        pa.array(repeats.astype(np.int32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SELECTION)


def _paths(image_ids: np.ndarray, tables: RouteTables, assigned: Assigned) -> pa.Array:
    leaf, known = assigned.leaf_of(image_ids)
    paths = cluster_paths(leaf[known], tables.tree()[1])
    ends = np.cumsum(known) * paths.shape[1]
    starts = ends - known * paths.shape[1]
    return _lists(starts, paths.size, pa.array(paths.reshape(-1)))


def _lists(starts: np.ndarray, end: int, values: pa.Array) -> pa.Array:
    offsets = np.concatenate([starts, [end]]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _structs(origins: Origins, tables: RouteTables) -> pa.Array:
    no_set, no_query = origins.set == NO_SET, origins.query_ids == NO_QUERY
    sets = pa.array(np.maximum(origins.set, 0).astype(np.int32), mask=no_set)
    columns = [
        names_of(origins.route, ROUTES),
        names_of(sets, source_names(tables.parts)),
        pa.array(origins.query_ids, mask=no_query),
    ]
    return pa.StructArray.from_arrays(columns, fields=list(ORIGIN))
