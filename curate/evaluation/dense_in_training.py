"""A dense measure of the teacher while it trains: `evaluation: {segmentation: {data: bundled}}` in its config.

Composites are made anew at each evaluation, from pictures that are decoded once; the same seed gives the same ones.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from curate.evaluation.dense.encoder import PatchEncoder
from curate.evaluation.dense.layouts.find import open_truth
from curate.evaluation.dense.truth import Series
from curate.evaluation.measures.correspondence import score_correspondence
from curate.evaluation.measures.depth import score_depth
from curate.evaluation.measures.discovery import score_discovery
from curate.evaluation.measures.propagation import score_propagation
from curate.evaluation.measures.segmentation import score_segmentation
from curate.evaluation.scores import Score
from curate.evaluation.settings import DenseSettings
from curate.ops.images.bounds import Bounds

_SCORES: Mapping[str, Callable[[PatchEncoder, Any, int], list[Score]]] = {
    "segmentation": lambda encoder, task, seed: score_segmentation(encoder, task, seed=seed),
    "correspondence": lambda encoder, task, seed: score_correspondence(encoder, task),
    "propagation": lambda encoder, task, seed: score_propagation(encoder, task, seed=seed),
    "depth": lambda encoder, task, seed: score_depth(encoder, task),
    "discovery": lambda encoder, task, seed: score_discovery(encoder, task),
}


class DenseEvaluation:
    """One dense measure on one set of pictures; called with an encoder it returns figures by name."""

    def __init__(self, name: str, asked: DenseSettings, bounds: Bounds) -> None:
        """Find the pictures.

        Args:
            name: name of the measure.
            asked: what it is taken on.
            bounds: what decoding a picture may cost.

        Raises:
            ConfigError: the folder holds no truth for this measure.
            SourceError: pictures are missing or damaged, or too few.
        """
        self.name, self.asked = name, asked
        truth = open_truth(asked.data, seed=asked.seed, num=asked.num, bounds=bounds)
        truth.check(name)
        self.task = getattr(truth, name)

    def prepare(self) -> None:
        """Decode what can be decoded once, so that a damaged picture is an error before the training.

        Raises:
            SourceError: a picture cannot be read or does not decode.
        """
        for part in vars(self.task).values():
            if isinstance(part, Series):
                _ = part[0]  # the first composite decodes the pictures of all

    def __call__(self, encoder: PatchEncoder) -> dict[str, float]:
        """The figures, each with its standard error: `segmentation_linear_miou`, `segmentation_linear_miou_stderr`."""
        found: dict[str, float] = {}
        for score in _SCORES[self.name](encoder, self.task, self.asked.seed):
            name = f"{self.name}_{key_of(score.figure)}"
            found |= {name: score.value, f"{name}_stderr": score.stderr}
        return found


def key_of(figure: str) -> str:
    """The name of a figure as a key of the log: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", figure.lower()).strip("_")
