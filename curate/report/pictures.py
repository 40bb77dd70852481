"""Pictures of images wherever they lie: read safely, drawn anew, put into the page or into a folder beside it.

A picture is decoded once, and made into two JPEG files of our own: a thumbnail, and where it is larger than that, one
to open. They hold nothing of a stranger's file but its pixels. A page is one file as long as its pictures fit into
`BUDGET`. Of a page with more, the thumbnails that are seen at first are still in the page while they fit; the others,
and all pictures to open, lie in a folder beside it.
"""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

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
from curate.report.markup import Content, Markup, data_block, el
from curate.report.picture_folder import PictureFolder, name_of
from curate.sources.config import Source
from curate.sources.read import Read
from curate.sources.reading import is_loose, read_bytes, read_loose
from curate.stages.images.catalog import source_of
from curate.surroundings import surrounded

HEIGHT = 128
"""Pixels of a thumbnail at most."""
WIDTH = 256
BLURRED = 8
"""Pixels that a blurred thumbnail keeps of the longer side."""
QUALITY = 70
"""Of the thumbnails' JPEG."""
SIDE = 1200
"""Pixels of the longer side of a picture that is opened, at most."""
QUALITY_OPENED = 82
MAX_BYTES = 64 << 20
"""Of an original that pictures are made from."""
BUDGET = 5 << 20
"""Bytes of the pictures within a page, as text: of all, or else of the thumbnails that are seen at first."""
MAX_PICTURES = 2000
"""Images of one page; what comes after is left out."""
BOUNDS = Bounds(max_pixels=89_478_485, max_seconds=2)
"""Of decoding such an original, a guard against decompression bombs; otherwise rejected pictures are shown too."""
THREADS = 4
AT_ONCE = 256
"""Pictures that are held before they are placed, some 100 kB each."""
T = TypeVar("T")
LEFT_OUT = "left out to keep this page small"


class Drawn(NamedTuple):
    """An image as JPEG files."""

    thumbnail: bytes | None
    size: tuple[int, int] = (0, 0)
    """Width and height of the thumbnail."""
    opened: bytes | None = None
    """None: the thumbnail is as large as the picture."""
    missing: str = ""
    """Why there is no thumbnail."""


@dataclass(frozen=True)
class Shown:
    """An image as the page knows it."""

    source: str
    role: str
    key: str
    thumbnail: bytes | None = None
    """None: `missing` says why there is none."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the thumbnail."""
    opened: str = ""
    """Name of the picture that is opened; empty: the thumbnail is all there is."""
    missing: str = ""


class Pictures:
    """The pictures of a page: `load` reads many at once, `figure` puts one into the page.

    A page loads all that it shows before it draws anything: then it is known whether it is a large one.
    """

    def __init__(self, run: Finished, *, beside: str | None = None, budget: int | None = None) -> None:
        """
        Args:
            beside: folder of the workdir, next to the page, for what the page cannot hold; None: that is left out.
        """
        self.run = run
        self.left = BUDGET if budget is None else budget
        self._folder = None if beside is None else PictureFolder(run.store, beside)
        self._held: dict[str, bytes] | None = {}  # None: pictures that are opened do not fit into the page
        self._shown: dict[tuple[int, bool], Shown] = {}  # by id and whether it is blurred

    def load(self, image_ids: Iterable[int], *, blurred: bool = False) -> None:
        """Read the pictures that are not there yet, part by part: an archive is opened once a call.

        Args:
            blurred: for `figure` of blurred pictures.
        """
        wanted = [one for one in dict.fromkeys(map(int, image_ids)) if (one, blurred) not in self._shown]
        room = max(0, MAX_PICTURES - len(self._shown))
        for part, ids in by_part(wanted[:room]):
            drawn = self.each(part, ids, draw_blurred if blurred else draw)
            for image_id, name, one in zip(ids.tolist(), self._names(part, ids), drawn, strict=True):
                opened = "" if one.opened is None else self._hold(one.opened)
                self._shown[image_id, blurred] = Shown(*name, one.thumbnail, one.size, opened, one.missing)
        for part, ids in by_part(wanted[room:]):
            for image_id, name in zip(ids.tolist(), self._names(part, ids), strict=True):
                self._shown[image_id, blurred] = Shown(*name, missing=LEFT_OUT)

    def each(self, part: int, ids: np.ndarray, make: Callable[[Read, SignificantBits], T]) -> list[T]:
        """What `make` makes of the bytes of images of one part, in order."""
        rows = self._rows(part, ids)
        bits = source_of(rows).significant_bits
        workdir = self.run.store.below or self.run.store
        with surrounded(workdir=workdir, settings={"offline": True}):  # a page sends no requests
            return list(_of_each(rows, lambda read: make(read, bits)))

    def _rows(self, part: int, ids: np.ndarray) -> pa.Table:
        """Rows of the catalog."""
        return self.run.catalog_part(part).take(row_of(ids))

    def _names(self, part: int, ids: np.ndarray) -> list[tuple[str, str, str]]:
        """(source, role, key) of images of one part."""
        columns = self._rows(part, ids).select(["source", "role", "key"]).to_pydict()
        return list(zip(*columns.values(), strict=True))

    def place(self, jpeg: bytes, *, later: bool = False) -> str:
        """Where the page finds a picture that it shows: within itself while there is room, empty where there is none.

        Args:
            later: it is seen only where a page of a gallery is turned; within a large page there is no room for these.
        """
        src = _as_data(jpeg)
        if len(src) <= self.left and not (later and self._held is None and self._folder is not None):
            self.left -= len(src)
            self._release()
            return src
        return "" if self._folder is None else f"{self._folder.relative}/{self._folder.put(jpeg)}"

    def _hold(self, jpeg: bytes) -> str:
        """The name of a picture that is opened."""
        name = name_of(jpeg)
        if self._held is not None:
            self._held[name] = jpeg
            self._release()
        elif self._folder is not None:
            self._folder.put(jpeg)
        return name

    def _release(self) -> None:
        """Once the pictures that are opened do not fit into the page, all of them go to the folder."""
        if self._held is None or 4 * sum(map(len, self._held.values())) // 3 <= self.left:
            return
        if self._folder is not None:
            for jpeg in self._held.values():
                self._folder.put(jpeg)
        self._held = None

    def __getitem__(self, image_id: int) -> Shown:
        return self._found(image_id, blurred=False)

    def _found(self, image_id: int, *, blurred: bool) -> Shown:
        if (int(image_id), blurred) not in self._shown:
            self.load([image_id], blurred=blurred)
        return self._shown[int(image_id), blurred]

    def names(self, image_ids: Iterable[int]) -> dict[int, str]:
        """Sources and keys of images, whether their pictures are loaded or not."""
        return {
            image_id: f"{source}: {key}"
            for part, ids in by_part(image_ids)
            for image_id, (source, _, key) in zip(ids.tolist(), self._names(part, ids), strict=True)
        }

    def is_shown(self, image_id: int) -> bool:
        """Whether there is a picture to see."""
        return self[image_id].thumbnail is not None

    def figure(
        self, image_id: int, *caption: Content, mark: str = "", later: bool = False, blurred: bool = False
    ) -> Markup:
        """The picture with its name and lines of text under it; without a picture, a placeholder that says why.

        Args:
            mark: a class of the style sheet: kept, heldout, query or curated.
            later: as of `place`.
            blurred: one sees no more than its colors.
        """
        shown = self._found(image_id, blurred=blurred)
        src = "" if shown.thumbnail is None else self.place(shown.thumbnail, later=later)
        if src:
            width, height = shown.size
            lazy = None if src.startswith("data:") else "lazy"
            image = el("img", src=src, alt=shown.key, width=width, height=height, loading=lazy, decoding="async")
            inside = el("button", image, type="button", class_="open", data_picture=shown.opened)
        else:
            inside = el("div", el("span", shown.missing or LEFT_OUT), class_="none")
        lines = [*(el("span", line) for line in caption if line), el("span", short_name(shown.key), class_="name")]
        title = f"{shown.source}: {shown.key} (image {image_id})"
        return el("figure", inside, el("figcaption", lines), class_=mark or None, title=title)

    def data(self) -> Markup:
        """What the script of the page needs to open pictures: those in the page, and the folder of the others."""
        held = {name: base64.b64encode(jpeg).decode() for name, jpeg in (self._held or {}).items()}
        folder = None if self._folder is None or self._held is not None else self._folder.relative
        return data_block({"folder": folder, "held": held}, name="pictures")

    def finish(self) -> None:
        """Wait until what lies beside the page is written."""
        if self._folder is not None:
            self._folder.finish()

    def remove_others(self) -> None:
        """Remove pictures beside the page that it does not show: once it is written."""
        if self._folder is not None:
            self._folder.remove_others()


def by_part(image_ids: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(part, ascending ids of images of it), so many at once that their pictures can be held."""
    ids = np.array(sorted(image_ids), np.int64)
    for part in np.unique(part_of(ids)).tolist():
        mine = ids[part_of(ids) == part]
        yield from ((part, mine[start : start + AT_ONCE]) for start in range(0, len(mine), AT_ONCE))


def inline(jpeg: bytes, *, alt: str) -> Markup:
    """A JPEG as part of the page."""
    return el("img", src=_as_data(jpeg), alt=alt, decoding="async")


def _as_data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def short_name(key: str, length: int = 24) -> str:
    """The last step of a key, shortened in the middle."""
    name = key.rsplit("/", 1)[-1]
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


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


def draw(read: Read, bits: SignificantBits) -> Drawn:
    """The pictures of an image."""
    picture, why = decoded(read, SIDE * 3 // 4, bits)
    if picture is None:
        return Drawn(None, missing=why)
    bounded = _bounded(picture)
    small = _at_most(bounded, WIDTH, HEIGHT)
    opened = _at_most(picture, SIDE, SIDE)
    larger = small.size != picture.size
    return Drawn(encode(small), small.size, encode(opened, QUALITY_OPENED) if larger else None)


def draw_blurred(read: Read, bits: SignificantBits) -> Drawn:
    """A thumbnail of which one sees no more than colors: it has `BLURRED` pixels on its longer side, drawn larger."""
    picture, why = decoded(read, SIDE * 3 // 4, bits)
    if picture is None:
        return Drawn(None, missing=why)
    small = _at_most(_bounded(picture), WIDTH, HEIGHT)
    coarse = _at_most(small, BLURRED, BLURRED).resize(small.size, Image.Resampling.BICUBIC)
    return Drawn(encode(coarse), coarse.size)


def _at_most(picture: Image.Image, width: int, height: int) -> Image.Image:
    smaller = picture.copy()
    smaller.thumbnail((width, height), Image.Resampling.BICUBIC)
    return smaller


def encode(picture: Image.Image, quality: int = QUALITY) -> bytes:
    """A picture as JPEG."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


def decoded(read: Read, min_side: int, bits: SignificantBits) -> tuple[Image.Image | None, str]:
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
