"""FindTruth: the neighbors of sampled queries, found by brute force.

A search through inverted lists loses some neighbors, and nothing that it finds tells how many. So a few thousand
sampled images (`SampleQueries`) are compared with every other image. Half of them choose how many lists a query probes
(`BuildLists`), the other half measure the recall of what was found (`MeasureRecall`): a recall measured on the queries
that chose would be too good.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import folded, grouped
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Fold, Input, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.models.thresholds import copy_thresholds
from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.ops.images.hashes import dihedral
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import VectorSpec, pack, to_float32, unpack
from curate.stages.search.vectors import HASHES, Role, Vectors, either, num_forms, read_vectors, vectors_shape
from curate.tables import CATALOG, ROLES, THRESHOLDS, VECTORS, truth_schema


class FindTruth(Fold):
    """The neighbors of the sampled queries among all images; pinned, so that appended data do not change them."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": whole(VECTORS, optional=True),
        "hashes": whole(HASHES, optional=True),
        "queries": whole(VECTORS),
        "catalog": whole(CATALOG),
        "thresholds": whole(THRESHOLDS, optional=True),
    }
    pinned: ClassVar[bool] = True

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Smallest cosine similarity of a pair, -1..1; null: as measured, or known for the model."""
    max_neighbors: Annotated[int, Field(ge=1)] = 64
    """Largest number of neighbors of a query."""
    answers: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images are found."""
    dihedral: bool = True
    """Hashes only: a query also looks for its mirrored and turned copies."""
    device: Annotated[str, Execution()] = "auto"
    """Where similarities are computed: auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return _truth_schema(VectorSpec.of(inputs["queries"]))

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None:
            return self
        if inputs.get("thresholds") is not None:
            return self.model_copy(update={"threshold": read_thresholds(inputs["thresholds"])["floor"]})
        model = VectorSpec.of(inputs["queries"].schema()).model
        return self.model_copy(update={"threshold": copy_thresholds(model).threshold})

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(either(inputs).parts()))

    def partial(
        self,
        group: int,
        *,
        embeddings: Table | None,
        hashes: Table | None,
        queries: Table,
        catalog: Table,
        thresholds: Table | None,
    ) -> Batches:
        """The nearest among the images of some parts."""
        asking, roles = queries.read_all(), Parts.of(catalog).role
        best = self.partial_schema(queries=asking.schema).empty_table()
        for part in parts_of_group(group, len(roles)):
            if ROLES[roles[part]] in self.answers and len(asking):
                vectors = None if embeddings is None else embeddings.read(part)
                hashed = None if hashes is None else hashes.read(part, HASHES.names)
                best = self._strongest([best, self._found(asking, read_vectors(vectors, hashed))])
        yield from best.to_batches()

    def _found(self, asking: pa.Table, listed: Vectors) -> pa.Table:
        """What the queries find among some vectors."""
        from curate.models.device import resolve_device

        spec = VectorSpec.of(asking.schema)
        stored, _ = unpack(asking["vector"], spec)
        ids = asking["image_id"].to_numpy()
        if spec.dtype == "bits" and self.dihedral:
            forms = dihedral(stored)
            stored, ids = forms.reshape(-1, forms.shape[2]), np.repeat(ids, forms.shape[1])
        assert self.threshold is not None
        edges = find_neighbors(
            to_float32(stored, spec),
            to_float32(listed.vectors, spec),
            query_ids=ids,
            base_ids=listed.ids,
            threshold=self.threshold,
            max_neighbors=self.max_neighbors,
            device=str(resolve_device(self.device)),
        )
        edges = merge_top_k(edges, self.max_neighbors)
        vectors = listed.vectors[np.searchsorted(listed.ids, edges.image_ids)]
        return pa.Table.from_batches([_truth_rows(edges, vectors, spec)])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        best = self.output_schema(queries=tables["queries"].schema()).empty_table()
        for rows in scan_partials(partials):
            best = self._strongest([best, rows])
        yield from best.to_batches()

    def _strongest(self, several: list[pa.Table]) -> pa.Table:
        """The most similar images of each query, in order of queries; equally similar ones by id."""
        rows = pa.concat_tables([one.replace_schema_metadata(None) for one in several]).combine_chunks()
        order = np.lexsort((rows["image_id"].to_numpy(), -rows["similarity"].to_numpy(), rows["query_id"].to_numpy()))
        rank = rank_in_group(rows["query_id"].to_numpy()[order])
        return rows.take(order[rank < self.max_neighbors]).replace_schema_metadata(several[0].schema.metadata)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        vectors, queries = vectors_shape(inputs), inputs["queries"]
        hashed = inputs.get("hashes") is not None
        forms = num_forms(hashed=hashed, dihedral=self.dihedral)
        products = 2 * forms * queries.rows * vectors.of(self.answers) * vectors.dim
        groups = grouped(vectors)
        each = self.max_neighbors if self.threshold == -1 else given.hash_pairs if hashed else given.pairs
        # A vector that several queries find is stored once.
        made = queries._replace(
            pool=queries.rows * each, row_bytes=vectors.row_bytes / 3 + edge_bytes(given), columns=4
        )
        found = made._replace(pool=made.pool * (groups if self.threshold == -1 else 1), parts=groups)
        listed: Shape = either(inputs)
        read = [listed.scanned(share=listed.share(HASHES.names)), queries.scanned(groups + 1)]
        demand = Demand(products=products, written=made.num_bytes)
        return Demand.phases([demand, *read, folded(found, made, made)]), made


def measured(thresholds: Table | None, **uses: str) -> dict[str, float]:
    """What planted copies measured for fields of a stage, by the use of each; nothing where nothing was measured."""
    known = {} if thresholds is None else read_thresholds(thresholds)
    return {field: known[use] for field, use in uses.items() if known}


def read_thresholds(thresholds: Table) -> dict[str, float]:
    """The thresholds that planted copies measured, by use, see `tables.THRESHOLDS`."""
    rows = thresholds.read_all(["use", "threshold"]).to_pylist()
    return {row["use"]: round(row["threshold"], 5) for row in rows if row["use"] is not None}


def _truth_rows(edges: Edges, vectors: np.ndarray, spec: VectorSpec) -> pa.RecordBatch:
    columns = [pa.array(edges.query_ids), pa.array(edges.image_ids), pa.array(edges.similarity), pack(vectors)]
    return pa.RecordBatch.from_arrays(columns, schema=_truth_schema(spec))


def _truth_schema(spec: VectorSpec) -> pa.Schema:
    return truth_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)
