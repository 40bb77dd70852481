"""Evaluation of the teacher while it trains: pictures are prepared once, so that each evaluation is one forward pass.

`curate.evaluation.settings` says how the config of a training asks for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from curate.errors import ConfigError, SourceError
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.dense_in_training import DenseEvaluation
from curate.evaluation.features import prepare
from curate.evaluation.knn import knn_sweep, possible_ks
from curate.evaluation.labeled import LabeledImages, open_labeled
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.settings import KEY, EvaluationSettings
from curate.evaluation.splits import TRAIN_SHARE, stratified_sample, stratified_split
from curate.models.device import Precision, autocast, resolve_device, resolve_precision
from curate.ops.images.preprocess import Preprocess
from curate.ops.vectors import normalize
from curate.progress import track
from curate.trainer.config import TrainConfig

QUICK_STRENGTHS = (1e-2, 1.0, 1e2, 1e4)
"""Inverse L2 strengths C that the linear classifier tries; `curate eval` has a finer grid."""
FORWARD_BATCH = 128
"""Pictures that the teacher sees at a time."""


class _Prepared:
    """Pictures in the form that the model takes."""

    pixels: Tensor
    """(N, 3, S, S) uint8, of all pictures; known from `decode` on."""

    def __init__(self, images: LabeledImages, settings: EvaluationSettings) -> None:
        self.images = images
        self.rows = stratified_sample(images.labels, settings.max_images, seed=settings.seed)
        self.labels = images.labels[self.rows]

    def decode(self, how: Preprocess) -> None:
        """Make the pixels of all pictures."""
        self.pixels = torch.empty(len(self.rows), 3, how.size, how.size, dtype=torch.uint8)
        done = 0
        with track(f"evaluation: decode {self.images.name}", len(self.pixels), unit="images") as advance:
            for batch in prepare(self.images.pictures(self.rows), how):
                self.pixels[done : done + len(batch)] = batch
                done += len(batch)
                advance(len(batch))


class TeacherEvaluation:
    """Called with a backbone it returns figures by name: knn, knn_stderr, linear, linear_stderr, and dense ones.

    A training with evaluation must give the same weights as one without, so a call draws no random number of torch's
    and leaves every part of the module in the mode that it was in. One process computes it on a whole backbone.
    """

    how: Preprocess
    """How pictures are made for the backbone; known from `prepare` on."""

    def __init__(self, settings: EvaluationSettings, *, precision: Precision = "fp32") -> None:
        """Find the pictures.

        Args:
            settings: which pictures, and what is measured.
            precision: precision of the forward pass.

        Raises:
            ConfigError: Parquet files without a label column.
            SourceError: pictures are missing, or too few of one class.
        """
        self.settings, self.precision = settings, precision
        self.train: _Prepared | None = None
        self.test: _Prepared | None = None
        if settings.labelled is not None:
            self._find_labeled(settings.labelled)
        self.dense = [DenseEvaluation(name, asked, settings.bounds) for name, asked in settings.dense.items()]

    def _find_labeled(self, labelled: str) -> None:
        settings = self.settings
        train = open_labeled(labelled, label=settings.label, bounds=settings.bounds)
        if settings.test is not None:
            asked = open_labeled(settings.test, label=settings.label, bounds=settings.bounds).with_classes_of(train)
            self.test = _Prepared(asked, settings)
        self.train = _Prepared(train, settings)
        _check_classes(self.train.labels, train)

    def prepare(self, how: Preprocess) -> None:
        """Decode and resize the pictures, as exports of the training get them: a damaged one is an error now, and not
        after hours of training.

        Raises:
            SourceError: a picture is damaged.
        """
        self.how = how
        for prepared in filter(None, (self.train, self.test)):
            prepared.decode(how)
        for measure in self.dense:
            measure.prepare()

    def __call__(self, backbone: nn.Module) -> dict[str, float]:
        """Measure a module with `forward_features(images)` whose result has `cls`, (B, D), and `patches`, (B, N, D)."""
        with evaluating(backbone):
            found = {} if self.train is None else self._whole(backbone, self.train)
            for measure in self.dense:
                found |= measure(self._encoder(backbone, measure.asked.grid))
        return found

    def _encoder(self, backbone: nn.Module, grid: int) -> PatchEncoder:
        device, how = next(backbone.parameters()).device, self.how
        return PatchEncoder(backbone, "the teacher", how.mean, how.std, how.interpolation, device, self.precision, grid)

    def _whole(self, backbone: nn.Module, prepared: _Prepared) -> dict[str, float]:
        """The measures of one vector a picture."""
        train = self._embed(backbone, prepared.pixels)
        test = None if self.test is None else self._embed(backbone, self.test.pixels)
        take = {"knn": self._knn, "linear": self._linear}
        found = {name: take[name](train, prepared.labels, test) for name in self.settings.measures}
        values = {name: accuracy.value for name, accuracy in found.items()}
        return values | {f"{name}_stderr": accuracy.stderr for name, accuracy in found.items()}

    @torch.no_grad()  # under inference_mode FSDP would keep tensors that training cannot use
    def _embed(self, backbone: nn.Module, pixels: Tensor) -> np.ndarray:
        device = next(backbone.parameters()).device
        mean, std = (
            255 * torch.tensor(values, device=device).view(3, 1, 1) for values in (self.how.mean, self.how.std)
        )
        parts = []
        for batch in pixels.split(FORWARD_BATCH):
            with autocast(device, self.precision):
                features = backbone.forward_features((batch.to(device).float() - mean) / std)  # type: ignore[operator]
            parts.append(features.cls.float().cpu().numpy())
        return normalize(np.concatenate(parts))

    def _knn(self, train: np.ndarray, labels: np.ndarray, test: np.ndarray | None) -> Accuracy:
        (k,) = possible_ks(len(train) - (test is None), (self.settings.k,))
        answers = None if self.test is None else self.test.labels
        return knn_sweep(train, labels, test, answers, (k,))[k]

    def _linear(self, train: np.ndarray, labels: np.ndarray, test: np.ndarray | None) -> Accuracy:
        if test is not None and self.test is not None:
            four = train, labels, test, self.test.labels
        else:
            learned = stratified_split(labels, train_share=TRAIN_SHARE, seed=self.settings.seed)
            four = train[learned], labels[learned], train[~learned], labels[~learned]
        return logistic_accuracy(*four, seed=self.settings.seed, strengths=QUICK_STRENGTHS)[0]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of the module in evaluation mode, and back in its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _check_classes(labels: np.ndarray, images: LabeledImages) -> None:
    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts.max() < 3:
        raise SourceError(
            f"{images.name}: {len(labels)} images in {(counts > 0).sum()} classes, {counts.max()} in the largest; an "
            "evaluation needs two classes and three images of one"
        )


def evaluation_for(settings: EvaluationSettings | None, config: TrainConfig) -> TeacherEvaluation | None:
    """What `train` takes as its argument `evaluate`; None: nothing is to be evaluated.

    Raises:
        ConfigError: `settings` are given without `evaluate_every`, or the other way round.
        SourceError: pictures are missing or damaged, or too few of one class.
    """
    if settings is None:
        if config.evaluate_every:
            raise ConfigError(
                f"evaluate_every={config.evaluate_every}, but nothing says on what; set evaluation.labelled=FOLDER"
            )
        return None
    if not config.evaluate_every:
        raise ConfigError(f"{KEY} is given but evaluate_every is 0; set evaluate_every=ITERATIONS or leave it out")
    precision = resolve_precision(config.precision, resolve_device(config.device))
    return TeacherEvaluation(settings, precision=precision)
