"""Listings as files: CSV, JSON lines, Parquet, and bare paths for other programs.

In Parquet and JSON lines every value is what the tables hold. A CSV is read by spreadsheets and terminals, where
control characters of a name do harm and cannot be seen: they are written out, such as `\\n`. Cells that begin with `=`,
`+`, `-` or `@` stay as they are, since other programs read them as data; import such a file into a spreadsheet as text.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from curate.answers.staying import COLUMNS, Staying
from curate.sources.uri import decode_uri, is_remote
from curate.text import visible

Batches = Iterable[pa.RecordBatch]

UNPRINTED = r"[^\x20-\x7e]"
"""What `visible` may change, and much that it does not: a first look, without Python's pace."""
PATH_COLUMNS = COLUMNS
"""What `write_paths` reads."""
GROUP_ROWS = 65_536
"""Rows of a row group of Parquet."""


def write_csv(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> None:
    """A CSV with a header; nulls are empty cells."""
    file.write((",".join(schema.names) + "\n").encode())
    with pacsv.CSVWriter(
        pa.PythonFile(file, "w"), schema, write_options=pacsv.WriteOptions(include_header=False)
    ) as out:
        for batch in batches:
            out.write_batch(visible_batch(batch))


def write_jsonl(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> None:
    """One JSON object a line; nulls are `null`."""
    for batch in batches:
        lines = (json.dumps(row, ensure_ascii=False) for row in batch.to_pylist())
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))


def write_parquet(batches: Batches, schema: pa.Schema, file: IO[bytes]) -> None:
    """One Parquet file; the meaning of each column is in its metadata."""
    with pq.ParquetWriter(file, schema, compression="zstd") as out:
        for rows in _gathered(batches, schema):
            out.write_table(rows)


WRITERS: Mapping[str, Callable[[Batches, pa.Schema, IO[bytes]], None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}
"""By the name of their format."""


class NotAPath(NamedTuple):
    """Images that are no file of their own on this machine, counted."""

    within: int
    """In archives and tables."""
    remote: int
    """On the web or in an object store."""
    kept: int
    """That go, but whose file is that of an image that stays: two sources, or two names, list one file."""


def write_paths(batches: Batches, file: IO[bytes], *, end: bytes, staying: Staying) -> NotAPath:
    """Local paths of files that hold one image each, as the file system has them; other images are counted.

    Args:
        batches: with `PATH_COLUMNS`.
        end: what follows a path: a NUL byte, which no path holds, or a newline.
        staying: files that are not named, since an image in them stays.
    """
    within = remote = kept = 0
    for batch in batches:
        paths = []
        names = (batch[name].to_pylist() for name in ("uri", "own_file"))
        for uri, own, stays in zip(*names, staying.mask(batch).tolist(), strict=True):
            if is_remote(uri):
                remote += 1
            elif not own:
                within += 1
            elif stays:
                kept += 1
            else:
                paths.append(decode_uri(uri) + end)
        file.write(b"".join(paths))
    return NotAPath(within, remote, kept)


def visible_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows whose texts show what would act unseen, such as `\\x1b`."""
    columns = [_visible(column) if pa.types.is_string(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _visible(texts: pa.StringArray) -> pa.StringArray:
    odd = pc.match_substring_regex(texts, UNPRINTED).fill_null(False)
    if not pc.any(odd).as_py():
        return texts
    told = [visible(text, keep="") for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(told, pa.string()))


def _gathered(batches: Batches, schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of about as many rows as a row group shall have."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= GROUP_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    yield pa.Table.from_batches(held, schema)
