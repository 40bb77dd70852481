"""The pass over the images: each is read and decoded ONCE, for every table that still misses this part."""

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
from curate.errors import ConfigError, SourceError
from curate.ops.hashes import pdq
from curate.ops.images import ImageLimits, Preprocess, decode_side, inspect_image, preprocess
from curate.ops.vectors import pack
from curate.sources.config import Source
from curate.sources.folder import read_folder_file
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_part
from curate.stage import Stage
from curate.stages.catalog import source_of
from curate.stages.embed import Embed
from curate.stages.inspect import Inspect, accepted_mask, image_row
from curate.tables import IMAGES

CHUNK_ROWS = 1024
"""Images whose rows are written together; the last batch of a chunk may be smaller than the others."""
READ_AHEAD = 64
"""Images that are read or decoded before the model asks for them."""
TRUSTING = ImageLimits(min_side=1, max_aspect=1e9, min_luma_std=0, min_smoothness=-1)
"""For images that an earlier pass accepted."""


@dataclass(frozen=True)
class _Decoded:
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
    how = _what_to_decode(inspect, {name: stage.backbone().preprocess for name, stage in embeds.items()})
    rows = np.flatnonzero(wanted)
    decoded = _decode_all(catalog.take(rows), source_of(catalog), how, [hashes[row] for row in rows])
    with progress.track(f"{' + '.join(stages)} part {part}", len(rows), unit="images") as advance:
        for start in range(0, len(catalog), CHUNK_ROWS):
            ids = catalog["image_id"].slice(start, CHUNK_ROWS).combine_chunks()
            here = np.flatnonzero(wanted[start : start + CHUNK_ROWS])
            chunk = _count(itertools.islice(decoded, len(here)), advance)
            for name in inspect:
                yield name, _image_batch(ids, [one.row for one in chunk])
            accepted = here[np.array([one.row["reject"] is None for one in chunk], bool)]
            for name, stage in embeds.items():
                yield name, _vector_batch(ids, stage, [one.pixels[name] for one in chunk if one.pixels], accepted)


def _count(decoded: Iterator[_Decoded], advance: progress.Advance) -> list[_Decoded]:
    chunk = []
    for one in decoded:
        chunk.append(one)
        advance(1)
    return chunk


def _what_to_decode(inspect: Mapping[str, Inspect], wanted: dict[str, Preprocess]) -> _Wanted:
    """Facts and hashes must not depend on which embeddings share the pass, so Inspect alone sets the size."""
    needed = decode_side(wanted.values(), at_least=64)
    if not inspect:
        return _Wanted(TRUSTING, needed, wanted, hashed=False)
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


def _vector_batch(ids: pa.Array, stage: Embed, pixels: list[np.ndarray], rows: np.ndarray) -> pa.RecordBatch:
    vectors = np.zeros((len(ids), stage.backbone().dim), stage.dtype)
    valid = np.zeros(len(ids), bool)
    if pixels:
        vectors[rows] = stage.embed(pixels)
        valid[rows] = True
    return pa.RecordBatch.from_arrays([ids, pack(vectors, valid=valid)], schema=stage.output_schema())


def _decode_all(rows: pa.Table, source: Source, how: _Wanted, hashes: list[bytes | None]) -> Iterator[_Decoded]:
    """Decode in threads, a bounded number of images ahead; results in order."""
    uris = rows["uri"].to_pylist()
    max_bytes = how.limits.max_bytes
    if is_loose(rows):
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
            for job in itertools.islice(jobs, READ_AHEAD):
                pending.put(pool.submit(job))
            while not pending.empty():
                done = pending.get().result()
                for job in itertools.islice(jobs, 1):
                    pending.put(pool.submit(job))
                yield done
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
