"""SampleQueries and FindTruth: some images whose neighbours are known by brute force, to choose and judge a search.

Half of the queries choose `num_probes` (BuildLists), the other half measure the recall of what was found
(FindNeighbors), so the measured recall is not that of the sample it was tuned on. Both tables are pinned: appended
data changes neither.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Batches, Fold, Input, each, whole
from curate.engine.store import Table
from curate.models.device import resolve_device
from curate.models.thresholds import copy_thresholds
from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.ops.images.hashes import dihedral
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import VectorSpec, pack, to_float32, unpack
from curate.stages.images.catalog import parts_of
from curate.stages.search.lists import HASHES, Role, count_vectors, read_vectors, share_of, vector_spec
from curate.tables import CATALOG, ROLES, THRESHOLDS, VECTORS, embeddings_schema, truth_schema


class SampleQueries(Fold):
    """A seeded sample of the images that ask."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    num_queries: Annotated[int, Field(ge=0)] = 2000
    """Images at about which the sample aims."""
    queries: tuple[Role, ...] = ("pool",)
    """Roles whose images ask."""
    seed: int | None = None
    """None: the run's seed."""
    sample_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the images that is sampled; None: as `num_queries` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return embeddings_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.sample_share is not None:
            return self
        vectors = inputs["embeddings"] if inputs["embeddings"] is not None else inputs["hashes"]
        asking = count_vectors(vectors, self.queries, parts_of(inputs["catalog"]))
        return self.model_copy(update={"sample_share": share_of(self.num_queries, asking)})

    def partial(self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, catalog: Table) -> Batches:
        assert self.sample_share is not None
        listed = read_vectors(embeddings, hashes)
        asks = ROLES[parts_of(catalog).role[part]] in self.queries
        chosen = np.random.default_rng([self.seed or 0, part, 5]).random(len(listed.ids)) < self.sample_share * asks
        schema = self.output_schema(
            embeddings=None if embeddings is None else embeddings.schema,
            hashes=None if hashes is None else hashes.schema,
        )
        columns = [pa.array(listed.ids[chosen]), pack(listed.vectors[chosen])]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        for part in sorted(partials.committed()):
            yield from partials.read(part).to_batches()


class FindTruth(Fold):
    """The neighbours of the sampled queries among all images, by brute force."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "queries": whole(VECTORS),
        "catalog": whole(CATALOG),
        "thresholds": whole(THRESHOLDS, optional=True),
    }
    pinned: ClassVar[bool] = True

    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least cosine of a pair; None: as measured, or known for the model."""
    max_neighbors: Annotated[int, Field(ge=1)] = 64
    """Neighbours of a query at most."""
    answers: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images are found."""
    dihedral: bool = True
    """Hashes only: a query also looks for its mirrored and turned copies."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return _schema(VectorSpec.of(inputs["queries"]))

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.threshold is not None:
            return self
        if inputs.get("thresholds") is not None:
            return self.model_copy(update={"threshold": inputs["thresholds"].metrics["pool"]["threshold"]})
        model = VectorSpec.of(inputs["queries"].schema()).model
        return self.model_copy(update={"threshold": copy_thresholds(model).threshold})

    def partial(
        self,
        part: int,
        *,
        embeddings: pa.Table | None,
        hashes: pa.Table | None,
        queries: Table,
        catalog: Table,
        thresholds: Table | None,
    ) -> Batches:
        asking = queries.read_all()
        if ROLES[parts_of(catalog).role[part]] not in self.answers or len(asking) == 0:
            return
        listed, spec = read_vectors(embeddings, hashes), VectorSpec.of(asking.schema)
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
        yield _truth_rows(edges, listed.vectors[np.searchsorted(listed.ids, edges.image_ids)], spec)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        rows = pa.concat_tables([partials.read(part) for part in sorted(partials.committed())])
        order = np.lexsort((rows["image_id"].to_numpy(), -rows["similarity"].to_numpy(), rows["query_id"].to_numpy()))
        rank = rank_in_group(rows["query_id"].to_numpy()[order])
        yield from rows.take(order[rank < self.max_neighbors]).combine_chunks().to_batches()


def _truth_rows(edges: Edges, vectors: np.ndarray, spec: VectorSpec) -> pa.RecordBatch:
    columns = [pa.array(edges.query_ids), pa.array(edges.image_ids), pa.array(edges.similarity), pack(vectors)]
    return pa.RecordBatch.from_arrays(columns, schema=_schema(spec))


def _schema(spec: VectorSpec) -> pa.Schema:
    return truth_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)
