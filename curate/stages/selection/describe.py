"""DescribeSet: figures of the curated set itself, beside those of the pool it was chosen from.

The backbone embeds what deduplication leaves, so that the pool as it came has no vectors to be measured by. But a copy
looks like the image that stays of it. So images are drawn from all that are usable, and each copy is given the vector
of the image that stays instead: one round draws the images, the next one finds these vectors.
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import ID_BYTES, PASS_ROWS, Assumptions, Demand, Shape, Shapes, edge_bytes, id_bytes
from curate.engine.demands import folded, grouped, one_process
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts, part_of
from curate.engine.numbers import plural
from curate.engine.show import Numbers, Section, Text
from curate.engine.stage import (
    Batches,
    Input,
    IteratedFold,
    num_groups,
    parts_of_group,
    scan_partials,
    whole,
)
from curate.engine.table import Table
from curate.ops.blocks import blocks
from curate.ops.random_keys import random_keys
from curate.ops.selection.diversity import vendi_score
from curate.ops.vectors import VectorSpec, normalize, to_float32, unpack
from curate.stages.copies.contamination import ImageSet
from curate.stages.selection.retrieved import curated_sets
from curate.tables import CATALOG, CURATED, DUPLICATES, FIGURES, NEIGHBORS, POOL, SELECTION, VECTORS

VENDI, COPIES_LEFT = "Vendi score", "images with a copy left"
MEANING = {
    VENDI: "How many images, none of them like another, would show as much as the sample does: larger is more "
    "diverse, and a copy adds nothing.",
    COPIES_LEFT: "Selected images that resemble another selected one as closely as copies do. Curated sets enter as "
    "they are, with the copies that they hold.",
}
"""What a figure says; the others are of curated sets."""
OF_CURATED = (
    "How near the images come to the curated ones of this set: the cosine of a curated image and the image most like "
    "it, on average; 1 is the same picture."
)
SETS = {"usable": "usable", "deduplicated": "clean of copies", "selection": "selected"}
"""Sets of images as the report calls them."""
ABOUT_SETS = (
    "Usable: of the pool as it came, each copy counted as the image that stays of it; images that were kept out for "
    "held-out ones are left out. Clean of copies: what deduplication left of the pool. Selected: what was chosen of "
    "that, and the curated images in the result."
)


SAMPLED = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("vector", pa.binary()),
        pa.field("image_id", pa.int64()),
    ]
)
"""Vectors of a sample, (D,) float32 of unit norm, and their random keys: those of the smallest keys stay. Of the usable
images, instead of the vector the id of the image that has it."""
FOUND = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("deduplicated", pa.float32()),
        pa.field("selection", pa.float32()),
        pa.field("vector", pa.binary()),
    ]
)
"""Of each sampled curated image, the cosine of the nearest pool image, and of the nearest selected one; -inf: none. Of
sampled usable images, the vector."""
STATE = pa.schema([pa.field("finished", pa.bool_()), *(f.with_nullable(True) for f in [*SAMPLED, *FIGURES])])
"""Figures that are known (`name` is not null), and the sampled curated images that a next round needs."""
OF_SET = "curated "
"""How the names of samples of curated sets begin; the others are `usable`, `deduplicated` and `selection`."""
SPARE = 1.25
"""Usable images that are drawn for each that is wanted: those that stand for a curated image need have no vector."""
JUDGED = ["image_id", "verdict", "partner_id"]
"""What is read of the verdicts on copies."""
JUDGED_BYTES = 3
"""Bytes of these of a row, but for the id of the partner."""
ROWS_AT_ONCE = 8192
"""Vectors that meet a sample at once."""


class Figure(NamedTuple):
    """A row of the table."""

    name: str
    set: str
    value: float
    num_images: int


class DescribeSet(IteratedFold):
    """Diversity, near-copies left, and how near the selection comes to each curated set.

    All vectors are read twice, by groups of parts: for the samples, then to find what is nearest to those of the
    curated sets, or where there are none, the parts alone that hold vectors of usable images. One process reads the
    pairs of copies and the ids of the selection; memory: two bits an image of the catalog there, else the samples and
    one part.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "selection": whole(SELECTION),
        "embeddings": whole(VECTORS),
        "neighbors": whole(NEIGHBORS, many=True),
        "duplicates": whole(DUPLICATES),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 3

    num_samples: Annotated[int, Field(ge=2)] = 2000
    """Images of the pool, of the selection, and of each curated set that are looked at."""
    seed: int | None = None
    """Seed of the samples; null: the seed of the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return FIGURES

    def max_rounds(self) -> int:
        return 2

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        return FOUND if number else SAMPLED

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["embeddings"].parts()))

    def partial(
        self,
        group: int,
        *,
        state: pa.Table | None,
        selection: Table,
        embeddings: Table,
        neighbors: list[Table],
        duplicates: Table,
        catalog: Table,
    ) -> Batches:
        """The samples of some parts; in the next round what the samples asked for."""
        parts = Parts.of(catalog)
        numbers = [part for part in parts_of_group(group, len(parts.role)) if parts.role[part] in (POOL, CURATED)]
        if state is None:
            yield self._sampled(((part, *_vectors(embeddings, selection, part)) for part in numbers), parts).batch()
            yield self._usable(duplicates.read(p, JUDGED) for p in numbers if parts.role[p] == POOL).batch()
            return
        asking, standing = _asking(state), _standing(state)
        if not asking:
            numbers = np.intersect1d(numbers, part_of(standing)).tolist()
        for part in numbers:
            given = (part, *_vectors(embeddings, selection, part))
            yield _vectors_of(standing, given)
            if asking and parts.role[part] == POOL:
                yield _nearest(given, asking)

    def _sampled(self, given: "Iterable[Given]", parts: Parts) -> "_Samples":
        samples = _Samples(self.num_samples)
        for part, ids, x, chosen in given:
            keys = random_keys(ids, seed=self.seed or 0, purpose="describe")
            own = "deduplicated" if parts.role[part] == POOL else OF_SET + parts.source[part]
            samples.add(own, keys, x)
            samples.add("selection", keys[chosen], x[chosen])
        return samples

    def _usable(self, judged: Iterable[pa.Table]) -> "_Usable":
        found = _Usable(int(SPARE * self.num_samples))
        for part in judged:
            rows = part.filter(pc.invert(pc.is_in(part["verdict"], pa.array(["benchmark", "screened"]))))
            ids = rows["image_id"].to_numpy()
            keys = random_keys(ids, seed=self.seed or 0, purpose="describe usable")
            found.add(keys, pc.coalesce(rows["partner_id"], rows["image_id"]).to_numpy())
        return found

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert partials is not None
        parts = Parts.of(tables["catalog"])
        if state is not None:
            figures = list(_figures(state))
            size = next((figure.num_images for figure in figures if figure.name == VENDI), 0)
            figures += _diversity_of("usable", _found_vectors(partials, len(_standing(state))), size)
            figures += _coverage(partials, _asking(state), curated_sets(parts))
            yield _state(figures, finished=True)
            return
        samples, usable = _Samples(self.num_samples), _Usable(int(SPARE * self.num_samples))
        for rows in scan_partials(partials):
            samples.add_rows(rows.filter(rows["vector"].is_valid()))
            usable.add_rows(rows.filter(rows["image_id"].is_valid()))
        figures = [*_diversity(samples), _copies_left(tables["neighbors"], tables["selection"], parts)]
        asking = pa.concat_tables([samples.only([OF_SET + name for name in curated_sets(parts)]), usable.rows()])
        yield _state(figures, finished=asking.num_rows == 0)
        yield _asking_rows(asking)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        known = state.filter(state["name"].is_valid()).select(FIGURES.names)
        yield from known.cast(FIGURES).to_batches()

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Every vector meets the sample of the curated sets; one process reads ids of the selection and of pairs."""
        vectors, chosen = inputs["embeddings"], inputs["selection"]
        pairs = sum(table.rows for table in inputs["neighbors"])
        asking = min(self.num_samples, given.curated)
        samples = 3 * self.num_samples * vectors.dim * 4
        demand = Demand(
            products=2 * vectors.rows * asking * vectors.dim,
            rows=vectors.rows,
            serial_rows=PASS_ROWS * (chosen.rows + pairs),
            memory=given.images / 4 + samples,
        )
        judged, ids = inputs["duplicates"], ID_BYTES / max(1, chosen.row_bytes)
        alone = one_process([chosen.scanned(share=ids), *(table.scanned() for table in inputs["neighbors"])])
        groups, made = grouped(vectors), Shape(pool=10)
        usable = min(SPARE * self.num_samples, given.images)
        rounds = 2 if asking else 1 + min(1, usable / max(1, vectors.parts))  # parts that hold what stands for these
        read = [vectors.scanned(rounds), chosen.scanned(rounds, share=ids)]
        read += [judged.scanned(share=min(1, (JUDGED_BYTES + id_bytes(given)) / max(1, judged.row_bytes)))]
        most = groups * self.num_samples
        looked_at = min(most, vectors.rows) + min(most, chosen.rows) + asking
        standing = min(SPARE * most, given.images) * 2 * ID_BYTES / (4 * vectors.dim)  # in rows of vectors
        sampled = Shape(pool=looked_at + standing, row_bytes=4 * vectors.dim, parts=groups)
        state = Shape(pool=asking + usable * 2 * ID_BYTES / (4 * vectors.dim), row_bytes=4 * vectors.dim)
        nearest = groups * asking * edge_bytes(given) / (4 * vectors.dim)
        found = Shape(pool=usable + nearest, row_bytes=4 * vectors.dim, parts=groups)
        work = [folded(sampled, state, made)]
        work += [state.scanned(groups + 1), sampled.opened(), folded(found, made, made)]
        return Demand.phases([demand, alone, *read, *work]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all().to_pylist()
        values = {(row["name"], row["set"]): row["value"] for row in rows}
        measured_on = {row["name"]: row["num_images"] for row in rows}
        body = tuple(
            (name, *(_number(values.get((name, of))) for of in SETS), plural(num_images, "image"))
            for name, num_images in measured_on.items()
        )
        meanings = dict.fromkeys((name, MEANING.get(name, OF_CURATED)) for name in measured_on)
        told = [Text(f"{name[0].upper()}{name[1:]}: {meaning[0].lower()}{meaning[1:]}") for name, meaning in meanings]
        numbers = Numbers(("", *SETS.values(), "measured on"), body)
        yield Section("The selection beside the pool", (numbers, *told, Text(ABOUT_SETS)), first=True)


Given = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""Number of a part, and of its images the ids (N,), the vectors (N, D) float32, and (N,) bool who is selected."""


class _Samples:
    """Random samples by name: of each the vectors of the smallest keys, in order of keys."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, name: str, keys: np.ndarray, x: np.ndarray) -> None:
        """Offer (N,) uint64 keys and (N, D) float32 vectors."""
        if name in self._found:
            keys, x = (np.concatenate(both) for both in zip(self._found[name], (keys, x), strict=True))
        first = np.argsort(keys, kind="stable")[: self._most]
        if len(first):
            self._found[name] = (keys[first], x[first])

    def add_rows(self, rows: pa.Table) -> None:
        """Offer rows of `SAMPLED`."""
        for name in rows["sample"].unique().to_pylist():
            mine = rows.filter(pc.equal(rows["sample"], name))
            self.add(name, mine["key"].to_numpy(), _unpacked(mine["vector"]))

    def of(self, name: str) -> np.ndarray:
        """(n, D) float32; no rows where nothing was offered."""
        return self._found[name][1] if name in self._found else np.empty((0, 1), np.float32)

    def only(self, names: Iterable[str]) -> pa.Table:
        """Rows of `SAMPLED` of some samples, in this order."""
        batches = [self._rows(name) for name in names if name in self._found]
        return pa.Table.from_batches(batches, SAMPLED)

    def batch(self) -> pa.RecordBatch:
        """All of them as rows of `SAMPLED`."""
        (batch,) = self.only(self._found).combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], SAMPLED)]
        return batch

    def _rows(self, name: str) -> pa.RecordBatch:
        keys, x = self._found[name]
        columns = [pa.array([name] * len(keys)), pa.array(keys), _packed(x), pa.nulls(len(keys), pa.int64())]
        return pa.RecordBatch.from_arrays(columns, schema=SAMPLED)


class _Usable:
    """A random sample of usable images: those of the smallest keys, with the ids of the images that stay of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys, self._ids = np.empty(0, np.uint64), np.empty(0, np.int64)

    def add(self, keys: np.ndarray, ids: np.ndarray) -> None:
        """Offer (N,) uint64 keys and (N,) int64 ids."""
        keys, ids = np.concatenate([self._keys, keys]), np.concatenate([self._ids, ids])
        first = np.argsort(keys, kind="stable")[: self._most]
        self._keys, self._ids = keys[first], ids[first]

    def add_rows(self, rows: pa.Table) -> None:
        """Offer rows of `SAMPLED`."""
        self.add(rows["key"].to_numpy(), rows["image_id"].to_numpy())

    def rows(self) -> pa.Table:
        """All of them as rows of `SAMPLED`, in order of keys."""
        size = len(self._keys)
        columns = [pa.array(["usable"] * size, pa.string()), self._keys, pa.nulls(size, pa.binary()), self._ids]
        return pa.Table.from_arrays(columns, schema=SAMPLED)

    def batch(self) -> pa.RecordBatch:
        """The same as one batch."""
        (batch,) = self.rows().combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], SAMPLED)]
        return batch


def _packed(x: np.ndarray) -> pa.Array:
    """A column of (N, D) vectors."""
    return pa.array([row.tobytes() for row in x.astype(np.float32)], pa.binary())


def _unpacked(column: pa.ChunkedArray) -> np.ndarray:
    """(N, D) float32."""
    return np.stack([np.frombuffer(vector, np.float32) for vector in column.to_pylist()])


def _vectors(embeddings: Table, selection: Table, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids and unit vectors of a part, and which of these are selected."""
    table = embeddings.read(part)
    spec = VectorSpec.of(table.schema)
    stored, rows = unpack(table["vector"], spec)
    ids = table["image_id"].to_numpy()[rows]
    chosen = np.isin(ids, selection.read(part, ["image_id"])["image_id"].to_numpy())
    return ids, normalize(to_float32(stored, spec)), chosen


def _diversity(samples: _Samples) -> "Iterator[Figure]":
    """Of samples of equal size, since the score grows with it."""
    size = min(len(samples.of(name)) for name in ("deduplicated", "selection"))
    for name in ("deduplicated", "selection"):
        yield from _diversity_of(name, samples.of(name), size)


def _diversity_of(name: str, x: np.ndarray, size: int) -> "Iterator[Figure]":
    """Of the first `size` of (N, D) vectors; nothing where there are fewer."""
    if 0 < size <= len(x):
        yield Figure(VENDI, name, vendi_score(x[:size]), size)


def _copies_left(neighbors: Iterable[Table], selection: Table, parts: Parts) -> Figure:
    """Selected images that resemble another selected one as closely as copies do."""
    chosen, resembling = ImageSet(parts), ImageSet(parts)
    for rows in selection.scan(["image_id"]):
        chosen.add(rows["image_id"].to_numpy())
    for rows in (rows for table in neighbors for rows in table.scan(["query_id", "image_id"])):
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        both = chosen.has(query) & chosen.has(image)
        resembling.add(query[both])
        resembling.add(image[both])
    number = sum(resembling.count(parts, role) for role in (POOL, CURATED))
    return Figure(COPIES_LEFT, "selection", float(number), selection.num_rows())


def _state(figures: Iterable[Figure], *, finished: bool) -> pa.RecordBatch:
    rows = [{"finished": finished, **figure._asdict()} for figure in figures]
    return pa.RecordBatch.from_pylist(rows, schema=STATE)


def _asking_rows(asking: pa.Table) -> pa.RecordBatch:
    rows = [{"finished": False, **row} for row in asking.to_pylist()]
    return pa.RecordBatch.from_pylist(rows, schema=STATE)


def _figures(state: pa.Table) -> Iterator[Figure]:
    known = state.filter(state["name"].is_valid()).select(FIGURES.names)
    yield from (Figure(**row) for row in known.to_pylist())


def _asking(state: pa.Table) -> dict[str, np.ndarray]:
    """(n, D) float32: the sampled images of each curated set, by the name of the sample."""
    rows = state.filter(state["vector"].is_valid())
    return {
        name: _unpacked(rows.filter(pc.equal(rows["sample"], name))["vector"])
        for name in rows["sample"].unique().to_pylist()
    }


def _standing(state: pa.Table) -> np.ndarray:
    """(n,) int64: the images that stay of the sampled usable ones, in order of keys."""
    found: np.ndarray = state.filter(state["image_id"].is_valid())["image_id"].to_numpy()
    return found


def _vectors_of(standing: np.ndarray, given: Given) -> pa.RecordBatch:
    """Rows of `FOUND`: the vectors of those of some images that are in this part."""
    _, ids, x, _ = given
    place = np.minimum(np.searchsorted(ids, standing), max(0, len(ids) - 1))
    here = np.flatnonzero(ids[place] == standing) if len(ids) else np.empty(0, np.int64)
    nothing = pa.nulls(len(here), pa.float32())
    columns = [pa.array(["usable"] * len(here), pa.string()), pa.array(here.astype(np.int32)), nothing, nothing]
    return pa.RecordBatch.from_arrays([*columns, _packed(x[place[here]])], schema=FOUND)


def _found_vectors(partials: Table, size: int) -> np.ndarray:
    """(n, D) float32: those that were found of `size` vectors, in their order."""
    rows = pa.concat_tables(rows.filter(rows["vector"].is_valid()) for rows in scan_partials(partials))
    vectors: dict[int, bytes] = dict(zip(rows["row"].to_pylist(), rows["vector"].to_pylist(), strict=True))
    found = [np.frombuffer(vectors[row], np.float32) for row in range(size) if row in vectors]
    return np.stack(found) if found else np.empty((0, 1), np.float32)


def _nearest(given: Given, asking: dict[str, np.ndarray]) -> pa.RecordBatch:
    """Rows of `FOUND` of the images of a part of the pool."""
    _, _, x, chosen = given
    nearest = {name: np.full((2, len(sample)), -np.inf, np.float32) for name, sample in asking.items()}
    for rows in blocks(len(x), ROWS_AT_ONCE):
        for name, sample in asking.items():
            cosine = sample @ x[rows].T  # (n, ROWS_AT_ONCE)
            for best, some in zip(nearest[name], (cosine, cosine[:, chosen[rows]]), strict=True):
                np.maximum(best, some.max(axis=1, initial=-np.inf), out=best)
    columns = [
        pa.array([name for name, found in nearest.items() for _ in range(found.shape[1])], pa.string()),
        np.concatenate([np.arange(found.shape[1], dtype=np.int32) for found in nearest.values()]),
        *(np.concatenate([found[row] for found in nearest.values()]) for row in (0, 1)),
    ]
    nothing = pa.nulls(len(columns[0]), pa.binary())
    return pa.RecordBatch.from_arrays([*map(pa.array, columns), nothing], schema=FOUND)


def _coverage(partials: Table, asking: dict[str, np.ndarray], names: Iterable[str]) -> Iterator[Figure]:
    """Mean cosine of a curated image to the nearest pool image, of all and of those selected."""
    best = {name: np.full((2, len(sample)), -np.inf, np.float32) for name, sample in asking.items()}
    for rows in scan_partials(partials):
        for name, found in best.items():
            mine = rows.filter(pc.equal(rows["sample"], name))
            for row, column in enumerate(("deduplicated", "selection")):
                np.maximum.at(found[row], mine["row"].to_numpy(), mine[column].to_numpy())
    for name in names:
        for of, found in zip(("deduplicated", "selection"), best.get(OF_SET + name, ()), strict=False):
            if np.isfinite(found).all():
                yield Figure(f"nearest to {name}", of, float(found.mean(dtype=np.float64)), len(found))


def _number(value: float | None) -> int | float | None:
    """Counts without decimals."""
    return int(value) if value is not None and value == int(value) else value
