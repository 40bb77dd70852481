"""What measures are taken on: a backbone, its pictures, and features that are computed when they are first read."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from curate.errors import ConfigError
from curate.evaluation.dense.composites import compose
from curate.evaluation.dense.encoder import GRID, PatchEncoder
from curate.evaluation.dense.truth import DenseTruth
from curate.evaluation.features import BlockFeatures, embed_blocks
from curate.evaluation.labeled import LabeledImages
from curate.evaluation.scores import Score
from curate.evaluation.splits import TRAIN_SHARE, stratified_split
from curate.models.backbones.backbone import Backbone

SCENES = 50
"""Composites that are asked for a measure, unless another number is given."""


@dataclass(frozen=True)
class Asked:
    """What is asked of a model, beside which measures."""

    seed: int = 0
    """Seed of splits, heads, edits and composites; two models with one seed answer the same questions."""
    num_splits: int = 5
    """Random splits of the measure `splits`."""
    last: int = 1
    """Last blocks whose tokens are kept for classifiers."""
    grid: int = GRID
    """Patches along the short side of a picture, of dense measures."""
    scenes: int = SCENES
    """Composites that a dense measure tells, each; those that it learns on are twice as many."""


@dataclass
class Measured:
    """A backbone, the pictures that it is measured on, and its features of them."""

    backbone: Backbone
    labeled: LabeledImages | None
    """Pictures with classes; None: a folder that holds a truth for every pixel alone."""
    tested: LabeledImages | None = None
    """The test set, with the class numbers of `labeled`; None: there is none, and a part of them is held out."""
    folder: DenseTruth | None = None
    """The truth of a folder; None: composites are made of `labeled`."""
    asked: Asked = Asked()

    @property
    def images(self) -> LabeledImages:
        """The pictures with classes.

        Raises:
            ConfigError: there are none.
        """
        if self.labeled is None:
            raise ConfigError(
                f"{'' if self.folder is None else self.folder.name}: holds a truth for every pixel and no classes of "
                "pictures; ask for dense tasks alone, such as --tasks segmentation"
            )
        return self.labeled

    @cached_property
    def train(self) -> BlockFeatures:
        """Features of `images`."""
        return embed_blocks(self.backbone, self.images, last=self.asked.last)

    @cached_property
    def test(self) -> BlockFeatures | None:
        """Features of the test set; None: there is none."""
        if self.tested is None:
            return None
        return embed_blocks(self.backbone, self.tested, last=self.asked.last, label="embed test")

    @cached_property
    def encoder(self) -> PatchEncoder:
        """The backbone as a maker of patch features.

        Raises:
            ConfigError: it has none.
        """
        return PatchEncoder.of(self.backbone, grid=self.asked.grid)

    @cached_property
    def truth(self) -> DenseTruth:
        """What is known of every pixel.

        Raises:
            SourceError: too few pictures to compose.
        """
        return self.folder or compose(self.images, seed=self.asked.seed, scenes=self.asked.scenes)

    @property
    def device(self) -> torch.device:
        """The device that features are computed and searched on."""
        return self.backbone.device

    @property
    def protocol(self) -> str:
        """The protocol of measures that train nothing."""
        return "leave one out" if self.tested is None else "test set"

    def halves(self) -> tuple[BlockFeatures, BlockFeatures, str]:
        """What classifiers are trained on, what they are tested on, and the name of this protocol."""
        if self.test is not None:
            return self.train, self.test, "test set"
        learned = stratified_split(self.train.labels, train_share=TRAIN_SHARE, seed=self.asked.seed)
        return self.train.rows(learned), self.train.rows(~learned), f"{1 - TRAIN_SHARE:.0%} of each class held out"


class TakesMeasure(Protocol):
    """A file of this folder."""

    def take(self, run: Measured) -> list[Score]:
        """The figures of one backbone."""
        ...
