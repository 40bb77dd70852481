"""WriteShards: the only copy of bytes: shuffled Parquet shards with the original images and their provenance."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import row_of
from curate.engine.numbers import count, plural
from curate.engine.show import FlowStep
from curate.engine.stage import Batches, Input, Shuffle, each
from curate.engine.table import Table
from curate.errors import ConfigError, SourceError
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import source_of
from curate.tables import CATALOG, IMAGES, SELECTION, SHARD_COLUMNS, shards_schema
from curate.text import read_lines

logger = logging.getLogger(__name__)

BATCH_BYTES = 32 << 20
"""Bytes of encoded images that a task holds before it writes them."""
SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")
SHOWN_ENTRIES = 5
"""Entries of the removal list that a warning names at most."""
SORT_KEY = pa.field("sort_key", pa.float64())
EXTRA = pa.field("extra", pa.string())

ColumnKind = Literal["bool", "int64", "float64", "string"]


class ShardFigures(Figures):
    """What was written."""

    num_bytes: int
    """Bytes of the files."""
    removed: int
    """Selected images that the removal list kept out."""
    num_entries: int = 0
    """Entries of the removal list."""
    unknown_entries: tuple[str, ...] = ()
    """Those of them that no image of the catalog matches, in alphabetical order."""


class WriteShards(Shuffle):
    """Reads the selected images in the order of their sources and distributes them over shards by a random key."""

    inputs: ClassVar[dict[str, Input]] = {
        "selection": each(SELECTION),
        "catalog": each(CATALOG),
        "images": each(IMAGES),
    }

    explained_as: ClassVar[str] = "shards"

    num_shards: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of shards; auto: as many as `shard_bytes` asks for."""
    shard_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    """Bytes of encoded images in a shard, about."""
    columns: dict[str, ColumnKind] | Literal["auto"] = "auto"
    """The sources' own columns and their types; auto: all that the selected images carry."""
    removal_list: Annotated[str | None, Execution()] = None
    """Text file of images to leave out (takedown): a sha256 in hex or a key a line; `#` starts a comment line. The
    file is known by its content, so it may move. Null: no image is left out."""
    seed: int | None = None
    """Seed of the shuffle; null: the seed of the run."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return shards_schema({} if isinstance(self.columns, str) else _types(self.columns))

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([SORT_KEY, *(f for f in SHARD_COLUMNS), EXTRA])

    def pins(self) -> dict[str, str]:
        if self.removal_list is None:
            return {}
        return {"removal_list": hashlib.sha256("\n".join(sorted(self._removed())).encode()).hexdigest()}

    def _removed(self) -> frozenset[str]:
        if self.removal_list is None:
            return frozenset()
        path = Path(self.removal_list)
        if not path.is_file():
            raise self.field_error("removal_list", f"={path}: no such file; give a text file, or leave it out")
        try:
            lines = [line.strip() for line in read_lines(path)]
        except ValueError as error:
            raise self.field_error("removal_list", f"={path}: not a list: {error}; save it as text") from error
        return frozenset(
            line.lower() if SHA256_HEX.fullmatch(line) else line for line in lines if line and not line.startswith("#")
        )

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_images, num_bytes = 0, 0
        kinds: dict[str, set[str]] = {}
        for part in inputs["selection"].parts():
            rows = row_of(inputs["selection"].read(part.number, ["image_id"])["image_id"].to_numpy())
            images = inputs["images"].read(part.number, ["num_bytes", "extra"]).take(rows)
            num_images, num_bytes = num_images + len(rows), num_bytes + int(images["num_bytes"].to_numpy().sum())
            for text in images["extra"].drop_null().to_pylist():
                for name, value in json.loads(text).items():
                    kinds.setdefault(name, set()).add(_kind(value))
        if num_images == 0:
            raise ConfigError(
                f"{inputs['selection'].name}: no image was selected, so there is nothing to write; look at "
                "`curate status` and the report for what was dropped"
            )
        update: dict[str, Any] = {}
        if self.num_shards == "auto":
            update["num_shards"] = max(1, -(-num_bytes // self.shard_bytes))
        elif self.num_shards > num_images:
            text = f"={self.num_shards}: {num_images} images are selected; set it to {num_images} or less, or to auto"
            raise self.field_error("num_shards", text)
        if self.columns == "auto":
            update["columns"] = {_free_name(name): _common(kinds[name]) for name in sorted(kinds)}
        return self.model_copy(update=update)

    def num_parts(self, **inputs: Any) -> int:
        assert isinstance(self.num_shards, int)
        return self.num_shards

    def scatter(
        self, part: int, *, selection: pa.Table, catalog: pa.Table, images: pa.Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        assert isinstance(self.num_shards, int)
        keys = np.random.default_rng([self.seed or 0, part]).random(len(catalog))
        rows = row_of(selection["image_id"].to_numpy())
        removed = self._removed()
        longest = max(images.take(rows)["num_bytes"].to_pylist(), default=1)  # Inspect may have allowed any length
        reads = read_bytes(catalog.take(rows), source_of(catalog), max_bytes=longest)
        facts = zip(selection.to_pylist(), catalog.take(rows).to_pylist(), images.take(rows).to_pylist(), strict=True)
        held: dict[int, list[dict[str, Any]]] = {}
        num_bytes = 0
        for (chosen, place, image), key, read in zip(facts, keys[rows].tolist(), reads, strict=True):
            if read.data is None or hashlib.sha256(read.data).digest() != image["sha256"]:
                found = read.error or "another sha256"
                raise SourceError(
                    f"{place['uri']} ({place['key']}): changed since it was inspected ({found}); restore it, or start "
                    "anew with --rebuild all"
                )
            if removed & {image["sha256"].hex(), place["key"]}:
                continue
            bucket = int(key * self.num_shards)
            held.setdefault(bucket, []).append(_piece(key, chosen, place, image, read.data))
            num_bytes += len(read.data)
            if num_bytes >= BATCH_BYTES:
                yield from self._drain(held)
                num_bytes = 0
        yield from self._drain(held)

    def _drain(self, held: dict[int, list[dict[str, Any]]]) -> Iterator[tuple[int, pa.RecordBatch]]:
        for bucket, rows in held.items():
            yield bucket, pa.RecordBatch.from_pylist(rows, schema=self.piece_schema())
        held.clear()

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        assert not isinstance(self.columns, str)
        order = np.lexsort((pieces["image_id"].to_numpy(), pieces["sort_key"].to_numpy()))
        schema = shards_schema(_types(self.columns))
        step = max(1, int(len(order) * BATCH_BYTES / max(1, pieces.nbytes)))
        for start in range(0, len(order), step):
            rows = pieces.take(order[start : start + step])
            extra = [json.loads(text) if text else {} for text in rows["extra"].to_pylist()]
            named = [{_free_name(name): value for name, value in values.items()} for values in extra]
            own = [self._own_column(name, named, rows["key"]) for name in sorted(self.columns)]
            kept = [rows[name].combine_chunks() for name in SHARD_COLUMNS.names]
            yield pa.RecordBatch.from_arrays([*kept, *own], schema=schema)

    def _own_column(self, name: str, rows: list[dict[str, Any]], keys: pa.ChunkedArray) -> pa.Array:
        """A column of the sources, of the type that was found or that the user gave."""
        assert not isinstance(self.columns, str)
        kind = self.columns[name]
        try:
            return _column(rows, name, kind)
        except (pa.ArrowException, OverflowError, TypeError):
            row = next(place for place, row in enumerate(rows) if not _fits(row, name, kind))
            found = f"{rows[row][name]!r:.80} of the image {keys[row].as_py()}"
            raise self.field_error(
                "columns",
                f": {name} is declared {kind}, which does not hold {found}; set it to string, or columns to auto",
            ) from None

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> ShardFigures:
        num_bytes = sum(int(table.store.fs.size(table.part_path(part.number))) for part in table.parts())
        wanted = self._removed()
        figures = ShardFigures(
            num_bytes=num_bytes,
            removed=inputs["selection"].num_rows() - table.num_rows(),
            num_entries=len(wanted),
            unknown_entries=tuple(sorted(wanted - _known(wanted, inputs["catalog"], inputs["images"]))),
        )
        for text in _unknown_entries(figures):
            logger.warning("%s: %s", table.name, text)
        return figures

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Every image is read from its source, and once more from the scattered rows."""
        rows = inputs["selection"].rows
        size = rows * given.image_bytes
        demand = Demand(
            rows=2 * rows,
            read=2 * size,
            written=size,
            scratch=size,
            memory=3 * self.shard_bytes,
            tasks=-(-size // self.shard_bytes),
        )
        return demand, Shape(pool=rows, row_bytes=given.image_bytes)

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        """Which roles a removal list hit is not recorded, so that what it leaves counts both."""
        removed, shards = ShardFigures.of(table).removed, plural(len(table.parts()), "shard")
        if before is None or removed:
            drops = (("on the removal list", removed),)
            yield FlowStep("in the shards", table.num_rows(), None, drops, f"{shards}, curated included")
        else:
            yield FlowStep("in the shards", before.pool, before.curated, (), shards)

    def headline(self, table: Table, run: Finished) -> str | None:
        return f"{count(table.num_rows())} in the shards"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        yield from (f"{table.name}: {text}" for text in _unknown_entries(ShardFigures.of(table)))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for part in table.parts():
            ids = table.read(part.number, ["image_id"])["image_id"].to_numpy()
            for row in np.flatnonzero(ids == image.image_id).tolist():
                yield f"{table.file_name(part.number)}, row {row}"
                return
        chosen = any(run.rows_of(image, selection) for selection in run.inputs_of(table, "selection"))
        yield "left out by the removal list" if chosen else "not in the shards"


def _known(wanted: frozenset[str], catalog: Table, images: Table) -> set[str]:
    """The entries of a removal list that are the key or the sha256 of an image."""
    found = set[str]()
    for part in catalog.parts() if wanted else ():
        found |= wanted.intersection(catalog.read(part.number, ["key"])["key"].to_pylist())
        hashes = images.read(part.number, ["sha256"])["sha256"].drop_null().to_pylist()
        found |= wanted.intersection(value.hex() for value in hashes)
    return found


def _unknown_entries(figures: ShardFigures) -> Iterator[str]:
    """What to say of entries that match nothing: they may be typing errors."""
    unknown = figures.unknown_entries
    if unknown:
        shown = ", ".join(unknown[:SHOWN_ENTRIES]) + (", ..." if len(unknown) > SHOWN_ENTRIES else "")
        yield f"removal_list: {len(unknown)} of {figures.num_entries} entries match no image: {shown}"


def _piece(
    key: float, chosen: dict[str, Any], place: dict[str, Any], image: dict[str, Any], data: bytes
) -> dict[str, Any]:
    copied = {name: image[name] for name in ("width", "height", "extra")}
    copied |= {name: place[name] for name in ("key", "source", "role")}
    copied |= {name: chosen[name] for name in ("image_id", "clusters", "origins", "repeats")}
    picture = {"bytes": data, "path": place["key"]}
    return {"sort_key": key, "image": picture, "sha256": image["sha256"].hex(), **copied}


def _free_name(name: str) -> str:
    """A source's column name that does not hide one of ours."""
    return f"source_{name}" if name in SHARD_COLUMNS.names else name


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= 2**53:
            return "int64"
        return "wide" if -(2**63) <= value < 2**63 else "string"  # wide: exact as int64, but not as float64
    return "float64" if isinstance(value, float) else "string"


def _common(kinds: set[str]) -> ColumnKind:
    """The type that holds all values of a column; string (JSON where needed) if nothing else does."""
    found = kinds - {"none"}
    if found <= {"int64", "wide"} and found:
        return "int64"
    if found == {"int64", "float64"}:
        return "float64"
    single = next(iter(found)) if len(found) == 1 else "string"
    return single  # type: ignore[return-value]


def _types(columns: Mapping[str, ColumnKind]) -> dict[str, pa.DataType]:
    kinds = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    return {name: kinds[kind] for name, kind in columns.items()}


def _fits(row: dict[str, Any], name: str, kind: ColumnKind) -> bool:
    try:
        _column([row], name, kind)
    except (pa.ArrowException, OverflowError, TypeError):
        return False
    return True


def _column(rows: list[dict[str, Any]], name: str, kind: ColumnKind) -> pa.Array:
    values = [row.get(name) for row in rows]
    if kind == "string":
        values = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
    return pa.array(values, _types({name: kind})[name])
