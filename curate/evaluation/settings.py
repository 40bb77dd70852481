"""What is measured of a model while it trains: the block `evaluation` in a YAML file of `curate train`.

    evaluate_every: 1000
    evaluation:
      labelled: FOLDER
      k: 20
      segmentation: {data: bundled}
      depth: {data: /data/nyu, num: 100}

Importing these settings costs no torch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from curate.config import Settings, parse
from curate.errors import ConfigError
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, Bounds, DecodeBytes, DecodeSeconds

KEY = "evaluation"
"""Name of the block."""
DENSE = ("segmentation", "correspondence", "propagation", "depth", "discovery")
"""Measures of patch features."""


class DenseSettings(Settings):
    """What a measure of patch features is taken on."""

    data: str = "bundled"
    """Pictures of which composites are made: a folder, Parquet, `bundled` or `mnist5k`; or a folder of ADE20k, VOC,
    DAVIS or NYU Depth v2 that holds a truth for the measure."""
    num: int = Field(default=25, ge=2)
    """Composites that are asked for, twice as many are learned on; of a folder the pictures asked for at most, and four
    times as many are learned on."""
    grid: int = Field(default=16, ge=2, le=128)
    """Patches along the short side of a picture; the papers take 32."""
    seed: int = Field(default=0, ge=0)
    """Seed of composites and of the pictures that are drawn."""


class EvaluationSettings(Settings):
    """What is measured of the teacher every `evaluate_every` iterations."""

    labelled: str | None = None
    """Pictures with labels: a folder with a subfolder for each class, Parquet, `bundled` or `mnist5k`; null: none, and
    dense measures alone are taken."""
    label: str | None = None
    """Column of the labels in Parquet files."""
    test: str | None = None
    """Labeled pictures to classify, given likewise; null: k-NN leaves one out, the linear classifier holds out 30 % of
    each class."""
    k: int = Field(default=20, ge=1)
    """Neighbors that vote; fewer where there are not so many."""
    max_images: int = Field(default=5000, ge=2)
    """Images of each set at most; of a larger set so many are drawn, the classes in their shares. They are held in
    memory: 150 kB each at 224 pixels."""
    max_decode_bytes: DecodeBytes = MAX_DECODE_BYTES
    """Most bytes of memory that decoding a picture takes, beside the bytes of the file."""
    max_seconds: DecodeSeconds = 2 * MAX_SECONDS
    """Most seconds of CPU time that decoding a picture takes."""
    measures: Annotated[tuple[Literal["knn", "linear"], ...], Field(min_length=1)] = ("knn", "linear")
    """knn: weighted nearest neighbors; linear: logistic regression on the cls token."""
    segmentation: DenseSettings | None = None
    """Classes of pixels by the nearest labeled patches and by a linear reader; null: not measured."""
    correspondence: DenseSettings | None = None
    """Points of one view found in another; null: not measured."""
    propagation: DenseSettings | None = None
    """Objects followed through clips; null: not measured."""
    depth: DenseSettings | None = None
    """Depth of pixels by a linear reader; null: not measured."""
    discovery: DenseSettings | None = None
    """Objects found by a cut of patch similarities; null: not measured."""
    seed: int = Field(default=0, ge=0)
    """Seed of the images drawn and of those held out."""

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if self.labelled is None and not self.dense:
            raise ValueError("nothing to measure: give labelled, or a dense measure such as segmentation: {}")
        return self

    @property
    def dense(self) -> dict[str, DenseSettings]:
        """The dense measures that are taken, by name."""
        found = {name: getattr(self, name) for name in DENSE}
        return {name: settings for name, settings in found.items() if settings is not None}

    @property
    def bounds(self) -> Bounds:
        """What decoding a picture may cost."""
        return Bounds(max_decode_bytes=self.max_decode_bytes, max_seconds=self.max_seconds)


def split_config(values: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], EvaluationSettings | None]:
    """Separate the block `evaluation` of a training's YAML from what the trainer reads.

    Args:
        values: the whole config.
        where: name of the config in messages.

    Raises:
        ConfigError: the block holds no mapping, an unknown key or a bad value.
    """
    rest = dict(values)
    block = rest.pop(KEY, None)
    if block is None:
        return rest, None
    if not isinstance(block, Mapping):
        raise ConfigError(f"{where}: {KEY} is {block!r}; a mapping is needed, such as {{labelled: FOLDER}}")
    return rest, parse(EvaluationSettings, block, where=f"{where}: {KEY}")
