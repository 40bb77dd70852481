"""ChooseFaces: which faces are blurred in the pictures that are written, and how."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import field_validator

from curate.config import Settings
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.numbers import count, plural
from curate.engine.show import Check
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.images.blurring import Blur
from curate.stages.screening.find_faces import FindFaces
from curate.tables import BLUR, BLURS, FACE_BOXES, IMAGE_ID


class Faces(Settings):
    """How faces are found, and what becomes of them."""

    find: FindFaces = FindFaces()
    """How they are found."""
    blur: Blur | None = None
    """How faces are blurred in the pictures that are written, in shards and by `curate write`; true: by the defaults
    of its keys; null: pictures stay as they are."""

    @field_validator("blur", mode="before")
    @classmethod
    def _by_defaults(cls, given: Any) -> Any:
        return given if not isinstance(given, bool) else Blur() if given else None


class ChosenTally(Tally):
    """What a part adds to the figures."""

    columns: ClassVar[tuple[str, ...]] = (BLURS.names[1],)

    images: int = 0
    """Images with a face to blur."""
    faces: int = 0
    """These faces."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        faces = pc.list_value_length(rows[BLURS.names[1]]).drop_null()
        return cls(images=pc.sum(pc.greater(faces, 0)).as_py() or 0, faces=pc.sum(faces).as_py() or 0)


class ChosenFigures(Figures):
    """Faces that are blurred where their picture is written."""

    images: int
    faces: int


class ChooseFaces(Map):
    """Chooses the boxes that are blurred; how they are is told in the schema of the table."""

    inputs: ClassVar[dict[str, Input]] = {"faces": each(pa.schema([IMAGE_ID, FACE_BOXES]))}
    tally: ClassVar[type[Tally] | None] = ChosenTally
    explained_as: ClassVar[str] = "faces"

    blur: Blur = Blur()
    """From which confidence on faces are blurred, and how."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return BLURS.with_metadata({BLUR: json.dumps(self.blur.model_dump(), sort_keys=True).encode()})

    def run(self, part: int, *, faces: pa.Table) -> Batches:
        boxes = [self._chosen(found) for found in faces[FACE_BOXES.name].to_pylist()]
        columns = [faces["image_id"].combine_chunks(), pa.array(boxes, BLURS.types[1])]
        yield pa.RecordBatch.from_arrays(columns, schema=self.output_schema())

    def _chosen(self, found: list[dict[str, float]] | None) -> list[dict[str, float]] | None:
        return None if found is None else [box for box in found if box["confidence"] >= self.blur.least]

    def summarize(self, table: Table, **inputs: Any) -> ChosenFigures:
        found = ChosenTally.sum(ChosenTally.by_part(table))
        return ChosenFigures(images=found.images, faces=found.faces)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        made = inputs["faces"]._replace(row_bytes=ID_BYTES + 1, columns=2, widths={})
        return Demand(rows=made.rows, written=made.num_bytes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        found = ChosenFigures.of(table)
        text = (
            f"{plural(found.faces, 'face')} in {plural(found.images, 'image')} of the sources, of confidence "
            f"{self.blur.least:g} and more, blurred where they are written"
        )
        yield "Faces", text

    def checks(self, table: Table, run: Finished) -> Iterator[Check]:
        yield "faces"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        boxes = table.read(image.part)[BLURS.names[1]][image.place].as_py()
        if boxes:
            yield f"{count(len(boxes))} blurred where the picture is written"
