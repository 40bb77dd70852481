"""The measures of `curate eval`, each taken on the same features of one backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from curate.errors import SourceError
from curate.evaluation import scores
from curate.evaluation.copies import choose_pictures, embed_copies, score_copies
from curate.evaluation.features import BlockFeatures
from curate.evaluation.knn import knn_accuracy, knn_sweep, possible_ks
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.linear import linear_accuracy
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.retrieval import RECALL_AT, retrieve_by_class
from curate.evaluation.scores import Score
from curate.evaluation.splits import TRAIN_SHARE, stratified_split
from curate.models.backbones.backbone import Backbone

Measure = Literal["knn", "linear", "logistic", "retrieval", "copies", "splits"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

SPLIT_NEIGHBORS = 10
"""Neighbors that vote in the measure `splits`."""


@dataclass(frozen=True)
class Measured:
    """A backbone, the pictures that it is measured on, and its features of them."""

    backbone: Backbone
    images: LabeledImages
    train: BlockFeatures
    test: BlockFeatures | None
    """Features of the test set; None: there is none, and a part of `images` is held out instead."""
    seed: int
    num_splits: int

    @property
    def device(self) -> torch.device:
        """The device that features are computed and searched on."""
        return self.backbone.device

    @property
    def protocol(self) -> str:
        """The protocol of measures that train nothing."""
        return "leave one out" if self.test is None else "test set"

    def halves(self) -> tuple[BlockFeatures, BlockFeatures, str]:
        """What classifiers are trained on, what they are tested on, and the name of this protocol."""
        if self.test is not None:
            return self.train, self.test, "test set"
        learned = stratified_split(self.train.labels, train_share=TRAIN_SHARE, seed=self.seed)
        return *_cut(self.train, learned), f"{1 - TRAIN_SHARE:.0%} of each class held out"


def _cut(features: BlockFeatures, first: np.ndarray) -> tuple[BlockFeatures, BlockFeatures]:
    return (
        BlockFeatures(features.tokens[first], features.labels[first]),
        BlockFeatures(features.tokens[~first], features.labels[~first]),
    )


def _knn(run: Measured) -> list[Score]:
    train, test = run.train, run.test
    ks = possible_ks(len(train.labels) - (test is None))
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = knn_sweep(train.unit, train.labels, test_x, test_y, ks, device=run.device)
    return [scores.of_accuracy("knn", f"k={k}", run.protocol, accuracy) for k, accuracy in found.items()]


def _linear(run: Measured) -> list[Score]:
    train, test, protocol = run.halves()
    accuracy, head = linear_accuracy(train, test, seed=run.seed, device=run.device)
    return [scores.of_accuracy("linear", "SGD grid", protocol, accuracy, chosen=str(head))]


def _logistic(run: Measured) -> list[Score]:
    train, test, protocol = run.halves()
    accuracy, strength = logistic_accuracy(
        train.unit, train.labels, test.unit, test.labels, seed=run.seed, device=run.device
    )
    return [scores.of_accuracy("logistic", "L-BFGS", protocol, accuracy, chosen=f"C={strength:.3g}")]


def _retrieval(run: Measured) -> list[Score]:
    train, test = run.train, run.test
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = retrieve_by_class(train.unit, train.labels, test_x, test_y, seed=run.seed, device=run.device)
    recalls = [
        scores.of_items("retrieval", f"recall@{k}", run.protocol, found.recalled[k].astype(float)) for k in RECALL_AT
    ]
    return [scores.of_items("retrieval", "mAP", run.protocol, found.average_precision), *recalls]


def _copies(run: Measured) -> list[Score]:
    rows, is_reference = choose_pictures(len(run.images), seed=run.seed, where=run.images.name)
    copies = embed_copies(run.backbone, run.images, rows, seed=run.seed)
    found = score_copies(run.train.unit[rows], copies, is_reference, seed=run.seed)
    protocol = f"planted on {len(rows)} pictures, {is_reference.sum()} of them references"
    num = found.num_queries
    return [
        scores.of_bootstrap("copies", "micro AP", protocol, found.micro_ap, found.micro_ap_draws, num=num),
        scores.of_bootstrap("copies", "recall@P90", protocol, found.recall_at_90, found.recall_draws, num=num),
    ]


def _splits(run: Measured) -> list[Score]:
    nearest, logistic = [], []
    unit, labels = run.train.unit, run.train.labels
    for number in range(run.num_splits):
        seed = run.seed + number
        learned = stratified_split(labels, train_share=TRAIN_SHARE, seed=seed)
        four = unit[learned], labels[learned], unit[~learned], labels[~learned]
        (k,) = possible_ks(int(learned.sum()), (SPLIT_NEIGHBORS,))
        nearest.append(knn_accuracy(*four, k).value)
        logistic.append(logistic_accuracy(*four, seed=seed, device=run.device)[0].value)
    protocol = f"{run.num_splits} splits 7:3 within each class"
    found = ((f"knn, k={k}", nearest), ("logistic", logistic))
    return [scores.of_splits(figure, protocol, values, test_share=1 - TRAIN_SHARE) for figure, values in found]


_TAKE: dict[str, Callable[[Measured], list[Score]]] = {
    "knn": _knn,
    "linear": _linear,
    "logistic": _logistic,
    "retrieval": _retrieval,
    "copies": _copies,
    "splits": _splits,
}


def take_measures(measured: Measured, measures: Sequence[Measure]) -> list[Score]:
    """The scores of the measures, in the order of `MEASURES`."""
    return [score for measure in MEASURES if measure in measures for score in _TAKE[measure](measured)]


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
