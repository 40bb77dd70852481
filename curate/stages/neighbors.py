"""FindNeighbors: exact similarity inside inverted lists, one list at a time."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.models.thresholds import copy_thresholds
from curate.ops.knn import Edges, find_neighbors, merge_top_k, rank_in_group
from curate.ops.vectors import VectorSpec, to_float32, unpack
from curate.stage import Batches, Input, Map, each, whole
from curate.stages.catalog import Parts, parts_of
from curate.stages.lists import Role
from curate.store import Table
from curate.tables import CATALOG, LISTS, NEIGHBORS, ROLES


class FindNeighbors(Map):
    """Pairs of a query and a listed image above a threshold, or the nearest of each query."""

    inputs: ClassVar[dict[str, Input]] = {"lists": each(LISTS), "catalog": whole(CATALOG)}

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair of pool and curated images; None: the value known for the model."""
    heldout_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair with a held-out image; None: the value known for the model."""
    max_neighbors: Annotated[int, Field(ge=1)] = 64
    """Edges of a query at most, the strongest first, in each list."""
    queries: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images ask."""
    answers: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images are found."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = VectorSpec.of(inputs["lists"])
        resolved = self._with_thresholds(spec)  # an unknown model is an error before any compute
        assert resolved.threshold is not None
        return NEIGHBORS

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self._with_thresholds(VectorSpec.of(inputs["lists"].schema()))

    def _with_thresholds(self, spec: VectorSpec) -> Self:
        if self.threshold is not None and self.heldout_threshold is not None:
            return self
        known = copy_thresholds(spec.model, given_self=self.threshold, given_relative=self.heldout_threshold)
        return self.model_copy(update={"threshold": known.self_, "heldout_threshold": known.relative})

    def run(self, part: int, *, lists: pa.Table, catalog: Table) -> Batches:
        spec = VectorSpec.of(lists.schema)
        parts = parts_of(catalog)
        kind = "hash" if spec.dtype == "bits" else "embedding"
        bounds = np.flatnonzero(np.diff(lists["list_id"].to_numpy(), prepend=-1, append=-1))
        found = [Edges.empty()]
        for start, end in itertools.pairwise(bounds):
            found += self._join(lists.slice(start, end - start), spec, parts)
        edges = merge_top_k(Edges.concat(found), self.max_neighbors)
        columns = [edges.query_ids, edges.image_ids, edges.similarity.astype(np.float32)]
        kinds = pa.array([kind] * edges.num_edges, pa.string())
        yield pa.RecordBatch.from_arrays([*map(pa.array, columns), kinds], schema=NEIGHBORS)

    def _join(self, rows: pa.Table, spec: VectorSpec, parts: Parts) -> Iterator[Edges]:
        """The edges within one list."""
        ids, home = rows["image_id"].to_numpy(), rows["home"].to_numpy()
        x = to_float32(unpack(rows["vector"], spec)[0], spec)
        role = parts.role[ids >> 32]
        base = home & np.isin(role, [ROLES.index(r) for r in self.answers])
        if not base.any():
            return
        for asking, threshold in self._askers(role):
            occurrence = np.zeros(len(ids), np.int64)  # a query may look in as several mirrored copies
            order = np.argsort(ids, kind="stable")
            occurrence[order] = rank_in_group(ids[order])
            for turn in np.unique(occurrence[asking]):
                mine = asking & (occurrence == turn)
                yield find_neighbors(
                    x[mine],
                    x[base],
                    query_ids=ids[mine],
                    base_ids=ids[base],
                    threshold=threshold,
                    max_neighbors=self.max_neighbors,
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
