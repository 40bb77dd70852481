"""`curate eval`: the measures of one frozen backbone on one set of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from curate.errors import ConfigError
from curate.evaluation.dense.encoder import GRID
from curate.evaluation.dense.truth import DenseTruth
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.linear import BLOCKS
from curate.evaluation.measures.measured import SCENES, Asked, Measured
from curate.evaluation.measures.registry import DENSE, MEASURES, WHOLE, Measure, check_images, take_measures
from curate.evaluation.scores import Score
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.models.device import PrecisionChoice

NUM_SPLITS = 5
"""Random splits of the measure `splits`."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of one backbone, and how they were measured."""

    model: str
    weights: str
    """SHA-256 of the weight file; empty: there is none."""
    precision: str
    data: str
    """Name of the set of pictures."""
    test: str | None
    """Name of the test set; None: there is none."""
    num_images: int
    num_test: int
    """Images of the test set."""
    num_classes: int
    seed: int
    scores: list[Score]


def evaluate(
    backbone: Backbone,
    images: LabeledImages | None,
    *,
    test: LabeledImages | None = None,
    truth: DenseTruth | None = None,
    measures: Sequence[Measure] = WHOLE,
    seed: int = 0,
    num_splits: int = NUM_SPLITS,
    grid: int = GRID,
    scenes: int = SCENES,
) -> Evaluation:
    """Take all measures of one backbone; the pictures are embedded once for those that read whole pictures.

    Args:
        backbone: the model.
        images: where neighbors are looked for and classifiers are trained; copies are planted on them, and composites
            are made of them. None: `truth` is asked alone.
        test: the images that are classified or looked up; None: each image is looked up among all others (knn,
            retrieval), or 30 % of each class are held out.
        truth: pictures with a truth for every pixel; None: dense measures ask composites of `images`.
        measures: what is measured, in any order.
        seed: seed of the splits, heads, edits and composites; two models with one seed answer the same questions.
        num_splits: random splits of the measure `splits`, at least two.
        grid: patches along the short side of a picture, of dense measures.
        scenes: composites that a dense measure asks for.

    Raises:
        ConfigError: fewer than two splits, a measure without a truth, or a model without features of patches.
        SourceError: too few pictures or classes for a measure, a picture that does not decode, or a class of `test`
            that `images` lacks.
    """
    if num_splits < 2:
        raise ConfigError(f"num_splits={num_splits}: at least 2 are needed to see how splits differ")
    asked = Asked(seed, num_splits, BLOCKS if "linear" in measures else 1, grid, scenes)
    known = None if test is None or images is None else test.with_classes_of(images)
    measured = Measured(backbone, images, known, truth, asked)
    if any(name in WHOLE for name in measures):
        check_images(measured.images, measures, held_out=test is None)
    for name in measures:
        if name in DENSE and truth is not None:
            truth.check(name)
    return Evaluation(
        model=backbone.model,
        weights=backbone.weights_hash,
        precision=backbone.precision,
        data=truth.name if images is None and truth is not None else measured.images.name,
        test=None if test is None else test.name,
        num_images=0 if images is None else len(images),
        num_test=0 if test is None else len(test),
        num_classes=0 if images is None else len(images.classes),
        seed=seed,
        scores=take_measures(measured, measures),
    )


def load(model: str, *, weights: str | None, device: str, precision: str) -> Backbone:
    """Load a backbone as `load_backbone` does, where `model` may also be the path of an export or ONNX file.

    Raises:
        ConfigError: the model, device or precision is not known.
        WeightsError: the weights are absent or another model's.
    """
    if precision not in get_args(PrecisionChoice):
        raise ConfigError(f"precision={precision}: known are {', '.join(get_args(PrecisionChoice))}")
    return load_backbone(model, weights=weights, device=device, precision=cast(PrecisionChoice, precision))


def parse_measures(text: str) -> tuple[Measure, ...]:
    """Measures from their names with commas between them, in the order of `MEASURES`.

    Raises:
        ConfigError: a measure is not known.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise ConfigError(f"tasks={text}: {name!r} is not known; known are {', '.join(MEASURES)}")
    return tuple(measure for measure in MEASURES if measure in names)


def usual_measures(truth: DenseTruth | None) -> tuple[Measure, ...]:
    """What is measured where nothing is said: what the folder of a public set has, else those of whole pictures."""
    return WHOLE if truth is None else tuple(name for name in DENSE if name in truth.known())


def needs_labels(measures: Sequence[Measure]) -> bool:
    """Whether one of the measures cannot be taken on pictures without classes."""
    return any(name in WHOLE and name != "copies" for name in measures)
