"""Stages that look at pictures: each image is read and decoded once, for every table of a pass.

Reading and decoding cost more than most networks, so stages that need the picture share one reading. The difficulty
is that they need it at other sizes, on other processors and for other images. A pass therefore has three layers. One
thread streams archives in order, since tars are read from front to back; files of a folder are read where they are
decoded. Threads decode each image at the largest size that any stage needs, and let every stage prepare what it keeps
of it (facts and a hash, or the pixels of its network). The task's own thread collects what they prepared, in the
order of rows, and runs a network whenever a batch is full, while the threads decode on. Results do not depend on the
number of threads, since batches are formed in the order of rows.

A first pass has an `Inspect`, which sets limits and decoding size: facts and hashes must not depend on which networks
share the pass. A later pass reads the verdicts of the first and opens only images that are wanted; an image that
changed in between is an error.
"""

import contextlib
import itertools
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import progress
from curate.engine.image_ids import row_of
from curate.engine.stage import Input, SharedMap, each
from curate.errors import CurateError, SourceError
from curate.ops.images.decode import PIL_PIXELS
from curate.ops.images.inspect import ImageLimits, Inspected, inspect_image
from curate.sources.config import Source
from curate.sources.folder import read_folder_file
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_part
from curate.stages.images.catalog import source_of
from curate.tables import CATALOG, DUPLICATES, IMAGES

CHUNK_ROWS = 1024
"""Images whose rows are written together; the last batch of a chunk may be smaller than the others."""
BATCHES_AHEAD = 4
"""Batches of images that are read or decoded before a network asks for them."""
TRUSTING = ImageLimits(min_side=1, max_aspect=1e9, min_luma_std=0, min_smoothness=-1, max_pixels=PIL_PIXELS)
"""Limits for images that an earlier pass accepted, whatever its own were; `max_bytes` is then what it found."""


_Place = tuple[str, str]
"""(uri, key) of an image, by which a person finds it."""


class Seen(NamedTuple):
    """One image, as a stage of a pass gets it."""

    read: Read
    """Its bytes, or why there are none, and the source's own columns."""
    inspected: Inspected | None
    """Facts and, when accepted, the picture; None: there are no bytes."""


class Collector(Protocol):
    """What a stage makes of a chunk of rows; used by one thread."""

    def add(self, row: int, prepared: Any) -> None:
        """What `prepare` made of the image at a row of the chunk; rows come in order, unwanted ones do not."""

    def batch(self) -> pa.RecordBatch:
        """The rows of the whole chunk."""


class PictureStage(SharedMap):
    """A stage with one row for each image of the catalog, made from the image itself.

    Stages of one pass share the reading. A stage of this kind says at what size it needs pictures (`least_side`),
    what it keeps of an image (`prepare`, called in threads) and what rows become of that (`collect`).
    """

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": each(CATALOG),
        "images": each(IMAGES, optional=True),
        "duplicates": each(DUPLICATES, optional=True),
    }

    def first_pass(self) -> tuple[ImageLimits, int] | None:
        """Limits and decoding size of the pass, of the stage that judges images; None: this one does not."""
        return None

    def least_side(self) -> int:
        """Pixels of the short side that decoding must keep at least."""
        return 64

    def images_ahead(self) -> int:
        """Images that are best decoded before they are collected: those of a network's batch."""
        return 32

    def prepare(self, seen: Seen) -> Any:
        """What the stage keeps of one image; None: nothing. Called in threads, so it must not change the stage."""
        raise NotImplementedError

    def collect(self, ids: pa.Array) -> Collector:
        """Rows for the images of a chunk, from what was prepared of those that were wanted.

        By default `prepare` gives the columns of a row by name, and images of which nothing was prepared get nulls.
        """
        return _Rows(ids, self.output_schema())

    @classmethod
    def run_together(cls, stages: Mapping[str, Self], part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of all stages of a pass over one part of the catalog.

        Raises:
            SourceError: an image changed or vanished since an earlier pass accepted it.
        """
        yield from read_pictures(stages, part, **tables)


class _Rows:
    """Rows that were prepared as a whole."""

    def __init__(self, ids: pa.Array, schema: pa.Schema) -> None:
        self._ids, self._schema = ids, schema
        self._rows: dict[int, dict[str, Any]] = {}

    def add(self, row: int, prepared: dict[str, Any]) -> None:
        self._rows[row] = prepared

    def batch(self) -> pa.RecordBatch:
        rows = [self._rows.get(row, {}) for row in range(len(self._ids))]
        columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in list(self._schema)[1:]]
        return pa.RecordBatch.from_arrays([self._ids, *columns], schema=self._schema)


def read_pictures(
    stages: Mapping[str, PictureStage],
    part: int,
    *,
    catalog: pa.Table,
    images: pa.Table | None = None,
    duplicates: pa.Table | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (table, rows) of the stages of a pass; see the head of this file."""
    wanted = np.ones(len(catalog), bool)
    if images is not None:
        wanted = accepted_mask(images) & _kept_mask(catalog, duplicates)
    rows = np.flatnonzero(wanted)
    how = _Reading.of(stages, None if images is None else images.take(rows))
    decoded = how.decode_all(catalog.take(rows), source_of(catalog))
    with progress.track(f"{' + '.join(stages)} part {part}", len(rows), unit="images") as advance:
        for start in range(0, len(catalog), CHUNK_ROWS):
            ids = catalog["image_id"].slice(start, CHUNK_ROWS).combine_chunks()
            collectors = {name: stage.collect(ids) for name, stage in stages.items()}
            here = np.flatnonzero(wanted[start : start + CHUNK_ROWS]).tolist()
            for row, prepared in zip(here, itertools.islice(decoded, len(here)), strict=True):
                for collector, kept in zip(collectors.values(), prepared, strict=True):
                    if kept is not None:
                        collector.add(row, kept)
                advance(1)
            yield from ((name, collector.batch()) for name, collector in collectors.items())


def accepted_mask(images: pa.Table) -> np.ndarray:
    """(N,) bool: images that were not rejected."""
    mask: np.ndarray = images["reject"].is_null().to_numpy()
    return mask


def _kept_mask(catalog: pa.Table, duplicates: pa.Table | None) -> np.ndarray:
    """(N,) bool: curated images and, of the pool, those that deduplication kept; all without a verdict."""
    if duplicates is None:
        return np.ones(len(catalog), bool)
    role = catalog["role"][0].as_py() if len(catalog) else "pool"
    mask = np.full(len(catalog), role == "curated")
    if role == "pool":
        kept = duplicates.filter(pc.equal(duplicates["verdict"], "kept"))["image_id"].to_numpy()
        mask[row_of(kept)] = True
    return mask


@dataclass(frozen=True)
class _Reading:
    """How the images of a part are read, decoded and prepared."""

    stages: tuple[PictureStage, ...]
    limits: ImageLimits
    side: int
    """Pixels of the short side that decoding keeps at least."""
    known: tuple[bytes | None, ...] | None
    """SHA-256 of each image as an earlier pass found it; None: this is the first pass."""

    @classmethod
    def of(cls, stages: Mapping[str, PictureStage], images: pa.Table | None) -> "_Reading":
        """For a first pass, or for the images that an earlier one accepted.

        Raises:
            ConfigError: the stage that judges images decodes them smaller than another stage needs.
        """
        needed = max(stage.least_side() for stage in stages.values())
        judging = next((stage for stage in stages.values() if stage.first_pass() is not None), None)
        if judging is not None:
            first = judging.first_pass()
            assert first is not None
            limits, side = first
            if needed > side:
                raise judging.field_error(
                    "decode_side", f"={side}: {', '.join(stages)} need pictures of {needed} pixels; set it to {needed}"
                )
        elif images is None:
            limits, side = TRUSTING, needed
        else:
            side = needed
            largest = max(images["num_bytes"].to_pylist(), default=1)
            limits = TRUSTING.model_copy(update={"max_bytes": largest})
        known = None if images is None else tuple(images["sha256"].to_pylist())
        return cls(tuple(stages.values()), limits, side, known)

    def decode_all(self, rows: pa.Table, source: Source) -> Iterator[list[Any]]:
        """What each stage prepared of each image, in order; a few images are decoded before they are asked for."""
        ahead = BATCHES_AHEAD * max(stage.images_ahead() for stage in self.stages)
        jobs = self._jobs(rows, source)
        pending: queue.SimpleQueue[Future[list[Any]]] = queue.SimpleQueue()
        with ThreadPoolExecutor(pa.cpu_count(), "decode") as pool:
            try:
                for job in itertools.islice(jobs, ahead):
                    pending.put(pool.submit(job))
                while not pending.empty():
                    done = pending.get().result()
                    for job in itertools.islice(jobs, 1):
                        pending.put(pool.submit(job))
                    yield done
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _jobs(self, rows: pa.Table, source: Source) -> Iterator[Callable[[], list[Any]]]:
        places = list(zip(rows["uri"].to_pylist(), rows["key"].to_pylist(), strict=True))
        known = self.known or itertools.repeat(None, len(places))
        if is_loose(rows, source):
            read_file = partial(
                read_folder_file, max_bytes=self.limits.max_bytes, columns=source.columns, extra=self.known is None
            )
            for place, sha256 in zip(places, known, strict=True):
                yield partial(self._read_and_decode, read_file, sha256, place)
        else:  # an archive is streamed in order by this thread, decoded by the others
            reads = _placed_reads(read_part(rows, source, max_bytes=self.limits.max_bytes), places)
            for read, sha256, place in zip(reads, known, places, strict=True):
                yield partial(self._decode, read, sha256, place)

    def _read_and_decode(self, read: Callable[[str], Read], sha256: bytes | None, place: _Place) -> list[Any]:
        with _told_with(place):
            found = read(place[0])
        return self._decode(found, sha256, place)

    def _decode(self, read: Read, sha256: bytes | None, place: _Place) -> list[Any]:
        """What every stage prepares of one image; `sha256` is what an earlier pass found, if there was one."""
        with _told_with(place):
            inspected = None
            if read.data is not None:
                inspected = inspect_image(read.data, self.limits, min_side=self.side)
            if sha256 is not None:
                _check_unchanged(read, inspected, sha256, place[0])
            seen = Seen(read, inspected)
            return [stage.prepare(seen) for stage in self.stages]


def _placed_reads(reads: Iterator[Read], places: Sequence[_Place]) -> Iterator[Read]:
    """What a format yields; its errors tell which image was to come."""
    for number in itertools.count():
        with _told_with(places[min(number, len(places) - 1)]):
            read = next(reads, None)
        if read is None:
            return
        yield read


@contextlib.contextmanager
def _told_with(place: _Place) -> Iterator[None]:
    """Add to an error the image that it came of, unless it tells; the kind of error stays."""
    try:
        yield
    except Exception as error:
        uri, key = place
        if not (isinstance(error, CurateError) and uri in str(error)):
            error.add_note(f"of the image {key} in {uri}")
        raise


def _check_unchanged(read: Read, inspected: Inspected | None, sha256: bytes, uri: str) -> None:
    """Raise SourceError where an image is not the one that an earlier pass accepted."""
    if inspected is None:
        raise SourceError(f"{uri}: could be read in the first pass, but not now: {read.error}; restore it")
    if inspected.sha256 != sha256:
        raise SourceError(
            f"{uri}: changed since it was inspected (other sha256); restore it, or start anew with --rebuild all"
        )
    if inspected.picture is None:
        raise SourceError(
            f"{uri}: was accepted when it was inspected, but is {inspected.reject} now ({inspected.detail}); go "
            "back to the Pillow of that run, or start anew with --rebuild all"
        )
