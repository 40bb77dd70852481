"""FitLists and BuildLists: vectors regrouped by coarse centroid, so that similarity needs one list at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.errors import ConfigError
from curate.ops.hashes import HASH_BYTES, dihedral
from curate.ops.kmeans import assign, fit_kmeans
from curate.ops.knn import top_k
from curate.ops.vectors import VectorSpec, normalize, pack, to_float32, unpack
from curate.stage import Batches, Fold, Input, Shuffle, each, whole
from curate.stages.catalog import Parts, parts_of
from curate.store import Table
from curate.tables import (
    CATALOG,
    CENTROIDS,
    IMAGES,
    ROLES,
    VECTORS,
    centroids_schema,
    lists_schema,
    vector_metadata,
    vector_type,
)

ROWS_PER_LIST = 1000
EXACT_BELOW = 20_000
"""Vectors below which one list, hence an exact join, is faster than several."""
ROWS_PER_PART = 262_144
"""Rows of a part of lists, at about which `auto` aims."""
SAMPLE_PER_LIST = 64
"""Vectors sampled for each coarse centroid."""
HASHES = pa.schema([IMAGES.field("image_id"), IMAGES.field("pdq")])

Role = Literal["pool", "curated", "heldout"]


class FitLists(Fold):
    """Coarse centroids, fitted on a sample of the vectors that lists will hold."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "catalog": whole(CATALOG),
    }
    pinned: ClassVar[bool] = True

    num_lists: int | Literal["auto"] = "auto"
    """Inverted lists; auto: one (an exact join) below 20,000 images, else one for 1,000 images."""
    homes: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images the lists hold."""
    num_iterations: int = 10
    """Lloyd iterations of k-means."""
    seed: int | None = None
    """Of sample and k-means; None: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the vectors that k-means sees; None: 64 vectors a list, or all where there are fewer."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return centroids_schema(spec.dim, model=spec.model, weights=spec.weights)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return sample_schema(vector_spec(inputs["embeddings"], inputs["hashes"]))

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        vectors = inputs["embeddings"] if inputs["embeddings"] is not None else inputs["hashes"]
        count = count_vectors(vectors, self.homes, parts_of(inputs["catalog"]))
        if self.num_lists != "auto" and not 1 <= self.num_lists <= max(1, count):
            raise ConfigError(
                f"num_lists={self.num_lists}: {count} images are to be listed; "
                f"set it from 1 to {max(1, count)}, or to auto"
            )
        resolved = self.model_copy(update=self.estimate(count))
        if self.sample_share is not None:
            return resolved
        assert isinstance(resolved.num_lists, int)
        return resolved.model_copy(update={"sample_share": share_of(resolved.num_lists * SAMPLE_PER_LIST, count)})

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.num_lists != "auto":
            return {}
        return {"num_lists": 1 if num_images < EXACT_BELOW else num_images // ROWS_PER_LIST}

    def partial(self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, catalog: Table) -> Batches:
        if ROLES[parts_of(catalog).role[part]] in self.homes:
            listed = read_vectors(embeddings, hashes)
            yield sample_vectors(listed.vectors, listed.spec, self.sample_share, seed=[self.seed or 0, part])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        assert isinstance(self.num_lists, int)
        pieces = [partials.read(part) for part in sorted(partials.committed())]
        sample = pa.concat_tables(pieces)
        spec = VectorSpec.of(pieces[0].schema)
        x = normalize(unpack(sample["vector"], spec)[0])
        num_lists = max(1, min(self.num_lists, len(x)))  # a small share given by hand may leave fewer vectors
        if len(x) == 0:
            centroids, sizes = np.zeros((1, spec.dim), np.float32), np.zeros(1, np.int64)
        else:
            fit = fit_kmeans(x, num_lists, seed=self.seed or 0, num_iterations=self.num_iterations)
            centroids, sizes = fit.centroids, fit.sizes
        schema = centroids_schema(spec.dim, model=spec.model, weights=spec.weights)
        yield flat_centroids(centroids, sizes, schema)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.to_batches()


class BuildLists(Shuffle):
    """Sends each vector to its home list and, as a query, to the lists nearest to it."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "centroids": whole(CENTROIDS),
        "catalog": whole(CATALOG),
    }

    homes: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images the lists hold, to be found."""
    probes: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images look for neighbours."""
    num_probes: int | Literal["auto"] = "auto"
    """Lists that a query looks into; auto: 4, or as many as there are."""
    dihedral: bool = True
    """Hashes only: a query also looks for its mirrored and turned copies."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return lists_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_lists = inputs["centroids"].num_rows()
        if self.num_probes == "auto":
            return self.model_copy(update={"num_probes": min(4, num_lists)})
        if not 1 <= self.num_probes <= num_lists:
            raise ConfigError(
                f"num_probes={self.num_probes}: there are {num_lists} lists; set it from 1 to {num_lists}, or to auto"
            )
        return self

    def num_parts(self, **inputs: Any) -> int:
        num_lists = inputs["centroids"].num_rows()
        return -(-num_lists // self._lists_per_part(inputs["catalog"], num_lists))

    def _lists_per_part(self, catalog: Table, num_lists: int) -> int:
        rows = parts_of(catalog).num_images(self.homes)
        return max(1, round(ROWS_PER_PART * num_lists / max(1, rows)))

    def scatter(
        self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, centroids: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        role = ROLES[parts_of(catalog).role[part]]
        listed = read_vectors(embeddings, hashes)
        coarse = read_centroids(centroids)
        per_part = self._lists_per_part(catalog, len(coarse))
        placed = self._place(listed, coarse, home=role in self.homes, probe=role in self.probes)
        for bucket in np.unique(placed.list_id // per_part):
            rows = placed.list_id // per_part == bucket
            yield int(bucket), placed.batch(rows, listed.spec)

    def _place(self, listed: "Vectors", coarse: np.ndarray, *, home: bool, probe: bool) -> "_Placed":
        """Every (list, vector) that the vectors of one part give rise to."""
        found: list[_Placed] = []
        x = to_float32(listed.vectors, listed.spec)
        own, _ = assign(x, coarse)
        if home and len(x):
            found.append(_Placed(own, np.ones(len(x), bool), listed.ids, listed.vectors))
        for variant, stored in enumerate(self._variants(listed) if probe and len(x) else []):
            assert isinstance(self.num_probes, int)
            near = _nearest_lists(to_float32(stored, listed.spec), coarse, self.num_probes)  # (N, P)
            rows, columns = np.nonzero(np.ones_like(near, bool))
            if home and variant == 0:  # as a home row it looks into its own list anyway
                other = near[rows, columns] != own[rows]
                rows, columns = rows[other], columns[other]
            found.append(_Placed(near[rows, columns], np.zeros(len(rows), bool), listed.ids[rows], stored[rows]))
        return _Placed.concat(found, listed.vectors)

    def _variants(self, listed: "Vectors") -> list[np.ndarray]:
        if listed.spec.dtype == "bits" and self.dihedral:
            return list(dihedral(listed.vectors).transpose(1, 0, 2))
        return [listed.vectors]

    def run(self, part: int, *, pieces: pa.Table, centroids: Table, catalog: Table) -> Batches:
        order = np.lexsort((pieces["image_id"].to_numpy(), ~pieces["home"].to_numpy(), pieces["list_id"].to_numpy()))
        yield from pieces.take(order).to_batches()


class Vectors(NamedTuple):
    """The vectors of one part, nulls left out."""

    ids: np.ndarray
    """(N,) int64"""
    vectors: np.ndarray
    """(N, width) as stored"""
    spec: VectorSpec


class _Placed(NamedTuple):
    list_id: np.ndarray
    home: np.ndarray
    ids: np.ndarray
    vectors: np.ndarray

    @classmethod
    def concat(cls, found: list["_Placed"], like: np.ndarray) -> "_Placed":
        if not found:
            return cls(np.empty(0, np.int32), np.empty(0, bool), np.empty(0, np.int64), like[:0])
        return cls(*(np.concatenate(columns) for columns in zip(*found, strict=True)))

    def batch(self, rows: np.ndarray, spec: VectorSpec) -> pa.RecordBatch:
        schema = lists_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)
        columns = [self.list_id[rows].astype(np.int32), self.home[rows], self.ids[rows]]
        return pa.RecordBatch.from_arrays([*map(pa.array, columns), pack(self.vectors[rows])], schema=schema)


def vector_spec(embeddings: pa.Schema | None, hashes: pa.Schema | None) -> VectorSpec:
    """Of whichever of the two inputs is given.

    Raises:
        ConfigError: none or both are.
    """
    if (embeddings is None) == (hashes is None):
        raise ConfigError("lists: give either embeddings or hashes as their input")
    if embeddings is not None:
        return VectorSpec.of(embeddings)
    return VectorSpec(dtype="bits", dim=8 * HASH_BYTES, model="pdq", weights="")


def read_vectors(embeddings: pa.Table | None, hashes: pa.Table | None) -> Vectors:
    """Ids and vectors of a part of embeddings, or of the hashes of a part of images."""
    table = embeddings if embeddings is not None else hashes
    assert table is not None
    spec = vector_spec(None if embeddings is None else embeddings.schema, None if hashes is None else hashes.schema)
    vectors, rows = unpack(table["vector" if embeddings is not None else "pdq"], spec)
    return Vectors(table["image_id"].to_numpy()[rows], vectors, spec)


def count_vectors(table: Table, roles: Iterable[Role], parts: Parts) -> int:
    """Vectors that are not null, of embeddings or of the hashes of images, in the parts of these roles."""
    wanted = set(np.flatnonzero(np.isin(parts.role, [ROLES.index(role) for role in roles])).tolist())
    known = table.metrics.get("embedded_by_part")
    if known is not None:
        return sum(known[part] for part in wanted)
    column = "vector" if "vector" in table.schema().names else "pdq"
    columns = (table.read(part, [column])[column] for part in wanted)
    return sum(len(vectors) - vectors.null_count for vectors in columns)


def share_of(wanted: int, count: int) -> float:
    """What share of `count` vectors gives the `wanted` number of them, at most all."""
    return min(1.0, wanted / max(1, count))


def sample_schema(spec: VectorSpec) -> pa.Schema:
    """Of the vectors that one part gives to a sample: one float32 `vector` column."""
    meta = vector_metadata(spec.dim, "float32", model=spec.model, weights=spec.weights)
    return pa.schema([pa.field("vector", vector_type(spec.dim, "float32"))], metadata=meta)


def sample_vectors(
    vectors: np.ndarray, spec: VectorSpec, share: float | None, *, seed: Sequence[int]
) -> pa.RecordBatch:
    """A random share of the vectors of one part, rounded up: parts that lost images weigh less than others."""
    assert share is not None
    count = min(len(vectors), int(np.ceil(share * len(vectors))))
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))
    return pa.RecordBatch.from_arrays([pack(to_float32(vectors[rows], spec))], schema=sample_schema(spec))


def read_centroids(centroids: Table, *, level: int = 0) -> np.ndarray:
    """(K, D) float32 of one level."""
    rows = centroids.read_all()
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    return np.ascontiguousarray(vectors[rows["level"].to_numpy() == level])


def flat_centroids(centroids: np.ndarray, sizes: np.ndarray, schema: pa.Schema) -> pa.RecordBatch:
    """Rows of a centroids table of one level."""
    count = len(centroids)
    columns = [
        pa.array(np.zeros(count, np.int16)),
        pa.array(np.arange(count, dtype=np.int32)),
        pa.nulls(count, pa.int32()),
        pack(np.asarray(centroids, np.float32)),
        pa.array(sizes.astype(np.int64)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _nearest_lists(x: np.ndarray, coarse: np.ndarray, num_probes: int) -> np.ndarray:
    """(N, P) int64: the lists nearest to each vector."""
    ids = np.arange(len(x), dtype=np.int64)
    lists = -1 - np.arange(len(coarse), dtype=np.int64)  # negative: never equal to a query's id
    edges = top_k(x, coarse, num_probes, query_ids=ids, base_ids=lists)
    return (-1 - edges.image_ids).reshape(len(x), num_probes)
