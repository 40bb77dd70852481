"""PlantCopies: a sample of the pool's own images, and near-copies of them as the web makes them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.stage import Batches, Fold, Input, each, read_partials
from curate.engine.table import Table
from curate.models.backbones.load import describe, weights_for_plan
from curate.ops.copies.features import extract_features
from curate.ops.images.borders import without_border
from curate.ops.images.bounds import ACCEPTED
from curate.ops.images.decoding import inspect_picture
from curate.ops.images.edits import EDITS, MIN_SIDE, plant
from curate.ops.images.inspect import ImageLimits
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import pack
from curate.sources.reading import read_bytes
from curate.stages.copies.extract_features import FEATURE_BYTES, features_row
from curate.stages.images.catalog import source_of
from curate.stages.images.embed import Embed
from curate.stages.images.pictures import accepted_mask
from curate.tables import CATALOG, FEATURES, IMAGES, planted_schema

LEAST_IMAGES = 50
"""Images below which planted copies say too little."""
LIMITS = ImageLimits(min_side=MIN_SIDE, max_aspect=1e9, min_luma_std=0, min_smoothness=-1, **asdict(ACCEPTED))
"""Limits for images that were accepted already: an image that is too small for an edit is left out."""
SIDE = 512
"""Pixels of the short side that pictures keep at least before they are edited."""
EDITING = 4
"""Megapixels that are handled to edit, encode and prepare one megapixel of a copy."""


class PlantFigures(Figures):
    """How many copies were planted."""

    images: int
    """Images of the pool that copies were planted on."""
    copies: int
    """Copies planted on them."""


class PlantCopies(Fold):
    """Embeds sampled images and copies of them: chains of 1 to `max_edits` edits (see `ops/images/edits.py`)."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG), "images": each(IMAGES)}
    version: ClassVar[int] = 3
    pinned: ClassVar[bool] = True

    embed: Embed = Embed(model="")
    """The copy-detection model; recipes set it."""
    num_images: Annotated[int, Field(ge=LEAST_IMAGES)] = 1000
    """Images of the pool that are sampled, about; all where there are fewer."""
    copies_each: Annotated[int, Field(ge=1)] = 3
    """Copies planted on each image."""
    max_edits: Annotated[int, Field(ge=1, le=len(EDITS))] = 3
    """Edits of a copy at most."""
    border_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the copies one of whose edits surrounds the picture: frames, bars, rounded corners, a second one."""
    seed: int | None = None
    """Seed of the sampling and of the edits; null: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the pool's images that is sampled, 0..1; null: as `num_images` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        info = describe(self.embed.model, self.embed.weights, fetch=True)
        return planted_schema(info.dim, model=self.embed.model, weights=info.weights_hash)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema()

    def pins(self) -> dict[str, str]:
        return self.embed.pins()

    def resources(self) -> dict[str, float]:
        """Those of its model, which runs in the partial tasks."""
        return self.embed.resources()

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        rows = Parts.of(inputs["catalog"]).num_images(["pool"])
        share = self.sample_share or min(1.0, self.num_images / max(1, rows))
        before = (previous or {}).get("embed")
        return self.model_copy(update={"sample_share": share, "embed": self.embed.resolve(before)})

    def is_resolved(self) -> bool:
        return self.embed.is_resolved()

    def resolve_on_worker(self) -> Self:
        return self.model_copy(update={"embed": self.embed.resolve_on_worker()})

    def partial(self, part: int, *, catalog: pa.Table, images: pa.Table) -> Batches:
        """The rows of the sampled images of one part of the pool."""
        if len(catalog) == 0 or catalog["role"][0].as_py() != "pool":
            return
        assert self.sample_share is not None
        chosen = np.random.default_rng([self.seed or 0, part, 6]).random(len(catalog)) < self.sample_share
        rows = catalog.filter(pa.array(chosen & accepted_mask(images)))
        for start in range(0, len(rows), self.embed.batch_size):
            found = list(self._pictures(rows.slice(start, self.embed.batch_size)))
            if found:
                yield self._embedded(found)

    def _pictures(self, rows: pa.Table) -> "Iterator[_PlantedPicture]":
        """Originals, each before its copies; images that are too small for an edit are left out."""
        source = source_of(rows)
        reads, bits = read_bytes(rows, source), source.significant_bits
        for image_id, read in zip(rows["image_id"].to_pylist(), reads, strict=True):
            if read.data is None:
                continue
            picture = inspect_picture(read.data, LIMITS, min_side=SIDE, significant_bits=bits).picture
            if picture is None:
                continue
            yield _PlantedPicture(image_id, 0, "", picture)
            for number in range(1, self.copies_each + 1):
                rng = np.random.default_rng([self.seed or 0, part_of(image_id), row_of(image_id), number])
                num_edits, bordered = int(rng.integers(1, self.max_edits + 1)), rng.random() < self.border_share
                copy, names = plant(picture, rng, num_edits=num_edits, num_borders=int(bordered))
                yield _PlantedPicture(image_id, number, " ".join(names), copy)

    def _embedded(self, found: "list[_PlantedPicture]") -> pa.RecordBatch:
        """Rows with the vectors and the local features of each picture."""
        pictures = [one.picture for one in found]
        within = [without_border(picture) for picture in pictures]
        rows = np.array([row for row, picture in enumerate(within) if picture is not None], np.int64)
        vectors = np.zeros((2, len(found), self.embed.backbone().dim), np.float32)
        vectors[0] = self._vectors(pictures)
        if len(rows):
            vectors[1, rows] = self._vectors([picture for picture in within if picture is not None])
        features = [features_row(extract_features(picture)) for picture in pictures]
        columns = [
            pa.array([one.image_id for one in found], pa.int64()),
            pa.array([one.number for one in found], pa.int16()),
            pa.array([one.edits for one in found], pa.string()),
            pack(vectors[0]),
            pack(vectors[1], valid=np.isin(np.arange(len(found)), rows)),
            *(pa.array([row[field.name] for row in features], field.type) for field in list(FEATURES)[1:]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.output_schema())

    def _vectors(self, pictures: list[Image.Image]) -> np.ndarray:
        """(N, D) vectors of pictures."""
        pixels, size = (
            [preprocess(picture, self.embed.backbone().preprocess) for picture in pictures],
            self.embed.batch_size,
        )
        return np.concatenate([self.embed.embed(pixels[i : i + size]) for i in range(0, len(pixels), size)])

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """All rows, if they are of enough images.

        Raises:
            ConfigError: copies could be planted on fewer than `LEAST_IMAGES` images.
        """
        assert partials is not None
        rows = read_partials(partials)
        images = int((rows["copy"].to_numpy() == 0).sum())
        if images < LEAST_IMAGES:
            raise self.field_error(
                "num_images",
                f"={self.num_images}: copies could be planted on {images} images of the pool, at least {LEAST_IMAGES} "
                "are needed to measure thresholds; give the thresholds, or use a model whose thresholds are known",
            )
        yield from rows.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> PlantFigures:
        number = table.read_all(["copy"])["copy"].to_numpy()
        return PlantFigures(images=int((number == 0).sum()), copies=int((number > 0).sum()))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        from curate.models.flops import forward_flops

        model = self.embed.model
        weights = weights_for_plan(model, self.embed.weights)
        images, dim = min(self.num_images, given.images), describe(model, weights).dim
        rows = images * (1 + self.copies_each)
        made = Shape(pool=rows, row_bytes=8 * dim + FEATURE_BYTES, dim=dim)
        demand = Demand(forward=rows * forward_flops(model, weights), written=made.num_bytes)
        edited = replace(demand, megapixels=EDITING * rows * given.megapixels, read=images * given.image_bytes)
        return edited, made


class _PlantedPicture(NamedTuple):
    """A picture and what was done to it."""

    image_id: int
    number: int
    edits: str
    picture: Image.Image
