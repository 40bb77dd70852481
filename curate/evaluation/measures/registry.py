"""The measures by name, and what each needs of the pictures."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from curate.errors import SourceError
from curate.evaluation.copies import choose_pictures
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.measures import (
    copies,
    correspondence,
    depth,
    discovery,
    knn,
    linear,
    logistic,
    propagation,
    retrieval,
    segmentation,
    splits,
)
from curate.evaluation.measures.measured import Measured, TakesMeasure
from curate.evaluation.scores import Score

WholeMeasure = Literal["knn", "linear", "logistic", "retrieval", "copies", "splits"]
"""Measures of one vector a picture."""
DenseMeasure = Literal["segmentation", "correspondence", "propagation", "depth", "discovery"]
"""Measures of the features of patches."""
Measure = WholeMeasure | DenseMeasure
WHOLE: tuple[WholeMeasure, ...] = get_args(WholeMeasure)
DENSE: tuple[DenseMeasure, ...] = get_args(DenseMeasure)
MEASURES: tuple[Measure, ...] = (*WHOLE, *DENSE)
"""All measures, in the order of the table."""

_BY_NAME: dict[str, TakesMeasure] = {
    "knn": knn,
    "linear": linear,
    "logistic": logistic,
    "retrieval": retrieval,
    "copies": copies,
    "splits": splits,
    "segmentation": segmentation,
    "correspondence": correspondence,
    "propagation": propagation,
    "depth": depth,
    "discovery": discovery,
}


def take_measures(measured: Measured, measures: Sequence[Measure]) -> list[Score]:
    """The scores of the measures, in the order of `MEASURES`."""
    return [score for measure in MEASURES if measure in measures for score in _BY_NAME[measure].take(measured)]


def check_images(images: LabeledImages, measures: Sequence[Measure], *, held_out: bool) -> None:
    """Raise SourceError where there are too few pictures or classes for a measure.

    Args:
        images: the pictures to measure on.
        measures: the measures that will be taken.
        held_out: there is no test set, so a part of `images` is held out.
    """
    counts = np.bincount(images.labels)
    for name in measures:
        if name == "copies":
            choose_pictures(len(images), seed=0, where=images.name)
        if name == "copies" or name in DENSE:
            continue
        if len(counts) < 2:
            raise SourceError(f"{images.name}: one class, {images.classes[0]!r}; {name} needs two or more")
        need = _images_needed(name, held_out=held_out)
        if counts.max() < need:
            raise SourceError(
                f"{images.name}: no class has more than {counts.max()} images; {name} needs one of {need}"
            )


def _images_needed(measure: str, *, held_out: bool) -> int:
    """Images of the largest class: one to train on, one to choose strengths and heads on, one to test on."""
    if measure in ("knn", "retrieval"):
        return 2 if held_out else 1
    return 3 if held_out or measure == "splits" else 2
