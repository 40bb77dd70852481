"""What a reader of the shards meets: `datasets` decodes by plain Pillow, and dies on side notes that curation forgives.

A picture whose EXIF block is garbage has right pixels, so it is accepted. `datasets` (2.20 to 5) however decodes with
`PIL.Image.open`, `load`, `getexif` and, where there is an orientation, `ImageOps.exif_transpose`, and an error in any
of these ends the loop over the whole data set. So the same steps are taken once for each picture of the shards. Pixels
cost most of a decoding and were decoded before by the same library. So they are left out where opening has read all
that is no pixel: in JPEG, in WebP, and in a PNG with nothing behind its pixels.
"""

import io
import re
from functools import cache
from typing import NamedTuple

from PIL import ExifTags, Image, ImageOps

from curate.ops.images.bounds import PIL_PIXELS
from curate.ops.images.repair import ends_with_pixels, repair_metadata

METADATA_FIRST = ("JPEG", "MPO", "WEBP")
"""Formats of which opening reads all but the pixels; a TIFF is turned while it loads."""
MAX_TEXT = 200
"""Characters of a warning at most."""

_OBJECT = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


class ForReaders(NamedTuple):
    """A picture as it goes into the shards."""

    data: bytes
    """Its bytes."""
    warning: str | None = None
    """Why readers cannot decode it; None: they can."""
    repaired: str | None = None
    """Why they could not before its metadata were repaired; None: the bytes are the source's."""


def make_readable(data: bytes, *, repair: bool) -> ForReaders:
    """Look at a picture as its readers will; with `repair`, take away or mend the metadata on which they die."""
    warning = reader_warning(data)
    if warning is None or not repair:
        return ForReaders(data, warning)
    mended = repair_metadata(data, is_readable=lambda tried: reader_warning(tried) is None)
    return ForReaders(data, warning) if mended is None else ForReaders(mended, repaired=warning)


def reader_warning(data: bytes) -> str | None:
    """Why `datasets` cannot decode an accepted picture: the step, the kind of error and its text; None: it can.

    Raises:
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
    """
    step = "opening"
    try:
        image = Image.open(io.BytesIO(data), formats=_formats_of_pillow())
        if image.width * image.height > PIL_PIXELS:  # whatever the limit of this process is
            return f"opening: {image.width} x {image.height} pixels are more than the {PIL_PIXELS} that Pillow opens"
        step = "pixels"
        whole = not (image.format in METADATA_FIRST or (image.format == "PNG" and ends_with_pixels(data)))
        if whole:
            image.load()
        step = "EXIF"
        exif = image.getexif() if whole else Image.Image.getexif(image)  # a PNG would load to look for more
        if exif.get(ExifTags.Base.Orientation) is not None:
            step = "orientation"
            ImageOps.exif_transpose(image if whole else _with_metadata_of(image))
    except MemoryError:
        raise
    except Exception as error:  # parsers of hostile metadata raise nearly anything
        return f"{step}: {type(error).__name__}: {_plain(str(error))}"
    return None


@cache
def _formats_of_pillow() -> list[str]:
    """What Pillow opens without plug-ins, which this process may have and readers lack, in its own order."""
    Image.init()
    return [name for name in Image.ID if Image.OPEN[name][0].__module__.startswith("PIL.")]


def _with_metadata_of(image: Image.Image) -> Image.Image:
    """One pixel with the metadata of a picture, so that turning it decodes nothing."""
    pixel = Image.new("L", (1, 1))
    pixel.info = dict(image.info)
    return pixel


def _plain(text: str) -> str:
    """An error's text without addresses of objects, and as a table takes it."""
    text = " ".join(_OBJECT.sub("the data", text).split())[:MAX_TEXT]
    return text.encode("utf-8", "backslashreplace").decode()
