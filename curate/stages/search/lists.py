"""FitLists and BuildLists: vectors regrouped by coarse centroid, so that similarity needs one list at a time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Batches, Fold, Input, Shuffle, each, whole
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.models.device import resolve_device
from curate.ops.clusters.coarse import CoarseLists, fit_lists, nearest_lists
from curate.ops.images.hashes import DIHEDRAL, HASH_BYTES, dihedral
from curate.ops.random_keys import random_keys
from curate.ops.search.recall import choose_num_probes, list_rank
from curate.ops.vectors import VectorSpec, normalize, pack, to_float32, unpack
from curate.stages.images.catalog import Parts, parts_of
from curate.stages.search.pairs import read_pairs
from curate.tables import (
    CATALOG,
    CENTROIDS,
    IMAGES,
    ROLES,
    TRUTH,
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
"""Rows of a part of lists, homes and probes, at about which the cutting aims."""
MAX_LISTS = 65_536
"""Lists at most by `auto`; beyond 65 million images they grow, which a GPU multiplies and a shuffle prefers."""
MAX_SAMPLE = 1 << 21
"""Vectors that k-means of the lists sees at most."""
AUTO_PROBES = 4
"""Lists that a query looks into where nothing tells how many it takes."""
MAX_PROBES = 32
"""Lists that `auto` makes a query look into at most."""
MIN_PAIRS = 50
"""True pairs that it takes to choose."""
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
    version: ClassVar[int] = 2
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
        return resolved.model_copy(
            update={"sample_share": share_of(min(MAX_SAMPLE, resolved.num_lists * SAMPLE_PER_LIST), count)}
        )

    def estimate(self, num_images: int) -> dict[str, Any]:
        if self.num_lists != "auto":
            return {}
        return {"num_lists": 1 if num_images < EXACT_BELOW else min(MAX_LISTS, num_images // ROWS_PER_LIST)}

    def partial(self, part: int, *, embeddings: pa.Table | None, hashes: pa.Table | None, catalog: Table) -> Batches:
        if ROLES[parts_of(catalog).role[part]] in self.homes:
            listed = read_vectors(embeddings, hashes)
            yield sample_vectors(listed.vectors, listed.spec, self.sample_share, seed=[self.seed or 0, part])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        assert isinstance(self.num_lists, int)
        numbers = sorted(partials.committed())
        spec = VectorSpec.of(partials.read(numbers[0]).schema)
        x = np.concatenate([unpack(partials.read(part)["vector"], spec)[0] for part in numbers])
        num_lists = max(1, min(self.num_lists, len(x)))  # a small share given by hand may leave fewer vectors
        if len(x) == 0:
            lists = CoarseLists.flat(np.zeros((1, spec.dim), np.float32))
        else:
            lists = fit_lists(normalize(x), num_lists, seed=self.seed or 0, num_iterations=self.num_iterations)
        sizes = np.bincount(nearest_lists(normalize(x), lists, 1)[:, 0], minlength=len(lists.centroids))
        yield from _list_rows(lists, sizes, centroids_schema(spec.dim, model=spec.model, weights=spec.weights))

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.to_batches()


class BuildLists(Shuffle):
    """Sends each vector to its home list and, as a query, to the lists nearest to it."""

    inputs: ClassVar[dict[str, Input]] = {
        "embeddings": each(VECTORS, optional=True),
        "hashes": each(HASHES, optional=True),
        "centroids": whole(CENTROIDS),
        "catalog": whole(CATALOG),
        "queries": whole(VECTORS, optional=True),
        "truth": whole(TRUTH, optional=True),
    }
    version: ClassVar[int] = 3

    homes: tuple[Role, ...] = ("pool", "curated")
    """Roles whose images the lists hold, to be found."""
    probes: tuple[Role, ...] = ("pool", "curated", "heldout")
    """Roles whose images look for neighbours."""
    num_probes: int | Literal["auto"] = "auto"
    """Lists that a query looks into; auto: the fewest that find `target_recall` of the pairs of sampled queries; 4
    where too few pairs are known, and for hashes; never more than there are."""
    target_recall: Annotated[float, Field(gt=0, lt=1)] = 0.985
    """Share of the pairs above the threshold that `num_probes: auto` aims at."""
    dihedral: bool = True
    """Hashes only: a query also looks for its mirrored and turned copies."""
    max_list_rows: Annotated[int, Field(ge=1)] = ROWS_PER_PART
    """Images that a list holds at most, and that look into it, about. A larger one, such as that of a picture with
    millions of copies, is dealt out to S x S lists: every S-th of its images meets every S-th that looks into it."""
    device: Annotated[str, Execution()] = "auto"
    """auto, cpu, cuda or cuda:N."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        spec = vector_spec(inputs["embeddings"], inputs["hashes"])
        return lists_schema(spec.dim, dtype=spec.dtype, model=spec.model, weights=spec.weights)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema(**inputs)

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_lists = count_lists(inputs["centroids"])
        if self.num_probes == "auto":
            return self.model_copy(update={"num_probes": min(self._probes(inputs), num_lists)})
        if not 1 <= self.num_probes <= num_lists:
            raise ConfigError(
                f"num_probes={self.num_probes}: there are {num_lists} lists; set it from 1 to {num_lists}, or to auto"
            )
        return self

    def _probes(self, inputs: Mapping[str, Any]) -> int:
        """What `auto` stands for."""
        if inputs["embeddings"] is None or inputs.get("truth") is None:
            return AUTO_PROBES
        pairs, lists = read_pairs(inputs["queries"], inputs["truth"], half=0), read_lists(inputs["centroids"])
        if len(pairs.ids) < MIN_PAIRS:
            return AUTO_PROBES
        rank = list_rank(pairs.query, pairs.image, lists.centroids)
        if set(self.probes) >= set(self.homes):  # either image of a pair may find the other
            rank = np.minimum(rank, list_rank(pairs.image, pairs.query, lists.centroids))
        return choose_num_probes(rank, target=self.target_recall, most=min(MAX_PROBES, len(lists.centroids)))

    def num_parts(self, **inputs: Any) -> int:
        hashed = inputs["hashes"] is not None
        num_lists = self._dealt(inputs["centroids"], inputs["catalog"], hashed=hashed).total
        return -(-num_lists // self._lists_per_part(inputs["catalog"], num_lists, hashed=hashed))

    def _dealt(self, centroids: Table, catalog: Table, *, hashed: bool) -> "_Dealt":
        """Which lists are dealt out, by their share of the fitted sample; none where nobody looks in from elsewhere."""
        rows = centroids.read_all(["level", "num_images"])
        sampled = rows["num_images"].to_numpy()[rows["level"].to_numpy() == 0]
        if not self.probes:
            return _Dealt.of(np.ones(len(sampled), np.int64))
        parts = parts_of(catalog)
        most = max(parts.num_images(self.homes), self._asked(hashed=hashed) * parts.num_images(self.probes))
        return _Dealt.of(
            np.maximum(1, np.ceil(sampled / max(1, sampled.sum()) * most / self.max_list_rows)).astype(int)
        )

    def _asked(self, *, hashed: bool) -> int:
        """Lists that an image looks into, in all its forms."""
        assert isinstance(self.num_probes, int)
        return self.num_probes * (len(DIHEDRAL) if self.dihedral and hashed else 1)

    def resources(self) -> dict[str, float]:
        return {"GPU": 1} if resolve_device(self.device).type == "cuda" else {}

    def _lists_per_part(self, catalog: Table, num_lists: int, *, hashed: bool) -> int:
        parts = parts_of(catalog)
        rows = parts.num_images(self.homes) + self._asked(hashed=hashed) * parts.num_images(self.probes)
        return max(1, round(ROWS_PER_PART * num_lists / max(1, rows)))

    def scatter(
        self,
        part: int,
        *,
        embeddings: pa.Table | None,
        hashes: pa.Table | None,
        centroids: Table,
        catalog: Table,
        **sample: Table | None,
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        role = ROLES[parts_of(catalog).role[part]]
        listed = read_vectors(embeddings, hashes)
        lists = read_lists(centroids)
        dealt = self._dealt(centroids, catalog, hashed=hashes is not None)
        per_part = self._lists_per_part(catalog, dealt.total, hashed=hashes is not None)
        placed = self._place(listed, lists, dealt, home=role in self.homes, probe=role in self.probes)
        bucket = placed.list_id // per_part
        order = np.argsort(bucket, kind="stable")
        starts = np.flatnonzero(np.diff(bucket[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            if len(rows):
                yield int(bucket[rows[0]]), placed.batch(rows, listed.spec)

    def _place(self, listed: "Vectors", lists: CoarseLists, dealt: "_Dealt", *, home: bool, probe: bool) -> "_Placed":
        """Every (list, vector) that the vectors of one part give rise to."""
        assert isinstance(self.num_probes, int)
        found: list[_Placed] = []
        for variant, stored in enumerate(self._variants(listed) if probe else [listed.vectors]):
            x = to_float32(stored, listed.spec)
            near = nearest_lists(x, lists, self.num_probes if probe else 1, device=str(resolve_device(self.device)))
            own = np.full(len(x), -1)
            if home and variant == 0:
                rows, list_id = dealt.homes(near[:, 0], listed.ids)
                found.append(_Placed(list_id, np.ones(len(rows), bool), listed.ids[rows], stored[rows]))
                piece = dealt.piece_of(near[:, 0], listed.ids)
                own = dealt.first[near[:, 0]] + piece * (dealt.pieces[near[:, 0]] + 1)
            if probe:
                rows, list_id = dealt.queries(near, listed.ids)
                elsewhere = list_id != own[rows]  # there it is a home, and looks into the list anyway
                rows, list_id = rows[elsewhere], list_id[elsewhere]
                found.append(_Placed(list_id, np.zeros(len(rows), bool), listed.ids[rows], stored[rows]))
        return _Placed.concat(found, listed.vectors)

    def _variants(self, listed: "Vectors") -> list[np.ndarray]:
        if listed.spec.dtype == "bits" and self.dihedral:
            return list(dihedral(listed.vectors).transpose(1, 0, 2))
        return [listed.vectors]

    def run(self, part: int, *, pieces: pa.Table, centroids: Table, catalog: Table, **sample: Table | None) -> Batches:
        order = np.lexsort((pieces["image_id"].to_numpy(), ~pieces["home"].to_numpy(), pieces["list_id"].to_numpy()))
        yield from pieces.take(order).to_batches()


class Vectors(NamedTuple):
    """The vectors of one part, nulls left out."""

    ids: np.ndarray
    """(N,) int64"""
    vectors: np.ndarray
    """(N, width) as stored"""
    spec: VectorSpec


class _Dealt(NamedTuple):
    """Lists as they are stored: most are one; a large one is a grid of S x S, homes by row, queries by column."""

    first: np.ndarray
    """(K,) int64, number of the first list that stands for each"""
    pieces: np.ndarray
    """(K,) int64, S >= 1"""

    @classmethod
    def of(cls, pieces: np.ndarray) -> "_Dealt":
        return cls(np.cumsum(pieces**2) - pieces**2, pieces)

    @property
    def total(self) -> int:
        return int((self.pieces**2).sum())

    def piece_of(self, lists: np.ndarray, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int64 in 0..S-1: row of the image as a home, and its column as a query."""
        key = random_keys(image_ids, seed=0, purpose="deal")
        return (key % self.pieces[lists].astype(np.uint64)).astype(np.int64)

    def homes(self, lists: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and lists, (M,) int64 each, of every list that holds an image of `lists` (N,)."""
        rows, column = self._repeat(lists)
        size = self.pieces[lists[rows]]
        return rows, self.first[lists[rows]] + self.piece_of(lists, image_ids)[rows] * size + column

    def queries(self, lists: np.ndarray, image_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and lists, (M,) int64 each, that the images look into for `lists` (N, P)."""
        asking, flat = np.repeat(np.arange(len(lists)), lists.shape[1]), lists.ravel()
        rows, row = self._repeat(flat)
        size, column = self.pieces[flat[rows]], self.piece_of(flat, image_ids[asking])[rows]
        return asking[rows], self.first[flat[rows]] + row * size + column

    def _repeat(self, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each position in `lists` S times, with the numbers 0..S-1."""
        count = self.pieces[lists]
        rows = np.repeat(np.arange(len(lists)), count)
        return rows, np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)


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


def count_lists(centroids: Table) -> int:
    """Lists that a table of `FitLists` describes."""
    return int((centroids.read_all(["level"])["level"].to_numpy() == 0).sum())


def read_lists(centroids: Table) -> CoarseLists:
    """The lists, and their groups where there are any."""
    rows = centroids.read_all()
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    leaf = rows["level"].to_numpy() == 0
    if leaf.all():
        return CoarseLists.flat(vectors)
    group = rows["parent_id"].combine_chunks().filter(pa.array(leaf)).to_numpy().astype(np.int32)
    return CoarseLists(normalize(vectors[leaf]), group, normalize(vectors[~leaf]))


def _list_rows(lists: CoarseLists, sizes: np.ndarray, schema: pa.Schema) -> Batches:
    """Rows of a table of centroids: the lists, with the vectors of the sample in each, then their groups."""
    grouped = len(lists.group) > 0
    parents = pa.array(lists.group, pa.int32()) if grouped else pa.nulls(len(sizes), pa.int32())
    levels = [(lists.centroids, parents, sizes)]
    if grouped:
        in_group = np.bincount(lists.group, weights=sizes, minlength=len(lists.group_centroids))
        levels.append((lists.group_centroids, pa.nulls(len(lists.group_centroids), pa.int32()), in_group))
    for level, (centroids, parent, members) in enumerate(levels):
        columns = [
            pa.array(np.full(len(centroids), level, np.int16)),
            pa.array(np.arange(len(centroids), dtype=np.int32)),
            parent,
            pack(centroids),
            pa.array(members.astype(np.int64)),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
