"""Rows of a part that an earlier run left and that are still right: a pass makes the others alone.

A part of a pass depends on what chooses its images, such as verdicts on copies. With every image that is added, and
every threshold that is changed, some of these change, and so does the fingerprint of the part; but a vector depends on
the bytes of its own image and on the network alone. So the footer of a part says, beside the fingerprint of the whole,
what its rows are made of: a digest of all that they are made by (stages, versions, settings, weights) and, for each
block of rows, one of the contents that their images had. Where a part is made again, rows are taken from what lies in
its place if both are as they were. (One digest an image would make footers of half a megabyte, which planning reads;
where the bytes of an image change, its block is made again.)

The part ends byte for byte as if all of it had been made anew, where a network does not mind which images share its
batch. That holds on a CPU; on a GPU last bits of a vector may depend on them.

Rows that are **open** (`part_writer.py`) are the same case for another reason: the part is the wanted one but for them.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.engine.table import Table

BLOCK_ROWS = 1024
"""Rows of a part whose contents share a digest."""


@dataclass(frozen=True)
class MadeOf:
    """What the rows of a part are made of."""

    by: str
    """Digest of the stages that make them."""
    blocks: tuple[str, ...]
    """Of each block of rows the digest of what it is made from; none: rows are not taken from an earlier part."""

    def text(self) -> str:
        """As the footer holds it."""
        return json.dumps({"by": self.by, "blocks": self.blocks})

    @classmethod
    def parse(cls, text: str) -> "MadeOf":
        """What `text` gave."""
        found = json.loads(text)
        return cls(found["by"], tuple(found["blocks"]))


class EarlierRows:
    """The rows of a part as an earlier run left it, read from front to back."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._schema = file.schema_arrow
        self._batches: Iterator[pa.RecordBatch] = file.iter_batches(batch_size=BLOCK_ROWS)
        self._left = self._schema.empty_table()

    def read(self, num_rows: int) -> pa.Table:
        """The next rows."""
        while len(self._left) < num_rows:
            batch = pa.Table.from_batches([next(self._batches)], self._schema)
            self._left = pa.concat_tables([self._left, batch])
        rows, self._left = self._left.slice(0, num_rows), self._left.slice(num_rows)
        return rows


class Earlier(NamedTuple):
    """What a pass may take of a part that an earlier run left."""

    known: np.ndarray
    """(N,) bool: rows that may be taken, in every table of the pass that is made."""
    tables: Mapping[str, EarlierRows]


def find_earlier(
    tables: Mapping[str, Table],
    part: int,
    *,
    wanted: Mapping[str, str],
    made_of: Mapping[str, MadeOf],
    vouched: Collection[str],
    stack: ExitStack,
) -> Earlier | None:
    """The rows that may be taken from what lies in place of a part; None: there are none.

    Args:
        tables: those whose part is to be made; `wanted` and `made_of` by the same names.
        vouched: tables that were complete before, and of the same settings: their parts from versions of curate that
            did not write what rows are made of are taken for such, as those versions took them.
        stack: closes the files that are read.

    Raises:
        DamagedPart: what lies there is not what was written.
    """
    masks = [_known_rows(tables[name], part, wanted[name], made_of[name], name in vouched) for name in tables]
    there = [mask for mask in masks if mask is not None]
    if not there or len(there) < len(masks) or len({len(mask) for mask in there}) > 1:
        return None
    known: np.ndarray = np.logical_and.reduce(there)
    if not known.any():
        return None
    return Earlier(known, {name: EarlierRows(stack.enter_context(table.open(part))) for name, table in tables.items()})


def _known_rows(table: Table, part: int, wanted: str, made_of: MadeOf, vouched: bool) -> np.ndarray | None:
    """(N,) bool, by row of the part that is there; None: it is not there, or made by something else."""
    footer = table.footer(part)
    if footer is None:
        return None
    if footer.fulfills(wanted):
        known = np.ones(footer.rows, bool)
        known[table.open_rows(part)] = False
        return known
    text = table.made_of(part)
    if text is None and vouched and made_of.blocks:
        return _made_rows(table, part)
    if text is None or not made_of.blocks or (earlier := MadeOf.parse(text)).by != made_of.by:
        return None
    return _same_blocks(earlier.blocks, made_of.blocks, footer.rows) & _made_rows(table, part)


def _same_blocks(before: Sequence[str], now: Sequence[str], num_rows: int) -> np.ndarray:
    """(N,) bool: rows of blocks whose contents are as they were."""
    if len(before) != len(now):
        return np.zeros(num_rows, bool)
    same = np.array([one == other for one, other in zip(before, now, strict=True)], bool)
    return np.repeat(same, BLOCK_ROWS)[:num_rows]


def _made_rows(table: Table, part: int) -> np.ndarray:
    """(N,) bool: rows of which an earlier run made something: the first column that may be null has a value."""
    with table.open(part) as file:
        column = next((field.name for field in file.schema_arrow if field.nullable), None)
        if column is None:
            return np.ones(file.metadata.num_rows, bool)
        batches = file.iter_batches(batch_size=BLOCK_ROWS, columns=[column])
        masks = [batch.column(0).is_valid().to_numpy(zero_copy_only=False) for batch in batches]
    return np.concatenate(masks) if masks else np.zeros(0, bool)
