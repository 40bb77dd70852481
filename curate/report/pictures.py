"""Thumbnails of images wherever they lie: read safely, made small, put into the page as data."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.engine.finished import Finished
from curate.engine.image_ids import part_of, row_of
from curate.errors import CurateError
from curate.ops.images.bounds import Bounds
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import decode_picture
from curate.ops.images.depth import SignificantBits
from curate.report.markup import Content, Markup, el
from curate.sources.config import Source
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_bytes, read_loose
from curate.stages.images.catalog import source_of
from curate.surroundings import surrounded

HEIGHT = 128
"""Pixels of a thumbnail at most."""
WIDTH = 256
QUALITY = 70
"""Of the thumbnails' JPEG."""
MAX_BYTES = 64 << 20
"""Of an original that a thumbnail is made from."""
BUDGET = 5 << 20
"""Bytes of all thumbnails, a third more in the page; what comes after is left out."""
BOUNDS = Bounds(max_pixels=89_478_485, max_seconds=2)
"""Of decoding such an original, a guard against decompression bombs; otherwise rejected pictures are shown too."""
THREADS = 4
T = TypeVar("T")
LEFT_OUT = "left out to keep this page small"


@dataclass(frozen=True)
class Shown:
    """An image as the page knows it."""

    source: str
    role: str
    key: str
    data: bytes | None = None
    """JPEG thumbnail; None: `missing` says why there is none."""
    missing: str = ""


class Pictures:
    """The pictures of a page: `load` reads many at once, `figure` puts one into the page."""

    def __init__(self, run: Finished, *, budget: int = BUDGET) -> None:
        self.run = run
        self.left = budget
        self._shown: dict[int, Shown] = {}

    def load(self, image_ids: Iterable[int]) -> None:
        """Read the pictures that are not there yet, part by part: an archive is opened once a call."""
        wanted = np.array(sorted({int(i) for i in image_ids} - self._shown.keys()), np.int64)
        for part in np.unique(part_of(wanted)).tolist():
            self._load_part(part, wanted[part_of(wanted) == part])

    def _load_part(self, part: int, ids: np.ndarray) -> None:
        rows = self._rows(part, ids)
        names = rows.select(["source", "role", "key"]).to_pylist()
        with surrounded(
            workdir=self.run.store.below or self.run.store, settings={"offline": True}
        ):  # a page sends no requests
            thumbnails = list(_thumbnails(rows, self.left))
        for image_id, name, (data, why) in zip(ids.tolist(), names, thumbnails, strict=True):
            fits = data is None or len(data) <= self.left
            shown = Shown(**name, data=data if fits else None, missing=why if fits else LEFT_OUT)
            self.left -= len(shown.data or b"")
            self._shown[image_id] = shown

    def _rows(self, part: int, ids: np.ndarray) -> pa.Table:
        """Rows of the catalog."""
        return self.run.catalog_part(part).take(row_of(ids))

    def __getitem__(self, image_id: int) -> Shown:
        if int(image_id) not in self._shown:
            self.load([image_id])
        return self._shown[int(image_id)]

    def is_shown(self, image_id: int) -> bool:
        """Whether there is a picture to see."""
        return self[image_id].data is not None

    def figure(self, image_id: int, *caption: Content, mark: str = "") -> Markup:
        """The picture with lines of text under it; without a picture, a placeholder that says why.

        Args:
            mark: a class of the style sheet: kept, heldout, query or curated.
        """
        shown = self[image_id]
        lines = [el("span", line) for line in caption if line]
        if shown.data is None:
            inside = el("div", el("span", shown.missing), class_="none")
        else:
            inside = inline(shown.data, alt=shown.key)
        title = f"{shown.source}: {shown.key} (image {image_id})"
        return el("figure", inside, el("figcaption", lines) if lines else None, class_=mark or None, title=title)

    def grid(self, image_ids: Iterable[int]) -> Markup:
        """Pictures without captions."""
        ids = [int(i) for i in image_ids]
        self.load(ids)
        return el("div", [self.figure(i) for i in ids], class_="grid")


def inline(jpeg: bytes, *, alt: str) -> Markup:
    """A JPEG as part of the page."""
    return el("img", src=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}", alt=alt, loading="lazy")


def short_name(key: str, length: int = 24) -> str:
    """The last step of a key, shortened in the middle."""
    name = key.rsplit("/", 1)[-1]
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


def _thumbnails(rows: pa.Table, budget: int) -> Iterator[tuple[bytes | None, str]]:
    """(JPEG, "") or (None, why) for catalog rows of one part, in order."""
    if budget <= 0:
        yield from [(None, LEFT_OUT)] * len(rows)
        return
    yield from _of_each(rows, partial(_thumbnail, bits=source_of(rows).significant_bits))


def _of_each(rows: pa.Table, make: Callable[[Read], T]) -> Iterator[T]:
    """What `make` makes of the bytes of catalog rows of one part, in order."""
    with ThreadPoolExecutor(THREADS, "thumbnail") as pool:
        source = source_of(rows)
        if is_loose(rows, source):
            reads = read_loose(rows, source, max_bytes=MAX_BYTES, extra=False)
            yield from pool.map(lambda read: make(_read_file(read)), reads)
        else:
            yield from pool.map(make, _read_archives(rows, source))


def _read_file(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except CurateError as error:
        return Read(error=str(error))


def _read_archives(rows: pa.Table, source: Source) -> Iterator[Read]:
    """As `read_bytes`; from the first archive that fails on, every image says why instead."""
    done = 0
    try:
        for read in read_bytes(rows, source, max_bytes=MAX_BYTES):
            yield read
            done += 1
    except CurateError as error:
        yield from [Read(error=str(error))] * (len(rows) - done)


def _thumbnail(read: Read, bits: SignificantBits) -> tuple[bytes | None, str]:
    picture, why = _decoded(read, HEIGHT, bits)
    if picture is None:
        return None, why
    picture = _bounded(picture)
    picture.thumbnail((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return encode(picture), ""


def encode(picture: Image.Image) -> bytes:
    """A picture as a small JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _decoded(read: Read, min_side: int, bits: SignificantBits) -> tuple[Image.Image | None, str]:
    """(picture, "") or (None, why)."""
    if read.data is None:
        return None, read.error or "cannot be read"
    try:
        return decode_picture(read.data, min_side=min_side, bounds=BOUNDS, significant_bits=bits), ""
    except RejectedImage as rejected:
        return None, f"{rejected.reason}: {rejected}"


def _bounded(picture: Image.Image) -> Image.Image:
    """The picture, or for extreme shapes its middle: a thumbnail one pixel high shows nothing."""
    width, height = picture.size
    wide, tall = min(width, 8 * height), min(height, 8 * width)
    left, top = (width - wide) // 2, (height - tall) // 2
    return picture.crop((left, top, left + wide, top + tall)) if (wide, tall) != (width, height) else picture.copy()
