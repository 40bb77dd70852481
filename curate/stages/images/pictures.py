"""Stages that look at pictures: each image is read and decoded once, for every table of a pass.

Reading and decoding cost more than most networks, so stages that need the picture share one reading. The difficulty
is that they need it at other sizes, on other processors and for other images. A pass therefore has three layers. One
thread streams archives in order, since tars are read from front to back; files of a folder are read where they are
decoded. Threads have each image decoded at the largest size that any stage needs, in processes that bound what it costs
(`ops/images/apart.py`), and let every stage prepare what it keeps of it (facts and a hash, or the pixels of its
network). The task's own thread collects what they prepared, in the
order of rows, and runs a network whenever a batch is full, while the threads decode on. Results do not depend on the
number of threads, since batches are formed in the order of rows.

A first pass has an `Inspect`, which sets limits and decoding size: facts and hashes must not depend on which networks
share the pass. What the limits ask of a picture, beyond that it is safe to decode, they ask of the pool alone: a
curated image is wanted, and a held-out one is compared with the pool, whatever its size. A later pass reads the
verdicts of the first and opens only images that are wanted.

Rows that an earlier run left of the same bytes and networks are taken as they are (`engine/row_reuse.py`), and the
other images are read alone. So are those that an error kept away which may pass: they are open in every table of the
pass. An image that is gone by the time of a later pass, or changed, costs itself alone: it stays accepted, and has no
row of its own in that table.
"""

import contextlib
import hashlib
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from curate import progress
from curate.engine.image_ids import Parts, row_of
from curate.engine.part_writer import mark_open
from curate.engine.row_reuse import BLOCK_ROWS, Earlier
from curate.engine.stage import Input, SharedMap, each
from curate.engine.table import Table
from curate.errors import CurateError, SourceError
from curate.ops.images.apart import end_decoders
from curate.ops.images.borders import without_border
from curate.ops.images.bounds import ACCEPTED
from curate.ops.images.decoding import inspect_picture
from curate.ops.images.depth import SignificantBits
from curate.ops.images.inspect import ImageLimits, Inspected
from curate.sources.config import Source
from curate.sources.read import UNAVAILABLE, Read
from curate.sources.reading import is_loose, read_bytes, read_loose, read_part
from curate.sources.uri import is_remote
from curate.stages.copies.verdict_tally import VerdictTally
from curate.stages.images.catalog import source_of
from curate.stages.images.image_tally import RejectTally
from curate.tables import CATALOG, CHOSEN, CURATED, DUPLICATES, IMAGES, POOL

logger = logging.getLogger(__name__)

CHUNK_ROWS = 1024
"""Images whose rows are written together; the last batch of a chunk may be smaller than the others."""
REMOTE_THREADS = 16
"""Threads that read and decode files of web servers and object stores, which wait most of the time: a server that
hangs stops one of them."""
BATCHES_AHEAD = 4
"""Batches of images that are read or decoded before a network asks for them."""
TRUSTING = ImageLimits(**asdict(ACCEPTED)).for_safety_alone()
"""Limits for images that an earlier pass accepted, whatever its own were; `max_bytes` is then what it found."""


_Place = tuple[str, str]
"""(uri, key) of an image, by which a person finds it."""


@dataclass(frozen=True)
class Seen:
    """One image, as a stage of a pass gets it."""

    read: Read
    """Its bytes, or why there are none, and the source's own columns."""
    inspected: Inspected | None
    """Facts and, when accepted, the picture; None: there are no bytes."""

    @property
    def picture(self) -> Image.Image | None:
        """The picture, RGB; None when it was rejected or there are no bytes."""
        return None if self.inspected is None else self.inspected.picture

    @cached_property
    def within_border(self) -> Image.Image | None:
        """What a border of one color surrounds, looked for once for all stages; None: there is none."""
        return None if self.picture is None else without_border(self.picture)


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
        "chosen": each(CHOSEN, optional=True),
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
            SourceError: an archive is damaged, or an image that an earlier pass accepted does not decode any more.
        """
        yield from read_pictures(stages, part, **tables)

    @classmethod
    def contents(cls, part: int, **tables: Any) -> list[str]:
        """Of a later pass the bytes of the images, as the first one found them; before it nobody knows them."""
        catalog, images = tables["catalog"], tables.get("images")
        if images is None or not len(catalog):
            return []
        bits, found = source_of(catalog).significant_bits, images["sha256"].to_pylist()
        return [_digest(bits, found[start : start + BLOCK_ROWS]) for start in range(0, len(found), BLOCK_ROWS)]

    @classmethod
    def run_again(
        cls, stages: Mapping[str, Self], part: int, *, earlier: Earlier, **tables: Any
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of an earlier run where they are known; the other images alone are read."""
        aligned = len(earlier.known) == len(tables["catalog"])  # not where the catalog was listed anew
        yield from read_pictures(stages, part, earlier=earlier if aligned else None, **tables)


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


def count_wanted(catalog: Table, images: Table, duplicates: Table | None) -> int:
    """Images that a later pass opens, see `_kept_mask`; a verdict is on accepted images alone."""
    accepted = [part.accepted for part in RejectTally.by_part(images)]
    if duplicates is None:
        return sum(accepted)
    parts, kept = Parts.of(catalog), VerdictTally.by_part(duplicates)
    curated = sum(accepted[number] for number in parts.numbers(CURATED))
    return curated + sum(kept[number].kept for number in parts.numbers(POOL))


def _digest(bits: SignificantBits, sha256: Sequence[bytes | None]) -> str:
    """What the pictures of some images are made from; null: no bytes were had, so there is none."""
    return hashlib.sha256(b"".join([str(bits).encode(), *(one or b"none" for one in sha256)])).hexdigest()[:16]


def _completed(batch: pa.RecordBatch, earlier: pa.Table, taken: np.ndarray) -> pa.RecordBatch:
    """The rows of a chunk: those `taken` from what an earlier run left, the others from `batch`."""
    known = earlier.replace_schema_metadata(batch.schema.metadata).cast(batch.schema)
    place = np.arange(len(batch)) + np.where(taken, 0, len(batch))
    rows = pa.concat_tables([known, pa.Table.from_batches([batch])]).take(place)
    (whole,) = rows.combine_chunks().to_batches()
    return whole


def read_pictures(
    stages: Mapping[str, PictureStage],
    part: int,
    *,
    catalog: pa.Table,
    images: pa.Table | None = None,
    duplicates: pa.Table | None = None,
    chosen: pa.Table | None = None,
    earlier: Earlier | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (table, rows) of the stages of a pass; see the head of this file."""
    wanted = wanted_rows(catalog, images, duplicates, chosen)
    taken = np.zeros(len(catalog), bool) if earlier is None else wanted & earlier.known
    wanted &= ~taken
    rows = np.flatnonzero(wanted)
    role = catalog["role"][0].as_py() if len(catalog) else "pool"
    source = source_of(catalog)
    how = _Reading.of(stages, None if images is None else images.take(rows), source, role=role)
    decoded = how.decode_all(catalog.take(rows), source)
    with progress.track(f"{' + '.join(stages)} part {part}", len(rows), unit="images") as advance:
        for start in range(0, len(catalog), CHUNK_ROWS):
            ids = catalog["image_id"].slice(start, CHUNK_ROWS).combine_chunks()
            collectors = {name: stage.collect(ids) for name, stage in stages.items()}
            here = np.flatnonzero(wanted[start : start + CHUNK_ROWS]).tolist()
            missing: list[int] = []
            for row, prepared in zip(here, itertools.islice(decoded, len(here)), strict=True):
                if prepared.is_open:
                    missing.append(row)
                for collector, kept in zip(collectors.values(), prepared.kept, strict=True):
                    if kept is not None:
                        collector.add(row, kept)
                advance(1)
            for name, collector in collectors.items():
                batch = collector.batch()
                if earlier is not None and name in earlier.tables:
                    batch = _completed(batch, earlier.tables[name].read(len(batch)), taken[start : start + len(batch)])
                yield name, mark_open(batch, len(missing), rows=missing)


def wanted_rows(
    catalog: pa.Table, images: pa.Table | None, duplicates: pa.Table | None, chosen: pa.Table | None
) -> np.ndarray:
    """(N,) bool: images of a part that a pass opens; a first pass, which has no `images` yet, opens all of them."""
    wanted = np.ones(len(catalog), bool)
    if images is not None:
        wanted = accepted_mask(images) & _kept_mask(catalog, duplicates)
    if chosen is not None:
        wanted &= np.isin(np.arange(len(catalog)), row_of(chosen["image_id"].to_numpy()))
    return wanted


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


class _Prepared(NamedTuple):
    """What the stages of a pass keep of one image."""

    kept: list[Any]
    """In the order of the stages; None: nothing."""
    is_open: bool = False
    """Whether it could not be had this time."""


@dataclass(frozen=True)
class _Reading:
    """How the images of a part are read, decoded and prepared."""

    stages: tuple[PictureStage, ...]
    limits: ImageLimits
    side: int
    """Pixels of the short side that decoding keeps at least."""
    bits: SignificantBits
    """Of the source, see `Source.significant_bits`."""
    known: tuple[bytes | None, ...] | None
    """SHA-256 of each image as an earlier pass found it; None: this is the first pass."""
    stopped: threading.Event
    """Set when what is decoded is no longer wanted."""

    @classmethod
    def of(
        cls, stages: Mapping[str, PictureStage], images: pa.Table | None, source: Source, *, role: str
    ) -> "_Reading":
        """For a first pass over images of a role, or for those of them that an earlier one accepted.

        Raises:
            ConfigError: the stage that judges images decodes them smaller than another stage needs.
        """
        needed = max(stage.least_side() for stage in stages.values())
        judging = next((stage for stage in stages.values() if stage.first_pass() is not None), None)
        if judging is not None:
            first = judging.first_pass()
            assert first is not None
            limits, side = first
            if role != "pool":
                limits = limits.for_safety_alone()
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
        return cls(tuple(stages.values()), limits, side, source.significant_bits, known, threading.Event())

    def decode_all(self, rows: pa.Table, source: Source) -> Iterator[_Prepared]:
        """What each stage prepared of each image, in order; a few images are decoded before they are asked for."""
        ahead = BATCHES_AHEAD * max(stage.images_ahead() for stage in self.stages)
        jobs = self._jobs(rows, source)
        waits = len(rows) > 0 and is_loose(rows, source) and is_remote(rows["uri"][0].as_py())
        threads = max(pa.cpu_count(), REMOTE_THREADS) if waits else pa.cpu_count()
        pending: queue.SimpleQueue[Future[_Prepared]] = queue.SimpleQueue()
        pool = ThreadPoolExecutor(threads, "decode")
        try:
            for job in itertools.islice(jobs, ahead):
                pending.put(pool.submit(copy_context().run, job))  # with the settings of the network
            while not pending.empty():
                done = pending.get().result()
                for job in itertools.islice(jobs, 1):
                    pending.put(pool.submit(copy_context().run, job))
                yield done
        except BaseException as error:
            end_decoders(self.stopped)
            # Ctrl-C, or nobody asks any more: a server that hangs must not keep the prompt away.
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            raise
        pool.shutdown(wait=True)

    def _jobs(self, rows: pa.Table, source: Source) -> Iterator[Callable[[], _Prepared]]:
        places = list(zip(rows["uri"].to_pylist(), rows["key"].to_pylist(), strict=True))
        known = self.known or itertools.repeat(None, len(places))
        if is_loose(rows, source):
            files = read_loose(rows, source, max_bytes=self.limits.max_bytes, extra=self.known is None)
            for read_file, sha256, place in zip(files, known, places, strict=True):
                yield partial(self._read_and_decode, read_file, sha256, place)
        else:  # an archive is streamed in order by this thread, decoded by the others
            read_all = read_part if self.known is None else read_bytes  # own columns are those of the first pass
            reads = read_all(rows, source, max_bytes=self.limits.max_bytes, damaged=self.known is not None)
            for read, sha256, place in zip(_placed_reads(reads, places), known, places, strict=True):
                yield partial(self._decode, read, sha256, place)

    def _read_and_decode(self, read: Callable[[], Read], sha256: bytes | None, place: _Place) -> _Prepared:
        with _told_with(place):
            found = read()
        return self._decode(found, sha256, place)

    def _decode(self, read: Read, sha256: bytes | None, place: _Place) -> _Prepared:
        """What every stage prepares of one image; `sha256` is what an earlier pass found, if there was one."""
        is_open = read.reject == UNAVAILABLE
        with _told_with(place):
            inspected = None
            if read.data is not None:
                inspected = inspect_picture(
                    read.data, self.limits, min_side=self.side, significant_bits=self.bits, stopped=self.stopped
                )
            if sha256 is not None and not _is_unchanged(read, inspected, sha256, place[0]):
                return _Prepared([None] * len(self.stages), is_open)
            seen = Seen(read, inspected)
            return _Prepared([stage.prepare(seen) for stage in self.stages], is_open)


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


def _is_unchanged(read: Read, inspected: Inspected | None, sha256: bytes, uri: str) -> bool:
    """Whether an image is the one that an earlier pass accepted.

    Raises:
        SourceError: it is, but does not decode any more.
    """
    if inspected is None:
        logger.warning("%s: could be read in the first pass, but not now: %s", uri, read.error)
        return False
    if inspected.sha256 != sha256:
        logger.warning("%s: changed since it was inspected (other sha256); it is left out", uri)
        return False
    if inspected.picture is None:
        raise SourceError(
            f"{uri}: was accepted when it was inspected, but is {inspected.reject} now ({inspected.detail}); go "
            "back to the Pillow of that run, or start anew with --rebuild all"
        )
    return True
