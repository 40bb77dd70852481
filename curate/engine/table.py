"""Tables: the only reader and writer of parts and manifests.

A table is a folder of `part-00000.parquet ...`, `_table.json` (the manifest: what made the table, its parts and
figures) and, while it is being made, `_progress.jsonl`. A part carries its fingerprint in its footer.
"""

import contextlib
import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from curate import counting
from curate.counting import Counts
from curate.engine.part_writer import CONTENT, FINGERPRINT, MOVED_FROM, OPEN, OPEN_ROWS, ROWS, Part, PartWriter
from curate.engine.store import MANIFEST, Store
from curate.engine.tallies import TALLY, Tally
from curate.errors import DamagedPart, TableError, first_line, foreign_text
from curate.sealed_json import load_sealed
from curate.sealing import open_parquet, says_damage

logger = logging.getLogger(__name__)

PROGRESS = "_progress.jsonl"
DRIVER = "driver"
"""Among the phases of a manifest's counts: what no task did."""
PROGRESS_SECONDS = 10.0
"""Between two writings of the whole progress, where a store cannot append."""
LOGGED = {"phase": str, "part": int, "rows": int, "seconds": int | float}
"""What those read of a line of progress who look at it."""
REMOVE_AND_RUN = "; remove this file and run its config again: the part is made anew"
PART_NAME = re.compile(r"part-(\d{5}|[1-9]\d{5,})\.parquet")
"""Other files in the folder of a table are none of its parts."""
FOOTER_THREADS = 16


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
    """Of a complete table, in order: number, rows, fingerprint, content, open rows, tally."""
    rows: int = 0
    seconds: float = 0.0
    """Summed over tasks, of all runs that contributed."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the stage summed up, see `Figures`."""
    rows_in: int | None = None
    """Rows of the input that the stage worked through; None: it listed what lies outside."""
    made_with: list[str] = field(default_factory=list)
    """Other tables that the same tasks made: their seconds and counts are these."""
    counted: dict[str, Counts] = field(default_factory=dict)
    """What tasks cost, of all runs that contributed, by phase; `driver`: what the driver of the last run did for the
    table, beside tasks. Empty: made by a version that did not count."""

    cleaned: list[int] = field(default_factory=list)
    """Parts whose files were removed since nothing needs their rows any more, see `cleaning.py`; of a table in the
    making, `parts` tells of these alone."""

    def as_json(self) -> dict[str, Any]:
        """As `_table.json` holds it."""
        return {**vars(self), "counted": {phase: counts.as_json() for phase, counts in self.counted.items()}}

    def counts(self) -> Counts:
        """What all tasks cost, and the driver."""
        return Counts.sum(self.counted.values())


class Table:
    """A table of a workdir. Cheap to make: nothing is read until asked."""

    def __init__(self, store: Store, name: str, manifest: Manifest | None = None, *, digest: str | None = None) -> None:
        """The table of that name.

        Args:
            manifest: what it is taken to be, before that is published.
            digest: of the manifest that it has; who has read one of it before does not read it again.
        """
        self.store = store
        self.name = name
        self._manifest = manifest
        self._digest = digest
        self._lines: list[str] | None = None
        """Lines of the progress, where the store cannot append."""
        self._publish_at = 0.0
        self._is_published = True
        """Whether a file may hold some of them."""

    def __repr__(self) -> str:
        return f"Table({self.store.root}/{self.name})"

    def file_name(self, part: int) -> str:
        return f"{self.name}/part-{part:05d}.parquet"

    def part_path(self, part: int) -> str:
        """Where a part lies, or would."""
        return self.store.find(self.file_name(part))

    # -- reading ---------------------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """What `_table.json` says; a manifest given to this object comes first, before it is published."""
        if self._manifest is not None:
            return self._manifest
        path = self.store.find(f"{self.name}/{MANIFEST}")
        if self._digest is not None and self._digest in _parsed:
            return _parsed[self._digest]
        try:
            data = self.store.read_kept(f"{self.name}/{MANIFEST}")
            return None if data is None else _parse_manifest(data)
        except (TypeError, ValueError) as error:
            raise TableError(
                f"{path}: damaged, or of another version ({first_line(error)}); remove this file and run again: parts "
                "that are whole are kept"
            ) from error

    def manifest_digest(self) -> str | None:
        """Of what `_table.json` holds; None: it is not there."""
        data = self.store.read_kept(f"{self.name}/{MANIFEST}")
        return None if data is None else _digest(data)

    def parts(self) -> list[Part]:
        """The parts of a complete table, in order."""
        return [Part(**part) for part in self.complete_manifest().parts]

    def num_rows(self) -> int:
        """Rows of a complete table."""
        return self.complete_manifest().rows

    def is_complete(self) -> bool:
        """Whether every part of the table is there."""
        manifest = self.manifest()
        return manifest is not None and manifest.complete

    def complete_manifest(self) -> Manifest:
        """What `_table.json` says of a complete table.

        Raises:
            TableError: the table is not complete.
        """
        manifest = self.manifest()
        if manifest is None or not manifest.complete:
            raise TableError(f"{self.name}: not complete in {self.store.root}; run its pipeline first")
        return manifest

    def committed(self) -> dict[int, int]:
        """Number and bytes of the parts that are there, by listing."""
        files = self.store.list_files(self.name, "part-")
        found = [(PART_NAME.fullmatch(name), size) for name, size in files.items()]
        return {int(name[1]): size for name, size in found if name}

    def absent(self) -> set[int]:
        """Parts that were cleaned and are not there."""
        manifest = self.manifest()
        return set(manifest.cleaned) - self.committed().keys() if manifest and manifest.cleaned else set()

    def footer(self, part: int) -> Part | None:
        """What the footer of a part says; None where it is absent.

        Raises:
            TableError: the file is there but is not readable Parquet.
        """
        meta = self._metadata(part)
        if meta is None:
            return None
        keys = meta.metadata or {}
        found = {
            name: keys.get(key, b"").decode() for name, key in (("fingerprint", FINGERPRINT), ("content", CONTENT))
        }
        counted, moved_from = json.loads(keys.get(TALLY, b"{}")), keys.get(MOVED_FROM, b"").decode()
        num_open = int(keys.get(OPEN, b"0"))
        return Part(part, meta.num_rows, **found, open=num_open, tally=counted, moved_from=moved_from)

    def open_rows(self, part: int) -> list[int]:
        """Rows of a part whose data could not be had when it was made, ascending; see `part_writer`."""
        meta = self._metadata(part)
        rows: list[int] = json.loads((meta.metadata or {}).get(OPEN_ROWS, b"[]")) if meta is not None else []
        return rows

    def made_of(self, part: int) -> str | None:
        """What the footer of a part says its rows are made of, see `row_reuse.py`; None: nothing, or it is absent."""
        meta = self._metadata(part)
        found = None if meta is None else (meta.metadata or {}).get(ROWS)
        return None if found is None else found.decode()

    def num_open(self) -> int:
        """Rows of a complete table whose data could not be had: the next run tries them again."""
        return sum(part.open for part in self.parts())

    def _metadata(self, part: int) -> pq.FileMetaData | None:
        try:
            with self.store.fs.open(self.part_path(part)) as file, open_parquet(file) as parquet:
                return parquet.metadata
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            if says_damage(error):
                raise self._damaged(part, error) from error
            raise

    def _damaged(self, part: int, error: Exception) -> DamagedPart:
        path, text = self.part_path(part), foreign_text(error)
        return DamagedPart(f"{path}: damaged ({text}){REMOVE_AND_RUN}", self.name, part)

    def footers(self, parts: Iterable[int]) -> dict[int, Part]:
        """The footers of those parts that are there, read side by side: on an object store each takes a while."""
        return self._look_at(parts, self.footer)

    def _look_at(self, parts: Iterable[int], look: Callable[[int], Part | None]) -> dict[int, Part]:
        numbers = list(parts)
        with ThreadPoolExecutor(FOOTER_THREADS, "footers") as pool:
            found = zip(numbers, pool.map(look, numbers), strict=True)
            return {number: footer for number, footer in found if footer is not None}

    def whole_footers(self, parts: Iterable[int]) -> dict[int, Part]:
        """As `footers`; parts whose footer is damaged are left out, with a warning: they are to be made again."""

        def look(part: int) -> Part | None:
            try:
                return self.footer(part)
            except DamagedPart as error:
                logger.warning("%s", str(error).replace(REMOVE_AND_RUN, "; it is made again"))
                return None

        return self._look_at(parts, look)

    def schema(self) -> pa.Schema:
        """Schema of the first part."""
        with self.open(self.parts()[0].number) as file:
            return file.schema_arrow

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
            TableError: it is absent.
            DamagedPart: its bytes are not those that were written.
        """
        path = self.part_path(part)
        try:
            with self.store.fs.open(path) as raw, open_parquet(raw) as file:
                yield file
        except FileNotFoundError as error:
            manifest = self.manifest()
            if manifest is not None and part in manifest.cleaned:
                raise TableError(
                    f"{path}: was cleaned, as nothing needed its rows; run its config with --rebuild {self.name} to "
                    "have them again"
                ) from error
            raise TableError(f"{path}: no such part; run the pipeline again to make it") from error
        except (OSError, pa.ArrowException) as error:
            if says_damage(error):
                raise self._damaged(part, error) from error
            raise

    def scan(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Every part in order, one at a time."""
        for part in self.parts():
            yield self.read(part.number, columns)

    def read_all(self, columns: list[str] | None = None) -> pa.Table:
        """All parts in memory: for small tables and small columns."""
        return pa.concat_tables(self.scan(columns))

    def to_pandas(self, columns: list[str] | None = None) -> Any:
        """All parts as a pandas DataFrame, which needs pandas."""
        return self.read_all(columns).to_pandas()

    # -- writing ---------------------------------------------------------------------------------------------

    def write_manifest(self, manifest: Manifest) -> None:
        self.store.write_json(f"{self.name}/{MANIFEST}", manifest.as_json())

    def log_task(self, entry: dict[str, Any]) -> None:
        """Append a line to the progress of a table in the making: for its manifest, and for `curate status`.

        An object store cannot append: there all lines are published again, every `PROGRESS_SECONDS` and by
        `publish_log`. What a killed driver had not published is missing from the seconds and counts.
        """
        line = json.dumps(entry)
        if self.store.is_local:
            path = Path(self.store.join(self.name, PROGRESS))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            counting.note(requests=1, bytes_written=len(line) + 1)
            return
        if self._lines is None:
            self._lines = [json.dumps(known) for known in self.task_log()]
            self._is_published = bool(self._lines)
        if not self._publish_at:
            self._publish_at = time.monotonic() + PROGRESS_SECONDS
        self._lines.append(line)
        if time.monotonic() >= self._publish_at:
            self.publish_log()

    def publish_log(self) -> None:
        """Write the lines of `log_task` that are not written yet."""
        if self._lines:
            self.store.write_bytes(f"{self.name}/{PROGRESS}", "".join(f"{line}\n" for line in self._lines).encode())
            self._publish_at, self._is_published = time.monotonic() + PROGRESS_SECONDS, True

    def start_log(self) -> None:
        """Begin the progress of a table that nobody has begun before, so that none has to be looked for."""
        if not self.store.is_local and self._lines is None:
            self._lines, self._is_published = [], False

    def end_log(self) -> None:
        """Remove the progress."""
        if self._lines is None or self._is_published or self.store.is_local:
            self.store.remove_file(f"{self.name}/{PROGRESS}")
        self._lines = None

    def task_log(self) -> list[dict[str, Any]]:
        """What `log_task` was given, by earlier runs too; lines that cannot be read, such as a last one cut by a kill,
        are left out."""
        if self._lines is not None:
            return [json.loads(line) for line in self._lines]
        entries = []
        for line in (self.store.read_bytes(f"{self.name}/{PROGRESS}") or b"").decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in LOGGED.items()):
                    entries.append(entry)
        return entries

    def commit(
        self,
        part: int,
        schema: pa.Schema,
        batches: Iterable[pa.RecordBatch],
        *,
        fingerprint: str = "",
        tally: type[Tally] | None = None,
        carried: Mapping[str, Any] | None = None,
        moved_from: str = "",
    ) -> Part:
        """Write a part and publish it when its last batch is in.

        Args:
            schema: of the part; batches must match it.
            fingerprint: of what made the part; empty: the digest of its rows (tables pinned by content).
            tally: counts the rows.
            carried: what the tally begins with, as JSON holds it.
            moved_from: see `Part`.
        """
        with self.begin(part, schema, fingerprint=fingerprint, tally=tally, carried=carried) as writer:
            if moved_from:
                writer.notes[MOVED_FROM] = moved_from
            for batch in batches:
                writer.write(batch)
        return writer.done()

    @contextlib.contextmanager
    def begin(
        self,
        part: int,
        schema: pa.Schema,
        *,
        fingerprint: str = "",
        tally: type[Tally] | None = None,
        carried: Mapping[str, Any] | None = None,
    ) -> Iterator["PartWriter"]:
        """As `commit`, for a caller that writes several tables at once."""
        with self.store.publish(self.file_name(part)) as file:
            writer = PartWriter(file, part, schema, fingerprint, tally=tally, carried=carried)
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise
            writer.close()

    def move_part(self, part: int, target: "Table") -> None:
        """Publish a part as the part of that number of another table."""
        self.store.move(self.file_name(part), target.file_name(part))

    def drop_parts(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.store.remove_file(self.file_name(number))


@cache
def _manifests() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)


_parsed: dict[str, Manifest] = {}
"""The newest manifests that this process has read, by digest; shared, and read only."""
_PARSED_AT_MOST = 64


@lru_cache(maxsize=_PARSED_AT_MOST)
def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _parse_manifest(data: bytes) -> Manifest:
    """Every task asks for the manifests of its inputs, whose megabytes at many parts take longer to parse than to read.

    Known by the bytes, so that a changed file is never missed.
    """
    digest = _digest(data)
    if digest not in _parsed:
        manifest = _manifest_of(data)
        while len(_parsed) >= _PARSED_AT_MOST:
            _parsed.pop(next(iter(_parsed)), None)
        _parsed[digest] = manifest
    return _parsed[digest]


def _manifest_of(data: bytes) -> Manifest:
    found = load_sealed(data)
    if not isinstance(found, dict):
        raise TypeError(f"it holds {type(found).__name__}")
    unknown = found.keys() - {field.name for field in fields(Manifest)}
    if unknown:
        raise TypeError(f"it says {', '.join(sorted(unknown))}, which this version does not know")
    manifest = _manifests().validate_python(found)
    for part in manifest.parts:
        Part(**part)
    return manifest
