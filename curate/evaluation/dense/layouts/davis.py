"""DAVIS 2017 (`DAVIS-2017-trainval-480p`): objects in videos.

    JPEGImages/480p/SEQUENCE/*.jpg    Annotations/480p/SEQUENCE/*.png (0 background, 1..K)    ImageSets/2017/val.txt

DINO (arXiv:2104.14294), DINOv2 and DINOv3 follow the objects of the 30 sequences of `val` and report J&F; DINO at 480
pixels, which is `--grid 30` for patches of 16. DINOv3 also at two and three times as many.
"""

from pathlib import Path

import numpy as np

from curate.errors import SourceError
from curate.evaluation.dense.layouts.files import inside, read_indices, read_lines, read_picture, spread
from curate.evaluation.dense.truth import UNKNOWN, Clip, DenseTruth, PropagationTask, Series
from curate.ops.images.bounds import Bounds

PICTURES, MASKS, NAMES = "JPEGImages/480p", "Annotations/480p", "ImageSets/2017/val.txt"
VOID = 255


def is_here(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / PICTURES).is_dir() and (folder / MASKS).is_dir()


def open_folder(folder: Path, *, train: int | None, test: int | None, bounds: Bounds) -> DenseTruth:
    """The truth of the folder; `test` is sequences at most, None: all. Nothing is learned."""
    names = spread(read_lines(folder / NAMES), test)
    if not names:
        raise SourceError(f"{folder / NAMES}: names no sequence; unpack DAVIS 2017 there")
    clips = Series(len(names), lambda i: _clip(folder, names[i], bounds))
    return DenseTruth(
        f"DAVIS in {folder}", propagation=PropagationTask(clips, f"{len(names)} val sequences of DAVIS 2017")
    )


def _clip(folder: Path, name: str, bounds: Bounds) -> Clip:
    pictures = sorted(inside(folder / PICTURES, name).glob("*.jpg"))
    masks = [inside(folder / MASKS, name) / f"{path.stem}.png" for path in pictures]
    if len(pictures) < 2:
        raise SourceError(f"{folder / PICTURES / name}: {len(pictures)} frames, at least 2 are needed")

    return Clip(
        name,
        Series(len(pictures), lambda i: read_picture(pictures[i], bounds)),
        Series(len(pictures), lambda i: _mask(masks[i])),
    )


def _mask(path: Path) -> np.ndarray:
    labels = read_indices(path)
    return np.where(labels == VOID, UNKNOWN, labels)
