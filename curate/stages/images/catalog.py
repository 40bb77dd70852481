"""Catalog: where every image of every source lies. No image byte is copied, ids never move."""

import itertools
import json
import logging
import math
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import PrivateAttr

from curate.config import differences, digest, identity
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.demands import logged
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import CatalogFigures, LeftOutFigures, ids_of_part, part_of
from curate.engine.part_writer import ROW_GROUP_ROWS
from curate.engine.show import FlowStep, Numbers, Section, Text
from curate.engine.stage import Batches, Changed, Known, Listing, Piece
from curate.engine.table import Table
from curate.errors import SourceError, TableError
from curate.sources.beside import leave_out_rows
from curate.sources.class_names import Names
from curate.sources.config import Source, Sources
from curate.sources.found import Span, cut_parts
from curate.sources.left_out import LeftOut, is_loss
from curate.sources.listing import GROUP_FILES, Group, GroupFacts, check_listed, find_groups, list_group
from curate.stages.images.listed import (
    LISTED,
    RowsPerPart,
    Told,
    choose_rows_per_part,
    classes_text,
    home_of,
    listed_rows,
    only_new,
    pack_numbers,
    unpack_numbers,
)
from curate.stages.images.moved import Drawn, SourceChanges, check_moved, draw_doubtful, find_moved, lasting_home
from curate.tables import CATALOG, ROLES

logger = logging.getLogger(__name__)

SOURCE = b"curate.source"
"""Key of a part's metadata under which the config of its source travels."""
CLASSES = b"curate.classes"
"""Key of a part's metadata under which the names of classes travel that the files of its images declare."""
ROW_BYTES = 4
"""Bytes of a row of `catalog` beside what names the image."""
TOLD_BYTES = 200
"""Bytes that tell of a group of listed files; more where archives are many."""
LISTING_REQUESTS = 20
"""Requests of the driver for the hidden folders of a listing."""
COLUMNS = 13
"""Columns of `catalog`, those of sidecars counted each."""
MEMORY_PER_ROW = 1e3
"""Bytes that a listed image takes until its part is written."""
BATCH_ROWS = 4096
"""Images that are listed before they are written down."""


class Catalog(Listing):
    """Lists the sources in a fixed order and cuts each into parts; a later scan appends what is new."""

    version: ClassVar[int] = 3
    explained_as: ClassVar[str] = "listed"

    sources: Sources
    """What to list."""
    rows_per_part: RowsPerPart = "auto"
    """Images of a part at most; an archive stays whole where it fits. auto: by the number of images that are listed
    first, see `choose_rows_per_part`."""

    _left_out: dict[str, LeftOut] = PrivateAttr(default_factory=dict)
    _parts: list[tuple[str, str, int]] = PrivateAttr(default_factory=list)
    """(source, role, images) of each part, known when parts are cut."""
    _order: tuple[str, ...] = PrivateAttr(default=())
    """Names of the sources in the order in which they are listed; empty: by role, as they are given."""

    def __getstate__(self) -> dict[Any, Any]:  # what the driver knows of a listing does not travel with tasks
        return super().__getstate__() | {"__pydantic_private__": {"_left_out": {}, "_parts": [], "_order": ()}}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CATALOG

    def listed_schema(self) -> pa.Schema:
        return LISTED

    # -- listing ---------------------------------------------------------------------------------------------

    def find_groups(self) -> Iterator[tuple[str, str]]:
        sources = [source for _, source in self.sources.by_role()]
        if self._order:
            sources.sort(key=lambda source: self._order.index(source.name))
        for source in sources:
            described = source.model_dump_json()
            for group in find_groups(source):
                text = json.dumps([source.name, *group])
                content = [described, *group[:2], group.before] if group.lasting else uuid.uuid4().hex
                yield text, digest(content)

    def list_group(self, group: str, known: Known | None, tell: Callable[[str], None]) -> Batches:
        name, *values = json.loads(group)
        _, source = self._source(name)
        asked, facts = Group(*values), GroupFacts(LeftOut(), {})
        told, declared = Told(name, asked.kind), dict[int, int]()
        found = list_group(source, asked, facts)
        if known is not None:
            found = only_new(found, known, told)
        while rows := list(itertools.islice(found, BATCH_ROWS)):
            told.add(rows, declared)
            yield listed_rows(rows)
        if known is None:
            told.listed = told.rows()
        told.left_out = facts.left_out.pack()
        told.tables = {key: (index.num_rows, pack_numbers(index.used_rows())) for key, index in facts.tables.items()}
        tell(told.text())

    def _source(self, name: str) -> tuple[str, Source]:
        """(role, source) of that name."""
        return next((role, source) for role, source in self.sources.by_role() if source.name == name)

    def resolve_listed(self, told: Iterable[str], previous: Mapping[str, Any] | None) -> Self:
        kinds, listed = set[str](), Counter[str]()
        left_out = {source.name: LeftOut() for _, source in self.sources.by_role()}
        for name, groups in itertools.groupby(map(Told.parse, told), lambda one: one.source):
            used: dict[str, np.ndarray] = {}
            for one in groups:
                kinds.add(one.kind)
                listed[name] += one.listed
                left_out[name].add(one.left_out)
                for key, (num_rows, packed) in one.tables.items():
                    used.setdefault(key, np.zeros(num_rows, bool))[unpack_numbers(packed)] = True
            for key, asked in used.items():
                leave_out_rows(
                    left_out[name], key, int(np.count_nonzero(~asked)), int(np.argmin(np.append(asked, False)))
                )
        for _, source in self.sources.by_role():
            check_listed(source, listed[source.name], left_out[source.name])
            if left_out[source.name]:
                logger.info("%s: left out: %s", source.name, dict(left_out[source.name]))
        rows_per_part = self.rows_per_part
        if rows_per_part == "auto":
            rows_per_part = (
                choose_rows_per_part(listed.total(), kinds) if previous is None else previous["rows_per_part"]
            )
        resolved = self.model_copy(update={"rows_per_part": rows_per_part})
        resolved._left_out = left_out
        return resolved

    def cut(self, told: Iterable[str], known: Table | None) -> Iterator[list[tuple[int, int, int]]]:
        assert self.rows_per_part != "auto"
        before = _parts_of(CatalogFigures.of(known)) if known is not None else []
        self._parts = list(before)
        left = deque[tuple[int, int, int]]()
        counts = Counter[str]()

        def spans(groups: Iterable[tuple[int, Told]]) -> Iterator[Span]:
            for number, one in groups:
                left.append((number, 0, one.rows()))
                counts.update(known=one.known, changed=one.changed)
                yield from one.cuts(number)

        numbered = enumerate(map(Told.parse, told))
        for name, groups in itertools.groupby(numbered, lambda one: one[1].source):
            counts.clear()
            for size in cut_parts(spans(groups), rows_per_part=self.rows_per_part):
                self._parts.append((name, self._source(name)[0], size))
                yield list(_take(left, size))
            if known is not None:
                _tell_changes(name, counts, sum(rows for source, _, rows in before if source == name))

    def fill(self, part: int, pieces: Sequence[Piece]) -> tuple[pa.Schema, Batches]:
        told = [Told.parse(piece.told) for piece in pieces]
        role, source = self._source(told[0].source)
        rows = pa.Table.from_batches((batch for piece in pieces for batch in piece.rows()), LISTED)
        rows = rows.take(pa.array(np.arange(len(rows))))  # what Parquet reads leaves bytes under nulls to chance
        found = (one.classes_of(piece.start, piece.stop) for one, piece in zip(told, pieces, strict=True))
        return _catalog_rows(part, role, source, rows, classes_text(itertools.chain.from_iterable(found)))

    def homes_of(self, rows: pa.Table, told: str | None = None) -> Sequence[str]:
        columns = [rows[name].to_pylist() for name in ("uri", "key", "offset", "row")]
        if told is None:
            return list(map(home_of, *columns))
        source = Told.parse(told).source
        return [lasting_home(source, *place) for place in zip(*columns, strict=True)]

    def differs_from(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """A catalog follows sources that moved, and takes up those that were added; see `moved.py`."""
        yield from SourceChanges.between(config.get("sources", {}), self.sources).others
        yield from differences({**config, "sources": identity(self.sources)}, identity(self))

    def as_listed(self, known: Table) -> Self:
        """Sources that were added follow all that were there."""
        ordered = self.model_copy()
        ordered._order = CatalogFigures.of(known).sources
        return ordered

    def changed(self, known: Table) -> Changed[Self]:
        changes, figures = self._changes(known), CatalogFigures.of(known)
        moved = {figures.sources.index(source.name) for _, source in changes.moved}
        parts = [part for part, source in enumerate(figures.part_source) if source in moved]
        return Changed(self._of(changes.moved), parts, self._of(changes.added))

    def _changes(self, known: Table) -> SourceChanges:
        return SourceChanges.between(known.complete_manifest().config["sources"], self.sources)

    def _of(self, sources: Sequence[tuple[str, Source]]) -> Self | None:
        """The catalog of these (role, source) alone; None where there are none."""
        if not sources:
            return None
        roles = {role: tuple(source for of, source in sources if of == role) for role in ROLES}
        return self.model_copy(update={"sources": self.sources.model_copy(update=roles)})

    def move(self, rows: pa.Table, found: Known, tell: Callable[[str], None]) -> tuple[pa.Schema, Batches]:
        role, source = self._source(rows["source"][0].as_py())
        part, classes = part_of(rows["image_id"][0].as_py()), (rows.schema.metadata or {})[CLASSES]
        after = find_moved(rows, source, found, LISTED)
        tell(json.dumps(draw_doubtful(rows, after)))
        return _catalog_rows(part, role, source, after, classes)

    def check_moved(self, known: Table, moved: Table, told: Mapping[int, str]) -> None:
        figures = CatalogFigures.of(known)
        for _, source in self.sources.by_role():
            parts = [part for part in told if figures.sources[figures.part_source[part]] == source.name]
            check_moved(known, moved, source, [Drawn(*json.loads(told[part])) for part in parts])

    def summarize(self, table: Table, **inputs: Any) -> CatalogFigures:
        """What is known by now of sources that were not listed again stays."""
        known = table.complete_manifest().figures
        before = CatalogFigures.model_validate(known) if known else CatalogFigures.of_parts(())
        left_out = [found for found in before.left_out if found.source not in self._left_out]
        left_out += [
            LeftOutFigures(source=name, reason=reason, count=number, example=skipped.example.get(reason, ""))
            for name, skipped in self._left_out.items()
            for reason, number in sorted(skipped.items())
        ]
        names = [source.name for _, source in self.sources.by_role()]
        return CatalogFigures.of_parts(self._parts or _parts_of(before), sources=names, left_out=left_out)

    # -- telling about it ------------------------------------------------------------------------------------

    def estimate(self, num_images: int) -> dict[str, Any]:
        return {"rows_per_part": choose_rows_per_part(num_images)} if self.rows_per_part == "auto" else {}

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        sizes = (given.images, given.curated, given.heldout)
        rows = choose_rows_per_part(int(sum(sizes))) if self.rows_per_part == "auto" else self.rows_per_part
        parts = sum(-(-size // rows) for size in sizes)
        made = Shape(*sizes, row_bytes=ROW_BYTES + given.name_bytes, parts=parts, columns=COLUMNS)
        each = GROUP_FILES if given.file_images == 1 else given.file_images  # of a group of files, or of an archive
        groups = sum(math.ceil(size / each) for size in sizes)
        listed = made._replace(parts=groups, columns=COLUMNS - 3)
        told = Shape(pool=groups, row_bytes=TOLD_BYTES, parts=groups, columns=1)
        demand = Demand(rows=made.rows, written=made.num_bytes, memory=max(rows, BATCH_ROWS) * MEMORY_PER_ROW)
        # A part opens the groups that its rows lie in, and reads of each the row groups that hold some.
        opened = listed.opened(max(1, parts / groups))
        read = listed.fetched(max(1, min(ROW_GROUP_ROWS, listed.rows / groups) / rows))
        tasks = Demand.sum([opened, read, told.scanned(2 + max(1, parts / groups))])
        hidden = Demand(requests=LISTING_REQUESTS + 3 * groups, scratch=listed.num_bytes + told.num_bytes)
        return Demand.phases([demand, tasks, hidden, logged(groups)]), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        listed = {role: run.parts.num_images([role]) for role in ROLES}
        yield FlowStep("listed", listed["pool"], listed["curated"] or None, station=True)

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        sizes = Counter[tuple[str, str]]()
        for name, role, rows in zip(run.parts.source, run.parts.role, run.parts.rows, strict=True):
            sizes[name, ROLES[role]] += int(rows)
        for (name, role), rows in sizes.items():
            yield "Sources", f"{name}{'' if name == role else f' ({role})'}: {rows:,} image{'' if rows == 1 else 's'}"

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        left_out = CatalogFigures.of(table).left_out
        if left_out:
            rows = tuple((found.source, found.reason, found.count, found.example) for found in left_out)
            told = Text("What the sources held besides images when they were listed, and one example of each kind.")
            yield Section("Not listed", (told, Numbers(("source", "what", "count", "such as"), rows)))

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        figures = CatalogFigures.of(table)
        sizes = Counter[str]()
        for source, rows in zip(figures.part_source, figures.part_rows, strict=True):
            sizes[figures.sources[source]] += rows
        for found in figures.left_out:
            if is_loss(found.reason, found.count, num_images=sizes[found.source]):
                such = f", such as {found.example}" if found.example else ""
                yield f"source {found.source}: left out: {found.count:,} x {found.reason}{such}"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        listed = image.row
        yield f"{image.role} source {listed['source']}: {listed['key']}"
        where: str = listed["uri"]
        if listed["offset"] is not None and listed["row"] is None:
            where += f", at byte {listed['offset']:,}"
        if listed["row"] is not None:
            where += f", row {listed['row']:,}"
        yield where


def source_of(rows: pa.Table) -> Source:
    """The source that a part of the catalog lists: its config travels in the part's schema."""
    text = (rows.schema.metadata or {}).get(SOURCE)
    if text is None:
        raise TableError("catalog: a part without its source; make the catalog again with --rebuild catalog")
    return Source.model_validate_json(text)


def classes_of(rows: pa.Table) -> dict[str, Names | None]:
    """Names of the classes of a part of the catalog, by own column; None: its files declare different ones."""
    declared = json.loads((rows.schema.metadata or {}).get(CLASSES, b"{}"))
    return {column: None if names is None else tuple(names) for column, names in declared.items()}


def read_picture(rows: pa.Table) -> Image.Image:
    """The picture of an image, from its row of the catalog.

    Raises:
        SourceError: it can no longer be read, or does not decode.
    """
    from curate.ops.images.decode import RejectedImage
    from curate.ops.images.decoding import decode_picture
    from curate.sources.reading import read_bytes

    source = source_of(rows)
    uri, (read,) = rows["uri"][0].as_py(), read_bytes(rows, source)
    if read.data is None:
        raise SourceError(f"{uri}: {read.error}")
    try:
        return decode_picture(read.data, significant_bits=source.significant_bits)
    except RejectedImage as error:
        raise SourceError(f"{uri}: {error.reason}: {error}") from error


def _take(left: deque[tuple[int, int, int]], size: int) -> Iterator[tuple[int, int, int]]:
    """(group, first row, row behind the last) of the next `size` rows; `left` keeps the others."""
    while size:
        group, start, stop = left.popleft()
        end = min(stop, start + size)
        if end > start:
            yield group, start, end
        if end < stop:
            left.appendleft((group, end, stop))
        size -= end - start


def _parts_of(figures: CatalogFigures) -> list[tuple[str, str, int]]:
    """(source, role, images) of each part."""
    columns = (figures.part_source, figures.part_role, figures.part_rows)
    return [(figures.sources[source], ROLES[role], rows) for source, role, rows in zip(*columns, strict=True)]


def _catalog_rows(
    part: int, role: str, source: Source, rows: pa.Table, classes: bytes
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A part of the catalog, from rows of `LISTED` in memory of their own."""
    columns = [
        pa.array(ids_of_part(part, len(rows))),
        pa.array([source.name] * len(rows)),
        pa.array([role] * len(rows)),
        *rows.columns,
    ]
    schema = CATALOG.with_metadata({SOURCE: source.model_dump_json().encode(), CLASSES: classes})
    return schema, iter(pa.Table.from_arrays(columns, schema=schema).combine_chunks().to_batches())


def _tell_changes(name: str, counts: Counter[str], listed: int) -> None:
    """Report what a rescan found of the images that were listed before."""
    vanished = max(0, listed - counts["known"])
    if counts["changed"] or vanished:
        logger.warning(
            "%s: %d images or what lies beside them changed and %d images vanished since they were listed; their rows "
            "stay as they are (--rebuild all starts anew)",
            name,
            counts["changed"],
            vanished,
        )
