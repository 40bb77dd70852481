"""`curate eval`: every measure of one frozen backbone on one labelled set, and of two beside each other."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from curate.errors import ConfigError, SourceError
from curate.evaluation import scores
from curate.evaluation.copies import choose_pictures, embed_copies, score_copies
from curate.evaluation.features import BlockFeatures, embed_blocks
from curate.evaluation.knn import fitting, knn_accuracy, knn_sweep
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.linear import BLOCKS, linear_accuracy
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.retrieval import RECALL_AT, retrieve_by_class
from curate.evaluation.scores import Difference, Score
from curate.evaluation.splits import stratified_split
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.models.device import PrecisionChoice

Measure = Literal["knn", "linear", "logistic", "retrieval", "copies", "splits"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

TRAIN_SHARE = 0.7
"""Of each class, where no test set is given."""
NUM_SPLITS = 5
SPLIT_NEIGHBORS = 10
LEAVE_ONE_OUT = "leave one out"


@dataclass(frozen=True)
class Evaluation:
    """The scores of one backbone, and what they were measured with."""

    model: str
    weights: str
    """SHA-256 of the weight file; empty: it has none."""
    precision: str
    data: str
    test: str | None
    num_images: int
    num_test: int
    num_classes: int
    seed: int
    scores: list[Score]


def evaluate(
    backbone: Backbone,
    images: LabeledImages,
    *,
    test: LabeledImages | None = None,
    measures: Sequence[Measure] = MEASURES,
    seed: int = 0,
    num_splits: int = NUM_SPLITS,
) -> Evaluation:
    """Embed the pictures once and take all measures on the features.

    Args:
        images: what neighbors and classifiers are taken from; copies are planted on it.
        test: what is asked; None: each picture asks the others (knn, retrieval), or 30 % of each class are held out.
        measures: in any order.
        seed: of splits, heads and edits; two models with one seed answer the same questions.
        num_splits: of the measure `splits`, at least two.

    Raises:
        ConfigError: fewer than two splits.
        SourceError: too few pictures or classes for a measure, a picture that does not decode, or a class of `test`
            that `images` lacks.
    """
    if num_splits < 2:
        raise ConfigError(f"num_splits={num_splits}: at least 2 are needed to see how splits differ")
    asked = None if test is None else test.with_classes_of(images)
    _check_images(images, measures, held_out=test is None)
    last = BLOCKS if "linear" in measures else 1
    train_x = embed_blocks(backbone, images, last=last)
    test_x = None if asked is None else embed_blocks(backbone, asked, last=last, label="embed test")
    run = _Run(backbone, images, train_x, test_x, seed, num_splits)
    found = [score for measure in MEASURES if measure in measures for score in _TAKE[measure](run)]
    return Evaluation(
        model=backbone.model,
        weights=backbone.weights_hash,
        precision=backbone.precision,
        data=images.name,
        test=None if test is None else test.name,
        num_images=len(images),
        num_test=0 if test is None else len(test),
        num_classes=len(images.classes),
        seed=seed,
        scores=found,
    )


def load(model: str, *, weights: str | None, device: str, precision: str) -> Backbone:
    """As `load_backbone`, where `model` may also be the path of an export.

    Raises:
        ConfigError: unknown model, device or precision.
        WeightsError: weights that are absent or another model's.
    """
    if precision not in get_args(PrecisionChoice):
        raise ConfigError(f"precision={precision}: known are {', '.join(get_args(PrecisionChoice))}")
    if model.endswith(".safetensors"):
        model, weights = "curate", model
    return load_backbone(model, weights=weights, device=device, precision=cast(PrecisionChoice, precision))


def parse_measures(text: str) -> tuple[Measure, ...]:
    """Names with commas between them, in the order of `MEASURES`.

    Raises:
        ConfigError: an unknown measure.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"measures={text}: {name!r} is not known; known are {', '.join(MEASURES)}")
    return tuple(measure for measure in MEASURES if measure in names)


def _check_images(images: LabeledImages, measures: Sequence[str], *, held_out: bool) -> None:
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
    """Of the largest class: one to learn from, one to choose strengths and heads on, one to test on."""
    if measure in ("knn", "retrieval"):
        return 2 if held_out else 1
    return 3 if held_out or measure == "splits" else 2


@dataclass(frozen=True)
class _Run:
    backbone: Backbone
    images: LabeledImages
    train: BlockFeatures
    test: BlockFeatures | None
    seed: int
    num_splits: int

    @property
    def device(self) -> Any:
        return self.backbone.device

    @property
    def protocol(self) -> str:
        """Of measures that train nothing."""
        return LEAVE_ONE_OUT if self.test is None else "test set"

    def halves(self) -> tuple[BlockFeatures, BlockFeatures, str]:
        """What classifiers learn from, what they are asked, and the protocol's name."""
        if self.test is not None:
            return self.train, self.test, "test set"
        learned = stratified_split(self.train.labels, train_share=TRAIN_SHARE, seed=self.seed)
        return *_cut(self.train, learned), f"{1 - TRAIN_SHARE:.0%} of each class held out"


def _cut(features: BlockFeatures, first: np.ndarray) -> tuple[BlockFeatures, BlockFeatures]:
    return (
        BlockFeatures(features.tokens[first], features.labels[first]),
        BlockFeatures(features.tokens[~first], features.labels[~first]),
    )


def _knn(run: _Run) -> list[Score]:
    train, test = run.train, run.test
    ks = fitting(len(train.labels) - (test is None))
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = knn_sweep(train.unit, train.labels, test_x, test_y, ks, device=run.device)
    return [scores.of_accuracy("knn", f"k={k}", run.protocol, accuracy) for k, accuracy in found.items()]


def _linear(run: _Run) -> list[Score]:
    train, test, protocol = run.halves()
    accuracy, head = linear_accuracy(train, test, seed=run.seed, device=run.device)
    return [scores.of_accuracy("linear", "SGD grid", protocol, accuracy, chosen=str(head))]


def _logistic(run: _Run) -> list[Score]:
    train, test, protocol = run.halves()
    accuracy, strength = logistic_accuracy(
        train.unit, train.labels, test.unit, test.labels, seed=run.seed, device=run.device
    )
    return [scores.of_accuracy("logistic", "L-BFGS", protocol, accuracy, chosen=f"C={strength:.3g}")]


def _retrieval(run: _Run) -> list[Score]:
    train, test = run.train, run.test
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = retrieve_by_class(train.unit, train.labels, test_x, test_y, seed=run.seed, device=run.device)
    recalls = [
        scores.of_items("retrieval", f"recall@{k}", run.protocol, found.recalled[k].astype(float)) for k in RECALL_AT
    ]
    return [scores.of_items("retrieval", "mAP", run.protocol, found.average_precision), *recalls]


def _copies(run: _Run) -> list[Score]:
    rows, is_reference = choose_pictures(len(run.images), seed=run.seed, where=run.images.name)
    copies = embed_copies(run.backbone, run.images, rows, seed=run.seed)
    found = score_copies(run.train.unit[rows], copies, is_reference, seed=run.seed)
    protocol = f"planted on {len(rows)} pictures, {is_reference.sum()} of them references"
    num = found.num_queries
    return [
        scores.of_bootstrap("copies", "micro AP", protocol, found.micro_ap, found.micro_ap_draws, num=num),
        scores.of_bootstrap("copies", "recall@P90", protocol, found.recall_at_90, found.recall_draws, num=num),
    ]


def _splits(run: _Run) -> list[Score]:
    nearest, logistic = [], []
    unit, labels = run.train.unit, run.train.labels
    for number in range(run.num_splits):
        seed = run.seed + number
        learned = stratified_split(labels, train_share=TRAIN_SHARE, seed=seed)
        four = unit[learned], labels[learned], unit[~learned], labels[~learned]
        (k,) = fitting(int(learned.sum()), (SPLIT_NEIGHBORS,))
        nearest.append(knn_accuracy(*four, k).value)
        logistic.append(logistic_accuracy(*four, seed=seed, device=run.device)[0].value)
    protocol = f"{run.num_splits} splits 7:3 within each class"
    found = ((f"knn, k={k}", nearest), ("logistic", logistic))
    return [scores.of_splits(figure, protocol, values, test_share=1 - TRAIN_SHARE) for figure, values in found]


_TAKE: dict[str, Callable[[_Run], list[Score]]] = {
    "knn": _knn,
    "linear": _linear,
    "logistic": _logistic,
    "retrieval": _retrieval,
    "copies": _copies,
    "splits": _splits,
}


def compare(first: Evaluation, second: Evaluation) -> list[Difference]:
    """`second` minus `first`, figure by figure, of two evaluations with one seed on the same pictures."""
    known = {score.name: score for score in first.scores}
    return [Difference(known[score.name], score) for score in second.scores]


HEAD = ("measure", "figure", "score, %", "answers", "protocol", "chosen on training images")


def cells(score: Score) -> tuple[str, ...]:
    """A row under `HEAD`."""
    value = _percent(score.value, score.stderr)
    return score.measure, score.figure, value, str(score.num), score.protocol, score.chosen


COMPARED_HEAD = ("measure", "figure", "first, %", "second, %", "second - first, %", "answers", "protocol")


def compared_cells(difference: Difference) -> tuple[str, ...]:
    """A row under `COMPARED_HEAD`."""
    first, second = difference.first, difference.second
    values = (_percent(score.value, score.stderr) for score in (first, second))
    gain = f"{100 * difference.value:+.1f} +- {100 * difference.stderr:.1f}"
    return first.measure, first.figure, *values, gain, str(first.num), first.protocol


def rows(found: Evaluation, second: Evaluation | None = None) -> list[tuple[str, ...]]:
    """Under `HEAD`, with a second evaluation under `COMPARED_HEAD`."""
    if second is None:
        return [cells(score) for score in found.scores]
    return [compared_cells(difference) for difference in compare(found, second)]


def _percent(value: float, stderr: float) -> str:
    return f"{100 * value:.1f} +- {100 * stderr:.1f}"


def headline(found: Evaluation) -> str:
    """What was measured on what."""
    weights = f" ({found.weights[:12]})" if found.weights else ""
    test = "" if found.test is None else f"; asked: {found.num_test} images of {found.test}"
    counts = f"{found.num_images} images of {found.data} in {found.num_classes} classes"
    return f"{found.model}{weights}, {found.precision}: {counts}{test}; seed {found.seed}"


def as_json(found: Evaluation, second: Evaluation | None = None) -> str:
    """The evaluation for programs; with a second one also its own figures and the paired differences."""
    told = _plain(found)
    if second is not None:
        differences = [
            {"measure": d.first.measure, "figure": d.first.figure, "value": d.value, "stderr": d.stderr}
            for d in compare(found, second)
        ]
        told |= {"compared": _plain(second), "differences": differences}
    return json.dumps(told, indent=2)


def _plain(found: Evaluation) -> dict[str, Any]:
    told = {name: value for name, value in vars(found).items() if name != "scores"}
    return told | {"scores": [_plain_score(score) for score in found.scores]}


def _plain_score(score: Score) -> dict[str, Any]:
    kept = ("measure", "figure", "protocol", "value", "stderr", "num", "chosen")
    told: dict[str, Any] = {name: getattr(score, name) for name in kept}
    return told | ({"values": score.parts.tolist()} if score.measure == "splits" else {})
