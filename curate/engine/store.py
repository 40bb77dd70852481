"""The only reader and writer of tables: a workdir on any fsspec file system, parts committed atomically.

A table is a folder of `part-00000.parquet ...`, `_table.json` (the manifest: recipe of the table, its parts
and figures) and, while it is being made, `_progress.jsonl`. A part carries its fingerprint in its footer.
Parts are written under a temporary name and published in one step, so a reader never sees half of one.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from curate.errors import TableError, WorkdirError

FINGERPRINT = b"curate.fingerprint"
CONTENT = b"curate.content"
MANIFEST = "_table.json"
PROGRESS = "_progress.jsonl"
TEMPORARY = ".tmp-"
ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 64 << 20
FOOTER_THREADS = 16


@dataclass(frozen=True)
class Part:
    """A committed part: `content` is the digest of its rows, independent of how they were made."""

    number: int
    rows: int
    fingerprint: str
    content: str
    num_bytes: int = field(default=0, compare=False)
    """Of the file, as the manifest knows it; 0: not known."""


@dataclass(frozen=True)
class Manifest:
    """What `_table.json` says of a table."""

    stage: str
    """Class name of the stage."""
    version: int
    config: dict[str, Any]
    """Fields that change results, as given (`auto` unresolved)."""
    resolved: dict[str, Any]
    """The same with `auto` resolved."""
    pins: dict[str, str]
    """Contents the table depends on beside its inputs, such as the hash of weights."""
    inputs: dict[str, list[str]]
    """Input name to table names."""
    num_parts: int | None = None
    """Parts the table will have; None: only its end tells."""
    complete: bool = False
    parts: list[dict[str, Any]] = field(default_factory=list)
    """Of a complete table, in order: number, rows, fingerprint, content."""
    rows: int = 0
    seconds: float = 0.0
    """Summed over tasks, of all runs that contributed."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """Figures of the table that the report and other stages read."""


class Store:
    """A workdir: tables by name, and atomic files beside them."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self.fs, self.path = fsspec.core.url_to_fs(self.root)
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def table(self, name: str) -> "Table":
        return Table(self, name)

    def join(self, *names: str) -> str:
        return "/".join([self.path.rstrip("/"), *names])

    def read_json(self, name: str) -> Any:
        """The JSON file `name`, or None when there is none."""
        data = self.read_bytes(name)
        try:
            return None if data is None else json.loads(data)
        except ValueError as error:
            raise TableError(f"{self.join(name)}: not valid JSON ({error}); remove it and run again") from error

    def read_bytes(self, name: str) -> bytes | None:
        """The file `name`, or None when there is none."""
        try:
            data: bytes = self.fs.cat_file(self.join(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return data

    def write_json(self, name: str, value: object) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Publish a whole file in one step."""
        with self.publish(name) as file:
            file.write(data)

    @contextlib.contextmanager
    def publish(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears under `name` complete or not at all: a rename on POSIX, one put elsewhere.

        Raises:
            WorkdirError: the disk is full or the workdir cannot be written.
        """
        target = self.join(name)
        with self._temporary(target) as temporary:
            with _explain_os_errors(target):
                file = temporary.open("wb")
            try:
                with _explain_full_disk(target):  # the caller's own errors, such as a source it may not read, pass
                    yield file
                with _explain_os_errors(target):
                    file.flush()
                    os.fsync(file.fileno())
                    file.close()
            except BaseException:
                with contextlib.suppress(OSError):  # what was left to flush is thrown away with the file
                    file.close()
                raise
            with _explain_os_errors(target):
                if self.is_local:
                    temporary.replace(target)
                else:
                    self.fs.put_file(str(temporary), target)

    @contextlib.contextmanager
    def _temporary(self, target: str) -> Iterator[Path]:
        """A local path to write to, gone at the end: beside a local target, so that a rename publishes it."""
        if self.is_local:
            with _explain_os_errors(target):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(target).parent / f"{TEMPORARY}{uuid.uuid4().hex}"
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield Path(folder) / "file"

    def table_names(self) -> list[str]:
        """Every table of the workdir, by its manifest, sorted."""
        found = self.fs.glob(self.join("**", MANIFEST))
        prefix = self.path.rstrip("/") + "/"
        return sorted(path.removeprefix(prefix).removesuffix(f"/{MANIFEST}") for path in found)

    def remove(self, name: str) -> None:
        """Remove a file or folder of the workdir, if it is there."""
        target = self.join(name)
        if self.is_local:
            path = Path(target)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif self.fs.exists(target):
            self.fs.rm(target, recursive=True)

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed run left; only while no other run holds the workdir."""
        if self.is_local:
            for leftover in Path(self.path).rglob(f"{TEMPORARY}*"):
                leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the workdir alone. Local file systems only; the lock of a killed process is gone with it.

        Raises:
            WorkdirError: another process holds it, or the folder cannot be made.
        """
        if not self.is_local:
            yield
            return
        import fcntl

        with _explain_os_errors(self.path):
            Path(self.path).mkdir(parents=True, exist_ok=True)
            handle = os.open(self.join(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise WorkdirError(
                    f"{self.path}: another run is working here; wait for it, or set another workdir=DIR"
                ) from error
            yield
        finally:
            os.close(handle)


class Table:
    """A table of a workdir. Cheap to make: nothing is read until asked."""

    def __init__(self, store: Store, name: str, manifest: Manifest | None = None) -> None:
        self.store = store
        self.name = name
        self._manifest = manifest

    def __repr__(self) -> str:
        return f"Table({self.store.root}/{self.name})"

    def file_name(self, part: int) -> str:
        return f"{self.name}/part-{part:05d}.parquet"

    def part_path(self, part: int) -> str:
        return self.store.join(self.file_name(part))

    # -- reading ---------------------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """What `_table.json` says; a manifest given to this object comes first, before it is published."""
        if self._manifest is not None:
            return self._manifest
        path = self.store.join(self.name, MANIFEST)
        try:
            data = self.store.read_bytes(f"{self.name}/{MANIFEST}")
            return None if data is None else _parse_manifest(data)
        except (TypeError, ValueError) as error:
            raise TableError(f"{path}: not a manifest ({error}); remove it and run again") from error

    @property
    def metrics(self) -> dict[str, Any]:
        """Figures of a complete table.

        Raises:
            TableError: the table is not complete.
        """
        return self._complete().metrics

    def parts(self) -> list[Part]:
        """The parts of a complete table, in order."""
        return [Part(**part) for part in self._complete().parts]

    def num_rows(self) -> int:
        return self._complete().rows

    def _complete(self) -> Manifest:
        manifest = self.manifest()
        if manifest is None or not manifest.complete:
            raise TableError(f"{self.name}: not complete in {self.store.root}; run its pipeline first")
        return manifest

    def committed(self) -> dict[int, int]:
        """Number and bytes of the parts that are there, by listing."""
        try:
            files = self.store.fs.ls(self.store.join(self.name), detail=True)
        except FileNotFoundError:
            return {}
        sizes = {file["name"].rsplit("/", 1)[-1]: file["size"] for file in files}
        return {int(n[5:-8]): size for n, size in sizes.items() if n.startswith("part-") and n.endswith(".parquet")}

    def footer(self, part: int) -> Part | None:
        """What the footer of a part says; None where it is absent.

        Raises:
            TableError: the file is there but is not readable Parquet.
        """
        try:
            with self.store.fs.open(self.part_path(part), "rb") as file:
                meta = pq.read_metadata(file)
        except FileNotFoundError:
            return None
        except pa.ArrowInvalid as error:
            raise TableError(f"{self.part_path(part)}: damaged ({error}); remove this file and run again") from error
        keys = meta.metadata or {}
        return Part(part, meta.num_rows, keys.get(FINGERPRINT, b"").decode(), keys.get(CONTENT, b"").decode())

    def footers(self, parts: Iterable[int]) -> dict[int, Part]:
        """The footers of those parts that are there, read side by side: on an object store each takes a while."""
        numbers = list(parts)
        with ThreadPoolExecutor(FOOTER_THREADS, "footers") as pool:
            found = zip(numbers, pool.map(self.footer, numbers), strict=True)
            return {number: footer for number, footer in found if footer is not None}

    def schema(self) -> pa.Schema:
        """Schema of the first part."""
        with self.store.fs.open(self.part_path(self.parts()[0].number), "rb") as file:
            return pq.read_schema(file)

    def read(self, part: int, columns: list[str] | None = None) -> pa.Table:
        """One part in memory."""
        with self.open(part) as file:
            return file.read(columns=columns)

    def read_images(self, part: int, low: int, high: int) -> Iterator[pa.Table]:
        """Rows with low <= image_id < high; row groups that hold none are skipped by their statistics."""
        with self.open(part) as file:
            column = file.schema_arrow.get_field_index("image_id")
            for group in range(file.num_row_groups):
                bounds = file.metadata.row_group(group).column(column).statistics
                if bounds is None or (bounds.min < high and bounds.max >= low):
                    rows = file.read_row_group(group)
                    ids = rows["image_id"].to_numpy()
                    yield rows.filter(pa.array((ids >= low) & (ids < high)))

    @contextlib.contextmanager
    def open(self, part: int) -> Iterator[pq.ParquetFile]:
        """One part, to be read by row groups.

        Raises:
            TableError: it is absent or damaged.
        """
        path = self.part_path(part)
        try:
            with self.store.fs.open(path, "rb") as raw, pq.ParquetFile(raw) as file:
                yield file
        except FileNotFoundError as error:
            raise TableError(f"{path}: no such part; run the pipeline again to make it") from error
        except pa.ArrowInvalid as error:
            raise TableError(f"{path}: damaged ({error}); remove this file and run again") from error

    def scan(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Every part in order, one at a time."""
        for part in self.parts():
            yield self.read(part.number, columns)

    def read_all(self, columns: list[str] | None = None) -> pa.Table:
        """All parts in memory: for small tables and small columns."""
        return pa.concat_tables(self.scan(columns))

    # -- writing ---------------------------------------------------------------------------------------------

    def write_manifest(self, manifest: Manifest) -> None:
        self.store.write_json(f"{self.name}/{MANIFEST}", manifest.__dict__)

    def log_task(self, entry: dict[str, Any]) -> None:
        """Append a line to the progress of a table in the making (local workdirs: for `curate status`)."""
        if self.store.is_local:
            path = Path(self.store.join(self.name, PROGRESS))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def task_log(self) -> list[dict[str, Any]]:
        """What `log_task` wrote; a last line cut by a kill is left out."""
        try:
            with self.store.fs.open(self.store.join(self.name, PROGRESS), "rb") as file:
                lines = file.read().decode().splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def commit(self, part: int, schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, fingerprint: str = "") -> Part:
        """Write a part and publish it when its last batch is in.

        Args:
            schema: of the part; batches must match it.
            fingerprint: of what made the part; empty: the digest of its rows (tables pinned by content).
        """
        with self.begin(part, schema, fingerprint=fingerprint) as writer:
            for batch in batches:
                writer.write(batch)
        return writer.done()

    @contextlib.contextmanager
    def begin(self, part: int, schema: pa.Schema, *, fingerprint: str = "") -> Iterator["PartWriter"]:
        """As `commit`, for a caller that writes several tables at once."""
        with self.store.publish(self.file_name(part)) as file:
            writer = PartWriter(file, part, schema, fingerprint)
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise
            writer.close()

    def drop_parts(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.store.remove(self.file_name(number))


@lru_cache(maxsize=16)
def _parse_manifest(data: bytes) -> Manifest:
    """Every task asks for the manifests of its inputs, whose megabytes at many parts take longer to parse than to read.

    Known by the bytes, so that a changed file is never missed; what comes back is shared, and read only.
    """
    return Manifest(**json.loads(data))


class PartWriter:
    """Writes the batches of one part as row groups of bounded size, hashing the rows on the way."""

    def __init__(self, file: IO[bytes], part: int, schema: pa.Schema, fingerprint: str) -> None:
        self.part, self.schema, self.fingerprint = part, schema, fingerprint
        self._writer = pq.ParquetWriter(
            file,
            schema,
            compression=_codecs(schema),
            use_dictionary=[f.name for f in schema if pa.types.is_string(f.type)],
            write_statistics=[f.name for f in schema if pa.types.is_integer(f.type)],
            store_schema=True,
        )
        self._hash = hashlib.sha256(schema.serialize().to_pybytes())
        self._rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
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
            self._rows += group.num_rows
            self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def close(self) -> None:
        self._flush()
        content = self._hash.hexdigest()[:32]
        fingerprint = self.fingerprint or content
        self._writer.add_key_value_metadata({FINGERPRINT.decode(): fingerprint, CONTENT.decode(): content})
        self._writer.close()
        self._done = Part(self.part, self._rows, fingerprint, content)

    def abandon(self) -> None:
        """Close the half-written file, which is then thrown away."""
        self._writer.close()

    def done(self) -> Part:
        """What was committed; only after the writer is closed."""
        return self._done


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


@contextlib.contextmanager
def _explain_full_disk(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkdirError(
                f"{target}: no space left; free some or move the workdir, then run the same command again: "
                "every committed part is kept"
            ) from error
        raise


@contextlib.contextmanager
def _explain_os_errors(target: str) -> Iterator[None]:
    try:
        with _explain_full_disk(target):
            yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise WorkdirError(f"{target}: cannot be written ({error.strerror}); choose another workdir=DIR") from error
        raise
