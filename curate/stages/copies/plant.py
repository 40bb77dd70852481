"""PlantCopies: a sample of the pool's own images, and near-copies of them as the web makes them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from curate.engine.stage import Batches, Fold, Input, each
from curate.engine.store import Table
from curate.errors import ConfigError
from curate.models.backbones.load import describe
from curate.ops.images.decode import PIL_PIXELS
from curate.ops.images.edits import EDITS, MIN_SIDE, plant
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import VectorSpec, pack, unpack
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import source_of
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import accepted_mask
from curate.tables import CATALOG, IMAGES, planted_schema

PICTURES = Embed(model="luma24", precision="fp32", dtype="float32")
"""Small pictures that tell whether two images can be laid over each other, see `stages/copies/verify.py`."""
LEAST_IMAGES = 50
"""Images below which planted copies say too little."""
LIMITS = ImageLimits(min_side=MIN_SIDE, max_aspect=1e9, min_luma_std=0, min_smoothness=-1, max_pixels=PIL_PIXELS)
SIDE = 512
"""Pixels of the short side that pictures keep at least before they are edited."""


class PlantCopies(Fold):
    """Embeds sampled images and copies of them: chains of 1 to `max_edits` edits (see `ops/images/edits.py`)."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG), "images": each(IMAGES)}
    pinned: ClassVar[bool] = True

    embed: Embed = Embed(model="")
    """The copy-detection model; recipes set it."""
    num_images: Annotated[int, Field(ge=LEAST_IMAGES)] = 1000
    """Images of the pool at about which the sample aims; all where there are fewer."""
    copies_each: Annotated[int, Field(ge=1)] = 3
    """Copies planted on each."""
    max_edits: Annotated[int, Field(ge=1, le=len(EDITS))] = 3
    """Edits of a copy at most."""
    seed: int | None = None
    """Of sample and edits; None: the run's seed."""
    sample_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the images that is sampled; None: as `num_images` says."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        info = describe(self.embed.model, self.embed.weights, fetch=True)
        return planted_schema(info.dim, model=self.embed.model, weights=info.weights_hash)

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema()

    def num_parts(self, **inputs: Any) -> int:
        return 1

    def pins(self) -> dict[str, str]:
        return self.embed.pins()

    def resources(self) -> dict[str, float]:
        return self.embed.resources()

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        rows = sum(part["rows"] for part in inputs["catalog"].metrics["parts"] if part["role"] == "pool")
        share = self.sample_share or min(1.0, self.num_images / max(1, rows))
        before = (previous or {}).get("embed")
        return self.model_copy(update={"sample_share": share, "embed": self.embed.resolve(before)})

    def partial(self, part: int, *, catalog: pa.Table, images: pa.Table) -> Batches:
        if len(catalog) == 0 or catalog["role"][0].as_py() != "pool":
            return
        assert self.sample_share is not None
        chosen = np.random.default_rng([self.seed or 0, part, 6]).random(len(catalog)) < self.sample_share
        rows = catalog.filter(pa.array(chosen & accepted_mask(images)))
        for start in range(0, len(rows), self.embed.batch_size):
            found = list(self._pictures(rows.slice(start, self.embed.batch_size)))
            if found:
                yield self._embedded(found)

    def _pictures(self, rows: pa.Table) -> "Iterator[_Planted]":
        """Originals, each before its copies; images that are too small for an edit are left out."""
        reads = read_bytes(rows, source_of(rows))
        for image_id, read in zip(rows["image_id"].to_pylist(), reads, strict=True):
            picture = None if read.data is None else inspect_image(read.data, LIMITS, min_side=SIDE).picture
            if picture is None:
                continue
            yield _Planted(image_id, 0, "", picture)
            for number in range(1, self.copies_each + 1):
                rng = np.random.default_rng([self.seed or 0, image_id >> 32, image_id & 0xFFFFFFFF, number])
                copy, names = plant(picture, rng, num_edits=int(rng.integers(1, self.max_edits + 1)))
                yield _Planted(image_id, number, " ".join(names), copy)

    def _embedded(self, found: "list[_Planted]") -> pa.RecordBatch:
        vectors = []
        for stage in (self.embed, PICTURES):
            how = stage.backbone().preprocess
            pixels = [preprocess(one.picture, how) for one in found]
            size = stage.batch_size
            vectors.append(np.concatenate([stage.embed(pixels[i : i + size]) for i in range(0, len(pixels), size)]))
        columns = [
            pa.array([one.image_id for one in found], pa.int64()),
            pa.array([one.number for one in found], pa.int16()),
            pa.array([one.edits for one in found], pa.string()),
            pack(vectors[0].astype(np.float32)),
            pack(vectors[1]),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.output_schema())

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        pieces = [partials.read(part) for part in sorted(partials.committed())]
        images = sum(int((rows["copy"].to_numpy() == 0).sum()) for rows in pieces)
        if images < LEAST_IMAGES:
            raise ConfigError(
                f"copies.threshold=auto: copies could be planted on {images} images of the pool, at least "
                f"{LEAST_IMAGES} are needed; give the thresholds in copies.neighbors, or use a model that has them"
            )
        for rows in pieces:
            yield from rows.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        copies = table.read_all(["copy"])["copy"].to_numpy()
        return {"images": int((copies == 0).sum()), "copies": int((copies > 0).sum())}


class _Planted(NamedTuple):
    image_id: int
    number: int
    edits: str
    picture: Image.Image


class Planted(NamedTuple):
    """The rows of a table of planted copies, those of an image together."""

    image_ids: np.ndarray
    """(N,) int64, of the image that each shows"""
    number: np.ndarray
    """(N,) int16, 0 for the image itself"""
    vectors: np.ndarray
    """(N, D) float32, unit L2"""
    pictures: np.ndarray
    """(N, S*S) float32"""


def read_planted(table: Table, *, half: int) -> Planted:
    """Every other image in order of ids, with its copies: half 0 fits, half 1 judges."""
    rows = table.read_all().combine_chunks()
    ids = rows["image_id"].to_numpy()
    _, number = np.unique(ids, return_inverse=True)
    mine = rows.filter(pa.array(number % 2 == half)).combine_chunks()
    spec = VectorSpec.of(rows.schema)
    small = VectorSpec("float32", rows.schema.field("picture").type.byte_width // 4, PICTURES.model, "")
    vectors, pictures = unpack(mine["vector"], spec)[0], unpack(mine["picture"], small)[0]
    return Planted(mine["image_id"].to_numpy(), mine["copy"].to_numpy(), vectors, pictures)
