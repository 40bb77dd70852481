"""Decoding within bounds, whatever the bytes: what everything that opens a stranger's picture calls.

Pictures are decoded in processes of their own (`apart`, `decode_process`), which hold themselves to memory and CPU time
and can be ended. Small JPEG and PNG files of few pieces (`plain`) alone are decoded at once, by the thread that asks:
their header bounds what they cost, and the way to another process would cost as much as they do.
"""

import hashlib
import json
import mmap
import threading
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from curate.ops.images.apart import BeyondBounds, Request, run_apart
from curate.ops.images.blurring import Blur, Blurred, Box, blur_boxes
from curate.ops.images.bounds import ACCEPTED, Bounds
from curate.ops.images.credentials import Credentials, may_hold_credentials, package_version
from curate.ops.images.decode import RejectedImage, decode_rgb, sixteen_bits_used
from curate.ops.images.decode_process import NOTE_BYTES
from curate.ops.images.depth import SignificantBits
from curate.ops.images.inspect import ImageLimits, Inspected, check_bytes, inspect_image
from curate.ops.images.plain import is_plain
from curate.ops.images.readers import ForReaders, make_readable


def decode_picture(
    data: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
) -> Image.Image:
    """As `decode.decode_rgb`, within `bounds` of memory and time as well; safe in threads.

    Raises:
        RejectedImage: the data are no picture, damaged, of a kind that is not read, or beyond `bounds`.
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
        DecodersEnded: `end_decoders` was called meanwhile.
    """
    bounds = bounds or Bounds()
    if is_plain(data):
        return decode_rgb(data, min_side=min_side, bounds=bounds, significant_bits=significant_bits)
    return run_apart(Request(_decoding(min_side, bounds, significant_bits), data, bounds, _as_picture))  # type: ignore[no-any-return]


def decode_pixels(
    data: bytes,
    *,
    min_side: int | None = None,
    bounds: Bounds | None = None,
    significant_bits: SignificantBits = "auto",
) -> np.ndarray:
    """As `decode_picture`: (H, W, 3) uint8, writable, without the way through a picture of Pillow's."""
    bounds = bounds or Bounds()
    if is_plain(data):
        return np.array(decode_rgb(data, min_side=min_side, bounds=bounds, significant_bits=significant_bits))
    return run_apart(Request(_decoding(min_side, bounds, significant_bits), data, bounds, _as_array))  # type: ignore[no-any-return]


def inspect_picture(
    data: bytes,
    limits: ImageLimits,
    *,
    min_side: int | None = None,
    significant_bits: SignificantBits = "auto",
    stopped: threading.Event | None = None,
) -> Inspected:
    """As `inspect.inspect_image`, within the limits of memory and time as well; safe in threads.

    Args:
        stopped: what `end_decoders` gets of one who waits no longer.

    Raises:
        MemoryError: the machine has no memory for the picture, which says nothing about the picture.
        DecodersEnded: `end_decoders` was called meanwhile.
    """
    if is_plain(data):
        return inspect_image(data, limits, min_side=min_side, significant_bits=significant_bits)
    known: dict[str, Any] = {"num_bytes": len(data), "sha256": hashlib.sha256(data).digest()}

    def facts(answer: dict[str, Any], memory: mmap.mmap) -> Inspected:
        size = answer.pop("size", None)
        return Inspected(**known, **answer, picture=None if size is None else _picture(size, memory))

    try:
        check_bytes(data, limits)  # what is too long need not travel
        wanted = _inspecting(limits, min_side, significant_bits)
        request = Request(wanted, data, limits.bounds, facts, stopped or threading.Event())
        return run_apart(request)  # type: ignore[no-any-return]
    except BeyondBounds as rejected:
        return Inspected(**known, **rejected.header, reject=rejected.reason, detail=rejected.detail)
    except RejectedImage as rejected:
        return Inspected(**known, reject=rejected.reason, detail=rejected.detail)


def count_bits(data: bytes) -> int | None:
    """As `decode.sixteen_bits_used`, within bounds.

    Raises:
        RejectedImage: the image does not decode.
        MemoryError: the machine has no memory for the picture.
    """
    if is_plain(data):
        return sixteen_bits_used(data)
    request = Request(_wanted("count bits"), data, Bounds(), lambda answer, memory: answer["bits"])
    return run_apart(request)  # type: ignore[no-any-return]


def make_picture_readable(data: bytes, *, repair: bool) -> ForReaders:
    """As `readers.make_readable`, within bounds: a picture on which readers crash or hang is told as well.

    Raises:
        MemoryError: the machine has no memory for the picture.
    """

    if is_plain(data):
        return make_readable(data, repair=repair)

    def found(answer: dict[str, Any], memory: mmap.mmap) -> ForReaders:
        length = answer.pop("num_bytes", None)
        return ForReaders(data if length is None else memory[NOTE_BYTES : NOTE_BYTES + length], **answer)

    try:
        request = Request(_wanted("make readable", repair=repair), data, ACCEPTED, found)
        return run_apart(request)  # type: ignore[no-any-return]
    except BeyondBounds as rejected:
        return ForReaders(data, f"decoding: {rejected.reason}: {rejected.detail}")


def blur_picture(data: bytes, boxes: Sequence[Box], how: Blur) -> Blurred:
    """As `blurring.blur_boxes`, within bounds; safe in threads.

    Raises:
        RejectedImage: the picture does not decode.
        MemoryError: the machine has no memory for it.
    """
    if is_plain(data):
        return blur_boxes(data, boxes, how)

    def found(answer: dict[str, Any], memory: mmap.mmap) -> Blurred:
        return Blurred(memory[NOTE_BYTES : NOTE_BYTES + answer["num_bytes"]], answer["note"])

    wanted = _wanted("blur", boxes=[list(box) for box in boxes], settings=how.model_dump())
    return run_apart(Request(wanted, data, ACCEPTED, found))  # type: ignore[no-any-return]


def read_picture_credentials(data: bytes, form: str | None) -> Credentials | None:
    """As `credentials.read_credentials`, within bounds; None also where the bytes hold no manifest.

    Raises:
        MemoryError: the machine has no memory for it.
        MissingExtra: `c2pa-python` is not installed.
    """
    if form is None or not may_hold_credentials(data, form):
        return None
    package_version()

    def found(answer: dict[str, Any], memory: mmap.mmap) -> Credentials | None:
        told = answer["credentials"]
        return None if told is None else Credentials(*told)

    try:
        request = Request(_wanted("credentials", form=form), data, Bounds(), found)
        return run_apart(request)  # type: ignore[no-any-return]
    except RejectedImage:
        return Credentials("unreadable")


# -- what is asked for, and what comes back -----------------------------------------------------------------------


@lru_cache(maxsize=64)
def _decoding(min_side: int | None, bounds: Bounds, bits: SignificantBits) -> bytes:
    return _wanted("decode", bounds=asdict(bounds), min_side=min_side, significant_bits=bits)


@lru_cache(maxsize=64)
def _inspecting(limits: ImageLimits, min_side: int | None, bits: SignificantBits) -> bytes:
    return _wanted("inspect", limits=limits.model_dump(), min_side=min_side, significant_bits=bits)


def _wanted(work: str, **how: Any) -> bytes:
    asked = {name: how.pop(name) for name in ("limits", "bounds", "settings") if name in how}
    return json.dumps({"work": work, "how": how, **asked}).encode()


def _pixels(size: list[int], memory: mmap.mmap) -> memoryview:
    return memoryview(memory)[NOTE_BYTES : NOTE_BYTES + 3 * size[0] * size[1]]


def _picture(size: list[int], memory: mmap.mmap) -> Image.Image:
    with _pixels(size, memory) as pixels:
        return Image.frombytes("RGB", (size[0], size[1]), pixels)


def _as_picture(answer: dict[str, Any], memory: mmap.mmap) -> Image.Image:
    return _picture(answer["size"], memory)


def _as_array(answer: dict[str, Any], memory: mmap.mmap) -> np.ndarray:
    width, height = answer["size"]
    with _pixels(answer["size"], memory) as pixels:
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()
