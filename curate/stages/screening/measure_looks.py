"""MeasureLooks: blur, darkness and other looks of each picture, as numbers."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import pyarrow as pa
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.ops.screening.looks import LOOKS, Pictured, measure_looks
from curate.stages.images.pictures import Seen
from curate.stages.screening.scoring import PictureScores
from curate.tables import score

LookName = Literal["blur", "darkness", "overexposure", "low_information", "odd_aspect", "animated", "grayscale", "flat"]


class MeasureLooks(PictureScores):
    """Measures the looks of each picture, as it is decoded in the first pass."""

    scores: Annotated[tuple[LookName, ...], Field(min_length=1)] = get_args(LookName)
    """Which looks are measured."""

    def score_names(self) -> tuple[str, ...]:
        return self.scores

    def columns(self) -> list[pa.Field]:
        return list(_columns(self.scores))

    def prepare(self, seen: Seen) -> dict[str, Any] | None:
        found = seen.inspected
        if found is None or found.picture is None:
            return None
        data, width, height = seen.read.data, found.width, found.height
        assert data is not None
        assert width is not None
        assert height is not None
        return measure_looks(Pictured(found.picture, width, height, data), self.scores)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Arithmetic on a small picture, a few percent of its decoding; within a pass."""
        made = inputs["catalog"]._replace(row_bytes=ID_BYTES + 4 * len(self.scores), columns=1 + len(self.scores))
        return Demand(written=made.num_bytes), made._replace(widths={})


def _columns(names: tuple[LookName, ...]) -> Iterator[pa.Field]:
    for name in names:
        look = LOOKS[name]
        dtype = pa.int32() if look.whole else pa.float32()
        yield score(name, dtype, look.doc, preset={"above": look.above})
