"""ExtractFeatures: the local features of the images that occur in candidates; see `verified_pairs.py`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.copies.features import SIDE, STORED, LocalFeatures, extract_features
from curate.stages.images.pictures import PictureStage, Seen
from curate.tables import FEATURES

FEATURE_BYTES = 20_000
"""Bytes of a row, as the cost law assumes."""
MEGAPIXELS = 1.0
"""What finding the points takes, in decoded megapixels."""


class FeatureFigures(Figures):
    """How many images have features."""

    images: int
    """Images whose features were kept."""


class FeatureTally(Tally):
    """Images that have features."""

    columns = ("points",)

    images: int = 0
    """Rows that are not null."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(images=len(rows) - rows["points"].null_count)


class ExtractFeatures(PictureStage):
    """Opens the chosen images once more and keeps the points by which one can be laid over another."""

    tally: ClassVar[type[Tally] | None] = FeatureTally
    version: ClassVar[int] = 2

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return FEATURES

    def least_side(self) -> int:
        return SIDE

    def prepare(self, seen: Seen) -> Mapping[str, Any] | None:
        return None if seen.picture is None else features_row(extract_features(seen.picture))

    def summarize(self, table: Table, **inputs: Any) -> FeatureFigures:
        return FeatureFigures(images=FeatureTally.of(table).images)

    # -- telling about it ------------------------------------------------------------------------------------

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """Images that were opened."""
        assert isinstance(figures, FeatureFigures)
        return figures.images

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        listed: Shape = inputs.get("catalog") or Shape()
        made = inputs["chosen"]._replace(row_bytes=self.row_bytes(), parts=listed.parts, columns=4)
        demand = Demand(megapixels=MEGAPIXELS * made.rows, written=made.num_bytes)
        return demand.with_reading(made.rows, given, of=listed.rows), made

    def row_bytes(self) -> float:
        """Bytes of an image's features in the table, as the law assumes."""
        return FEATURE_BYTES


def features_row(features: LocalFeatures) -> dict[str, Any]:
    """The columns of `tables.FEATURES` but the id."""
    points, descriptors = features.stored_points, features.stored_descriptors
    return {"points": points.tobytes(), "descriptors": descriptors.tobytes(), "picture": features.encoded}


def read_features(row: Mapping[str, Any]) -> LocalFeatures | None:
    """What `features_row` made; None: the image could not be opened."""
    if row["points"] is None:
        return None
    points = np.frombuffer(row["points"], np.uint16).reshape(-1, 2)
    descriptors = np.frombuffer(row["descriptors"], np.uint8).reshape(-1, STORED)
    return LocalFeatures(points, descriptors, row["picture"])
