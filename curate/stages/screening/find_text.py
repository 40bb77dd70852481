"""FindText: which share of each picture text covers."""

from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.models.screening.shipped import TEXT, ShippedNetwork
from curate.ops.screening.sizes import decode_side
from curate.stages.images.pictures import Seen
from curate.stages.screening.network_scores import NetworkScores, load_once

SCORE = "text_area"
FLOPS_A_PIXEL = 21_160
"""Operations for each pixel that it looks at, counted in the graph."""
PIXELS = 1.5
"""Pixels of a picture of 1 x 1 short sides: most are 3 : 2."""


class FindText(NetworkScores):
    """Finds lines of text by the detector of PP-OCRv6, which the package `rapidocr` ships; nothing is read.

    A picture is brought to `side` pixels of its short side, and enlarged by half at most; so the pass must decode at
    least two thirds of that.
    """

    network: ClassVar[ShippedNetwork] = TEXT

    side: Annotated[int, Field(ge=64, le=4096)] = 384
    """Pixels of the short side at which text is looked for: letters that are lower than about 6 there are missed. What
    it costs grows with the square. Above 1.5 x `inspect.decode_side` the images are read in a pass of their own."""

    def score_names(self) -> tuple[str, ...]:
        return (SCORE,)

    def columns(self) -> list[pa.Field]:
        doc = "share of the area that lines of text cover, 0..1"
        return [self.score(SCORE, pa.float32(), doc, preset={"above": 0.3})]

    def least_side(self) -> int:
        return decode_side(self.side)

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        from curate.models.screening.text import TextFinder

        if seen.picture is None:
            return None
        return {SCORE: load_once(TextFinder, self.network, self.weights).share(seen.picture, side=self.side)}

    def flops(self) -> float:
        return FLOPS_A_PIXEL * PIXELS * self.side**2
