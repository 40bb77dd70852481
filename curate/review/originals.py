"""Pictures of a run as a browser shows them: the bytes of the source where it knows their format, else decoded."""

import io
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from curate.engine.finished import Finished
from curate.errors import CurateError
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import decode_picture
from curate.ops.images.formats import sniff
from curate.report.pictures import BOUNDS, HEIGHT, MAX_BYTES, WIDTH, encode
from curate.review.rows import read_rows
from curate.sources.config import Source
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import source_of
from curate.stages.images.inspect import Inspect
from curate.tables import CATALOG
from curate.text import visible_line

TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""Formats that browsers show, by the first bytes of a file. SVG, which can hold scripts, is none that is read."""
SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
}
HEAD_BYTES = 4096
EXACT_PIXELS = 1 << 20
"""A larger picture is sent as JPEG where it must be decoded; a smaller one loses nothing."""
QUALITY = 92
KEPT_PLACES, KEPT_THUMBNAILS = 8192, 32 << 20
"""Places of images, and bytes of thumbnails, that are held."""


class Served(NamedTuple):
    """A picture for a browser."""

    data: bytes
    content_type: str


class _Place(NamedTuple):
    row: pa.Table
    """Of the catalog."""
    plain: bool
    """Whether a browser may have the bytes as they are: decoding them is known to cost little."""


class NotShown(CurateError):
    """A picture cannot be shown; the text says why."""


class Originals:
    """Reads pictures; for several threads to call."""

    def __init__(self, run: Finished) -> None:
        self._run, self._lock = run, Lock()
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._thumbnails: OrderedDict[int, tuple[bytes | None, str]] = OrderedDict()
        self._bytes = 0

    def know(self, image_ids: Iterable[int]) -> None:
        """Read where images lie, those of a page at once: a part of the catalog is opened once for all of them."""
        assert self._run.catalog is not None
        inspected = self._run.only(Inspect)
        with self._lock:
            wanted = np.array([one for one in image_ids if one not in self._places], np.int64)
            plain = set()
            for rows in read_rows(inspected[1], wanted, ["width", "height", "reject"]) if inspected else ():
                plain |= {row["image_id"] for row in rows.to_pylist() if _is_plain(row)}
            for rows in read_rows(self._run.catalog, wanted, CATALOG.names[1:]):
                for at, image_id in enumerate(rows["image_id"].to_pylist()):
                    self._places[image_id] = _Place(rows.take([at]), image_id in plain)
            while len(self._places) > max(KEPT_PLACES, len(wanted)):
                self._places.popitem(last=False)

    def _place(self, image_id: int) -> "_Place":
        if image_id not in self._places and self._run.parts.has(image_id):
            self.know([image_id])
        place = self._places.get(image_id)
        if place is None:
            raise NotShown(f"there is no image {image_id}")
        return place

    def thumbnail(self, image_id: int) -> Served:
        """A small JPEG.

        Raises:
            NotShown: the picture cannot be read or decoded.
        """
        with self._lock:
            found = self._thumbnails.get(image_id)
        if found is None:
            try:
                found = encode(_small(_decoded(*self._read(image_id), min_side=HEIGHT))), ""
            except NotShown as error:
                found = None, str(error)
            with self._lock:
                self._bytes += len(found[0] or b"") - len(self._thumbnails.get(image_id, (b"", ""))[0] or b"")
                self._thumbnails[image_id] = found
                while self._bytes > KEPT_THUMBNAILS:
                    self._bytes -= len(self._thumbnails.popitem(last=False)[1][0] or b"")
        data, why = found
        if data is None:
            raise NotShown(why)
        return Served(data, "image/jpeg")

    def picture(self, image_id: int) -> Served:
        """The picture at full size.

        Raises:
            NotShown: it cannot be read, decoded, or is too large.
        """
        data, source = self._read(image_id)
        content_type = TYPES.get(sniff(data[:HEAD_BYTES]) or "")
        if content_type is not None and self._place(image_id).plain:
            return Served(data, content_type)
        picture = _decoded(data, source)
        file, exact = io.BytesIO(), picture.width * picture.height <= EXACT_PIXELS
        picture.save(file, **({"format": "PNG"} if exact else {"format": "JPEG", "quality": QUALITY}))
        return Served(file.getvalue(), "image/png" if exact else "image/jpeg")

    def _read(self, image_id: int) -> tuple[bytes, Source]:
        row = self._place(image_id).row
        source = source_of(row)
        try:
            (read,) = read_bytes(row, source, max_bytes=MAX_BYTES)
        except CurateError as error:
            raise NotShown(visible_line(str(error))) from error
        if read.data is None:
            raise NotShown(visible_line(read.error or "it cannot be read"))
        return read.data, source


def _decoded(data: bytes, source: Source, *, min_side: int | None = None) -> Image.Image:
    try:
        return decode_picture(data, min_side=min_side, bounds=BOUNDS, significant_bits=source.significant_bits)
    except RejectedImage as error:
        raise NotShown(visible_line(f"{error.reason}: {error}")) from error


def _small(picture: Image.Image) -> Image.Image:
    """A thumbnail; of extreme shapes the middle, since one a pixel high shows nothing."""
    width, height = picture.size
    middle = ImageOps.fit(picture, (min(width, 8 * height), min(height, 8 * width)))
    middle.thumbnail((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return middle


def _is_plain(row: dict[str, Any]) -> bool:
    """Whether its header was read, and neither that nor decoding was beyond the bounds."""
    known = row["width"] is not None and row["width"] * row["height"] <= BOUNDS.max_pixels
    return known and row["reject"] not in ("too_large", "too_slow")
