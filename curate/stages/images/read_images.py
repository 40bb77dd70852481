"""The pass over the images: each is read and decoded once, for every table that the pass makes."""

import itertools
import queue
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curate import progress
from curate.engine.stage import Stage
from curate.errors import ConfigError, SourceError
from curate.ops.images.decode import PIL_PIXELS
from curate.ops.images.hashes import pdq
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.preprocess import Preprocess, decode_side, preprocess
from curate.ops.vectors import pack
from curate.sources.config import Source
from curate.sources.folder import read_folder_file
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_part
from curate.stages.images.catalog import source_of
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect, accepted_mask, image_row
from curate.tables import IMAGES

CHUNK_ROWS = 1024
"""Images whose rows are written together; the last batch of a chunk may be smaller than the others."""
BATCHES_AHEAD = 4
"""Batches of images that are read or decoded before the model asks for them."""
TRUSTING = ImageLimits(min_side=1, max_aspect=1e9, min_luma_std=0, min_smoothness=-1, max_pixels=PIL_PIXELS)
"""For images that an earlier pass accepted, whatever its limits were; `max_bytes` is then what it found."""


@dataclass(frozen=True)
class _Decoded:
    """One image, as far as the decode threads bring it."""

    row: dict[str, Any]
    pixels: dict[str, np.ndarray]
    """Table name to (3, H, W) uint8; empty when rejected."""


@dataclass(frozen=True)
class _Wanted:
    """What a decode thread makes of each image."""

    limits: ImageLimits
    side: int
    """Pixels of the short side that decoding keeps at least."""
    preprocess: dict[str, Preprocess]
    hashed: bool

    def decode(self, read: Read, sha256: bytes | None, uri: str) -> _Decoded:
        """Inspect one image; `sha256` is what an earlier pass found, if there was one."""
        if read.data is None:
            if sha256 is not None:
                raise SourceError(f"{uri}: could be read in the first pass, but not now: {read.error}; restore it")
            return _Decoded(image_row(read, None, None), {})
        seen = inspect_image(read.data, self.limits, min_side=self.side)
        if sha256 is not None and seen.sha256 != sha256:
            raise SourceError(
                f"{uri}: changed since it was inspected (other sha256); restore it, or start anew with --rebuild all"
            )
        if seen.picture is None and sha256 is not None:
            raise SourceError(
                f"{uri}: was accepted when it was inspected, but is {seen.reject} now ({seen.detail}); go back to the "
                "Pillow of that run, or start anew with --rebuild all"
            )
        if seen.picture is None:
            return _Decoded(image_row(read, seen, None), {})
        pixels = {name: preprocess(seen.picture, how) for name, how in self.preprocess.items()}
        return _Decoded(image_row(read, seen, pdq(seen.picture) if self.hashed else None), pixels)


def read_images(
    stages: Mapping[str, Stage],
    part: int,
    *,
    catalog: pa.Table,
    images: pa.Table | None = None,
    duplicates: pa.Table | None = None,
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (table, rows) for the stages of a pass: `Inspect` and any number of `Embed`.

    A pass without Inspect reads the verdicts of an earlier one from `images`, opens only images that are
    wanted, and raises SourceError where one changed in between.
    """
    embeds = {name: stage for name, stage in stages.items() if isinstance(stage, Embed)}
    inspect = {name: stage for name, stage in stages.items() if isinstance(stage, Inspect)}
    wanted = np.ones(len(catalog), bool)
    hashes: list[bytes | None] = [None] * len(catalog)
    if images is not None:
        wanted = accepted_mask(images) & _kept_mask(catalog, duplicates)
        hashes = images["sha256"].to_pylist()
    rows = np.flatnonzero(wanted)
    trusting = TRUSTING if images is None else _trusting(images.take(rows))
    how = _what_to_decode(inspect, {name: stage.backbone().preprocess for name, stage in embeds.items()}, trusting)
    ahead = BATCHES_AHEAD * max([stage.batch_size for stage in embeds.values()], default=32)
    decoded = _decode_all(catalog.take(rows), source_of(catalog), how, [hashes[row] for row in rows], ahead=ahead)
    with progress.track(f"{' + '.join(stages)} part {part}", len(rows), unit="images") as advance:
        for start in range(0, len(catalog), CHUNK_ROWS):
            ids = catalog["image_id"].slice(start, CHUNK_ROWS).combine_chunks()
            vectors = {name: _Vectors(stage, len(ids)) for name, stage in embeds.items()}
            facts = []
            here = np.flatnonzero(wanted[start : start + CHUNK_ROWS]).tolist()
            for row, one in zip(here, itertools.islice(decoded, len(here)), strict=True):
                facts.append(one.row)
                for name, pixels in one.pixels.items():
                    vectors[name].add(row, pixels)
                advance(1)
            for name in inspect:
                yield name, _image_batch(ids, facts)
            for name, column in vectors.items():
                yield name, column.batch(ids)


class _Vectors:
    """The vectors of a chunk; the model runs whenever the pixels of a batch are there, while threads decode on."""

    def __init__(self, stage: Embed, num_rows: int) -> None:
        self._stage = stage
        self._vectors = np.zeros((num_rows, stage.backbone().dim), stage.dtype)
        self._valid = np.zeros(num_rows, bool)
        self._rows: list[int] = []
        self._pixels: list[np.ndarray] = []

    def add(self, row: int, pixels: np.ndarray) -> None:
        self._rows.append(row)
        self._pixels.append(pixels)
        if len(self._rows) == self._stage.batch_size:
            self._embed()

    def _embed(self) -> None:
        self._vectors[self._rows] = self._stage.embed(self._pixels)
        self._valid[self._rows] = True
        self._rows, self._pixels = [], []

    def batch(self, ids: pa.Array) -> pa.RecordBatch:
        """The rows of the whole chunk, null where there was no picture."""
        if self._rows:
            self._embed()
        column = pack(self._vectors, valid=self._valid)
        return pa.RecordBatch.from_arrays([ids, column], schema=self._stage.output_schema())


def _trusting(images: pa.Table) -> ImageLimits:
    """Limits that an image can fail only if it changed since it was accepted."""
    return TRUSTING.model_copy(update={"max_bytes": max(images["num_bytes"].to_pylist(), default=1)})


def _what_to_decode(inspect: Mapping[str, Inspect], wanted: dict[str, Preprocess], trusting: ImageLimits) -> _Wanted:
    """Facts and hashes must not depend on which embeddings share the pass, so Inspect alone sets the size."""
    needed = decode_side(wanted.values(), at_least=64)
    if not inspect:
        return _Wanted(trusting, needed, wanted, hashed=False)
    (stage,) = inspect.values()
    if needed > stage.decode_side:
        raise ConfigError(
            f"inspect.decode_side={stage.decode_side}: {', '.join(wanted)} needs pictures of {needed} pixels; "
            f"set it to {needed}"
        )
    return _Wanted(stage.limits, stage.decode_side, wanted, hashed=True)


def _kept_mask(catalog: pa.Table, duplicates: pa.Table | None) -> np.ndarray:
    """(N,) bool: curated images and, of the pool, those that deduplication kept; all without a verdict."""
    if duplicates is None:
        return np.ones(len(catalog), bool)
    role = catalog["role"][0].as_py() if len(catalog) else "pool"
    mask = np.full(len(catalog), role == "curated")
    if role == "pool":
        kept = duplicates.filter(pa.compute.equal(duplicates["verdict"], "kept"))["image_id"].to_numpy()
        mask[kept & 0xFFFFFFFF] = True
    return mask


def _image_batch(ids: pa.Array, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = [ids] + [pa.array([row[f.name] for row in rows], f.type) for f in list(IMAGES)[1:]]
    return pa.RecordBatch.from_arrays(columns, schema=IMAGES)


def _decode_all(
    rows: pa.Table, source: Source, how: _Wanted, hashes: list[bytes | None], *, ahead: int
) -> Iterator[_Decoded]:
    """Decode in threads, `ahead` images at most before they are asked for; results in order."""
    uris = rows["uri"].to_pylist()
    max_bytes = how.limits.max_bytes
    if is_loose(rows, source):
        readers = (
            partial(read_folder_file, uri, max_bytes=max_bytes, columns=source.columns, extra=how.hashed)
            for uri in uris
        )
        jobs = (
            lambda read=read, sha=sha, uri=uri: how.decode(read(), sha, uri)
            for read, sha, uri in zip(readers, hashes, uris, strict=True)
        )
    else:  # an archive is streamed in order by this thread, decoded by the others
        reads = read_part(rows, source, max_bytes=max_bytes)
        jobs = (partial(how.decode, read, sha, uri) for read, sha, uri in zip(reads, hashes, uris, strict=True))
    pending: queue.SimpleQueue[Future[_Decoded]] = queue.SimpleQueue()
    with ThreadPoolExecutor(torch.get_num_threads(), "decode") as pool:
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
