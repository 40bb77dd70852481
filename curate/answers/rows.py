"""One row an image: what all tables of a run say of it, joined.

Most tables have the parts of the catalog, so that their join is a zip, one part at a time. Two things are not aligned.

The partner of a copy lies anywhere in the catalog. Reading it image by image takes a request each, and reading what is
needed of the catalog for each part that is listed takes parts times parts. So the partners of many parts are collected
first, as numbers, until they are `MOST_PARTNERS`; then each part of the catalog that holds some of them is read once.
The first of these windows are small, so that the first rows come at once. Names are thus read once for some
400,000 partners: ten million images take a few passes over them, a billion would need a join that sorts.

A group of copies has members in any part. `by_group.py` sorts the rows for that.
"""

import binascii
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.answers.by_group import by_group
from curate.answers.screened import SCREENED, RuleColumns
from curate.engine.finished import Finished
from curate.engine.image_ids import ids_of_part, part_of, row_of
from curate.engine.table import Table
from curate.errors import CurateError, TableError
from curate.sources.entries import Entries
from curate.sources.read import UNAVAILABLE
from curate.sources.urls import is_row_of_urls
from curate.stages.clusters.assign import Assign
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.drop_similar import SIMILAR, DropSimilar
from curate.stages.images.inspect import Inspect
from curate.stages.screening.screen import Screen
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards
from curate.tables import LISTED, ROLES

FIRST_PARTNERS, MOST_PARTNERS = 1 << 12, 3 << 17
"""Images whose names are held at once, first and at most: some 100 bytes each."""
NOT_DIRECT = "the pair is with another image of its group"
"""Detail of an image whose evidence does not lead to its partner."""


class Wanted(StrEnum):
    """Which images are listed."""

    all = "all"
    kept = "kept"
    """Those that stay, whether the selection holds them or not."""
    dropped = "dropped"
    """Copies, for which another image stays."""
    rejected = "rejected"
    """Those that could not be used, unavailable ones among them, and those that rules reject."""
    groups = "groups"
    """Those with copies, group by group, those that stay first."""
    contaminated = "contaminated"
    """Those that go since they, or copies of them, resemble held-out images."""
    selected = "selected"
    """Those that the selection holds, curated ones among them."""


VERDICTS_OF: Mapping[Wanted, tuple[str, ...]] = {
    Wanted.kept: ("kept",),
    Wanted.dropped: ("dropped",),
    Wanted.rejected: ("rejected", UNAVAILABLE),
    Wanted.contaminated: ("contaminated",),
}
"""Those that a word means by its verdicts alone."""
BY_DECISION = "decision"
"""Reason of an image that a person kept or dropped."""
JUDGED_BY = ["image_id", "verdict", "component_id", "component_size", "partner_id"]
"""What is always read of the verdicts."""
OF_PAIRS = {"similarity": "similarity", "evidence": "kind", "detail": "direct"}
"""Columns of a listing that need another one of the verdicts."""
NAMES = {"partner_key": "key", "partner_uri": "uri"}
"""Columns about the partner, and those of the catalog that they repeat."""


def listed_schema(columns: Sequence[str] | None = None) -> pa.Schema:
    """Schema of a listing of these columns; None: all.

    Raises:
        CurateError: there is no such column.
    """
    if columns is None:
        return LISTED
    unknown = next((name for name in columns if name not in LISTED.names), None)
    if unknown is not None:
        raise CurateError(f"{unknown}: no column of a listing; there are {', '.join(LISTED.names)}")
    return pa.schema([LISTED.field(name) for name in columns])


def list_images(
    run: Finished, wanted: Wanted, columns: Sequence[str] | None = None, *, roles: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Rows of images in the order of the catalog; of `groups` group by group.

    Memory: a part of each table, and names of `MOST_PARTNERS` images.

    Args:
        columns: names of `LISTED` in the order wanted; None: all.
        roles: images of these; None: of the pool, and of what is selected the curated ones too.

    Raises:
        TableError: the run has no verdicts yet, or no selection where that is asked for.
        CurateError: there is no such column or role.
    """
    schema = listed_schema(columns)
    if roles is None:
        roles = ("pool", "curated") if wanted is Wanted.selected else ("pool",)
    unknown = next((role for role in roles if role not in ROLES), None)
    if unknown is not None:
        raise CurateError(f"{unknown}: no role of a source; there are {', '.join(ROLES)}")
    tables = _Tables.of(run, wanted)
    if wanted is not Wanted.groups:
        return tables.rows(tables.numbers(roles), schema)
    return by_group(lambda with_keys: tables.rows(tables.numbers(roles), with_keys), schema)


def verdicts_of(run: Finished) -> Table:
    """The table of the last verdicts on the images of the pool.

    Raises:
        TableError: there is none yet.
    """
    judged = [table for kind in (DropSimilar, Deduplicate) for _, table in run.made_by(kind)]
    if not judged:
        raise TableError(f"{run.store.root}: has no verdicts{_because(run, 'duplicates')}; run its config first")
    return judged[0]


def removed_entries(run: Finished) -> Entries:
    """What the removal list names: images that are handed on no more, though the selection holds them."""
    written = run.only(WriteShards)
    given = written[0].removal_list if written else (run.config.get("write") or {}).get("removal_list")
    return WriteShards(removal_list=given).removal()


@dataclass(frozen=True)
class _Tables:
    """The tables of a run that a listing joins."""

    run: Finished
    wanted: Wanted
    catalog: Table
    images: Table
    verdicts: Table
    selection: Table | None
    assignments: Table | None
    scores: Table | None

    @classmethod
    def of(cls, run: Finished, wanted: Wanted) -> "_Tables":
        verdicts = verdicts_of(run)
        found, chosen, leaves = run.only(Inspect), run.only(Select), run.only(Assign)
        screened = run.only(Screen)
        if run.catalog is None or found is None:
            raise TableError(f"{run.store.root}: has no facts of its images; run its config first")
        if wanted is Wanted.selected and chosen is None:
            why = _because(run, "selection")
            raise TableError(f"{run.store.root}: has no selection{why}; ask for the images that are kept instead")
        selection, assignments = chosen and chosen[1], leaves and leaves[1]
        scores = screened and screened[1]
        return cls(run, wanted, run.catalog, found[1], verdicts, selection, assignments, scores)

    def numbers(self, roles: Sequence[str]) -> list[int]:
        """Parts of these roles, ascending."""
        return sorted(number for role in roles for number in self.run.parts.numbers(ROLES.index(role)))

    def rows(self, parts: Sequence[int], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The wanted rows of these parts, in one batch of each part that has some."""
        repeated = [NAMES[name] for name in schema.names if name in NAMES]
        for window, ids in self._windows(parts) if repeated else [(parts, np.empty(0, np.int64))]:
            yield from self._of_window(window, ids, repeated, schema)

    def _of_window(
        self, parts: Sequence[int], ids: np.ndarray, repeated: Sequence[str], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The rows of parts whose partners are these; their names go before those of the next window are read."""
        pa.default_memory_pool().release_unused()  # of the window before: Arrow's pool would keep it
        partners = _Partners.read(self.catalog, ids, repeated)
        yield from (batch for part in parts if len(batch := self._batch(part, schema, partners)))

    def _windows(self, parts: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Parts that follow each other, and the partners of their wanted rows, ascending; larger and larger ones."""
        window: list[int] = []
        found, limit = [np.empty(0, np.int64)], FIRST_PARTNERS
        for part in parts:
            _, judged = self._judged(part, ())
            window.append(part)
            found.append(judged["partner_id"].drop_null().unique().to_numpy())
            if sum(map(len, found)) >= limit:
                yield window, np.unique(np.concatenate(found))
                window, found, limit = [], found[:1], min(4 * limit, MOST_PARTNERS)
        yield window, np.unique(np.concatenate(found))

    def _batch(self, part: int, schema: pa.Schema, partners: "_Partners") -> pa.RecordBatch:
        """The wanted rows of one part."""
        rows, judged = self._judged(part, schema.names)
        if not len(rows):
            return pa.RecordBatch.from_pylist([], schema=schema)
        take, role = pa.array(rows), ROLES[self.run.parts.role[part]]
        known: dict[str, Any] = {
            "image_id": pa.array(ids_of_part(part, int(self.run.parts.rows[part]))[rows]),
            "source": pa.repeat(self.run.parts.source[part], len(rows)),
            "role": pa.repeat(role, len(rows)),
            **{name: column.take(take) for name, column in self._stored(part, schema.names).items()},
            **dict(zip(judged.column_names, judged.columns, strict=True)),
            **partners.names_of(judged["partner_id"]),
        }
        return pa.RecordBatch.from_arrays([_one(known[name]) for name in schema.names], schema=schema)

    def _stored(self, part: int, names: Collection[str]) -> dict[str, pa.Array]:
        """Columns that tables have as they are listed, of all images of a part."""
        found: dict[str, pa.Array] = {}
        for table, columns in ((self.catalog, ("key", "uri")), (self.images, ("sha256", "width", "height"))):
            wanted = [name for name in columns if name in names]
            if wanted:
                rows = table.read(part, wanted)
                found |= {name: _one(rows[name]) for name in wanted}
        if "own_file" in names:
            found["own_file"] = _own_files(self.catalog.read(part, ["uri", "offset", "row"]))
        if "sha256" in found:
            found["sha256"] = _hex(found["sha256"])
        if "cluster" in names:
            found["cluster"] = self._clusters(part)
        return found

    def _judged(self, part: int, names: Collection[str]) -> tuple[np.ndarray, pa.Table]:
        """(M,) int64, the wanted rows of a part, ascending; and what the verdicts say of them."""
        facts = self.images.read(part, ["reject", *(["detail"] if "detail" in names else [])])
        verdicts = self.verdicts.read(part, [*JUDGED_BY, *(OF_PAIRS[name] for name in names if name in OF_PAIRS)])
        found = verdicts.take(_places(len(facts), verdicts["image_id"]))
        word, size, reject = (_one(column) for column in (found["verdict"], found["component_size"], facts["reject"]))
        partner = _one(found["partner_id"])
        grouped = pc.or_(pc.greater(size, 1), pc.and_(pc.is_valid(partner), pc.not_equal(word, SIMILAR)))
        rules = RuleColumns.read(self.scores, part, len(facts), names)
        verdict = pc.coalesce(
            pc.if_else(pc.equal(reject, UNAVAILABLE), UNAVAILABLE, "rejected"),
            _in_words(word, ROLES[self.run.parts.role[part]], rules.reason),
        )
        saved = pc.and_(pc.equal(verdict, "kept"), pc.is_valid(rules.reason))
        rules = rules.of_rejected(verdict)
        columns = {
            "verdict": verdict,
            "reason": pc.coalesce(reject, rules.reason, _reason(word, partner, saved)),
            "partner_id": partner,
            **{name: found[OF_PAIRS[name]] for name in ("similarity", "evidence") if name in names},
            "group": _only(grouped, _one(found["component_id"])),
            "group_size": _only(grouped, size),
        }
        if "detail" in names:
            through = _only(pc.invert(_one(found["direct"])), pa.repeat(NOT_DIRECT, len(facts)))
            columns["detail"] = pc.coalesce(_one(facts["detail"]), rules.detail, through)
        if "score" in names:
            columns["score"] = rules.score
        if "selected" in names or self.wanted is Wanted.selected:
            columns["selected"] = self._selected(part, len(facts))
        rows = np.flatnonzero(_mask(self.wanted, columns))
        return rows, pa.table(columns).take(pa.array(rows))

    def _selected(self, part: int, num_rows: int) -> pa.Array:
        """(N,) whether the selection holds each image of a part, and no removal list names it."""
        if self.selection is None:
            return pa.nulls(num_rows, pa.bool_())
        chosen = np.zeros(num_rows, bool)
        chosen[row_of(self.selection.read(part, ["image_id"])["image_id"].to_numpy())] = True
        if chosen.any() and self._removal:
            names, digests = self.catalog.read(part, ["source", "key", "uri"]), self.images.read(part, ["sha256"])
            chosen &= ~self._removal.named(names, digests)
        return pa.array(chosen)

    @cached_property
    def _removal(self) -> Entries:
        return removed_entries(self.run)

    def _clusters(self, part: int) -> pa.Array:
        """(N,) int32: the leaf of each image of a part."""
        num_rows = int(self.run.parts.rows[part])
        if self.assignments is None:
            return pa.nulls(num_rows, pa.int32())
        found = self.assignments.read(part, ["image_id", "cluster_id"])
        return _one(found["cluster_id"].take(_places(num_rows, found["image_id"])))


class _Partners:
    """Names of images, by id."""

    def __init__(self, ids: np.ndarray, names: Mapping[str, pa.Array]) -> None:
        self._ids, self._names = ids, names

    @classmethod
    def read(cls, catalog: Table, ids: np.ndarray, columns: Sequence[str]) -> "_Partners":
        """Columns of the catalog; each part that holds some of the images is read once.

        Args:
            ids: (N,) int64, ascending.
        """
        pieces = [pa.schema([LISTED.field(name) for name in columns]).empty_table()]
        for part, mine in _by_part(ids) if columns else ():
            rows = catalog.read(part, list(columns)).take(pa.array(row_of(mine)))
            pieces.append(rows.cast(pieces[0].schema))
        names = pa.concat_tables(pieces)
        return cls(ids, {name: _one(names[name]) for name in columns})

    def names_of(self, image_ids: pa.ChunkedArray) -> dict[str, pa.Array]:
        """The columns about these partners; null where an image has none."""
        take = pc.index_in(_one(image_ids), pa.array(self._ids))
        return {name: self._names[of].take(take) for name, of in NAMES.items() if of in self._names}


def _by_part(ids: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(part, those of ascending ids that lie in it)."""
    parts = part_of(ids)
    for part in np.unique(parts).tolist():
        yield part, ids[slice(*np.searchsorted(parts, [part, part + 1]))]


def _in_words(word: pa.Array, role: str, rule: pa.Array) -> pa.Array:
    """Verdicts of a table in the words of a listing: whatever goes for no other reason goes for another image.

    Args:
        rule: (N,) the reason of a rule that rejects the image; of curated ones nothing else tells of it.
    """
    if role == "pool":
        gone = pc.if_else(pc.equal(word, "benchmark"), "contaminated", "dropped")
        gone = pc.if_else(pc.equal(word, SCREENED), "rejected", gone)
        return pc.if_else(pc.equal(word, "kept"), "kept", gone)
    if role == "curated":
        return pc.if_else(pc.is_valid(rule), "rejected", "kept")
    return pa.nulls(len(word), pa.string())


def _reason(word: pa.Array, partner: pa.Array, saved: pa.Array) -> pa.Array:
    """Why an image does not stay, as the tables say; a kept one with a partner would have gone for that one.

    Args:
        saved: (N,) whether a rule rejects the image, and a person keeps it.
    """
    stays = pc.equal(word, "kept")
    decided = pc.or_(pc.equal(word, "dropped"), pc.and_(stays, pc.or_(pc.is_valid(partner), saved)))
    return pc.coalesce(_only(decided, pa.repeat(BY_DECISION, len(word))), _only(pc.invert(stays), word))


def _mask(wanted: Wanted, columns: Mapping[str, Any]) -> np.ndarray:
    """(N,) bool: images that are listed."""
    if wanted is Wanted.all:
        return np.ones(len(columns["verdict"]), bool)
    if wanted is Wanted.selected:
        listed = columns["selected"]
    elif wanted is Wanted.groups:
        listed = columns["group"].is_valid()
    else:
        listed = pc.is_in(columns["verdict"], pa.array(VERDICTS_OF[wanted]))
    mask: np.ndarray = listed.to_numpy(zero_copy_only=False)
    return mask


def _own_files(listed: pa.Table) -> pa.Array:
    """(N,) whether each image of a part of the catalog is a file of its own, here or on the web."""
    rows = listed["row"]
    if rows.null_count == len(rows):
        return _one(listed["offset"].is_null())
    return pa.repeat(is_row_of_urls(listed["uri"][0].as_py(), rows[0].as_py()), len(listed))


def _places(num_rows: int, image_ids: pa.ChunkedArray) -> pa.Array:
    """(N,) the row of a table that speaks of each image of a part; null: none does."""
    place = np.full(num_rows, -1)
    place[row_of(image_ids.to_numpy())] = np.arange(len(image_ids))
    return pa.array(place, mask=place < 0)


def _only(where: pa.Array, values: pa.Array) -> pa.Array:
    """Values where a condition holds, null elsewhere."""
    return pc.if_else(where.fill_null(False), values, pa.scalar(None, values.type))


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _hex(digests: pa.FixedSizeBinaryArray) -> pa.StringArray:
    """SHA-256 of 32 bytes in hex: at once, since ten million Python objects take seconds."""
    digests = pa.concat_arrays([digests])  # whose memory begins with its first value
    text = binascii.hexlify(memoryview(digests.buffers()[1])[: 32 * len(digests)])
    ends = pa.py_buffer(np.arange(0, 64 * len(digests) + 1, 64, dtype=np.int32))
    return pa.Array.from_buffers(pa.string(), len(digests), [digests.buffers()[0], ends, pa.py_buffer(text)])


def _because(run: Finished, name: str) -> str:
    """Why a table is not there, where that is known."""
    return f" ({name}: {run.outdated[name]})" if name in run.outdated else ""
