"""A stage and a recipe of your own: how bright is each image, and how many are too dark to train on?"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import (
    Assumptions,
    Demand,
    Figures,
    Finished,
    ImagePlace,
    PictureStage,
    Pipeline,
    RecipeConfig,
    Shape,
    Table,
)
from curate.engine.show import Histogram, Marker, Section, Series, Text
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import Seen
from curate.tables import IMAGE_ID


class BrightnessFigures(Figures):
    """What the table sums up; other stages read it by `BrightnessFigures.of(table)`."""

    dark: int
    """Images below `darkest`."""


class Brightness(PictureStage):
    """Mean luma of each accepted image, 0..1; shares the reading of the pass with other stages."""

    explained_as: ClassVar[str] = "brightness"

    darkest: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Brightness below which an image counts as dark."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema([IMAGE_ID, pa.field("brightness", pa.float32())])

    def prepare(self, seen: Seen) -> dict[str, float] | None:
        if seen.inspected is None or seen.inspected.picture is None:
            return None
        return {"brightness": float(np.asarray(seen.inspected.picture.convert("L")).mean() / 255)}

    def summarize(self, table: Table, **inputs: Any) -> BrightnessFigures:
        values = table.read_all(["brightness"])["brightness"].drop_null().to_numpy()
        return BrightnessFigures(dark=int((values < self.darkest).sum()))

    def cost(self, inputs: Any, given: Assumptions) -> tuple[Demand, Shape]:
        made = inputs["catalog"]._replace(row_bytes=12)
        return Demand(rows=made.rows, written=made.num_bytes), made

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        sample = run.sample(table, ["brightness"])
        counts, edges = np.histogram(sample.rows["brightness"].drop_null().to_numpy(), np.linspace(0, 1, 41))
        bars, limit = Series("images", counts, "a"), Marker("dark", self.darkest, "d")
        text = Text(f"Images darker than {self.darkest:g}: {BrightnessFigures.of(table).dark:,}. {sample.note}")
        yield Section("Brightness", (Histogram(edges, [bars], [limit], "brightness", "images"), text))

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        value = table.read(image.part)["brightness"][image.place].as_py()
        if value is not None:
            yield f"{value:.2f}, {'dark' if value < self.darkest else 'bright enough'}"


class DarkConfig(RecipeConfig):
    """Fields of the config."""

    inspect: Inspect = Inspect()
    """What is rejected."""
    brightness: Brightness = Brightness()
    """What counts as dark."""


def dark(p: Pipeline, cfg: DarkConfig) -> None:
    """List the images, then judge and measure them in one reading."""
    catalog = p.add("catalog", Catalog(sources=cfg.sources))
    p.add_pass({"images": cfg.inspect, "brightness": cfg.brightness}, catalog=catalog)
