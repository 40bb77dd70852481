"""Catalog: where every image of every source lies. No image byte is copied, ids never move."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.stage import Scan
from curate.engine.store import Table
from curate.errors import TableError
from curate.sources.config import Source, Sources
from curate.sources.found import Found, cut_parts
from curate.sources.listing import list_source
from curate.tables import CATALOG, ROLES

logger = logging.getLogger(__name__)

SOURCE = b"curate.source"


class Catalog(Scan):
    """Lists the sources in a fixed order and cuts each into parts; a later scan appends what is new."""

    sources: Sources
    """What to list."""
    rows_per_part: Annotated[int, Field(ge=1)] = 65_536
    """Images of a part at most; an archive stays whole where it fits."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return CATALOG

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        part = len(known.parts()) if known else 0
        for role, source in self.sources.by_role():
            skipped: Counter[str] = Counter()
            found: Iterable[Found] = list_source(source, skipped=skipped)
            if known:
                found = _new(found, known, source)
            for rows in cut_parts(found, rows_per_part=self.rows_per_part):
                yield part, _rows(part, role, source, rows)
                part += 1
            if skipped:
                logger.info("%s: left out: %s", source.name, dict(skipped))

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        parts = []
        for part in table.parts():
            first = table.read(part.number, ["source", "role"]).slice(0, 1).to_pylist()[0]
            parts.append({**first, "rows": part.rows})
        return {"parts": parts, "sources": [source.name for _, source in self.sources.by_role()]}


def source_of(rows: pa.Table) -> Source:
    """The source that a part of the catalog lists: its config travels in the part's schema."""
    text = (rows.schema.metadata or {}).get(SOURCE)
    if text is None:
        raise TableError("catalog: a part without its source; make the catalog again with --rebuild catalog")
    return Source.model_validate_json(text)


class Parts(NamedTuple):
    """Facts of the catalog by part number; the part of an image is `image_id >> 32`."""

    role: np.ndarray
    """(P,) int8, index into `tables.ROLES`"""
    rank: np.ndarray
    """(P,) int32, place of the source in the config"""
    rows: np.ndarray
    """(P,) int64"""
    source: list[str]
    """names"""

    def num_images(self, roles: Iterable[str]) -> int:
        return int(self.rows[np.isin(self.role, [ROLES.index(r) for r in roles])].sum())


def parts_of(catalog: Table) -> Parts:
    """Role, rank and rows of every part of the catalog."""
    metrics = catalog.metrics
    parts = metrics["parts"]
    return Parts(
        np.array([ROLES.index(p["role"]) for p in parts], np.int8),
        np.array([metrics["sources"].index(p["source"]) for p in parts], np.int32),
        np.array([p["rows"] for p in parts], np.int64),
        [p["source"] for p in parts],
    )


def _rows(part: int, role: str, source: Source, found: list[Found]) -> pa.Table:
    columns = [
        pa.array(np.int64(part) << 32 | np.arange(len(found))),
        pa.array([source.name] * len(found)),
        pa.array([role] * len(found)),
        *(pa.array([getattr(f, name) for f in found], CATALOG.field(name).type) for name in CATALOG.names[3:]),
    ]
    schema = CATALOG.with_metadata({SOURCE: source.model_dump_json().encode()})
    return pa.Table.from_arrays(columns, schema=schema)


def _new(found: Iterable[Found], known: Table, source: Source) -> Iterator[Found]:
    """What the catalog does not list yet; reports what changed or vanished since."""
    listed = {}
    for rows in known.scan(["source", "uri", "offset", "row", "length", "modified"]):
        if rows["source"][0].as_py() == source.name:
            for r in rows.to_pylist():
                listed[r["uri"], r["offset"], r["row"]] = (r["length"], r["modified"])
    changed = 0
    for item in found:
        before = listed.pop((item.uri, item.offset, item.row), None)
        if before is None:
            yield item
        elif before != (item.length, item.modified):
            changed += 1
    if changed or listed:
        logger.warning(
            "%s: %d images changed and %d vanished since they were listed; their rows stay as they are "
            "(--rebuild all starts anew)",
            source.name,
            changed,
            len(listed),
        )
