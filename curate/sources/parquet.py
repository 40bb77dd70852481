"""Images in Parquet files: a Hugging Face `image` struct<bytes, path>, or a plain column of bytes."""

import collections
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import SourceDamaged, SourceError
from curate.retrying import Tries, describe_error, is_damage, retry
from curate.sources.class_names import column_classes, declared_classes, name_classes
from curate.sources.config import Source
from curate.sources.files import File, find_files, open_file
from curate.sources.found import Found
from curate.sources.left_out import leave_out
from curate.sources.network import network
from curate.sources.path_columns import comes_from_path
from curate.sources.read import Read, by_file, too_large, unreadable
from curate.sources.sidecars import choose_columns
from curate.sources.suffixes import PARQUET, may_be_image, suffix_of, why_not_image
from curate.sources.uri import encode_uri, is_remote

BATCH_ROWS = 64
"""Rows decoded at once: memory is this many images and a page of the file, whatever a row group holds."""

BUFFER_BYTES = 1 << 20
"""Bytes read at once from each column."""


class ParquetFormat:
    """`format: parquet`: one image a row; its key is the file and the path in the struct, or the number of the row."""

    loose = False

    def find(self, source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The rows of all files, in the order of their paths.

        Raises:
            SourceError: a file is damaged, or which column holds the images is not clear.
        """
        return self.find_among(find_files(source.path, skipped=skipped), source, skipped=skipped)

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The rows of the Parquet files among `files`, in their order; errors as of `find`."""
        number = 0
        for file in files:
            if suffix_of(file.uri) in PARQUET:
                yield from _find_rows(file, number, source)
                number += 1
            else:
                reason = why_not_image(file.uri) if not may_be_image(file.uri) else "file that is no Parquet"
                leave_out(skipped, reason, file.key)

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """Each file is opened once, and read in order; row groups without a wanted row are left out."""
        for uri, group in by_file(rows):
            yield from read_rows(uri, group["row"].to_pylist(), source, max_bytes=max_bytes, extra=extra)


def _find_rows(file: File, number: int, source: Source) -> Iterator[Found]:
    with _open_parquet(file.uri) as table:
        column = find_image_column(table.schema_arrow, source.image_column, where=file.uri)
        classes = column_classes(table.schema_arrow)
        for row, name in enumerate(_row_names(table, column, file.uri)):
            yield Found(
                uri=file.uri,
                key=f"{file.key}/{encode_uri(name.encode('utf-8', 'surrogatepass'))}" if name else f"{file.key}#{row}",
                row=row,
                modified=file.modified,
                container=number,
                classes=classes,
            )


def _row_names(table: pq.ParquetFile, column: str, uri: str) -> Iterator[str | None]:
    if not _has_path(table.schema_arrow.field(column).type):
        yield from (None for _ in range(table.metadata.num_rows))
        return
    for group in range(table.num_row_groups):
        for batch in _batches(table, group, [f"{column}.path"], rows=4096, uri=uri):
            for value in batch.column(0).to_pylist():
                yield value["path"] if value else None


@contextlib.contextmanager
def _open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    with open_file(uri) as file:
        yield retry(lambda: _parquet_file(file, uri), where=uri, remote=is_remote(uri), patience=network().patience)


def _parquet_file(file: Any, uri: str) -> pq.ParquetFile:
    try:
        # Without these two the bytes of a whole row group are held at once.
        return pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        if is_damage(error):
            raise _damaged_parquet(uri, error) from error
        raise


def _damaged_parquet(uri: str, error: Exception) -> SourceDamaged:
    return SourceDamaged(
        f"{uri}: cannot be read as Parquet ({describe_error(error)}); fetch or write the file again, or leave it out "
        "of the source"
    )


def find_image_column(schema: pa.Schema, wanted: str | None, *, where: str) -> str:
    """The column that holds the images: `wanted`, else `image`, else the only one that could.

    Raises:
        SourceError: no column, or several, could hold images, or the wanted one cannot.
    """
    candidates = [f.name for f in schema if _holds_bytes(f.type)]
    if wanted is not None:
        if wanted in candidates:
            return wanted
        raise SourceError(
            f"{where}: image_column {wanted!r} is not a column of bytes or of struct<bytes, path>; those are: "
            f"{_or_none(candidates)}; columns: {_or_none(schema.names)}"
        )
    if "image" in candidates:
        return "image"
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise SourceError(
            f"{where}: {_or_none(candidates)} could all hold the images; say which: image_column: {candidates[0]}"
        )
    raise SourceError(
        f"{where}: no column of bytes or of struct<bytes, path>, so no images; columns: {_or_none(schema.names)}; if "
        "one of them holds URLs of images, say which: url_column: NAME"
    )


def _or_none(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _holds_bytes(dtype: pa.DataType) -> bool:
    if pa.types.is_struct(dtype):
        index = dtype.get_field_index("bytes")
        return index >= 0 and _holds_bytes(dtype.field(index).type)
    return pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype)


def _has_path(dtype: pa.DataType) -> bool:
    if not pa.types.is_struct(dtype):
        return False
    index = dtype.get_field_index("path")
    return index >= 0 and is_text(dtype.field(index).type)


def is_text(dtype: pa.DataType) -> bool:
    """Whether a column of that type holds text."""
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


def read_rows(uri: str, rows: Sequence[int], source: Source, *, max_bytes: int, extra: bool = True) -> Iterator[Read]:
    """The images of the given rows, and their other columns. Row groups without a wanted row are not read.

    Args:
        rows: row numbers in the file, ascending.
        max_bytes: longer images are not passed on.
        extra: whether to read the other columns at all.

    Raises:
        SourceError: the file is damaged, or is not the one that was listed.
        ValueError: `rows` do not ascend.
    """
    if any(b <= a for a, b in itertools.pairwise(rows)):
        raise ValueError(f"{uri}: rows must ascend, they are read in the order of the file")
    with _open_parquet(uri) as table:
        _check_rows(table, rows, uri)
        image = find_image_column(table.schema_arrow, source.image_column, where=uri)
        carried = _carried(table.schema_arrow, image, source, uri) if extra else []
        classes = declared_classes(table.schema_arrow)
        for batch, index in _wanted_rows(table, rows, [image, *carried], uri):
            read = _read_row(batch, index, image, carried, max_bytes)
            yield read._replace(extra=name_classes(read.extra, classes))


def _check_rows(table: pq.ParquetFile, rows: Sequence[int], uri: str) -> None:
    if rows and rows[-1] >= table.metadata.num_rows:
        raise SourceDamaged(
            f"{uri}: row {rows[-1]} is wanted, the file has {table.metadata.num_rows}, so it changed since it "
            "was listed; restore it, or start anew with --rebuild all"
        )


def _carried(schema: pa.Schema, image: str, source: Source, uri: str) -> list[str]:
    own = [f.name for f in schema if f.name != image and not _only_bytes(f.type)]
    if source.columns is None:
        return own
    unknown = [name for name in source.columns if name not in own and not comes_from_path(name, uri, source)]
    if unknown:
        raise SourceError(f"{uri}: no column {unknown[0]!r} to carry; there are: {_or_none(own)}")
    return [name for name in source.columns if name in own]


def _only_bytes(dtype: pa.DataType) -> bool:
    return _holds_bytes(dtype) or pa.types.is_fixed_size_binary(dtype)


def _wanted_rows(
    table: pq.ParquetFile, rows: Sequence[int], columns: list[str], uri: str
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """(batch, index in it) of each wanted row."""
    done, first = 0, 0
    for group in range(table.num_row_groups):
        after = first + table.metadata.row_group(group).num_rows
        if done < len(rows) and rows[done] < after:
            start = first
            for batch in _batches(table, group, columns, rows=BATCH_ROWS, uri=uri):
                while done < len(rows) and rows[done] < start + len(batch):
                    yield batch, rows[done] - start
                    done += 1
                start += len(batch)
        first = after


def _batches(table: pq.ParquetFile, group: int, columns: list[str], *, rows: int, uri: str) -> Iterator[pa.RecordBatch]:
    """Batches of a row group; after an error that may pass, from the first one not yet yielded."""
    return _resume(lambda: table.iter_batches(rows, row_groups=[group], columns=columns), uri)


def _resume(open_batches: Callable[[], Iterable[pa.RecordBatch]], uri: str) -> Iterator[pa.RecordBatch]:
    done, tries = 0, Tries(uri, remote=is_remote(uri), patience=network().patience)
    while True:
        try:
            for number, batch in enumerate(open_batches()):
                if number == done:
                    yield batch
                    done += 1
                    tries.succeeded()
            return
        except SourceError:
            raise
        except Exception as error:
            if isinstance(error, pa.ArrowException | OSError) and is_damage(error):
                raise _damaged_parquet(uri, error) from error
            tries.failed(error)


def _read_row(batch: pa.RecordBatch, index: int, image: str, carried: list[str], max_bytes: int) -> Read:
    value: Any = batch.column(image)[index].as_py()
    values = {name: batch.column(name)[index].as_py() for name in carried}
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        path = value.get("path") if isinstance(value, dict) else None
        read = unreadable(f"the row holds only the path {path!r}, no bytes" if path else "the row holds no image")
    elif len(data) > max_bytes:
        read = too_large(len(data), max_bytes)
    else:
        read = Read(data)
    return read._replace(extra=choose_columns(values, columns=None))


def column_types(uri: str) -> dict[str, pa.DataType]:
    """The columns of a file, each with its type.

    Raises:
        SourceError: the file is damaged.
    """
    with _open_parquet(uri) as table:
        return {field.name: field.type for field in table.schema_arrow}


def holds_images(types: Mapping[str, pa.DataType]) -> bool:
    """Whether some column could hold the bytes of images."""
    return any(_holds_bytes(dtype) for dtype in types.values())


def describing_columns(types: Mapping[str, pa.DataType]) -> list[str]:
    """The columns that say something about a row, all but those of bytes."""
    return [name for name, dtype in types.items() if not _only_bytes(dtype)]


def read_texts(uri: str, column: str) -> Iterator[str | None]:
    """One column of text, row by row; what is null or no UTF-8 is None."""
    with _open_parquet(uri) as table:
        for group in range(table.num_row_groups):
            for batch in _batches(table, group, [column], rows=4096, uri=uri):
                try:
                    yield from _column(batch, column).to_pylist()
                except ValueError:
                    yield from map(_cell, _column(batch, column))


def read_cells(uri: str, columns: Sequence[str], rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Some columns of the given rows, which ascend; a value that Python cannot hold is None."""
    with _open_parquet(uri) as table:
        _check_rows(table, rows, uri)
        left, first = collections.deque(rows), 0
        for group in range(table.num_row_groups):
            after = first + table.metadata.row_group(group).num_rows
            if left and left[0] < after:
                for batch in _batches(table, group, list(columns), rows=BATCH_ROWS, uri=uri):
                    while left and left[0] < first + len(batch):
                        index = left.popleft() - first
                        yield {name: _cell(_column(batch, name)[index]) for name in columns}
                    first += len(batch)
            first = after


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The first column of a name: a file may have several."""
    return batch.column(batch.schema.get_all_field_indices(name)[0])


def _cell(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        return None
