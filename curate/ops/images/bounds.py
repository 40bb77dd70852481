"""What decoding one picture may cost, as settings; importing it costs no decoder."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

PIL_PIXELS = 178_956_970
"""Most pixels that Pillow opens, twice its own MAX_IMAGE_PIXELS; a higher limit of ours would have no effect."""

MAX_DECODE_BYTES = 1 << 30
"""Enough for 89 million pixels of every kind of JPEG, PNG, TIFF, BMP, GIF and most other formats; large pictures wait
for each other, so that all that decode in one process take no more than this together."""
MAX_SECONDS = 10.0
"""Ten times what an honest picture of 89 million pixels takes, three times in JPEG 2000."""

DecodeBytes = Annotated[int, Field(ge=1 << 20, le=1 << 40)]
DecodeSeconds = Annotated[float, Field(gt=0, le=3600)]


@dataclass(frozen=True)
class Bounds:
    """What decoding one picture may cost; a picture beyond it is rejected, and the process goes on."""

    max_pixels: int = PIL_PIXELS
    """Width x height, as the header says."""
    max_decode_bytes: int = MAX_DECODE_BYTES
    """Bytes of memory that decoding takes beside the bytes of the file: `too_large`."""
    max_seconds: float = MAX_SECONDS
    """Seconds of CPU time, of all threads: `too_slow`. Time that a busy machine lets pass does not count."""


ACCEPTED = Bounds(max_decode_bytes=1 << 40, max_seconds=3600)
"""For pictures that were decoded within bounds before, perhaps smaller: no second verdict hangs on a second clock. They
are still decoded apart, and can be ended."""
