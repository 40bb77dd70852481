"""Reading the files of public sets: pictures, maps of indices or depths, and lists of names."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from curate.errors import SourceError
from curate.evaluation.labeled import decode_labeled
from curate.opening import read_regular
from curate.ops.images.bounds import Bounds

MAX_PIXELS = 64_000_000
"""Pixels of a map at most, far above those of any of these sets."""
MAX_LIST = 64 << 20
"""Bytes of a list of names at most."""
INDEXED = ("P", "L", "1")
DEEP = ("I", "I;16", "I;16B", "I;16L")

T = TypeVar("T")


def read_picture(path: Path, bounds: Bounds) -> Image.Image:
    """A picture in RGB.

    Raises:
        SourceError: it cannot be read or does not decode.
    """
    return decode_labeled(_read(path), str(path), bounds=bounds)


def read_indices(path: Path) -> np.ndarray:
    """(H, W) int64 indices of a PNG with a palette or gray values of 8 bits.

    Raises:
        SourceError: it cannot be read, or is another picture.
    """
    return _read_map(path, INDEXED).astype(np.int64)


def read_16_bits(path: Path) -> np.ndarray:
    """(H, W) int64 values of a gray PNG of 16 bits; errors as of `read_indices`."""
    return _read_map(path, DEEP).astype(np.int64)


def _read_map(path: Path, modes: Sequence[str]) -> np.ndarray:
    """The values as they are stored: a decoder of pictures would turn palettes into colors, and 16 bits into 8."""
    try:
        with Image.open(io.BytesIO(_read(path)), formats=["PNG"]) as opened:
            if opened.mode not in modes:
                raise SourceError(f"{path}: a PNG of mode {opened.mode}; one of {', '.join(modes)} is needed")
            if opened.width * opened.height > MAX_PIXELS:
                raise SourceError(f"{path}: {opened.width} x {opened.height} pixels, at most {MAX_PIXELS} are read")
            return np.asarray(opened)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path}: no readable PNG; unpack the set again") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty.

    Raises:
        SourceError: it cannot be read, is too long or no text.
    """
    found = _read(path)
    if len(found) > MAX_LIST:
        raise SourceError(f"{path}: {len(found)} bytes, a list of names has at most {MAX_LIST}")
    try:
        return [line.strip() for line in found.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: no text in UTF-8; unpack the set again") from error


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def inside(root: Path, name: str) -> Path:
    """The path of a name that a list gives, which may not lead out of the folder.

    Raises:
        SourceError: it does.
    """
    path = root / name.lstrip("/")
    if ".." in path.parts:
        raise SourceError(f"{root}: a list names {name!r}, which leads out of the folder; correct the list")
    return path


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """Up to `most` items, evenly spread over them; None: all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int).tolist()]
