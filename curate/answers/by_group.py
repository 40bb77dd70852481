"""Rows in order of their group, however many they are: an external merge sort.

Members of a group lie anywhere in the catalog, and all rows of ten million images do not fit into memory. Rows are
collected until they take `RUN_BYTES`, sorted, and written to a temporary file, one **sorted run** after the other. Then
all runs are merged: every `PIECE_BATCHES`th of the first keys of their batches cuts the sorted order into pieces, and
the rows of a piece are read from all runs, sorted in memory, and handed on. So each row is written once and read once
(in `tempfile.gettempdir()`, compressed). Memory: twice `RUN_BYTES`, or a batch of each run.
"""

import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import CurateError
from curate.tables import LISTED

KEYS = ("group", "verdict", "image_id")
"""Columns that say where a row belongs."""
RUN_BYTES = 32 << 20
"""Rows that are sorted at once."""
BATCH_ROWS = 1024
"""Rows that are read at once of a sorted run; when runs are merged, as many of each are held."""
PIECE_BATCHES = 16
"""Of these from all runs, as many make a piece of the result, about."""
LATER = 1 << 62
"""Added to the place of a row that does not stay, so that it follows those that do; ids of images are smaller."""


def by_group(
    list_rows: Callable[[pa.Schema], Iterator[pa.RecordBatch]], schema: pa.Schema, *, run_bytes: int = RUN_BYTES
) -> Iterator[pa.RecordBatch]:
    """Rows in order of their group, of each group those that stay first, then by image.

    Args:
        list_rows: lists the rows, with the columns of the schema that it is given.
        schema: columns of the result.

    Raises:
        CurateError: the folder for temporary files is full.
    """
    columns = [*schema, *(LISTED.field(name) for name in KEYS if name not in schema.names)]
    tables = _collect(list_rows(pa.schema(columns)), run_bytes)
    first = next(tables, None)
    second = next(tables, None)
    if first is None:
        return
    if second is None:  # nothing has to be written
        yield _batch(_sorted(first), schema)
        return
    with tempfile.TemporaryDirectory(prefix="curate-groups-") as folder:
        runs = [_Run.write(Path(folder) / "0", _sorted(first)), _Run.write(Path(folder) / "1", _sorted(second))]
        del first, second
        runs += [_Run.write(Path(folder) / str(number), _sorted(rows)) for number, rows in enumerate(tables, start=2)]
        yield from (_batch(rows, schema) for rows in _merge(runs))


def _collect(batches: Iterator[pa.RecordBatch], num_bytes: int) -> Iterator[pa.Table]:
    """Tables of at least so many bytes, but the last."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.nbytes for one in held) >= num_bytes:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


class _Run:
    """Rows in order in a file, read batch by batch."""

    def __init__(self, path: Path, starts: np.ndarray) -> None:
        self._path, self._left, self._next = path, pa.table({}), 0
        self.starts = starts
        """(B, 2) int64, key of the first row of each batch"""

    @classmethod
    def write(cls, path: Path, rows: pa.Table) -> "_Run":
        """A run of sorted rows."""
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        try:
            with pa.ipc.new_file(str(path), rows.schema, options=options) as file:
                file.write_table(rows, max_chunksize=BATCH_ROWS)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CurateError(
                f"{path.parent}: no space left to sort groups of copies; set TMPDIR to a folder with more"
            ) from error
        return cls(path, _keys(rows)[::BATCH_ROWS])

    def take(self, stop: np.ndarray | None) -> pa.Table:
        """The rows that were not taken yet and whose key is smaller; None: all of them."""
        pieces = [self._left] if len(self._left) else []
        with pa.ipc.open_file(str(self._path)) as file:
            while self._next < len(self.starts) and (stop is None or _smaller(self.starts[self._next], stop)):
                pieces.append(pa.Table.from_batches([file.get_batch(self._next)]))
                self._next += 1
            rows = pa.concat_tables(pieces) if pieces else file.schema.empty_table()
        size = len(rows) if stop is None else _count_smaller(_keys(rows), stop)
        self._left = rows.slice(size)
        return rows.slice(0, size)


def _merge(runs: Sequence[_Run]) -> Iterator[pa.Table]:
    """All rows of sorted runs in order, in pieces."""
    starts = np.concatenate([run.starts for run in runs])
    starts = starts[np.lexsort(starts.T[::-1])]
    for stop in [*starts[PIECE_BATCHES::PIECE_BATCHES], None]:
        piece = pa.concat_tables([run.take(stop) for run in runs])
        if len(piece):
            yield _sorted(piece)


def _keys(rows: pa.Table) -> np.ndarray:
    """(N, 2) int64: the group of each row, and its place within it."""
    later = pc.not_equal(rows["verdict"], "kept").to_numpy()
    return np.stack([rows["group"].to_numpy(), rows["image_id"].to_numpy() + later * np.int64(LATER)], axis=1)


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.take(pa.array(np.lexsort(_keys(rows).T[::-1])))


def _smaller(one: np.ndarray, other: np.ndarray) -> bool:
    return tuple(one.tolist()) < tuple(other.tolist())


def _count_smaller(keys: np.ndarray, stop: np.ndarray) -> int:
    """How many of sorted keys come before one."""
    group, place = stop.tolist()
    first, last = np.searchsorted(keys[:, 0], [group, group + 1])
    return int(first + np.searchsorted(keys[first:last, 1], place))


def _batch(rows: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    columns = [rows[field.name].combine_chunks() for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
