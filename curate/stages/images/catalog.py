"""Catalog: where every image of every source lies. No image byte is copied, ids never move."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from PIL import Image
from pydantic import Field, PrivateAttr

from curate.config import differences, identity
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import CatalogFigures, LeftOutFigures, ids_of_part
from curate.engine.show import FlowStep, Numbers, Section, Text
from curate.engine.stage import Scan
from curate.engine.table import Table
from curate.errors import SourceError, TableError
from curate.sources.class_names import Names, common_classes
from curate.sources.config import Source, Sources
from curate.sources.found import Found, cut_parts
from curate.sources.left_out import LeftOut, is_loss
from curate.sources.listing import list_source
from curate.stages.images.moved import SourceChanges, move_parts
from curate.tables import CATALOG, ROLES

logger = logging.getLogger(__name__)

SOURCE = b"curate.source"
"""Key of a part's metadata under which the config of its source travels."""
CLASSES = b"curate.classes"
"""Key of a part's metadata under which the names of classes travel that the files of its images declare."""
ROW_BYTES = 4
"""Bytes of a row of `catalog` beside what names the image."""
COLUMNS = 13
"""Columns of `catalog`, those of sidecars counted each."""
MEMORY_PER_ROW = 1e3
"""Bytes that a listed image takes until its part is written."""


class Catalog(Scan):
    """Lists the sources in a fixed order and cuts each into parts; a later scan appends what is new."""

    version: ClassVar[int] = 3
    explained_as: ClassVar[str] = "listed"

    sources: Sources
    """What to list."""
    rows_per_part: Annotated[int, Field(ge=1)] = 65_536
    """Images of a part at most; an archive stays whole where it fits."""

    _left_out: dict[str, LeftOut] = PrivateAttr(default_factory=dict)

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CATALOG

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        part = len(known.parts()) if known else 0
        for role, source in self.sources.by_role():
            skipped = self._left_out[source.name] = LeftOut()
            found: Iterable[Found] = list_source(source, skipped=skipped)
            if known:
                found = _new(found, known, source)
            for rows in cut_parts(found, rows_per_part=self.rows_per_part):
                yield part, catalog_rows(part, role, source, rows)
                part += 1
            if skipped:
                logger.info("%s: left out: %s", source.name, dict(skipped))

    def differs_from(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """A catalog follows sources that moved, and takes up those that were added; see `moved.py`."""
        yield from SourceChanges.between(config.get("sources", {}), self.sources).others
        yield from differences({**config, "sources": identity(self.sources)}, identity(self))

    def go_on(self, known: Table) -> Iterator[tuple[int, pa.Table]]:
        changes = SourceChanges.between(known.complete_manifest().config["sources"], self.sources)
        for role, source in changes.moved:
            yield from move_parts(known, role, source, catalog_rows)
        if changes.added:
            added = {role: tuple(source for of, source in changes.added if of == role) for role in ROLES}
            listing = self.model_copy(update={"sources": self.sources.model_copy(update=added)})
            yield from listing.scan(known)
            self._left_out.update(listing._left_out)

    def summarize(self, table: Table, **inputs: Any) -> CatalogFigures:
        parts = []
        for part in table.parts():
            first = table.read(part.number, ["source", "role"]).slice(0, 1).to_pylist()[0]
            parts.append((first["source"], first["role"], part.rows))
        known = table.complete_manifest().figures
        before = CatalogFigures.model_validate(known).left_out if known else ()
        left_out = [found for found in before if found.source not in self._left_out]
        left_out += [
            LeftOutFigures(source=name, reason=reason, count=number, example=skipped.example.get(reason, ""))
            for name, skipped in self._left_out.items()
            for reason, number in sorted(skipped.items())
        ]
        names = [source.name for _, source in self.sources.by_role()]
        return CatalogFigures.of_parts(parts, sources=names, left_out=left_out)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        sizes = (given.images, given.curated, given.heldout)
        parts = sum(-(-size // self.rows_per_part) for size in sizes)
        made = Shape(*sizes, row_bytes=ROW_BYTES + given.name_bytes, parts=parts, columns=COLUMNS)
        demand = Demand(
            serial_rows=made.rows,
            written=made.num_bytes,
            tasks=parts,
            memory=self.rows_per_part * MEMORY_PER_ROW,
        )
        return demand, made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        listed = {role: run.parts.num_images([role]) for role in ROLES}
        yield FlowStep("listed", listed["pool"], listed["curated"] or None)

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


def catalog_rows(part: int, role: str, source: Source, found: list[Found]) -> pa.Table:
    """The rows of one part of the catalog."""
    columns = [
        pa.array(ids_of_part(part, len(found))),
        pa.array([source.name] * len(found)),
        pa.array([role] * len(found)),
        *(pa.array([getattr(f, name) for f in found], CATALOG.field(name).type) for name in CATALOG.names[3:]),
    ]
    classes = json.dumps(common_classes(item.classes for item in found), sort_keys=True).encode()
    schema = CATALOG.with_metadata({SOURCE: source.model_dump_json().encode(), CLASSES: classes})
    return pa.Table.from_arrays(columns, schema=schema)


def _new(found: Iterable[Found], known: Table, source: Source) -> Iterator[Found]:
    """What the catalog does not list yet; reports what changed or vanished since."""
    listed = {}
    for rows in known.scan(["source", "uri", "key", "offset", "row", "length", "modified", "sidecars"]):
        if rows["source"][0].as_py() == source.name:
            for r in rows.to_pylist():
                beside = None if r["sidecars"] is None else [tuple(s.values()) for s in r["sidecars"]]
                place = _place(r["uri"], r["key"], r["offset"], r["row"])
                listed[place] = (r["length"], r["modified"], _digest(beside))
    changed = 0
    for item in found:
        before = listed.pop(_place(item.uri, item.key, item.offset, item.row), None)
        if before is None:
            yield item
        elif before != (item.length, item.modified, _digest(item.sidecars)):
            changed += 1
    if changed or listed:
        logger.warning(
            "%s: %d images or what lies beside them changed and %d images vanished since they were listed; their rows "
            "stay as they are (--rebuild all starts anew)",
            source.name,
            changed,
            len(listed),
        )


def _place(uri: str, key: str, offset: int | None, row: int | None) -> tuple[object, ...]:
    """What an image of a source is known by: two tables may hold the same URL in the same row."""
    return (uri, offset, row) if row is None else (uri, offset, row, key)


def _digest(beside: Iterable[tuple[Any, ...]] | None) -> int | None:
    """What lies beside an image as one number, since those of all images are held at once."""
    return None if beside is None else hash(tuple(map(tuple, beside)))
