"""DescribeSet: figures of the curated set itself, beside those of the pool it was chosen from."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.engine.cost import ID_BYTES, PASS_ROWS, Assumptions, Demand, Shape, Shapes, edge_bytes
from curate.engine.demands import folded, grouped, one_process
from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.numbers import plural
from curate.engine.show import Numbers, Section
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
from curate.tables import CATALOG, CURATED, FIGURES, NEIGHBORS, POOL, SELECTION, VECTORS

VENDI, COPIES_LEFT = "Vendi score", "images with a copy left"
MEANING = {
    VENDI: "how many entirely different images would be as diverse; larger is more diverse",
    COPIES_LEFT: "selected images that resemble another selected one; curated sets enter as they are",
}
"""What a figure says; the others are of curated sets."""


SAMPLED = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("key", pa.uint64(), nullable=False),
        pa.field("vector", pa.binary(), nullable=False),
    ]
)
"""Vectors of a sample, (D,) float32 of unit norm, and their random keys: those of the smallest keys stay."""
NEAREST = pa.schema(
    [
        pa.field("sample", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("pool", pa.float32(), nullable=False),
        pa.field("selection", pa.float32(), nullable=False),
    ]
)
"""Of each sampled curated image, the cosine of the nearest pool image, and of the nearest selected one; -inf: none."""
STATE = pa.schema([pa.field("finished", pa.bool_()), *(f.with_nullable(True) for f in [*SAMPLED, *FIGURES])])
"""Figures that are known (`name` is not null), and the sampled curated images that a next round needs."""
OF_SET = "curated "
"""How the names of samples of curated sets begin; the others are `pool` and `selection`."""
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

    The pool is what the backbone embedded: the images that deduplication kept. All vectors are read twice, by groups of
    parts: for the samples, then to find what is nearest to those of the curated sets. One process reads the pairs of
    copies and the ids of the selection; memory: two bits an image of the catalog there, else the samples and one part.
    """

    inputs: ClassVar[dict[str, Input]] = {
        "selection": whole(SELECTION),
        "embeddings": whole(VECTORS),
        "neighbors": whole(NEIGHBORS, many=True),
        "catalog": whole(CATALOG),
    }
    version: ClassVar[int] = 2

    num_samples: Annotated[int, Field(ge=2)] = 2000
    """Images of the pool, of the selection, and of each curated set that are looked at."""
    seed: int | None = None
    """Seed of the samples; null: the seed of the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return FIGURES

    def max_rounds(self) -> int:
        return 2

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        return NEAREST if number else SAMPLED

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
        catalog: Table,
    ) -> Batches:
        """The samples of some parts; in the next round what of their pool images is nearest to the curated samples."""
        parts = Parts.of(catalog)
        numbers = [part for part in parts_of_group(group, len(parts.role)) if parts.role[part] in (POOL, CURATED)]
        given = ((part, *_vectors(embeddings, selection, part)) for part in numbers)
        if state is None:
            yield self._sampled(given, parts).batch()
        else:
            yield _nearest(given, parts, _asking(state))

    def _sampled(self, given: "Iterable[Given]", parts: Parts) -> "_Samples":
        samples = _Samples(self.num_samples)
        for part, ids, x, chosen in given:
            keys = random_keys(ids, seed=self.seed or 0, purpose="describe")
            own = "pool" if parts.role[part] == POOL else OF_SET + parts.source[part]
            samples.add(own, keys, x)
            samples.add("selection", keys[chosen], x[chosen])
        return samples

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert partials is not None
        parts = Parts.of(tables["catalog"])
        if state is not None:
            figures = [*_figures(state), *_coverage(partials, _asking(state), curated_sets(parts))]
            yield _state(figures, finished=True)
            return
        samples = _Samples(self.num_samples)
        for rows in scan_partials(partials):
            samples.add_rows(rows)
        figures = [*_diversity(samples), _copies_left(tables["neighbors"], tables["selection"], parts)]
        asking = samples.only([OF_SET + name for name in curated_sets(parts)])
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
        rounds, ids = 2 if asking else 1, ID_BYTES / max(1, chosen.row_bytes)
        alone = one_process([chosen.scanned(share=ids), *(table.scanned() for table in inputs["neighbors"])])
        read = [vectors.scanned(rounds), chosen.scanned(rounds, share=ids)]
        groups, made = grouped(vectors), Shape(pool=10)
        most = groups * self.num_samples
        looked_at = min(most, vectors.rows) + min(most, chosen.rows) + asking
        sampled = Shape(pool=looked_at, row_bytes=4 * vectors.dim, parts=groups)
        state = Shape(pool=asking, row_bytes=4 * vectors.dim)
        found = Shape(pool=groups * asking, row_bytes=edge_bytes(given), parts=groups)
        work = [folded(sampled, state, made)]
        work += [state.scanned(groups + 1), sampled.opened(), folded(found, made, made)] if asking else []
        return Demand.phases([demand, alone, *read, *work]), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rows = table.read_all().to_pylist()
        values = {(row["name"], row["set"]): row["value"] for row in rows}
        measured_on = {row["name"]: row["num_images"] for row in rows}
        body = tuple(
            (
                name,
                *(_number(values.get((name, of))) for of in ("pool", "selection")),
                plural(num_images, "image"),
                MEANING.get(name, "mean cosine of a curated image to the nearest pool image"),
            )
            for name, num_images in measured_on.items()
        )
        numbers = Numbers(("", "pool", "selection", "measured on", ""), body)
        yield Section("The selection beside the pool", (numbers,), first=True)


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
        vectors = pa.array([row.tobytes() for row in x.astype(np.float32)], pa.binary())
        return pa.RecordBatch.from_arrays([pa.array([name] * len(keys)), pa.array(keys), vectors], schema=SAMPLED)


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
    size = min(len(samples.of(name)) for name in ("pool", "selection"))
    for name in ("pool", "selection") if size else ():
        yield Figure(VENDI, name, vendi_score(samples.of(name)[:size]), size)


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
    rows = state.filter(state["sample"].is_valid())
    return {
        name: _unpacked(rows.filter(pc.equal(rows["sample"], name))["vector"])
        for name in rows["sample"].unique().to_pylist()
    }


def _nearest(given: Iterable[Given], parts: Parts, asking: dict[str, np.ndarray]) -> pa.RecordBatch:
    """Rows of `NEAREST` of the pool images of some parts."""
    nearest = {name: np.full((2, len(sample)), -np.inf, np.float32) for name, sample in asking.items()}
    for part, _, x, chosen in given:
        for rows in blocks(len(x), ROWS_AT_ONCE) if parts.role[part] == POOL else ():
            for name, sample in asking.items():
                cosine = sample @ x[rows].T  # (n, ROWS_AT_ONCE)
                for best, some in zip(nearest[name], (cosine, cosine[:, chosen[rows]]), strict=True):
                    np.maximum(best, some.max(axis=1, initial=-np.inf), out=best)
    columns = [
        pa.array([name for name, found in nearest.items() for _ in range(found.shape[1])], pa.string()),
        np.concatenate([np.empty(0, np.int32), *(np.arange(f.shape[1], dtype=np.int32) for f in nearest.values())]),
        *(np.concatenate([np.empty(0, np.float32), *(f[row] for f in nearest.values())]) for row in (0, 1)),
    ]
    return pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=NEAREST)


def _coverage(partials: Table, asking: dict[str, np.ndarray], names: Iterable[str]) -> Iterator[Figure]:
    """Mean cosine of a curated image to the nearest pool image, of all and of those selected."""
    best = {name: np.full((2, len(sample)), -np.inf, np.float32) for name, sample in asking.items()}
    for rows in scan_partials(partials):
        for name, found in best.items():
            mine = rows.filter(pc.equal(rows["sample"], name))
            for row, column in enumerate(("pool", "selection")):
                np.maximum.at(found[row], mine["row"].to_numpy(), mine[column].to_numpy())
    for name in names:
        for of, found in zip(("pool", "selection"), best.get(OF_SET + name, ()), strict=False):
            if np.isfinite(found).all():
                yield Figure(f"nearest to {name}", of, float(found.mean(dtype=np.float64)), len(found))


def _number(value: float | None) -> int | float | None:
    """Counts without decimals."""
    return int(value) if value is not None and value == int(value) else value
