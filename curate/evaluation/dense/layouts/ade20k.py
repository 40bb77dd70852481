"""ADE20k as the scene parsing challenge gives it (`ADEChallengeData2016`): 150 classes, 20,210 and 2,000 pictures.

    images/training/*.jpg    annotations/training/*.png    0: other, which does not count; 1..150: the classes
    images/validation/       annotations/validation/

DINOv2 (arXiv:2304.07193) and DINOv3 (arXiv:2508.10104) train a linear layer on the training pictures and report the
mean IoU on the 2,000 validation pictures; DINOv3 at 1,024 patches, which is `--grid 32`.
"""

from pathlib import Path

from curate.errors import SourceError
from curate.evaluation.dense.layouts.files import read_indices, read_picture, spread
from curate.evaluation.dense.truth import DenseTruth, SegmentationTask, Segmented, Series
from curate.ops.images.bounds import Bounds

NUM_CLASSES = 150


def is_here(folder: Path) -> bool:
    """Whether the folder has this layout."""
    return (folder / "annotations" / "validation").is_dir() and (folder / "images" / "validation").is_dir()


def open_folder(folder: Path, *, train: int | None, test: int | None, bounds: Bounds) -> DenseTruth:
    """The truth of the folder; `train` and `test` are pictures at most, None: all."""
    learned, asked = (_half(folder, *half, bounds) for half in (("training", train), ("validation", test)))
    classes = tuple(f"class {number + 1}" for number in range(NUM_CLASSES))
    task = SegmentationTask(learned, asked, classes, f"{len(asked)} validation pictures of ADE20k")
    return DenseTruth(f"ADE20k in {folder}", segmentation=task)


def _half(folder: Path, name: str, most: int | None, bounds: Bounds) -> Series[Segmented]:
    pictures = spread(sorted((folder / "images" / name).glob("*.jpg")), most)
    if not pictures:
        raise SourceError(f"{folder / 'images' / name}: no .jpg; unpack ADEChallengeData2016 there")

    def get(number: int) -> Segmented:
        path = pictures[number]
        labels = read_indices(folder / "annotations" / name / f"{path.stem}.png") - 1  # other becomes UNKNOWN
        if labels.max() >= NUM_CLASSES:
            raise SourceError(f"{path}: its annotation has class {labels.max() + 1}, {NUM_CLASSES} are known")
        return Segmented(read_picture(path, bounds), labels)

    return Series(len(pictures), get)
