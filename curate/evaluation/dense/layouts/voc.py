"""PASCAL VOC, a folder such as `VOCdevkit/VOC2012`: classes of pixels, and boxes of objects.

    JPEGImages/*.jpg    SegmentationClass/*.png (0 background, 1..20, 255: does not count)    Annotations/*.xml
    ImageSets/Segmentation/{train,val}.txt    ImageSets/Main/trainval.txt

Segmentation: a linear layer on `train`, mean IoU of 21 classes on the 1,449 pictures of `val`; DINOv2 and DINOv3 train
on the 10,582 pictures of `trainaug`, which are another download. Discovery: CorLoc on `trainval`, 5,011 pictures of VOC
2007 and 11,540 of VOC 2012, as TokenCut and DINOv3 report it.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from curate.errors import SourceError
from curate.evaluation.dense.layouts.files import inside, read_indices, read_lines, read_picture, spread
from curate.evaluation.dense.truth import (
    UNKNOWN,
    DenseTruth,
    DiscoveryTask,
    SegmentationTask,
    Segmented,
    Series,
    WithObjects,
)
from curate.ops.images.bounds import Bounds

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""In the order of their indices."""
OUTLINE = 255
"""Index of pixels that do not count."""
SEGMENTED, MAIN = "ImageSets/Segmentation", "ImageSets/Main"
SIDES = ("xmin", "ymin", "xmax", "ymax")


def is_here(folder: Path) -> bool:
    """Whether the folder has this layout."""
    lists = (f"{SEGMENTED}/val.txt", f"{MAIN}/trainval.txt")
    return (folder / "JPEGImages").is_dir() and any((folder / name).is_file() for name in lists)


def open_folder(folder: Path, *, train: int | None, test: int | None, bounds: Bounds) -> DenseTruth:
    """The truth of the folder; `train` and `test` are pictures at most, None: all."""
    segmentation, discovery = None, None
    if (folder / SEGMENTED / "val.txt").is_file():
        learned, asked = (_segmented(folder, *half, bounds) for half in (("train", train), ("val", test)))
        segmentation = SegmentationTask(learned, asked, CLASSES, f"{len(asked)} val pictures of VOC")
    if (folder / MAIN / "trainval.txt").is_file():
        pictures = _with_boxes(folder, test, bounds)
        discovery = DiscoveryTask(pictures, f"{len(pictures)} trainval pictures of VOC")
    return DenseTruth(f"VOC in {folder}", segmentation=segmentation, discovery=discovery)


def _names(folder: Path, path: str, most: int | None) -> list[str]:
    names = spread([line.split()[0] for line in read_lines(folder / path)], most)
    if not names:
        raise SourceError(f"{folder / path}: names no picture; unpack VOC there")
    return names


def _segmented(folder: Path, half: str, most: int | None, bounds: Bounds) -> Series[Segmented]:
    names = _names(folder, f"{SEGMENTED}/{half}.txt", most)

    def get(number: int) -> Segmented:
        labels = read_indices(inside(folder / "SegmentationClass", f"{names[number]}.png"))
        labels[labels == OUTLINE] = UNKNOWN
        if labels.max() >= len(CLASSES):
            raise SourceError(f"{folder}: {names[number]}: class {labels.max()}, {len(CLASSES)} are known")
        return Segmented(read_picture(inside(folder / "JPEGImages", f"{names[number]}.jpg"), bounds), labels)

    return Series(len(names), get)


def _with_boxes(folder: Path, most: int | None, bounds: Bounds) -> Series[WithObjects]:
    names = _names(folder, f"{MAIN}/trainval.txt", most)

    def get(number: int) -> WithObjects:
        picture = read_picture(inside(folder / "JPEGImages", f"{names[number]}.jpg"), bounds)
        return WithObjects(picture, read_boxes(inside(folder / "Annotations", f"{names[number]}.xml")), None)

    return Series(len(names), get)


def read_boxes(path: Path) -> np.ndarray:
    """(K, 4) float64 left, top, right, bottom of the objects of an annotation, whose first pixel is number 1.

    Raises:
        SourceError: it is no annotation of VOC, or has no object.
    """
    text = "\n".join(read_lines(path))
    if "<!" in text:  # entities could grow without an end
        raise SourceError(f"{path}: an annotation of VOC has no declarations; unpack VOC again")
    try:
        found = [
            [float(box.findtext(side, "")) for side in SIDES]
            for box in ElementTree.fromstring(text).iterfind("object/bndbox")
        ]
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{path}: no annotation of VOC; unpack VOC again") from error
    if not found:
        raise SourceError(f"{path}: no object with a box; unpack VOC again")
    return np.array(found) - [1, 1, 0, 0]
