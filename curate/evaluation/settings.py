"""What is measured of a model while it trains: the block `evaluation` in a YAML file of `curate train`.

    evaluate_every: 1000
    evaluation: {labelled: FOLDER, k: 20}

Importing these settings costs no torch.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from curate.config import Settings, parse
from curate.errors import ConfigError
from curate.ops.images.bounds import MAX_DECODE_BYTES, MAX_SECONDS, Bounds, DecodeBytes, DecodeSeconds

KEY = "evaluation"
"""Name of the block."""


class EvaluationSettings(Settings):
    """What is measured of the teacher every `evaluate_every` iterations."""

    labelled: str
    """Pictures with labels: a folder with a subfolder for each class, Parquet, `bundled` or `mnist5k`."""
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
    seed: int = Field(default=0, ge=0)
    """Seed of the images drawn and of those held out."""

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
