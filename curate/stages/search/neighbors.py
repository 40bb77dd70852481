"""FindNeighbors: exact similarity inside inverted lists, one list at a time."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Batches, Input, Map, each, whole
from curate.engine.store import Table
from curate.models.device import resolve_device
from curate.models.thresholds import copy_thresholds
from curate.ops.edges import Edges, merge_top_k
from curate.ops.search.knn import find_neighbors, join_within
from curate.ops.vectors import VectorSpec, to_float32, unpack
from curate.stages.images.catalog import Parts, parts_of
from curate.stages.search.lists import Role
from curate.stages.search.pairs import measured_recall
from curate.tables import CATALOG, LISTS, NEIGHBORS, ROLES, THRESHOLDS, TRUTH, VECTORS


class FindNeighbors(Map):
    """Pairs of a query and a listed image at or above a threshold, or the nearest of each query.

    Identical vectors would crowd out everything else: a hundred copies of one picture, some with other metadata,
    fill every place that `max_neighbors` leaves. So where a role both asks and answers, the first image (smallest
    id) of those with one vector stands for all of them, and an edge of similarity 1 ties each other one to it.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "lists": each(LISTS),
        "catalog": whole(CATALOG),
        "queries": whole(VECTORS, optional=True),
        "truth": whole(TRUTH, optional=True),
        "thresholds": whole(THRESHOLDS, optional=True),
    }
    version: ClassVar[int] = 3

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair of pool and curated images; None: as measured, or known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair with a held-out image; None: as measured, or known for the model."""
    max_neighbors: Annotated[int, Field(ge=1)] = 64
    """Edges of a query at most, the strongest first, in each part of the lists; ties to identical images aside."""
    queries: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images ask."""
    answers: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images are found."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N; exact cosines are of float32 on any."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["lists"])
        if inputs.get("thresholds") is None:
            self._with_thresholds(spec)  # an unknown model is an error before any compute
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if inputs.get("thresholds") is None:
            return self._with_thresholds(VectorSpec.of(inputs["lists"].schema()))
        measured = inputs["thresholds"].metrics
        chosen = {"threshold": measured["pool"]["threshold"], "heldout_threshold": measured["heldout"]["threshold"]}
        return self.model_copy(update={name: v for name, v in chosen.items() if getattr(self, name) is None})

    def _with_thresholds(self, spec: VectorSpec) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = copy_thresholds(spec.model, threshold=self.threshold, heldout_threshold=self.heldout_threshold)
        return self.model_copy(update={"threshold": known.threshold, "heldout_threshold": known.heldout_threshold})

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if resolve_device(self.device).type == "cuda" else {}

    def run(self, part: int, *, lists: pa.Table, catalog: Table, **known: Table | None) -> Batches:
        spec = VectorSpec.of(lists.schema)
        parts = parts_of(catalog)
        kind = "hash" if spec.dtype == "bits" else "embedding"
        bounds = np.flatnonzero(np.diff(lists["list_id"].to_numpy(), prepend=-1, append=-1))
        found, ties = [Edges.empty()], [Edges.empty()]
        for start, end in itertools.pairwise(bounds):
            rows, identical = self._collapse(_Rows.of(lists.slice(start, end - start), spec, parts))
            ties.append(identical)
            found += self._join(rows, spec)
        edges = merge_top_k(Edges.concat(found), self.max_neighbors)
        edges = merge_top_k(Edges.concat([edges, *ties]), None)
        columns = [edges.query_ids, edges.image_ids, edges.similarity.astype(np.float32)]
        kinds = pa.array([kind] * edges.num_edges, pa.string())
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        """The measured recall, where a sample with known neighbours is given."""
        if inputs.get("truth") is None:
            return {}
        both_ways = set(self.queries) >= set(self.answers)
        return measured_recall(inputs["queries"], inputs["truth"], table, both_ways=both_ways)

    def _collapse(self, rows: "_Rows") -> tuple["_Rows", Edges]:
        """One row for each vector that a role has several times in a list, and the ties of the others to it."""
        both = [ROLES.index(r) for r in ROLES if r in self.queries and r in self.answers]
        first = _first_of_vector(rows)
        repeats = np.flatnonzero((first != np.arange(len(first))) & np.isin(rows.role, both))
        if len(repeats) == 0:
            return rows, Edges.empty()
        others = repeats[rows.home[repeats]]
        tied = Edges(rows.ids[others], rows.ids[first[others]], np.ones(len(others), np.float32))
        return rows.take(np.delete(np.arange(len(first)), repeats)), tied

    def _join(self, rows: "_Rows", spec: VectorSpec) -> Iterator[Edges]:
        """The edges within one list: listed images among themselves, then those that look in from elsewhere."""
        base = rows.home & np.isin(rows.role, [ROLES.index(r) for r in self.answers])
        if not base.any():
            return
        x, k, device = to_float32(rows.vectors, spec), self.max_neighbors, str(resolve_device(self.device))
        for asking, threshold in self._askers(rows.role):
            listed = bool(asking[base].all())
            if listed:
                yield join_within(x[base], rows.ids[base], threshold=threshold, max_neighbors=k, device=device)
            others = asking & ~base if listed else asking
            if others.any():
                yield find_neighbors(
                    x[others],
                    x[base],
                    query_ids=rows.ids[others],
                    base_ids=rows.ids[base],
                    threshold=threshold,
                    max_neighbors=k,
                    device=device,
                )

    def _askers(self, role: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
        """(mask of queries, their threshold), held-out images apart from the others."""
        assert self.threshold is not None
        assert self.heldout_threshold is not None
        heldout = role == ROLES.index("heldout")
        asks = np.isin(role, [ROLES.index(r) for r in self.queries])
        for mask, threshold in ((asks & ~heldout, self.threshold), (asks & heldout, self.heldout_threshold)):
            if mask.any():
                yield mask, threshold


class _Rows(NamedTuple):
    """The rows of one list, home rows first, each kind by ascending id."""

    ids: np.ndarray
    """(N,) int64"""
    home: np.ndarray
    """(N,) bool"""
    role: np.ndarray
    """(N,) int8, index into `tables.ROLES`"""
    vectors: np.ndarray
    """(N, width) as stored"""

    @classmethod
    def of(cls, rows: pa.Table, spec: VectorSpec, parts: Parts) -> "_Rows":
        ids = rows["image_id"].to_numpy()
        return cls(ids, rows["home"].to_numpy(), parts.role[ids >> 32], unpack(rows["vector"], spec)[0])

    def take(self, rows: np.ndarray) -> "_Rows":
        return _Rows(*(column[rows] for column in self))


def _first_of_vector(rows: _Rows) -> np.ndarray:
    """(N,) int64: for each row the first one of equal role, equal bytes and the same kind, home or query."""
    raw = np.ascontiguousarray(rows.vectors).view(np.uint8)
    kind = 2 * rows.role.astype(np.int64) + rows.home
    key = _hash_rows(raw) ^ kind.astype(np.uint64)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    found: np.ndarray = first[group]
    # Of rows that share a hash but not their bytes, each stands for itself: a repeat lost, never two images joined.
    repeats = np.flatnonzero(found != np.arange(len(found)))
    equal = (raw[repeats] == raw[found[repeats]]).all(axis=1) & (kind[repeats] == kind[found[repeats]])
    found[repeats[~equal]] = repeats[~equal]
    return found


def _hash_rows(raw: np.ndarray) -> np.ndarray:
    """(N,) uint64 of (N, width) bytes: a random linear map, which equal rows cannot differ in."""
    words = np.zeros((len(raw), -(-raw.shape[1] // 8) * 8), np.uint8)
    words[:, : raw.shape[1]] = raw
    columns = words.view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 1 << 63, columns.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashed: np.ndarray = (columns * odd).sum(axis=1, dtype=np.uint64)
    return hashed
