"""A pool as crawls are, made of labeled pictures: few classes hold most of it, and what is frequent is repeated."""

import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.mnist import encode_png

MAX_SHIFT = 1
"""Pixels that a copy is moved by at most."""
QUALITY = (60, 95)
"""JPEG quality of copies, from and below."""


class Tail(NamedTuple):
    """How uneven a pool is."""

    head: int = 280
    """Pictures of the largest class."""
    imbalance: float = 50.0
    """Pictures of the largest class for each of the smallest, >= 1."""
    copies: float = 10.0
    """Near-copies for each picture of the largest class."""


class LongTail(NamedTuple):
    """Encoded pictures and what only the bench knows of them."""

    files: list[bytes]  # N; PNG, copies JPEG
    labels: np.ndarray  # (N,) int64
    copy_of: np.ndarray  # (N,) int64, row of the original; its own row for an original


def make_long_tail(images: np.ndarray, labels: np.ndarray, tail: Tail, *, seed: int) -> LongTail:
    """Draw classes with sizes that fall geometrically, in an order of the seed, and repeat pictures of the largest.

    Args:
        images: (M, H, W) uint8 gray.
        labels: (M,) int64, classes 0..C-1.
        seed: of the order of the classes, the pictures, and the edits of copies: a pixel's shift and JPEG.

    Raises:
        ValueError: a class has fewer pictures than it is to give.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(labels.max()) + 1)
    sizes = tail_sizes(len(order), head=tail.head, imbalance=tail.imbalance)
    chosen = [_draw(labels, int(cls), int(size), rng) for cls, size in zip(order, sizes, strict=True)]
    originals = np.concatenate(chosen)
    repeated = np.sort(rng.integers(len(chosen[0]), size=round(tail.copies * tail.head)))
    files = [encode_png(images[row]) for row in originals]
    files += [_near_copy(images[originals[row]], rng) for row in repeated]
    rows = np.concatenate([np.arange(len(originals)), repeated])
    shuffled = rng.permutation(len(files))
    place = np.argsort(shuffled)  # where a row went
    return LongTail([files[i] for i in shuffled], labels[originals][rows[shuffled]], place[rows[shuffled]])


def tail_sizes(num_classes: int, *, head: int, imbalance: float) -> np.ndarray:
    """(num_classes,) int64 falling geometrically from `head` to head / imbalance, each at least 1."""
    steps = np.arange(num_classes) / max(1, num_classes - 1)
    return np.maximum(1, np.round(head * imbalance**-steps)).astype(np.int64)


def write_files(folder: Path, pool: LongTail) -> None:
    """One file a row, named by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, encoded in enumerate(pool.files):
        suffix = ".png" if pool.copy_of[row] == row else ".jpg"
        (folder / f"{row:06d}{suffix}").write_bytes(encoded)


def class_entropy(labels: np.ndarray, num_classes: int) -> float:
    """Entropy of the classes over its maximum: 1 all equal, 0 one alone."""
    shares = np.bincount(labels, minlength=num_classes) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / math.log(num_classes))


def _draw(labels: np.ndarray, cls: int, size: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.flatnonzero(labels == cls)
    if len(rows) < size:
        raise ValueError(f"class {cls} has {len(rows)} pictures, {size} are to be drawn; lower head")
    return rng.choice(rows, size, replace=False)


def _near_copy(image: np.ndarray, rng: np.random.Generator) -> bytes:
    shift = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, size=2)
    padded = np.pad(image, MAX_SHIFT)
    top, left = MAX_SHIFT + shift
    moved = padded[top : top + image.shape[0], left : left + image.shape[1]]
    encoded = io.BytesIO()
    Image.fromarray(moved).save(encoded, format="JPEG", quality=int(rng.integers(*QUALITY)))
    return encoded.getvalue()
