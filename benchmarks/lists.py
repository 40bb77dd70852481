"""Lists of hashes: what reading and matching a million of them costs beside the pass over the images.

The list holds random PDQ hashes, of which nothing in the pool is near, and hashes of some of the pool's own pictures as
PDQ's own code makes them at full size. The real stages read and match it, each in a process of its own. The peer of the
search is a comparison of each query with every hash, and that of matching is the pass that decodes, hashes and embeds
the same kind of pictures.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pdqhash
import pyarrow as pa
import typer
from PIL import Image

from benchmarks.figures import Figure, measured, show
from curate.cli.arguments import Json
from curate.engine.threads import set_threads
from curate.ops.images.hashes import HASH_BYTES, dihedral, pdq
from curate.ops.screening.near_hashes import NearHashes
from curate.samples.bundled import PHOTOS
from curate.sources.config import Source, Sources
from curate.sources.hash_lists import HashList
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import read_pictures
from curate.stages.screening.match_lists import FACTS, MatchLists

PART_ROWS = 65_536
"""Images of a part of the catalog."""
COMPARED = 64
"""Queries that are compared with every hash."""


class Sizes(NamedTuple):
    """What is measured on."""

    listed: int
    """Hashes of the list."""
    images: int
    """Images that are matched."""
    photos: int
    """Photographs of the pass."""


def bench_lists(sizes: Sizes, folder: Path) -> list[Figure]:
    """Seconds, memory and recall of lists.

    Args:
        folder: where the list is written.
    """
    photos = sorted(PHOTOS.glob("*/*.jpg"))[: sizes.photos]
    path = write_list(folder / "list.txt", sizes.listed)
    reading, matching = measured(read, path), measured(match, path, sizes.images)
    idle, passing = measured(match, path, 0), measured(pass_over, [str(photo) for photo in photos])
    each = (matching.result - idle.result) / sizes.images
    of_pass = passing.result / len(photos)
    compared, within = measured(compare_all, sizes.listed).result, measured(recall, list(map(str, photos))).result
    peak = max(reading.peak_bytes, matching.peak_bytes) - measured(set_threads, 1).peak_bytes  # of the libraries
    return [
        Figure("memory of the list, beside the libraries", peak / 1e6, "MB", better="lower"),
        Figure("read the list", reading.result, "CPU s", better="lower"),
        Figure("read it and build the tables", idle.result, "CPU s", better="lower"),
        Figure(
            "match an image", 1e3 * each, "CPU ms", "with all hashes", 1e3 * compared, better="lower", peak_bytes=peak
        ),
        Figure("share of the pass", 100 * each / of_pass, "%", "the pass, CPU ms", 1e3 * of_pass, better="lower"),
        Figure("photographs found by their hash of PDQ's own code", 100 * within, "%", note="radius 31"),
    ]


def write_list(path: Path, number: int) -> Path:
    """Random hashes, one a line."""
    hashes = np.random.default_rng(0).integers(0, 256, (number, HASH_BYTES), np.uint8)
    path.write_text("\n".join(row.tobytes().hex() for row in hashes))
    return path


def _given(path: Path) -> HashList:
    return HashList(name="bench", path=str(path), kind="pdq")


def read(path: Path) -> float:
    """CPU seconds of reading the list."""
    start = time.process_time()
    _given(path).read()
    return time.process_time() - start


def match(path: Path, images: int) -> float:
    """CPU seconds of matching so many images in parts, on one thread."""
    set_threads(1)
    rng = np.random.default_rng(1)
    start, stage = time.process_time(), MatchLists(lists=(_given(path),))
    for first in range(0, max(1, images), PART_ROWS):
        rows = min(PART_ROWS, images - first)
        hashes = pa.array([row.tobytes() for row in rng.integers(0, 256, (rows, HASH_BYTES), np.uint8)], pa.binary(32))
        columns = [
            pa.array(np.arange(rows)),
            hashes,
            hashes,
            pa.nulls(rows, pa.binary(32)),
            pa.array([100] * rows, pa.int16()),
        ]
        list(stage.run(0, images=pa.table(columns, schema=FACTS), digests=None))
    return time.process_time() - start


def compare_all(listed: int) -> float:
    """CPU seconds of comparing a query, in its eight orientations, with every hash."""
    set_threads(1)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 256, (listed, HASH_BYTES), np.uint8).view(np.uint64)
    forms = dihedral(rng.integers(0, 256, (COMPARED, HASH_BYTES), np.uint8)).view(np.uint64).reshape(-1, 4)
    start = time.process_time()
    for form in forms:
        (np.bitwise_count(words ^ form).sum(axis=1, dtype=np.int16) <= 31).any()
    return (time.process_time() - start) / COMPARED


def pass_over(photos: list[str]) -> float:
    """CPU seconds of the first pass over photographs: decoding, facts, hashes and copy embeddings."""
    set_threads(1)
    folder = Path(tempfile.mkdtemp())
    for number, photo in enumerate(photos):
        shutil.copy(photo, folder / f"{number}.jpg")
    try:
        sources = Sources(pool=(Source(name="pool", path=str(folder)),))
        ((_, catalog),) = Catalog(sources=sources).scan(None)
        embed = Embed(model="lite0-copy", device="cpu", precision="fp32")
        list(read_pictures({"images": Inspect()}, 0, catalog=catalog.slice(0, 4)))  # imports
        embed.backbone()
        start = time.process_time()
        list(read_pictures({"images": Inspect(), "embeddings/copy": embed}, 0, catalog=catalog))
        return time.process_time() - start
    finally:
        shutil.rmtree(folder)


def recall(photos: list[str]) -> float:
    """Share of photographs that lie within 31 bits of their hash by PDQ's own code at full size, 0..1."""
    ours, theirs = [], []
    for photo in photos:
        with Image.open(photo) as opened:
            picture = opened.convert("RGB")
        bits, _ = pdqhash.compute(np.asarray(picture))
        theirs.append(np.packbits(bits.astype(np.uint8)))
        picture.thumbnail((512, 512))
        ours.append(np.frombuffer(pdq(picture)[0], np.uint8))
    near = NearHashes(np.stack(theirs), np.arange(len(theirs)), radius=31).find(np.stack(ours))
    return float((near.diagonal() <= 31).mean())


def command(
    listed: Annotated[int, typer.Option(help="PDQ hashes of the list")] = 1_000_000,
    images: Annotated[int, typer.Option(help="images that are matched")] = PART_ROWS,
    photos: Annotated[int, typer.Option(help="photographs of the pass beside it")] = 200,
    json_: Json = False,
) -> None:
    """A list of hashes: reading it, matching it, and what that is beside the pass over the images."""
    folder = Path(tempfile.mkdtemp())
    try:
        show(bench_lists(Sizes(listed, images, photos), folder), json_)
    finally:
        shutil.rmtree(folder)
