"""WriteShards: the only copy of bytes: shuffled Parquet shards with the original images and their provenance.

Shards are written once, and then often again: after a takedown, for added images, after a change of the selection. By
then the sources may have moved or lost files, and reading them took days. So shards that an earlier run left are read
before the sources are: an image whose bytes lie in the shard where it belongs is taken from there. Where an image
belongs follows from seed, image id and number of shards alone, and its row from the tables, so that the result is the
same, byte for byte, wherever its bytes came from. `scatter` streams the sources in their order where most images are
still to be read, and only sends the facts of images where most are there; `run` reads what is missing one by one.
"""

import hashlib
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, PrivateAttr

from curate import shard_manifest as manifest_file
from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import Sent, shuffled
from curate.engine.figures import Figures
from curate.engine.finished import MAX_NAMED, Finished, ImagePlace
from curate.engine.image_ids import row_of
from curate.engine.numbers import count, plural
from curate.engine.part_writer import mark_open
from curate.engine.show import FlowStep, Numbers, Section, Text
from curate.engine.shuffle import Scattered, row_bytes
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import NothingSelected, TableError, TooManyRejects
from curate.sources.class_names import Names
from curate.sources.entries import Entries, shown_entry
from curate.sources.read import Read
from curate.stages.selection.blurred import FACES, blur_of, blur_rows
from curate.stages.selection.class_columns import class_numbers
from curate.stages.selection.find_columns import OwnColumns
from curate.stages.selection.own_columns import (
    MAX_COLUMNS,
    UNFIT,
    ColumnKind,
    arrow_types,
    first_unfit,
    named_rows,
    own_column,
)
from curate.stages.selection.publish import Publish
from curate.stages.selection.readable import make_rows_readable
from curate.stages.selection.reader_figures import ReaderFigures, ReaderTally, read_warnings
from curate.stages.selection.removal import (
    NUM_LOGGED,
    PartRows,
    RemovalFigures,
    read_removal_list,
    removal_figures,
)
from curate.stages.selection.shard_bytes import EarlierShard, fetch, read_unchanged
from curate.tables import (
    BLUR,
    BLURS,
    CATALOG,
    HF_IMAGE,
    IMAGES,
    OWN_COLUMNS,
    SELECTION,
    SHARD_COLUMNS,
    shards_schema,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

CARD = "shards/README.md"
"""The dataset card, which names the digest of the rows."""
CROISSANT, SUMMARY = "shards/croissant.json", "shards/SUMMARY.md"
MANIFEST_FILE, SIGNATURE_FILE = f"shards/{manifest_file.NAME}", f"shards/{manifest_file.SIGNATURE}"
PAPERS = (CROISSANT, SUMMARY, MANIFEST_FILE, SIGNATURE_FILE)
"""What else is said of the shards, and vouches for them."""
PIECE_BYTES, COLUMNS = 40, 16
"""Bytes of an image on its way beside the image and its own columns, and columns of a shard."""
BATCH_BYTES = 32 << 20
"""Bytes of encoded images that a task holds before it writes them."""
LOOKED_AT = 64
"""Parts, and shards, that the driver looks at to know the others."""
REUSED_FROM = 0.9
"""Share of the selected images looked for, found in earlier shards, from which on the sources are not streamed."""
NUM_SHOWN = 50
"""Entries of the removal list that the report shows."""
SORT_KEY = pa.field("sort_key", pa.float64())
NUM_BYTES = pa.field("num_bytes", pa.int64())
EXTRA = pa.field("extra", pa.string())


class ShardFigures(Figures):
    """What was written."""

    num_bytes: int
    """Bytes of the files."""
    removed: int
    """Selected images that the removal list kept out."""
    lost: int = 0
    """Selected images that are not in the shards, since their files are gone or have changed."""
    away: int = 0
    """Selected images that an error kept away which may pass: the next run reads them again."""
    missing_keys: tuple[str, ...] = ()
    """The first of both."""
    full: bool = False
    """Whether there are as many own columns of the sources as shards take, so that others may be left out."""
    removal: RemovalFigures = RemovalFigures()
    """What the removal list named."""
    readers: ReaderFigures = ReaderFigures()
    """Pictures that readers of the shards cannot decode."""


class ShardTally(ReaderTally):
    """What a shard adds to these."""

    most = MAX_NAMED

    missing: tuple[tuple[int, str], ...] = ()
    """Id and key of the first images, by id, that are not in it, since their bytes could not be had."""


class WriteShards(Shuffle):
    """Reads the selected images in the order of their sources and distributes them over shards by a random key."""

    inputs: ClassVar[dict[str, Input]] = {
        "selection": each(SELECTION),
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "own_columns": whole(OWN_COLUMNS),
        "blurs": whole(BLURS, optional=True, beyond_rows=True),
    }
    version: ClassVar[int] = 3
    tally: ClassVar[type[Tally] | None] = ShardTally
    explained_as: ClassVar[str] = "shards"
    reuses: ClassVar[bool] = True

    num_shards: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of shards; auto: as many as `shard_bytes` asks for."""
    shard_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    """Bytes of encoded images in a shard, about."""
    columns: dict[str, ColumnKind] | Literal["auto"] = "auto"
    """The sources' own columns and their types; auto: all that the selected images carry."""
    classes: dict[str, Names] | Literal["auto"] = "auto"
    """Names of the classes of own columns, in the order of their numbers; such a column holds numbers. Auto: columns
    whose names all sources declare alike, as Hugging Face's `ClassLabel`; the classes of others stay text."""
    repair_metadata: bool = False
    """Whether to mend the EXIF block of pictures that `datasets` fails to decode (JPEG, PNG, WebP), pixels untouched.
    False, and where it cannot be done: the column `reader_warning` names them."""
    removal_list: Annotated[str | None, Execution()] = None
    """Text file of images to leave out (takedown), one a line: a sha256 in hex, a key, a uri, SOURCE/KEY, or `pdq:HASH`
    for all pictures within 31 bits of a PDQ hash (`pdq:HASH~BITS`: of another radius); `#` starts a comment line. The
    file is known by its content, so it may move. Null: no image is left out."""
    max_lost_fraction: Annotated[float, Field(ge=0, le=1), Execution()] = 0.01
    """Share of the selected images above which files that are gone or have changed stop the run; below it the shards
    go without them."""
    seed: int | None = None
    """Seed of the shuffle; null: the seed of the run."""
    publish: Annotated[Publish | None, Execution()] = Publish()
    """What is said of the shards beside them: `croissant.json`, a summary of where the pictures come from, and a
    manifest of digests that may be signed. Null: none of these is written."""

    _from_shards: bool = PrivateAttr(default=False)
    """Whether most images lie in the shards of an earlier run, so that `scatter` reads no source."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        blurs: pa.Schema | None = inputs.get("blurs")
        blur = None if blurs is None else blurs.metadata[BLUR]
        if isinstance(self.columns, str):
            return shards_schema({}, blur=blur)
        classes = {} if isinstance(self.classes, str) else self.classes
        return shards_schema(arrow_types(self.columns), classes, blur=blur)

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        boxes = [BLURS.field(1)] if inputs.get("blurs") is not None else []
        return pa.schema([SORT_KEY, NUM_BYTES, *(f for f in SHARD_COLUMNS), EXTRA, *boxes])

    def pins(self) -> dict[str, str]:
        if self.removal_list is None:
            return {}
        return {"removal_list": hashlib.sha256("\n".join(sorted(self.removal().entries)).encode()).hexdigest()}

    def removal(self) -> Entries:
        """The images that no shard may hold.

        Raises:
            ConfigError: the list is not there, or no text.
        """
        if self.removal_list is None:
            return Entries(frozenset())
        path = Path(self.removal_list)
        if not path.is_file():
            raise self.field_error("removal_list", f"={path}: no such file; give a text file, or leave it out")
        try:
            return read_removal_list(path)
        except ValueError as error:
            raise self.field_error("removal_list", f"={path}: not a list: {error}; save it as text") from error

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        num_images, found = inputs["selection"].num_rows(), OwnColumns.of(inputs["own_columns"])
        if num_images == 0:
            raise NothingSelected(
                f"{inputs['selection'].name}: no image was selected, so there is nothing to write; the report tells "
                "why images were dropped"
            )
        update: dict[str, Any] = {}
        if self.num_shards == "auto":
            update["num_shards"] = max(1, -(-found.num_bytes // self.shard_bytes))
        elif self.num_shards > num_images:
            text = f"={self.num_shards}: {num_images} images are selected; set it to {num_images} or less, or to auto"
            raise self.field_error("num_shards", text)
        if self.columns == "auto":
            update["columns"] = found.kinds
            _warn_of_left_out(found)
        if self.classes == "auto":
            own = update.get("columns", {})
            update["classes"] = {name: c for name, c in found.classes.items() if self._may_be_number(name, own)}
        if self.columns == "auto":
            update["columns"] = found.kinds | dict.fromkeys(update.get("classes", self.classes), "int64")
        for name in found.mixed:
            if self.columns != "auto" and self._may_be_number(name, {}):
                text = f": {name}: the sources number its classes differently; make it string"
                raise self.field_error("columns", text)
        return self.model_copy(update=update)

    def _may_be_number(self, name: str, found: Mapping[str, ColumnKind]) -> bool:
        return name in found if self.columns == "auto" else self.columns.get(name) == "int64"

    def num_parts(self, **inputs: Any) -> int:
        assert isinstance(self.num_shards, int)
        return self.num_shards

    # -- writing ---------------------------------------------------------------------------------------------

    def look_back(self, before: Table, **inputs: Any) -> Self:
        """Whether most of some images lie in some of the shards, as many of both as tell it surely."""
        assert isinstance(self.num_shards, int)
        found = before.manifest()
        ours = {name: getattr(self, name) for name in ("num_shards", "seed", "repair_metadata")}
        if found is None or ours != {name: found.resolved.get(name) for name in ours}:
            return self
        shards = _spread(range(self.num_shards), LOOKED_AT)
        committed = before.committed()
        try:
            there = [before.read(n, ["image_id"])["image_id"].to_numpy() for n in shards if n in committed]
        except (TableError, KeyError):  # damaged, or not ours: every image is read from its source
            return self
        wanted = np.concatenate([np.empty(0, np.int64), *self._looked_for(shards, inputs)])
        known = np.isin(wanted, np.concatenate([np.empty(0, np.int64), *there]))
        copied = self.model_copy()
        copied._from_shards = len(wanted) > 0 and bool(known.mean() >= REUSED_FROM)
        return copied

    def _looked_for(self, shards: Sequence[int], inputs: Mapping[str, Any]) -> Iterator[np.ndarray]:
        """Ids of the selected images of some parts that belong into some shards."""
        catalog = inputs["catalog"].parts()
        for part in _spread(inputs["selection"].parts(), LOOKED_AT):
            ids = inputs["selection"].read(part.number, ["image_id"])["image_id"].to_numpy()
            keys = self._keys(part.number, catalog[part.number].rows)[row_of(ids)]
            yield ids[np.isin(self._shard_of(keys), shards)]

    def _keys(self, part: int, num_rows: int) -> np.ndarray:
        """(N,) float64, 0..1: the place of each image of a part in the shuffle."""
        return np.random.default_rng([self.seed or 0, part]).random(num_rows)

    def _shard_of(self, keys: np.ndarray) -> np.ndarray:
        """(N,) int: the shard of each key."""
        assert isinstance(self.num_shards, int)
        found: np.ndarray = (keys * self.num_shards).astype(np.int32)
        return found

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        """The same whether or not the bytes are read, so that a run that goes on finds what the one before it sent."""
        found = OwnColumns.of(inputs["own_columns"])
        return float(found.num_bytes + inputs["selection"].num_rows() * row_bytes(pieces))

    def scatter(
        self,
        part: int,
        *,
        selection: pa.Table,
        catalog: Table,
        images: Table,
        blurs: Table | None = None,
        **known: Table,
    ) -> Iterator[Scattered]:
        places, facts = catalog.read(part), images.read(part)
        if blurs is not None:
            facts = facts.append_column(BLURS.field(1), blurs.read(part)[FACES])
        pieces = self.piece_schema(blurs=None if blurs is None else blurs.schema())
        keys = self._keys(part, len(places))
        selection = selection.filter(pa.array(~self._removed_rows(selection, places, facts)))
        rows = row_of(selection["image_id"].to_numpy())
        chosen, places, facts = selection.to_pylist(), places.take(rows), facts.take(rows)
        reads: Iterator[Read | None] = itertools.repeat(None, len(rows))
        if not self._from_shards:
            reads = read_unchanged(places, facts["sha256"].to_pylist(), facts["num_bytes"].to_pylist())
        held: list[dict[str, Any]] = []
        num_bytes = 0
        described = zip(chosen, places.to_pylist(), facts.to_pylist(), strict=True)
        for one, key, read in zip(described, keys[rows].tolist(), reads, strict=True):
            data = None if read is None else read.data
            held.append(_piece(key, *one, data))
            num_bytes += len(data or b"")
            if num_bytes >= BATCH_BYTES:
                yield self._drain(held, pieces)
                num_bytes = 0
        yield self._drain(held, pieces)

    def _removed_rows(self, selection: pa.Table, places: pa.Table, facts: pa.Table) -> np.ndarray:
        """(N,) bool: rows of the selection that the removal list names."""
        removed: np.ndarray = self.removal().named(places, facts)[row_of(selection["image_id"].to_numpy())]
        return removed

    def _drain(self, held: list[dict[str, Any]], pieces: pa.Schema) -> Scattered:
        """What is held with its shards; nothing is held then."""
        rows = pa.RecordBatch.from_pylist(held, schema=pieces)
        held.clear()
        return self._shard_of(rows["sort_key"].to_numpy()), rows

    def run(
        self,
        part: int,
        *,
        pieces: pa.Table,
        before: Table,
        catalog: Table,
        images: Table,
        own_columns: Table,
        blurs: Table | None = None,
    ) -> Batches:
        schema = self.output_schema(blurs=None if blurs is None else blurs.schema())
        order = np.lexsort((pieces["image_id"].to_numpy(), pieces["sort_key"].to_numpy()))
        earlier = EarlierShard(before, part, blur=(schema.metadata or {}).get(BLUR))
        fetched = fetch(pieces.filter(self._to_fetch(pieces, earlier)), catalog)
        step = np.cumsum(pieces["num_bytes"].to_numpy()[order]) // BATCH_BYTES
        bounds = np.flatnonzero(np.diff(step, prepend=-1, append=-1))
        missing: dict[int, str] = dict(zip(*(pieces[name].to_pylist() for name in ("image_id", "key")), strict=True))
        for start, stop in itertools.pairwise(bounds.tolist()):
            batch = self._batch(pieces.take(order[start:stop]), earlier, fetched.data, schema)
            for image_id in batch["image_id"].to_pylist():
                del missing[image_id]
            yield batch
        yield tally_batch(ShardTally(missing=tuple(sorted(missing.items())[:MAX_NAMED])), schema)
        if fetched.away:
            yield mark_open(pa.RecordBatch.from_pylist([], schema=schema), len(fetched.away))

    def _to_fetch(self, rows: pa.Table, earlier: "EarlierShard") -> pa.Array:
        """Rows whose bytes neither came along nor lie in the earlier shard."""
        absent = pc.struct_field(rows["image"], "bytes").is_null().to_numpy()
        return pa.array(absent & ~earlier.has(rows))

    def _batch(
        self, rows: pa.Table, earlier: "EarlierShard", fetched: dict[int, bytes], schema: pa.Schema
    ) -> pa.RecordBatch:
        assert not isinstance(self.columns, str)
        ids, pictures = rows["image_id"].to_pylist(), rows["image"].to_pylist()
        absent = [image_id for image_id, p in zip(ids, pictures, strict=True) if p["bytes"] is None]
        lacking = set(absent) - fetched.keys()
        found = fetched | earlier.read(sorted(lacking))
        for image_id, picture in zip(ids, pictures, strict=True):
            picture["bytes"] = found.get(image_id) if picture["bytes"] is None else picture["bytes"]
        there = pa.array([picture["bytes"] is not None for picture in pictures])
        rows = rows.set_column(rows.schema.get_field_index("image"), "image", [pa.array(pictures, HF_IMAGE)])
        rows = rows.filter(there)
        if BLUR in (schema.metadata or {}):
            rows = blur_rows(
                rows, blur_of(schema), done={i: note for i, note in earlier.blurred.items() if i in lacking}
            )
        told = [earlier.repaired.get(i) if i in lacking else None for i in rows["image_id"].to_pylist()]
        place = rows.schema.get_field_index("repaired")
        rows = rows.set_column(place, rows.schema.field(place), [pa.array(told, pa.string())])
        rows = make_rows_readable(rows, repair=self.repair_metadata)
        named = named_rows(rows["extra"].to_pylist())
        own = [self._own_column(named, name, rows["key"]) for name in sorted(self.columns)]
        kept = [rows[name].combine_chunks() for name in schema.names[: len(schema) - len(own)]]
        return pa.RecordBatch.from_arrays([*kept, *own], schema=schema)

    def _own_column(self, rows: list[dict[str, Any]], name: str, keys: pa.ChunkedArray) -> pa.Array:
        assert not isinstance(self.columns, str)
        if isinstance(self.classes, str) or name not in self.classes:
            return self._typed_column(rows, name, self.columns[name], keys)
        try:
            return class_numbers(rows, name, self.classes[name])
        except ValueError as error:
            raise self.field_error("classes", f": {error}; give all of them, or leave it at auto") from error

    def _typed_column(self, rows: list[dict[str, Any]], name: str, kind: ColumnKind, keys: pa.ChunkedArray) -> pa.Array:
        """A column of the sources, of the type that was found or that the user gave."""
        try:
            return own_column(rows, name, kind)
        except UNFIT:
            place = first_unfit(rows, name, kind)
            found = f"{rows[place][name]!r:.80} of the image {keys[place].as_py()}"
            raise self.field_error(
                "columns",
                f": {name} is declared {kind}, which does not hold {found}; set it to string, or columns to auto",
            ) from None

    # -- telling about it ------------------------------------------------------------------------------------

    def before_making(self, table: Table) -> None:
        """Without its card and papers: while shards are replaced, none may vouch for the rows of before."""
        for paper in (CARD, *PAPERS):
            table.store.remove(paper)

    def summarize(self, table: Table, **inputs: Any) -> ShardFigures:
        wanted = self.removal()
        removal = removal_figures(wanted, lambda: _parts_of(inputs, wanted))
        for text in itertools.islice(removal.hits(), NUM_LOGGED):
            logger.info("%s: removal_list: %s", table.name, text)
        chosen = inputs["selection"].num_rows()
        away = sum(part.open for part in table.parts())
        tallies = ShardTally.by_part(table)
        missing = chosen - removal.removed - table.num_rows()
        lost = missing - away
        figures = ShardFigures(
            num_bytes=sum(part.num_bytes for part in table.parts()),
            removed=removal.removed,
            lost=lost,
            away=away,
            missing_keys=tuple(key for _, key in sorted(one for part in tallies for one in part.missing)[:MAX_NAMED]),
            full=not isinstance(self.columns, str) and len(self.columns) >= MAX_COLUMNS,
            removal=removal,
            readers=ReaderFigures.of_tally(ShardTally.sum(tallies)),
        )
        for text in _warnings(figures):
            logger.warning("%s: %s", table.name, text)
        if lost > self.max_lost_fraction * chosen:
            raise TooManyRejects(
                f"{table.name}: {plural(lost, 'selected image')} of {count(chosen)} could not be read any more, more "
                f"than max_lost_fraction={self.max_lost_fraction} allows: {', '.join(figures.missing_keys)}; restore "
                f"the files and run again with --rebuild {table.name}, or go without them: write.max_lost_fraction=1"
            )
        return figures

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Every image is read from its source, and once more from the scattered rows; twice where these take two
        levels, from about 256 shards on."""
        chosen: Shape = inputs["selection"]
        size = chosen.rows * given.image_bytes
        shards = self.num_shards if self.num_shards != "auto" else math.ceil(size / self.shard_bytes)
        each = given.image_bytes + given.name_bytes + given.own_bytes
        widths = {"image": given.image_bytes, "key": given.name_bytes, "extra": given.own_bytes}
        made = Shape(pool=chosen.rows, row_bytes=each, parts=max(1, shards), columns=COLUMNS, widths=widths)
        demand = Demand(rows=2 * chosen.rows, written=made.num_bytes, memory=3 * self.shard_bytes)
        images = demand.with_bytes(chosen.rows, given, of=given.images + given.curated)
        facts = [inputs["catalog"].scanned(), inputs["images"].scanned()]
        sent = Sent(chosen.rows, chosen.parts, made.parts, row_bytes=each + PIECE_BYTES, raw=True)
        return Demand.phases([images, *facts, shuffled(sent, given)]), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        """Which roles a removal list hit is not recorded, so that what it leaves counts both."""
        figures, shards = ShardFigures.of(table), plural(len(table.parts()), "shard")
        if before is None or figures.removed or figures.lost or figures.away:
            drops = (
                ("on the removal list", figures.removed),
                ("gone or changed since", figures.lost),
                ("unavailable", figures.away),
            )
            named = tuple((reason, number) for reason, number in drops if number)
            yield FlowStep(
                "in the shards",
                table.num_rows(),
                drops=named,
                note=f"{shards}, curated images included",
                kept_out="of the shards",
                station=True,
                merged=True,
            )
        else:
            yield FlowStep("in the shards", before.pool, before.curated, (), shards)

    def headline(self, table: Table, run: Finished) -> str | None:
        return f"{count(table.num_rows())} in the shards"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        yield from (f"{table.name}: {text}" for text in _warnings(ShardFigures.of(table)))

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        removal = ShardFigures.of(table).removal
        if removal.num_entries:
            rows = tuple(
                (shown_entry(entry), found.images, found.selected)
                for entry, found in itertools.islice(removal.entries.items(), NUM_SHOWN)
            )
            part = "" if len(rows) == removal.num_entries else f", {len(rows)} of them below"
            text = Text(f"{plural(removal.num_entries, 'entry', 'entries')} in the removal list{part}.")
            yield Section("Taken down", (text, Numbers(("entry", "images it names", "of the selection"), rows)))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for part in table.parts():
            ids = table.read(part.number, ["image_id"])["image_id"].to_numpy()
            for row in np.flatnonzero(ids == image.image_id).tolist():
                yield f"{table.file_name(part.number)}, row {row}"
                return
        chosen = any(run.rows_of(image, selection) for selection in run.inputs_of(table, "selection"))
        figures = ShardFigures.of(table)
        reasons = ["it is on the removal list"] if figures.removed else []
        reasons += ["its file could not be had, or had changed"] if figures.lost or figures.away else []
        left_out = f"left out: {' or '.join(reasons)}" if reasons else "left out"
        yield left_out if chosen else "not in the shards"


def _spread(found: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, evenly spread."""
    return [found[number * len(found) // most] for number in range(most)] if len(found) > most else found


def _warnings(figures: ShardFigures) -> Iterator[str]:
    yield from figures.removal.warnings()
    yield from read_warnings(figures.readers)
    if figures.full:
        yield f"{count(MAX_COLUMNS)} own columns of the sources, as many as shards take; rarer ones may be left out"
    missing = figures.lost + figures.away
    if missing:
        why = [f"{count(figures.lost)} gone or changed since"] if figures.lost else []
        why += [f"{count(figures.away)} kept away by errors that may pass"] if figures.away else []
        more = ", ..." if missing > len(figures.missing_keys) else ""
        yield (
            f"{plural(missing, 'selected image')} not in the shards ({', '.join(why)}): "
            f"{', '.join(figures.missing_keys)}{more}"
        )


def _warn_of_left_out(found: OwnColumns) -> None:
    """Where the sources have more own columns than shards take."""
    if found.num_left_out:
        logger.warning(
            "shards: %s%s own columns of the sources are left out, such as %r: at most %s are kept, those of most "
            "images; to choose them, name them: sources.pool=[{name: NAME, path: PATH, columns: [NAME, ...]}]",
            count(found.num_left_out),
            " or more" if found.uncounted else "",
            found.left_out,
            count(MAX_COLUMNS),
        )


def _parts_of(inputs: Mapping[str, Any], wanted: Entries) -> Iterator[PartRows]:
    """Every part of the catalog, with which of its images were selected."""
    chosen = {part.number for part in inputs["selection"].parts()}
    for part in inputs["catalog"].parts():
        selected = np.zeros(part.rows, bool)
        if part.number in chosen:
            selected[row_of(inputs["selection"].read(part.number, ["image_id"])["image_id"].to_numpy())] = True
        catalog = inputs["catalog"].read(part.number, ["source", "key", "uri"])
        yield PartRows(catalog, inputs["images"].read(part.number, wanted.columns), selected)


def _piece(
    key: float, chosen: dict[str, Any], place: dict[str, Any], image: dict[str, Any], data: bytes | None
) -> dict[str, Any]:
    copied = {name: image[name] for name in ("width", "height", "extra", "num_bytes")} | {FACES: image.get(FACES)}
    copied |= {name: place[name] for name in ("key", "source", "role")}
    copied |= {name: chosen[name] for name in ("image_id", "clusters", "origins", "repeats")}
    picture = {"bytes": data, "path": place["key"]}
    return {"sort_key": key, "image": picture, "sha256": image["sha256"].hex(), **copied}
