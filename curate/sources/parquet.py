"""Images in Parquet files: a Hugging Face `image` struct<bytes, path>, or a plain column of bytes."""

import bisect
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import SourceDamaged, SourceError
from curate.retrying import Tries, describe_error, is_damage, retry
from curate.sealing import open_parquet
from curate.sources.class_names import column_classes, declared_classes, name_classes
from curate.sources.config import Source
from curate.sources.containers import find_files
from curate.sources.files import File, open_file
from curate.sources.found import Found
from curate.sources.left_out import LONG_PATH, leave_out
from curate.sources.limits import MAX_IMAGE_COLUMNS, MAX_NAME_BYTES, MAX_TABLE_COLUMNS
from curate.sources.network import network
from curate.sources.path_columns import comes_from_path
from curate.sources.read import Read, by_file, too_large, unreadable
from curate.sources.suffixes import PARQUET, may_be_image, suffix_of, why_not_image
from curate.sources.uri import encode_uri, is_remote
from curate.sources.values import column_values, is_usable_name

BATCH_ROWS = 64
"""Rows decoded at once: memory is this many images and a page of the file, whatever a row group holds."""

MAX_UNPACKED = 256 << 20
"""Bytes that a file may unpack to however tightly it is packed."""
MAX_RATIO = 200
"""How many times its size a file may unpack to above that: texts reach 20, and pictures do not pack."""
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
        files = find_files(source.path, skipped=skipped, roots=source.roots)
        return self.find_among(files, source, skipped=skipped)

    def find_among(self, files: Iterable[File], source: Source, *, skipped: Counter[str]) -> Iterator[Found]:
        """The rows of the Parquet files among `files`, in their order; errors as of `find`."""
        number = 0
        for file in files:
            if suffix_of(file.uri) in PARQUET:
                yield from _find_rows(file, number, source, skipped)
                number += 1
            else:
                reason = why_not_image(file.uri) if not may_be_image(file.uri) else "file that is no Parquet"
                leave_out(skipped, reason, file.key)

    def read(self, rows: pa.Table, source: Source, *, max_bytes: int, extra: bool) -> Iterator[Read]:
        """Each file is opened once, and read in order; row groups without a wanted row are left out."""
        for uri, group in by_file(rows):
            yield from read_rows(uri, group["row"].to_pylist(), source, max_bytes=max_bytes, extra=extra)


def _find_rows(file: File, number: int, source: Source, skipped: Counter[str]) -> Iterator[Found]:
    with _open_parquet(file.uri) as table:
        column = find_image_column(table.schema_arrow, source.image_column, where=file.uri)
        classes = column_classes(table.schema_arrow)
        for row, name in enumerate(_row_names(table, column, file.uri)):
            is_long = name is not None and len(name) > MAX_NAME_BYTES
            if is_long:
                leave_out(skipped, LONG_PATH, f"{file.key}#{row}")
            yield Found(
                uri=file.uri,
                key=f"{file.key}/{encode_uri(name)}" if name and not is_long else f"{file.key}#{row}",
                row=row,
                modified=file.modified,
                container=number,
                classes=classes,
            )


def _row_names(table: pq.ParquetFile, column: str, uri: str) -> Iterator[bytes | None]:
    """The path of each row as its bytes, which need not be UTF-8 whatever the column claims."""
    if not _has_path(table.schema_arrow.field(column).type):
        yield from (None for _ in range(table.metadata.num_rows))
        return
    for group in range(table.num_row_groups):
        for batch in _batches(table, group, [f"{column}.path"], rows=4096, uri=uri):
            images = _first_column(batch, column)
            paths = images.flatten()[images.type.get_field_index("path")]
            yield from map(_short_bytes, paths.cast(pa.binary()))


def _short_bytes(cell: pa.BinaryScalar) -> bytes | None:
    """The bytes of a cell, of very long ones as many as show that they are too long."""
    return cell.as_buffer()[: MAX_NAME_BYTES + 1].to_pybytes() if cell.is_valid else None


@contextlib.contextmanager
def _open_parquet(uri: str) -> Iterator[pq.ParquetFile]:
    with open_file(uri, spans=()) as file:
        yield retry(lambda: _parquet_file(file, uri), where=uri, remote=is_remote(uri), patience=network().patience)


def _parquet_file(file: Any, uri: str) -> pq.ParquetFile:
    try:
        # Without these two the bytes of a whole row group are held at once.
        table = open_parquet(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        if is_damage(error):
            raise _damaged_parquet(uri, error) from error
        raise
    if table.metadata.num_columns > MAX_TABLE_COLUMNS:
        raise SourceError(
            f"{uri}: {table.metadata.num_columns:,} columns, at most {MAX_TABLE_COLUMNS:,} are read; write the wanted "
            "ones to another file"
        )
    in_groups = sum(table.metadata.row_group(group).num_rows for group in range(table.num_row_groups))
    if in_groups != table.metadata.num_rows:
        what = f"its footer tells of {table.metadata.num_rows} rows, its row groups of {in_groups}"
        raise _damaged_parquet(uri, ValueError(what))
    _refuse_bomb(table, file.seek(0, 2), uri)
    return table


def _refuse_bomb(table: pq.ParquetFile, num_bytes: int, uri: str) -> None:
    # By row groups: asking pyarrow for the sizes of a column ends the process where a footer is damaged.
    unpacked = sum(table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups))
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * num_bytes):
        raise SourceDamaged(
            f"{uri}: {num_bytes:,} bytes unpack to {unpacked:,}, as no pictures or texts do; leave the file out of the "
            "source, or write its rows to another one"
        )


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
    twice = wanted or "image"
    if candidates.count(twice) > 1:
        raise SourceError(f"{where}: two columns are called {twice!r}; give one of them another name")
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
        return index >= 0 and _is_bytes(dtype.field(index).type)
    return _is_bytes(dtype)


def _is_bytes(dtype: pa.DataType) -> bool:
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
        left_out: set[str] = set()  # of every row
        carried = _carried(table.schema_arrow, image, source, uri, left_out) if extra else []
        classes = declared_classes(table.schema_arrow)
        for batch, wanted in _wanted_rows(table, rows, [image, *carried], uri):
            for read in _read_batch(batch, wanted, image, carried, max_bytes=max_bytes, left_out=left_out):
                yield read._replace(extra=name_classes(read.extra, classes))


def _check_rows(table: pq.ParquetFile, rows: Sequence[int], uri: str) -> None:
    if rows and rows[-1] >= table.metadata.num_rows:
        raise SourceDamaged(
            f"{uri}: row {rows[-1]} is wanted, the file has {table.metadata.num_rows}, so it changed since it "
            "was listed; restore it, or start anew with --rebuild all"
        )


def _carried(schema: pa.Schema, image: str, source: Source, uri: str, left_out: set[str]) -> list[str]:
    """Names of the columns to carry, each once; `left_out` gains why others are not."""
    own = [f.name for f in schema if f.name != image and not _only_bytes(f.type)]
    if source.columns is not None:
        unknown = [name for name in source.columns if name not in own and not comes_from_path(name, uri, source)]
        if unknown:
            raise SourceError(f"{uri}: no column {unknown[0]!r} to carry; there are: {_or_none(own)}")
        own = [name for name in own if name in source.columns]
    names = list(dict.fromkeys(own))
    if len(names) < len(own):
        left_out.add("duplicate_name")
    return usable_columns(names, left_out)


def usable_columns(names: Iterable[str], left_out: set[str]) -> list[str]:
    """The columns that an image may have: of usable names, and not too many."""
    usable = [name for name in names if is_usable_name(name, left_out)]
    if len(usable) > MAX_IMAGE_COLUMNS:
        left_out.add("too_many_columns")
    return usable[:MAX_IMAGE_COLUMNS]


def _only_bytes(dtype: pa.DataType) -> bool:
    return _holds_bytes(dtype) or pa.types.is_fixed_size_binary(dtype)


def _wanted_rows(
    table: pq.ParquetFile, rows: Sequence[int], columns: list[str], uri: str
) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
    """(batch, indices in it of the wanted rows), where there are any."""
    done, first = 0, 0
    for group in range(table.num_row_groups):
        after = first + table.metadata.row_group(group).num_rows
        if done < len(rows) and rows[done] < after:
            start = first
            for batch in _batches(table, group, columns, rows=BATCH_ROWS, uri=uri):
                end = bisect.bisect_left(rows, start + len(batch), lo=done)
                if end > done:
                    yield batch, [row - start for row in rows[done:end]]
                done = end
                start += len(batch)
        first = after


def _batches(table: pq.ParquetFile, group: int, columns: list[str], *, rows: int, uri: str) -> Iterator[pa.RecordBatch]:
    """Batches of a row group; after an error that may pass, from the first one not yet yielded."""
    missing = table.metadata.row_group(group).num_rows
    for batch in _resume(lambda: table.iter_batches(rows, row_groups=[group], columns=columns), uri):
        missing -= len(batch)
        yield batch
    if missing:  # Arrow takes the end of a column for the end of the group
        raise _damaged_parquet(uri, ValueError(f"row group {group} lacks {missing} of its rows"))


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
            if isinstance(error, pa.ArrowException | OSError | UnicodeError) and is_damage(error):
                raise _damaged_parquet(uri, error) from error
            tries.failed(error)


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
                ignored: list[set[str]] = [set()] * len(batch)
                yield from column_values(_first_column(batch, column), ignored)


class Cells(NamedTuple):
    """Some columns of one row."""

    values: dict[str, Any]
    """JSON-ready."""
    left_out: tuple[str, ...]
    """Kinds of values that were left out, see `curate.sources.values`."""


def read_cells(uri: str, columns: Sequence[str], rows: Sequence[int], *, needed: Sequence[str] = ()) -> Iterator[Cells]:
    """Some columns of the given rows, which ascend, as far as an image may have them; and all that are `needed`.

    Raises:
        SourceError: the file cannot be opened, is damaged, or is not the one that was listed.
    """
    with _open_parquet(uri) as table:
        _check_rows(table, rows, uri)
        left_out: set[str] = set()  # of every row
        columns = list(dict.fromkeys([*needed, *usable_columns(columns, left_out)]))
        for batch, wanted in _wanted_rows(table, rows, list(columns), uri):
            lost = [set(left_out) for _ in wanted]
            cells = {name: column_values(_take(_first_column(batch, name), wanted), lost) for name in columns}
            for place, kinds in enumerate(lost):
                yield Cells({name: values[place] for name, values in cells.items()}, tuple(sorted(kinds)))


def _read_batch(
    batch: pa.RecordBatch, wanted: list[int], image: str, carried: list[str], *, max_bytes: int, left_out: set[str]
) -> Iterator[Read]:
    """The images at the wanted indices of a batch: the other columns are converted together, each image alone."""
    lost = [set(left_out) for _ in wanted]
    columns = {name: column_values(_take(_first_column(batch, name), wanted), lost) for name in carried}
    images = _first_column(batch, image)
    for place, index in enumerate(wanted):
        own = {name: values[place] for name, values in columns.items()}
        read = _read_image(images[index], max_bytes)
        yield read._replace(extra=own or None, left_out=tuple(sorted(lost[place])))


def _first_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The column of a name, which may be there twice."""
    return batch.column(batch.schema.get_all_field_indices(name)[0])


def _take(column: pa.Array, wanted: list[int]) -> pa.Array:
    """The elements at ascending indices."""
    if len(wanted) == wanted[-1] - wanted[0] + 1:
        return column.slice(wanted[0], len(wanted))
    try:
        return column.take(pa.array(wanted))
    except pa.ArrowNotImplementedError:  # of some types there is no such kernel
        return pa.concat_arrays([column.slice(index, 1) for index in wanted])


def _read_image(cell: pa.Scalar, max_bytes: int) -> Read:
    path = ""
    if isinstance(cell, pa.StructScalar):
        if not cell.is_valid:
            return unreadable("the row holds no image")
        if _has_path(cell.type):
            path = _path_of(cell[cell.type.get_field_index("path")])
        cell = cell[cell.type.get_field_index("bytes")]
    if not cell.is_valid:
        return unreadable(f"the row holds only the path {path!r}, no bytes" if path else "the row holds no image")
    data = cell.as_buffer()
    return Read(data.to_pybytes()) if data.size <= max_bytes else too_large(data.size, max_bytes)


def _path_of(cell: pa.Scalar) -> str:
    return encode_uri(cell.as_buffer().to_pybytes()) if cell.is_valid else ""
