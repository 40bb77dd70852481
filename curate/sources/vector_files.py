"""Embeddings that somebody has made already: which files hold them, and the ids and vectors in these.

| layout | vectors | ids |
|---|---|---|
| folder of clip-retrieval | `img_emb/img_emb_0.npy`, ... | `metadata/metadata_0.parquet`, column `image_path` |
| Parquet files, of NeMo Curator or others | a column of lists of numbers: `embedding` | a column: `image_id` |
| arrays | `vectors.npy`, (N, D) | a text file with one a line, an array of texts, or a Parquet file |

Files are read in chunks of rows, arrays by memory mapping; nothing is unpickled.
"""

import glob
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from curate.config import Execution, Settings, absolute_path, digest
from curate.errors import ConfigError, SourceError, foreign_text
from curate.opening import check_regular
from curate.text import iterate_lines

VECTOR_COLUMNS = ("vector", "embedding", "embeddings", "image_embedding", "clip_embedding", "emb")
ID_COLUMNS = ("uri", "image_path", "key", "image_id", "id", "sha256", "path", "url")
"""Columns that are looked for, in order, where none is named."""
CHUNK_ROWS = 1 << 18
"""Rows of a chunk at most, about: the unit of work."""
SAMPLED, SAMPLE_BYTES = 16, 1 << 16
"""Places of an array, and bytes of each, by which its content is known; of Parquet files it is their end."""
DTYPES = ("float16", "float32", "float64")


class OwnEmbeddings(Settings):
    """Vectors that were made elsewhere, in place of a model."""

    table: Annotated[str, Execution()] = Field(min_length=1)
    """Parquet files (a file, a folder, a pattern), arrays (`.npy`, a pattern), or the folder that clip-retrieval wrote;
    on this machine. Known by their content, so they may move."""
    ids: Annotated[str | None, Execution()] = None
    """Where `table` holds arrays: a text file with an id a line, an array of texts (`.npy`) or a Parquet file for each,
    in the same order; null: they are not needed."""
    id: Literal["auto", "key", "uri", "sha256", "name"] = "auto"
    """What ids are: key, the key of an image or SOURCE/KEY; uri, its path or URL; sha256, of its bytes in hex; name,
    the last step of its key without suffixes, as WebDataset has it. auto: sha256 of a column of that name, else any of
    the others."""
    id_column: str | None = None
    """Column of the ids; null: the first that is there of uri, image_path, key, image_id, id, sha256, path, url."""
    column: str | None = None
    """Column of the vectors; null: `vector`, `embedding` or alike, else the only one with lists of numbers."""
    model: str = Field(default="own", min_length=1)
    """Id of the model that made them; heads belong to a model, so these need the right one."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored vectors."""
    max_missing: Annotated[float, Field(ge=0, le=1), Execution()] = 0.01
    """Share of the wanted images, 0..1, that may have no vector; they are left out of what needs one and told. Of more
    the run stops."""

    @field_validator("table", "ids")
    @classmethod
    def _local(cls, path: str | None) -> str | None:
        if path is not None and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
            raise ValueError("a URL; own embeddings are read from this machine: copy them here, or mount the store")
        return None if path is None else absolute_path(path)

    def files(self) -> tuple["VectorFile", ...]:
        """The files, in order, looked at now.

        Raises:
            ConfigError: there are none, ids are missing or too many, or nothing says which columns are meant.
            SourceError: a file cannot be read.
        """
        found = tuple(self._file(path, ids) for path, ids in self._paired())
        _known[self._place()] = found
        known_content.cache_clear()
        return found

    def known_files(self) -> tuple["VectorFile", ...]:
        """The files as this process saw them last: a task must not look at all files for the few that it reads."""
        return _known.get(self._place()) or self.files()

    def _place(self) -> str:
        changed = [
            Path(path).stat().st_mtime_ns if path is not None and Path(path).exists() else 0
            for path in (self.table, self.ids)
        ]
        return digest([self.model_dump(mode="json"), changed])

    def _paired(self) -> list[tuple[Path, Path | None]]:
        place = Path(self.table)
        if (place / "img_emb").is_dir():
            found = _sorted((place / "img_emb").glob("*.npy"))
            metadata = [place / "metadata" / path.name.replace("img_emb", "metadata") for path in found]
            return list(zip(found, [path.with_suffix(".parquet") for path in metadata], strict=True))
        found = _find(self.table)
        if not found:
            raise self.field_error("table", f"={self.table}: no .parquet and no .npy file lies there")
        if len({path.suffix for path in found}) > 1:
            raise self.field_error("table", f"={self.table}: holds .parquet and .npy files; name those that are meant")
        if found[0].suffix == ".parquet":
            return [(path, None) for path in found]
        ids = [] if self.ids is None else _find(self.ids, suffixes=(".txt", ".npy", ".parquet"))
        if len(ids) != len(found):
            raise self.field_error("ids", f"={self.ids}: {len(ids)} files for {len(found)} arrays; give one for each")
        return list(zip(found, ids, strict=True))

    def _file(self, path: Path, ids: Path | None) -> "VectorFile":
        try:
            if ids is None:
                return self._parquet(path)
            array = _array(path)
            named = _count_ids(ids)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read as embeddings: {foreign_text(error)}") from error
        if array.ndim != 2 or array.dtype.name not in DTYPES:
            raise SourceError(f"{path}: holds {array.dtype} {array.shape}; (N, D) floats are needed")
        if named != len(array):
            raise SourceError(f"{path}: {len(array):,} vectors, but {ids} has {named:,} ids; is it another file's?")
        column = self._id_column(pq.read_schema(ids), ids) if ids.suffix == ".parquet" else ""
        return VectorFile(path, ids, "", column, len(array), array.shape[1])

    def _parquet(self, path: Path) -> "VectorFile":
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            column = self._vector_column(schema, path)
            dim = getattr(schema.field(column).type, "list_size", 0)
            if not dim and rows:
                first = next(file.iter_batches(1, columns=[column])).column(0)
                dim = len(first[0].as_py() or ())
        return VectorFile(path, None, column, self._id_column(schema, path), rows, dim)

    def _vector_column(self, schema: pa.Schema, path: Path) -> str:
        lists = [field.name for field in schema if _is_vector(field.type)]
        usual = [name for name in VECTOR_COLUMNS if name in lists]
        wanted = [self.column] if self.column is not None else usual[:1] or lists
        if len(wanted) != 1 or wanted[0] not in lists:
            found = ", ".join(f"{field.name} ({field.type})" for field in schema)
            text = f"={self.column}: {path}: give the column of lists of numbers; it has {found}"
            raise self.field_error("column", text)
        return wanted[0]

    def _id_column(self, schema: pa.Schema, path: Path) -> str:
        wanted = [self.id_column] if self.id_column is not None else list(ID_COLUMNS)
        found = next((name for name in wanted if name in schema.names), None)
        if found is None:
            text = f"={self.id_column}: {path}: give the column of ids; it has {', '.join(schema.names)}"
            raise self.field_error("id_column", text)
        return found

    def is_digest(self, files: "Sequence[VectorFile]") -> bool:
        """Whether ids are SHA-256."""
        return self.id == "sha256" or (self.id == "auto" and bool(files) and files[0].id_column == "sha256")


_known: dict[str, tuple["VectorFile", ...]] = {}
"""Files by settings and by the time at which what these name was changed."""


class VectorFile(NamedTuple):
    """A file of vectors."""

    path: Path
    ids: Path | None
    """The file of its ids; None: they are its own column."""
    column: str
    """Of the vectors; empty: it is an array."""
    id_column: str
    """Of the ids; empty: their file has no columns."""
    rows: int
    dim: int
    """Values of a vector; 0: it has no rows."""


class Chunk(NamedTuple):
    """Consecutive rows of a file."""

    file: int
    start: int
    stop: int


def chunks_of(files: Sequence[VectorFile]) -> list[Chunk]:
    """All rows of some files, in order."""
    return [
        Chunk(number, start, min(start + CHUNK_ROWS, file.rows))
        for number, file in enumerate(files)
        for start in range(0, file.rows, CHUNK_ROWS)
    ]


def read_ids(file: VectorFile, chunk: Chunk) -> list[str]:
    """The ids of some rows; bytes, of a digest say, in hex.

    Raises:
        SourceError: one is null, or they cannot be read.
    """
    place = file.path if file.ids is None else file.ids
    found: list[Any]
    if place.suffix == ".parquet":
        found = _rows(place, file.id_column, chunk).to_pylist()
    elif place.suffix == ".npy":
        found = _array(place)[chunk.start : chunk.stop].tolist()
    else:
        with place.open("rb") as lines:
            some = itertools.islice(iterate_lines(lines), chunk.start, chunk.stop)
            found = [line.decode("utf-8", "backslashreplace") for line in some]
    if None in found:
        raise SourceError(f"{place} row {chunk.start + found.index(None)}: no id; take the row out")
    return [one.hex() if isinstance(one, bytes) else str(one) for one in found]


def read_vectors(file: VectorFile, chunk: Chunk) -> np.ndarray:
    """(N, D) float32 of some rows, as they are.

    Raises:
        SourceError: one is null or of another length, holds a value that is no number, or nothing but zeros.
    """
    if not file.column:
        found = np.array(_array(file.path)[chunk.start : chunk.stop], np.float32)
    else:
        found = _of_lists(_rows(file.path, file.column, chunk), file, chunk)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1) | ~found.any(axis=1))
    if len(bad):
        values = found[bad[0]]
        what = "nothing but zeros" if np.isfinite(values).all() else "a value that is no number"
        raise SourceError(f"{file.path} row {chunk.start + bad[0]}: {what}; take out vectors that mean nothing")
    return found


def _of_lists(column: pa.ChunkedArray, file: VectorFile, chunk: Chunk) -> np.ndarray:
    lists = column.combine_chunks()
    lengths = np.array([file.dim] * len(lists)) if pa.types.is_fixed_size_list(lists.type) else lists.value_lengths()
    lengths = np.asarray(lengths.fill_null(-1) if isinstance(lengths, pa.Array) else lengths)
    if lists.null_count:
        lengths = np.where(np.asarray(lists.is_valid()), lengths, -1)
    wrong = np.flatnonzero(lengths != file.dim)
    if len(wrong):
        found = "none" if lengths[wrong[0]] < 0 else f"{lengths[wrong[0]]} values"
        raise SourceError(f"{file.path} row {chunk.start + wrong[0]}: {found}, the first row has {file.dim} values")
    values = lists.flatten()
    if values.null_count:
        raise SourceError(f"{file.path} rows {chunk.start} to {chunk.stop - 1}: a vector with a value that is null")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(-1, file.dim)


def _rows(path: Path, column: str, chunk: Chunk) -> pa.ChunkedArray:
    """Some rows of a column: its row groups that hold them are read."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            first, last = (int(np.searchsorted(ends, row, side="right")) for row in (chunk.start, chunk.stop - 1))
            rows = file.read_row_groups(list(range(first, last + 1)), columns=[column])
            return rows[column].slice(chunk.start - int(ends[first] - sizes[first]), chunk.stop - chunk.start)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read: {foreign_text(error)}") from error


def _array(path: Path) -> np.ndarray:
    check_regular(path)
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _count_ids(path: Path) -> int:
    if path.suffix == ".parquet":
        rows: int = pq.read_metadata(path).num_rows
        return rows
    if path.suffix == ".npy":
        array = _array(path)
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise ValueError(f"{path.name} holds {array.dtype} {array.shape}; (N,) texts are needed")
        return len(array)
    check_regular(path)
    with path.open("rb") as lines:
        return sum(1 for _ in iterate_lines(lines))


def _is_vector(dtype: pa.DataType) -> bool:
    nested = pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)
    return nested and pa.types.is_floating(dtype.value_type)


def _find(path: str, suffixes: tuple[str, ...] = (".parquet", ".npy")) -> list[Path]:
    """Files of a folder, of a pattern, or the one that is named; numbers in their names count as numbers."""
    place = Path(path)
    if place.is_dir():
        return _sorted(found for found in place.rglob("*") if found.suffix in suffixes)
    if place.is_file():
        return [place]
    matches = map(Path, glob.glob(path, recursive=True))  # noqa: PTH207  # the pattern begins at the root
    return _sorted(found for found in matches if found.suffix in suffixes)


def _sorted(paths: Iterator[Path]) -> list[Path]:
    def parts(path: Path) -> list[tuple[int, str]]:
        return [(int(one), "") if one.isdigit() else (-1, one) for one in re.split(r"(\d+)", path.as_posix())]

    return sorted(paths, key=parts)


def content_of(files: Sequence[VectorFile]) -> str:
    """What tells these files from others, without reading all of them: sizes, places of arrays, ends of Parquet files.

    Raises:
        ConfigError: there is none.
    """
    if not files:
        raise ConfigError("own embeddings: there are no files")
    paths = [path for file in files for path in (file.path, file.ids) if path is not None]
    return digest([_sampled(str(path), *_stat(path)) for path in paths])


@lru_cache(maxsize=8)
def known_content(files: tuple[VectorFile, ...]) -> str:
    """The same, as this process found it last."""
    return content_of(files)


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=65_536)
def _sampled(path: str, size: int, modified: int) -> str:
    places = [max(0, size - SAMPLE_BYTES)]
    if not path.endswith(".parquet"):
        places = np.linspace(0, max(0, size - SAMPLE_BYTES), SAMPLED).astype(int).tolist()
    found = hashlib.sha256(str(size).encode())
    with Path(path).open("rb") as file:
        for place in places:
            file.seek(place)
            found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()
