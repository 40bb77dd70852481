"""NYU Depth v2 as it is unpacked for depth from single pictures (the form that BTS and its successors share).

    nyu_train.txt, nyu_test.txt    lines of a picture, its depth and a focal length, relative to the folder
    .../rgb_00045.jpg              640 x 480
    .../sync_depth_00045.png       16 bits, millimeters, 0: unknown

DINOv2 and DINOv3 report RMSE in meters on the 654 test pictures, within the crop of Eigen et al.
2014 (arXiv:1406.2283), depths kept below 10 m.
"""

from pathlib import Path

import numpy as np

from curate.errors import SourceError
from curate.evaluation.dense.layouts.files import inside, read_16_bits, read_lines, read_picture, spread
from curate.evaluation.dense.truth import Deep, DenseTruth, DepthTask, Series
from curate.ops.images.bounds import Bounds

TRAIN, TEST = "nyu_train.txt", "nyu_test.txt"
DEEPEST = 10.0
"""Meters."""
EIGEN = (slice(45, 471), slice(41, 601))
"""Rows and columns that count, of pictures of 480 x 640."""


def is_here(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / TRAIN).is_file() and (folder / TEST).is_file()


def open_folder(folder: Path, *, train: int | None, test: int | None, bounds: Bounds) -> DenseTruth:
    """The truth of the folder; `train` and `test` are pictures at most, None: all."""
    learned, asked = (_half(folder, name, most, bounds) for name, most in ((TRAIN, train), (TEST, test)))
    task = DepthTask(learned, asked, "m", DEEPEST, f"{len(asked)} test pictures of NYU Depth v2")
    return DenseTruth(f"NYU Depth v2 in {folder}", depth=task)


def _half(folder: Path, name: str, most: int | None, bounds: Bounds) -> Series[Deep]:
    lines = [line.split() for line in read_lines(folder / name)]
    pairs = spread([line[:2] for line in lines if len(line) >= 2 and line[1] != "None"], most)
    if not pairs:
        raise SourceError(f"{folder / name}: names no picture with a depth; lines of two paths are needed")

    def get(number: int) -> Deep:
        picture, depth = (inside(folder, path) for path in pairs[number])
        return Deep(read_picture(picture, bounds), read_depth(depth))

    return Series(len(pairs), get)


def read_depth(path: Path) -> np.ndarray:
    """(H, W) float32 meters; NaN where unknown, beyond 10 m, or outside of Eigen's crop of a picture of its size."""
    meters = (read_16_bits(path) / 1000).astype(np.float32)
    counts = (meters > 0) & (meters <= DEEPEST)
    if meters.shape == (480, 640):
        cropped = np.zeros_like(counts)
        cropped[EIGEN] = True
        counts &= cropped
    return np.where(counts, meters, np.nan).astype(np.float32)
