"""Writing one part of a table: row groups of bounded size, rows hashed on the way.

A part may be committed with **open** rows: rows whose data could not be had this time, such as an image whose server
was busy. Such a part is whole and is read like any other, but the next run makes it again. So its fingerprint is not
the one that is wanted of it: it is the digest of that one and of its content. What depends on the part then follows
when its content changed, and not before; and once everything came, fingerprint and bytes are those of a run that
never failed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from curate.config import digest
from curate.engine.tallies import ADDED, TALLY, Tally, add, plain
from curate.sealing import SealedWriter
from curate.tables import REPEATS

FINGERPRINT = b"curate.fingerprint"
CONTENT = b"curate.content"
OPEN = b"curate.open"
"""Key of a part's footer: how many rows are open. In the metadata of a batch: the same of the batch."""
OPEN_ROWS = b"curate.open_rows"
"""Key of a part's footer: numbers of the open rows, as a JSON list."""
MOVED_FROM = b"curate.moved_from"
"""Key of a part's footer, see `Part.moved_from`."""
ROWS = b"curate.rows"
"""Key of a part's footer: what its rows are made of, see `row_reuse.py`."""
ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """A committed part: `content` is the digest of its rows, independent of how they were made."""

    number: int
    rows: int
    fingerprint: str
    content: str
    num_bytes: int = field(default=0, compare=False)
    """Of the file, as the manifest knows it; 0: not known."""
    open: int = 0
    """Rows whose data could not be had this time: the next run makes the part again."""
    tally: dict[str, Any] = field(default_factory=dict, compare=False)
    """What it adds to the figures of its table, see `tallies`."""
    moved_from: str = ""
    """Of a listing whose images lie elsewhere by now: the content it had when they were listed; empty: they do not."""

    @property
    def read_as(self) -> str:
        """What parts that are made of this one depend on: its rows, whatever these were made of."""
        return self.moved_from or self.content

    def fulfills(self, wanted: str) -> bool:
        """Whether the part is the wanted one, or all of it that could be had."""
        return self.fingerprint == (open_fingerprint(wanted, self.content) if self.open else wanted)


def open_fingerprint(wanted: str, content: str) -> str:
    """The fingerprint of a part with open rows."""
    return digest([wanted, content])


def mark_open(batch: pa.RecordBatch, num: int, *, rows: Sequence[int] = ()) -> pa.RecordBatch:
    """A batch of a stage's output that says how many of its rows are open.

    Args:
        num: rows whose data could not be had this time; 0 gives the batch as it is.
        rows: which rows of the batch these are, ascending; empty where they are not in the batch at all.
    """
    if not num:
        return batch
    marks = {OPEN: str(num).encode(), OPEN_ROWS: json.dumps(list(rows)).encode()}
    return batch.replace_schema_metadata({**(batch.schema.metadata or {}), **marks})


class PartWriter:
    """Writes the batches of one part as row groups of bounded size, hashing and counting the rows on the way."""

    def __init__(
        self,
        file: IO[bytes],
        part: int,
        schema: pa.Schema,
        fingerprint: str,
        *,
        tally: type[Tally] | None = None,
        carried: Mapping[str, Any] | None = None,
    ) -> None:
        """`tally` counts the rows; `carried`: what the tally of the part begins with, as JSON holds it."""
        self.part, self.schema, self.fingerprint = part, schema, fingerprint
        self._counts, self._most = tally, Tally.most if tally is None else tally.most
        self._tally: dict[str, Any] = {} if tally is None else plain(tally())
        add(self._tally, carried or {}, most=self._most)
        self._writer = SealedWriter(
            file,
            schema,
            compression=_codecs(schema),
            use_dictionary=[path for f in schema for path in _dictionaries(f)],
            dictionary_pagesize_limit=ROW_GROUP_BYTES if any(map(_repeats, schema)) else None,
            write_statistics=[f.name for f in schema if pa.types.is_integer(f.type)],
            store_schema=True,
        )
        self._hash = hashlib.sha256(schema.serialize().to_pybytes())
        self._rows = 0
        self._open = 0
        self._open_rows: list[int] = []
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self.notes: dict[bytes, str] = {}
        """What else the footer says, by key."""

    def write(self, batch: pa.RecordBatch) -> None:
        marks = batch.schema.metadata or {}
        if OPEN in marks:
            before = self._rows + self._pending_rows
            self._open += int(marks[OPEN])
            self._open_rows += [before + row for row in json.loads(marks[OPEN_ROWS])]
            batch = batch.replace_schema_metadata(self.schema.metadata)
        if ADDED in marks:
            add(self._tally, json.loads(marks[ADDED]), most=self._most)
        if batch.num_rows == 0:
            return
        batch = batch.cast(self.schema) if batch.schema != self.schema else batch
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += batch.nbytes
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            group = pa.Table.from_batches(self._pending, self.schema).combine_chunks()
            self._writer.write_table(group, row_group_size=max(1, group.num_rows))
            for batch in group.to_batches():
                self._hash.update(batch.serialize())
            if self._counts is not None:
                add(self._tally, plain(self._counts.count(group)), most=self._most)
            self._rows += group.num_rows
            self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def close(self) -> None:
        self._flush()
        content = self._hash.hexdigest()[:32]
        fingerprint = self.fingerprint or content
        marks = {}
        if self._open:
            fingerprint = open_fingerprint(self.fingerprint, content) if self.fingerprint else content
            marks = {OPEN.decode(): str(self._open), OPEN_ROWS.decode(): json.dumps(self._open_rows)}
        if self._tally:
            marks[TALLY.decode()] = json.dumps(self._tally)
        found = {FINGERPRINT.decode(): fingerprint, CONTENT.decode(): content}
        notes = {key.decode(): text for key, text in self.notes.items()}
        self._writer.close(found | marks | notes)
        self._done = Part(
            self.part,
            self._rows,
            fingerprint,
            content,
            open=self._open,
            tally=self._tally,
            moved_from=self.notes.get(MOVED_FROM, ""),
        )

    def abandon(self) -> None:
        """Close the half-written file, which is then thrown away."""
        self._writer.abandon()

    def done(self) -> Part:
        """What was committed; only after the writer is closed."""
        return self._done


def _repeats(column: pa.Field) -> bool:
    return REPEATS in (column.metadata or {})


def _dictionaries(column: pa.Field) -> Iterator[str]:
    """Paths of what repeats from row to row: a column's own text, or that of the elements of a list, or by its mark."""
    inner = column.type.value_type if pa.types.is_list(column.type) else column.type
    if inner is column.type or not pa.types.is_struct(inner):
        yield from [column.name] if pa.types.is_string(column.type) or _repeats(column) else []
    else:
        yield from (f"{column.name}.list.element.{part.name}" for part in inner if pa.types.is_string(part.type))


def _codecs(schema: pa.Schema) -> dict[str, str]:
    """Vectors and encoded images do not compress; everything else does."""
    codecs = {}
    for column in schema:
        raw = pa.types.is_fixed_size_binary(column.type) or column.name == "image"
        for leaf in _leaves(column.name, column.type):
            codecs[leaf] = "NONE" if raw else "ZSTD"
    return codecs


def _leaves(path: str, dtype: pa.DataType) -> Iterator[str]:
    if pa.types.is_struct(dtype):
        for child in dtype:
            yield from _leaves(f"{path}.{child.name}", child.type)
    elif pa.types.is_list(dtype):
        yield from _leaves(f"{path}.list.element", dtype.value_type)
    else:
        yield path
