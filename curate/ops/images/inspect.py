"""Facts of an image, measured on one decoding, and the verdict on them: what an image of the pool must be, and what is
safe to decode at all."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from curate.config import Settings
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, PIL_PIXELS, Bounds, DecodeBytes, DecodeSeconds
from curate.ops.images.decode import (
    OnHeader,
    RejectedImage,
    check_memory,
    check_pixels,
    decode_upright,
    open_image,
    sixteen_bits_used,
)
from curate.ops.images.depth import SignificantBits

FEW_BITS = "its 16-bit samples use few of their bits"
"""What the detail of a reject says where a source's `significant_bits` would scale the picture."""

SAMPLED_LINES = 64
"""Rows and columns, evenly spread, on which the correlation of neighboring pixels is measured."""

COARSE = 4
"""Pixels in each direction that are averaged to tell dithering, which is rough close up alone, from noise."""


class ImageLimits(Settings):
    """What an image of the pool must be; curated and held-out ones must keep to what decoding may cost alone: to
    `max_pixels`, `max_bytes`, `max_decode_bytes` and `max_seconds`."""

    min_side: Annotated[int, Field(ge=1)] = 32
    """Pool: least number of pixels on the short side."""
    max_aspect: Annotated[float, Field(ge=1)] = 8.0
    """Pool: largest ratio of the long side to the short side."""
    max_pixels: Annotated[int, Field(ge=1, le=PIL_PIXELS)] = 89_478_485
    """Most pixels (width x height in the header), checked before decoding: a guard against decompression bombs."""
    max_bytes: Annotated[int, Field(ge=1)] = 256 * 2**20
    """Most bytes of the encoded image."""
    max_decode_bytes: DecodeBytes = MAX_DECODE_BYTES
    """Most bytes of memory that decoding takes, beside the bytes of the file: checked by the header, then held by the
    process that decodes. Large images of one process wait for each other, so that together they take no more."""
    max_seconds: DecodeSeconds = MAX_SECONDS
    """Most seconds of CPU time that decoding takes."""
    min_luma_std: Annotated[float, Field(ge=0)] = 2.0
    """Pool: least standard deviation, 0..128; below it in luma and in every color channel, an image is uniform."""
    min_smoothness: Annotated[float, Field(ge=-1, le=1)] = 0.3
    """Pool: least correlation of neighboring luma pixels, -1..1; photographs have 0.7 and more, noise about 0."""

    def for_safety_alone(self) -> "ImageLimits":
        """The limits of what decoding may cost, without those of size, shape and content."""
        anything = {"min_side": 1, "max_aspect": math.inf, "min_luma_std": 0.0, "min_smoothness": -math.inf}
        return self.model_copy(update=anything)

    @property
    def bounds(self) -> Bounds:
        """What decoding may cost."""
        return Bounds(self.max_pixels, self.max_decode_bytes, self.max_seconds)


@dataclass(frozen=True)
class Inspected:
    """Facts of one image, its verdict and, when accepted, its picture. The fields are those of `tables.IMAGES`."""

    num_bytes: int
    sha256: bytes
    width: int | None = None
    height: int | None = None
    format: str | None = None
    luma_std: float | None = None
    smoothness: float | None = None
    reject: str | None = None
    """One of `tables.REJECT_REASONS`, the first that holds; None: accepted."""
    detail: str | None = None
    """What was found and what is needed, in a sentence; None: accepted."""
    picture: Image.Image | None = None
    """RGB, upright, on white where the original is transparent; None when rejected."""


def inspect_image(
    data: bytes,
    limits: ImageLimits,
    *,
    min_side: int | None = None,
    significant_bits: SignificantBits = "auto",
    sha256: bytes | None = None,
    on_header: OnHeader | None = None,
) -> Inspected:
    """Decode an image once, measure it, and judge it. Bad data give a reject, never an exception; safe in threads.

    Nothing here holds a decoder to the limits of memory and time: `decoding.inspect_picture` does.

    Args:
        data: the encoded image; its content decides the format, whatever its name says.
        limits: what an image must be.
        min_side: pixels of the short side that the consumers of the picture need, see `decode_upright`. Facts of
            the header are those of the full size; `luma_std` and `smoothness` are measured on the picture, so they
            shift a little with this argument.
        significant_bits: bits that the samples of 16-bit pictures use, see `decode_upright`.
        sha256: of the data, where it is known.
        on_header: called before anything is decoded.

    Raises:
        MemoryError: there is no memory for the picture.
    """
    facts: dict[str, object] = {
        "num_bytes": len(data),
        "sha256": hashlib.sha256(data).digest() if sha256 is None else sha256,
    }
    try:
        check_bytes(data, limits)
        opened = open_image(data)
        facts.update(format=opened.format, width=opened.width, height=opened.height)
        check_pixels(opened, limits.max_pixels)
        needed = check_memory(opened, min_side, limits.max_decode_bytes, significant_bits=significant_bits)
        if on_header is not None:
            on_header(opened, needed)
        picture, upright = decode_upright(opened, min_side, significant_bits=significant_bits)
        facts.update(width=upright[0], height=upright[1])
        _check_shape(upright, limits)
        luma = picture.convert("L")
        luma_std, smoothness = _deviation(luma.histogram()), _smoothness(np.asarray(luma))
        facts.update(luma_std=luma_std, smoothness=smoothness)
        try:
            _check_content(picture, luma_std, smoothness, limits)
        except RejectedImage as rejected:
            raise _explained(rejected, data) from None
    except RejectedImage as rejected:
        return Inspected(**facts, reject=rejected.reason, detail=rejected.detail)  # type: ignore[arg-type]
    return Inspected(**facts, picture=picture)  # type: ignore[arg-type]


def check_bytes(data: bytes, limits: ImageLimits) -> None:
    """Refuse (RejectedImage) data that are too long."""
    if len(data) > limits.max_bytes:
        raise RejectedImage("too_large", f"{len(data)} bytes, at most {limits.max_bytes} are allowed")


def _check_shape(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse (RejectedImage) pictures that are too small or too narrow."""
    short, long = min(size), max(size)
    if long > limits.max_aspect * short:
        raise RejectedImage(
            "extreme_aspect",
            f"{size[0]} x {size[1]} pixels: aspect {long / short:.1f}, at most {limits.max_aspect:g} is allowed",
        )
    if short < limits.min_side:
        raise RejectedImage(
            "too_small", f"{size[0]} x {size[1]} pixels: at least {limits.min_side} on the short side are needed"
        )


def _check_content(picture: Image.Image, luma_std: float, smoothness: float, limits: ImageLimits) -> None:
    """Refuse (RejectedImage) pictures of one color and of noise."""
    if luma_std < limits.min_luma_std:  # two colors may share one luma, so the channels are asked too
        bins = picture.histogram()
        widest = max(luma_std, *(_deviation(bins[i : i + 256]) for i in (0, 256, 512)))
        if widest < limits.min_luma_std:
            raise RejectedImage(
                "uniform", f"pixels deviate by {widest:.2f}, at least {limits.min_luma_std:g} is needed"
            )
    if smoothness < limits.min_smoothness:  # a dithered picture is rough too, but only close up
        coarse = _smoothness(np.asarray(picture.convert("L").reduce(COARSE)))
        if coarse < limits.min_smoothness:
            raise RejectedImage(
                "noise",
                f"neighbouring pixels correlate by {smoothness:.2f}, at least {limits.min_smoothness:g} is needed",
            )


def _explained(rejected: RejectedImage, data: bytes) -> RejectedImage:
    """The verdict `uniform` with its likely cause: 16-bit samples that use few of their bits."""
    used = sixteen_bits_used(data) if rejected.reason == "uniform" else None
    if used is None or not 8 < used <= 12:
        return rejected
    return RejectedImage(rejected.reason, f"{rejected.detail}; {FEW_BITS} ({used} bits): see significant_bits")


def _deviation(bins: list[int]) -> float:
    """Standard deviation of 8-bit values from their 256-bin histogram."""
    counts = np.asarray(bins, dtype=np.float64)
    values = np.arange(256.0)
    mean = counts @ values / counts.sum()
    return float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))


def _smoothness(luma: np.ndarray) -> float:
    """Mean correlation of neighboring pixels along sampled rows and along sampled columns of (H, W) uint8.

    Lines without contrast are left out; a picture that has no others is perfectly smooth, 1.0.
    """
    height, width = luma.shape
    rows = luma[_spread_lines(height)]
    columns = luma[:, _spread_lines(width)].T
    found = [c for lines in (rows, columns) if (c := _neighbor_correlation(lines)) is not None]
    return float(np.mean(found)) if found else 1.0


def _spread_lines(length: int) -> np.ndarray:
    """At most SAMPLED_LINES evenly spread indices of 0..length-1."""
    return np.unique(np.linspace(0, length - 1, min(length, SAMPLED_LINES)).astype(np.int64))


def _neighbor_correlation(lines: np.ndarray) -> float | None:
    """Correlation of each pixel of (L, N) uint8 lines with the next one; None where nothing varies."""
    if lines.shape[1] < 2:
        return None
    values = lines.astype(np.float32)
    left, right = values[:, :-1], values[:, 1:]
    left, right = left - left.mean(), right - right.mean()
    power = float(np.sqrt((left * left).sum(dtype=np.float64) * (right * right).sum(dtype=np.float64)))
    return float((left * right).sum(dtype=np.float64)) / power if power > 0 else None
