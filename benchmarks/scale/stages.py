"""The stages that open pictures, with faked ones: the same tables, read and written, without decoding and networks.

Files are read as ever, since that is work of the pipeline; what the pictures show comes from `pool.py`.
"""

import hashlib
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from benchmarks.scale.pool import (
    BORDERED,
    REJECTED,
    Pool,
    concept_vectors,
    copies_of,
    copy_vectors,
    hashes,
    numbers_of,
    pool_of,
    uniform,
)
from curate.models.info import IMAGENET_MEAN, IMAGENET_STD, ModelInfo
from curate.models.thresholds import CopyRule, Thresholds, Verification
from curate.ops.copies.features import DESCRIPTOR, LocalFeatures
from curate.ops.copies.registration import Registration
from curate.ops.images.preprocess import Preprocess
from curate.ops.vectors import pack
from curate.sources.read import Read
from curate.sources.reading import read_bytes, read_part
from curate.stages.copies.extract_features import ExtractFeatures
from curate.stages.copies.register_pairs import RegisterPairs
from curate.stages.images.catalog import source_of
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import CHUNK_ROWS, PictureStage, wanted_rows
from curate.tables import FEATURES, IMAGES

COPY_RULE = CopyRule(Thresholds(0.92, 0.9), Verification(floor=0.7, alike=0.8, sure=0.92, crowd_floor=0.6))
"""Which cosines count in `copy_vectors`: those of `lite0-copy`."""
AGREE, DIFFER = Registration(0.9, 0.85, 60), Registration(0.1, 0.0, 5)
"""What laying one picture over another gives, of copies and of others."""
PAIR_STRAY = 0.01
"""By how much that differs from pair to pair."""
POINT_BYTES = 4
"""Of a point's place."""


class Chunk(NamedTuple):
    """The images of some rows that follow each other in a part."""

    pool: Pool
    ids: pa.Array
    """(N,) of all rows."""
    wanted: np.ndarray
    """(N,) bool, of the pass."""
    contents: np.ndarray
    """(M,) int64, what each wanted image shows."""
    reads: list[Read]
    """(M,) its bytes."""
    rejected: np.ndarray
    """(M,) bool"""


class FakedPictures(PictureStage):
    """A stage of a pass whose images are read, and not decoded."""

    def faked(self, chunk: Chunk) -> pa.RecordBatch:
        """The rows of all images of a chunk."""
        raise NotImplementedError

    @classmethod
    def run_together(cls, stages: Mapping[str, Self], part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of all stages, over one reading of the files."""
        catalog, images = tables["catalog"], tables.get("images")
        wanted = wanted_rows(catalog, images, tables.get("duplicates"), tables.get("chosen"))
        rows, source = catalog.filter(pa.array(wanted)), source_of(catalog)
        reads = (read_part if images is None else read_bytes)(rows, source)
        pool, contents = pool_of(source.path), np.zeros(len(catalog), np.int64)
        contents[wanted] = pool.contents(numbers_of(rows))
        for start in range(0, len(catalog), CHUNK_ROWS):
            here = wanted[start : start + CHUNK_ROWS]
            shown = contents[start : start + CHUNK_ROWS][here]
            ids = catalog["image_id"].slice(start, CHUNK_ROWS).combine_chunks()
            rejected = (uniform(shown, "reject") < REJECTED) & (pool.role == "pool") & (copies_of(shown) == shown)
            chunk = Chunk(pool, ids, here, shown, list(itertools.islice(reads, len(shown))), rejected)
            for name, stage in stages.items():
                yield name, stage.faked(chunk)


class FakedInspect(FakedPictures, Inspect):
    """Facts and hashes by the numbers of images."""

    def faked(self, chunk: Chunk) -> pa.RecordBatch:
        """All columns of `images`."""
        shown, valid = chunk.contents, ~chunk.rejected
        side = (256 + 768 * uniform(copies_of(shown), "side")).astype(np.int32)
        side -= 16 * (copies_of(shown) != shown)
        quality = (100 * uniform(shown, "quality")).astype(np.int16)
        bits, bordered = hashes(shown), (uniform(shown, "border") < BORDERED) & valid
        columns: dict[str, Any] = {
            "image_id": chunk.ids,
            "sha256": pa.array([hashlib.sha256(read.data or b"").digest() for read in chunk.reads], pa.binary(32)),
            "num_bytes": np.full(len(shown), chunk.pool.image_bytes, np.int64),
            "width": side + side // 3,
            "height": side,
            "format": ["PNG"] * len(shown),
            "pdq": pack(bits, valid=valid),
            "pdq_within_border": pack(hashes(shown + 1), valid=bordered),
            "pdq_quality": pa.array(quality, mask=chunk.rejected),
            "luma_std": (20 + 60 * uniform(shown, "luma")).astype(np.float32),
            "smoothness": uniform(shown, "smoothness").astype(np.float32),
            "reject": pa.array(["uniform"] * len(shown), pa.string(), mask=valid),
            "detail": pa.array(["one color all over"] * len(shown), pa.string(), mask=valid),
            "left_out": pa.nulls(len(shown), IMAGES.field("left_out").type),
            "extra": [f'{{"caption": "{(read.extra or {})["caption"]}"}}' for read in chunk.reads],
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in IMAGES], schema=IMAGES)


class FakedEmbed(FakedPictures, Embed):
    """Vectors by the numbers of images."""

    space: Literal["copy", "concept"]
    """In which copies, or images of a concept, lie together."""

    def faked(self, chunk: Chunk) -> pa.RecordBatch:
        """A vector of each wanted image that was not rejected; of what borders surround, where there is one."""
        schema = self.output_schema()
        dim = int(schema.metadata[b"curate.dim"])
        valid, vectors = np.zeros(len(chunk.ids), bool), np.zeros((len(chunk.ids), dim), self.dtype)
        there = ~chunk.rejected
        shown = chunk.contents
        if self.view == "within_border":
            there = there & (uniform(shown, "border") < BORDERED)
        valid[chunk.wanted] = there
        if there.any():
            like = shown[there]
            found = copy_vectors(like, dim) if self.space == "copy" else concept_vectors(chunk.pool, like, dim)
            vectors[valid] = found.astype(self.dtype)
        return pa.RecordBatch.from_arrays([chunk.ids, pack(vectors, valid=valid)], schema=schema)


class FakedExtractFeatures(FakedPictures, ExtractFeatures):
    """Local features of a stated size, which tell what a picture is a copy of."""

    feature_bytes: Annotated[int, Field(ge=64)] = 2000
    """Bytes of an image's features; 45,000 of real ones."""

    def row_bytes(self) -> float:
        """As stated."""
        return self.feature_bytes

    def faked(self, chunk: Chunk) -> pa.RecordBatch:
        """Features of each wanted image."""
        place = np.full(len(chunk.ids), -1)
        place[chunk.wanted] = np.arange(len(chunk.contents))
        points = self.feature_bytes // 2 // (POINT_BYTES + DESCRIPTOR)
        rows = np.random.default_rng(chunk.contents.tolist()).integers(
            0, 256, (len(place), self.feature_bytes), np.uint8
        )
        rows[chunk.wanted, -8:] = copies_of(chunk.contents).astype("<i8")[:, None].view(np.uint8)
        told = [row.tobytes() for row in rows[chunk.wanted]]
        cuts = (0, points * POINT_BYTES, points * (POINT_BYTES + DESCRIPTOR), self.feature_bytes)
        columns = {
            name: [one[start:stop] for one in told]
            for name, (start, stop) in zip(FEATURES.names[1:], itertools.pairwise(cuts), strict=True)
        }
        at = pa.array(place, mask=place < 0)
        arrays = [pa.array(columns[name], pa.binary()).take(at) for name in columns]
        return pa.RecordBatch.from_arrays([chunk.ids, *arrays], schema=FEATURES)


class FakedRegisterPairs(RegisterPairs):
    """Lays nothing over another: copies are told by their features."""

    def lay_over(self, a: LocalFeatures, b: LocalFeatures) -> Registration:
        """By what both are copies of, and a little by the pair."""
        found = AGREE if a.encoded[-8:] == b.encoded[-8:] else DIFFER
        stray = zlib.crc32(a.encoded + b.encoded) / 2**32 * PAIR_STRAY
        return Registration(found.agreement + stray, found.least_agreement + stray, found.num_points)


class FakedBackbone:
    """A plug-in backbone of so many dimensions, which is described and never built."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def describe(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
        """Its facts; copies count as in `copy_vectors`."""
        how = Preprocess(64, "square", 64, "bilinear", IMAGENET_MEAN, IMAGENET_STD)
        return ModelInfo(model, self.dim, "none", how, "", has_weights=False, bf16=False, copies=COPY_RULE)

    def build(self, info: ModelInfo) -> Any:
        """There is none: `FakedEmbed` asks for no network."""
        raise NotImplementedError


def backbone(dim: int) -> str:
    """How a config names the backbone of so many dimensions."""
    return f"{__name__}:dim{dim}"


def __getattr__(name: str) -> FakedBackbone:
    """`dim64` and so on."""
    if name.startswith("dim") and name[3:].isdigit():
        return FakedBackbone(int(name[3:]))
    raise AttributeError(name)


def unfaked(stages: Sequence[str]) -> str:
    """Names of stages as the recipes have them."""
    return " + ".join(name.removeprefix("Faked") for name in stages)
