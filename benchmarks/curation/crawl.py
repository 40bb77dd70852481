"""A pool as crawls are, made of labeled pictures: a long tail of classes, many copies of what is frequent, and junk."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.curation.sets import LabeledSet
from benchmarks.junk import KINDS
from benchmarks.longtail import tail_sizes
from curate.samples.edits import encode_jpeg

IMBALANCE = 50.0
"""Pictures of the largest class for each of the smallest."""
POOL = 20
"""Pictures of the pool for each picture of the largest class."""
JUNK = 0.1
"""Share of the pool that is junk."""
KEPT = 0.9
"""Share of each side that the crop of a copy keeps, at least."""
QUALITY = (60, 95)
"""JPEG quality of copies, from and below."""
NO_CLASS = -1


class Crawl(NamedTuple):
    """Encoded pictures, and what only the benchmark knows of them."""

    files: list[bytes]  # N; PNG, copies JPEG
    labels: np.ndarray  # (N,) int64, NO_CLASS: junk
    copy_of: np.ndarray  # (N,) int64, row of the original; its own row for an original


def make_crawl(chosen: LabeledSet, rows: np.ndarray, *, seed: int) -> Crawl:
    """Draw classes whose sizes fall geometrically, in an order of the seed; the rest of the pool are copies and junk.

    A picture of a frequent class is copied more often: its copies are drawn with a weight of the size of its class.

    Args:
        chosen: the set.
        rows: its rows that may be used.
        seed: seed of the order of classes, the pictures, the copies and the junk.
    """
    rng = np.random.default_rng(seed)
    originals, sizes = _draw_classes(chosen.labels[rows], rng)
    originals = rows[originals]
    total = POOL * max(sizes.values())
    num_junk = round(JUNK * total)
    weights = np.array([sizes[label] for label in chosen.labels[originals].tolist()], np.float64)
    repeated = rng.choice(len(originals), max(0, total - num_junk - len(originals)), p=weights / weights.sum())
    files = [_png(chosen.images[row]) for row in originals]
    files += [_copy(chosen.images[originals[place]], rng) for place in repeated.tolist()]
    makers = list(KINDS.values())
    side = chosen.images.shape[1]
    files += [_png(np.asarray(makers[i % len(makers)](rng).resize((side, side)))) for i in range(num_junk)]
    labels = np.concatenate([chosen.labels[originals], chosen.labels[originals[repeated]], np.full(num_junk, NO_CLASS)])
    first = np.arange(len(originals))
    copy_of = np.concatenate([first, repeated, np.arange(len(first) + len(repeated), len(files))])
    shuffled = rng.permutation(len(files))
    place = np.argsort(shuffled)  # where a row went
    return Crawl([files[i] for i in shuffled.tolist()], labels[shuffled], place[copy_of[shuffled]])


def _draw_classes(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """Places of the originals, and the size of each class; the largest has as many pictures as the median class."""
    counts = np.bincount(labels)
    head = int(np.median(counts))
    order = rng.permutation(len(counts))
    first = int(np.flatnonzero(counts[order] >= head)[0])  # of a class that has enough for it
    order = np.concatenate([order[first : first + 1], np.delete(order, first)])
    wanted = tail_sizes(len(order), head=head, imbalance=IMBALANCE)
    sizes = {int(label): int(min(size, counts[label])) for label, size in zip(order, wanted, strict=True)}
    drawn = [rng.choice(np.flatnonzero(labels == label), size, replace=False) for label, size in sizes.items()]
    return np.sort(np.concatenate(drawn)), sizes


def write_files(folder: Path, files: list[bytes]) -> None:
    """One file a row, named by its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for row, encoded in enumerate(files):
        suffix = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        (folder / f"{row:06d}.{suffix}").write_bytes(encoded)


def encode(images: np.ndarray) -> list[bytes]:
    """(N, S, S, 3) uint8 pictures as PNG files."""
    return [_png(image) for image in images]


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="PNG")
    return encoded.getvalue()


def _copy(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """The picture cropped by a little, at its old size, as a JPEG."""
    side = image.shape[0]
    length = max(side - 2, round(side * rng.uniform(KEPT, 1))) if side < 32 else round(side * rng.uniform(KEPT, 1))
    left, top = (int(value) for value in rng.integers(0, side - length + 1, 2))
    part = Image.fromarray(image).crop((left, top, left + length, top + length)).resize((side, side))
    return encode_jpeg(part, int(rng.integers(*QUALITY)))
