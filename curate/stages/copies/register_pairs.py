"""RegisterPairs: how well the pictures of each pair lie over each other; see `verified_pairs.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import progress
from curate.config import Execution
from curate.engine.cost import EDGE_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.shuffle import partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.threads import one_blas_thread
from curate.ops.copies.features import LocalFeatures
from curate.ops.copies.registration import NONE, Registration, register
from curate.stages.copies.extract_features import FEATURE_BYTES, read_features
from curate.tables import CATALOG, FEATURES, PAIRS, REGISTERED

PAIRS_AT_ONCE = 2048
"""Pairs of a task, about: their features take 90 MB."""
IMAGES_AT_ONCE = 256
"""Images whose features are read together."""
OF_QUERY = [FEATURES.field(name) for name in ("points", "descriptors", "picture")]
PIECE = pa.schema([*PAIRS, *(field.with_nullable(nullable=True) for field in OF_QUERY)])
"""A pair with the features of its query, which the first pair of a query in a bucket has alone."""


class RegisterPairs(Shuffle):
    """Brings each candidate, with the features of its query, to the other image, and lays one over the other."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(PAIRS),
        "features": whole(FEATURES),
        "catalog": whole(CATALOG),
    }

    blocks: Annotated[int, Field(ge=1), Execution()] | None = None
    """Tasks for the images of a part of the catalog; null: as many as hold about 2,048 pairs each."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return REGISTERED

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return PIECE

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        if self.blocks is not None:
            return self
        per_part = inputs["candidates"].num_rows() / max(1, len(inputs["catalog"].parts()))
        return self.model_copy(update={"blocks": max(1, round(per_part / PAIRS_AT_ONCE))})

    def num_parts(self, **inputs: Any) -> int:
        assert self.blocks is not None
        return len(inputs["catalog"].parts()) * self.blocks

    def scatter(
        self, part: int, *, candidates: pa.Table, features: Table, catalog: Table
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Each pair to the block of the image that is not its query."""
        rows = Parts.of(catalog).rows
        for low, found in _by_image(features, part, row_of(candidates["query_id"].to_numpy())):
            query = candidates["query_id"].to_numpy()
            pairs = candidates.filter(pa.array((query >= low) & (query < low + IMAGES_AT_ONCE)))
            image = pairs["image_id"].to_numpy()
            bucket = self._bucket(image, rows)
            pieces = _with_features(pairs, bucket, found)
            yield from partition(pieces, bucket)

    def _bucket(self, image_ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(N,) int64: the task of each image; `rows` (P,) are those of each part of the catalog."""
        assert self.blocks is not None
        part = part_of(image_ids)
        each_block = -(-rows[part] // self.blocks)
        found: np.ndarray = part * self.blocks + row_of(image_ids) // np.maximum(each_block, 1)
        return found

    def run(self, part: int, *, pieces: pa.Table, features: Table, catalog: Table) -> Batches:
        assert self.blocks is not None
        pairs = pieces.sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        queries = _queries(pieces)
        with progress.track(f"registration {part}", len(pairs), unit="pairs") as advance:
            for low, images in _by_image(features, part // self.blocks, row_of(pairs["image_id"].to_numpy())):
                ids = pairs["image_id"].to_numpy()
                rows = pairs.filter(pa.array((ids >= low) & (ids < low + IMAGES_AT_ONCE))).select(PAIRS.names)
                with one_blas_thread():
                    found = [
                        NONE
                        if (a := queries.get(query)) is None or (b := images.get(image)) is None
                        else register(a, b)
                        for query, image in zip(rows["query_id"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
                    ]
                results = [pa.array([getattr(one, name) for one in found]) for name in Registration._fields]
                columns = [*(column.combine_chunks() for column in rows.columns), *results]
                yield pa.table(columns, names=REGISTERED.names).cast(REGISTERED).to_batches()[0]
                advance(len(rows))

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs, features = inputs["candidates"], inputs["features"]
        made = Shape(pool=pairs.rows, row_bytes=EDGE_BYTES)
        scratch = pairs.rows * FEATURE_BYTES
        read = pairs.num_bytes + 2 * features.num_bytes
        return Demand(pairs=pairs.rows, rows=pairs.rows, read=read, written=made.num_bytes, scratch=scratch), made


def _by_image(features: Table, part: int, rows: np.ndarray) -> Iterator[tuple[int, dict[int, LocalFeatures | None]]]:
    """(first id of a block of images, features by id of those at `rows`), for the blocks that hold any."""
    wanted = np.unique(rows)
    for start in np.unique(wanted // IMAGES_AT_ONCE * IMAGES_AT_ONCE).tolist():
        low, ids = part << 32 | start, (wanted + (part << 32)).tolist()
        found: dict[int, LocalFeatures | None] = {}
        for table in features.read_images(part, low, low + IMAGES_AT_ONCE):
            here = table.filter(pa.array(np.isin(table["image_id"].to_numpy(), ids)))
            found |= {row["image_id"]: read_features(row) for row in here.to_pylist()}
        yield low, found


def _with_features(pairs: pa.Table, bucket: np.ndarray, found: dict[int, LocalFeatures | None]) -> pa.Table:
    """Pairs as `PIECE`: the first of each query in a bucket has its features."""
    query = pairs["query_id"].to_numpy()
    _, first = np.unique(np.stack([bucket, query]), axis=1, return_index=True)
    given: list[LocalFeatures | None] = [None] * len(pairs)
    for row in first.tolist():
        given[row] = found.get(int(query[row]))
    columns = [
        pa.array([None if one is None else one.stored_points.tobytes() for one in given], pa.binary()),
        pa.array([None if one is None else one.stored_descriptors.tobytes() for one in given], pa.binary()),
        pa.array([None if one is None else one.encoded for one in given], pa.binary()),
    ]
    return pa.Table.from_arrays([*pairs.columns, *columns], schema=PIECE)


def _queries(pieces: pa.Table) -> dict[int, LocalFeatures | None]:
    """The features that came with the pairs, by query."""
    given = pieces.filter(pieces["points"].is_valid()).select(["query_id", *(field.name for field in OF_QUERY)])
    return {row["query_id"]: read_features(row) for row in given.to_pylist()}
