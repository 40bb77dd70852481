"""Stages that score images: what those of one kind have in common.

A score stage makes a table `internal/scores/NAME`, aligned with the catalog, of the image ids and its columns. Columns
made by `tables.score` are scores, of which rules may speak; others, such as boxes of faces, stay in that table alone.
"""

from typing import Any, ClassVar, Protocol

import pyarrow as pa

from curate.stages.images.pictures import PictureStage
from curate.tables import IMAGE_ID

SCORES = "internal/scores/"
"""Where tables of scores lie."""


class Scoring(Protocol):
    """A stage that scores images."""

    def score_names(self) -> tuple[str, ...]:
        """Names of its columns of scores; asked without weights at hand."""
        ...


class PictureScores(PictureStage):
    """Scores images in the pass that decodes them."""

    stands_alone: ClassVar[bool] = True

    def columns(self) -> list[pa.Field]:
        """Its columns beside the id, scores made by `tables.score`."""
        raise NotImplementedError

    def score_names(self) -> tuple[str, ...]:
        """Names of its columns of scores; asked without weights at hand."""
        raise NotImplementedError

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGE_ID, *self.columns()])
