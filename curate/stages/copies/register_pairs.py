"""RegisterPairs: how well the pictures of each pair lie over each other; see `verified_pairs.py`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate import progress
from curate.config import Execution
from curate.engine.cost import Assumptions, Demand, Shape, Shapes, catalog_parts, edge_bytes
from curate.engine.demands import Sent, shuffled
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.part_writer import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.threads import one_blas_thread
from curate.ops.copies.features import LocalFeatures
from curate.ops.copies.registration import NONE, Registration, register
from curate.stages.copies.extract_features import FEATURE_BYTES, read_features
from curate.tables import CATALOG, FEATURES, PAIRS, REGISTERED

PAIRS_AT_ONCE = 4096
"""Pairs of a task, about: the features of their queries take at most 120 MB, and those of its images are more than one
row group, so that reading whole ones costs little."""
IMAGES_AT_ONCE = 1024
"""Images whose features are read together, 30 MB at most."""
FOUND_BYTES = 8
"""Bytes of what laying one picture of a pair over the other has found."""
FEATURE_NAMES = ["points", "descriptors", "picture"]
PIECE = pa.schema([*PAIRS, *(FEATURES.field(name) for name in FEATURE_NAMES)])
"""A pair with the features of its query, which the first pair of a query in a bucket has alone."""


class RegisterPairs(Shuffle):
    """Brings each candidate, with the features of its query, to the other image, and lays one over the other."""

    inputs: ClassVar[dict[str, Input]] = {
        "candidates": each(PAIRS),
        "features": whole(FEATURES),
        "catalog": whole(CATALOG),
    }

    blocks: Annotated[int, Field(ge=1), Execution()] | None = None
    """Tasks for the images of a part of the catalog; null: as many as hold about 4,096 pairs each."""

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

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        return float(inputs["candidates"].num_rows() * FEATURE_BYTES)

    def scatter(self, part: int, *, candidates: pa.Table, features: Table, catalog: Table) -> Iterator[Scattered]:
        """Each pair to the block of the image that is not its query."""
        rows = Parts.of(catalog).rows
        query = candidates["query_id"].to_numpy()
        for low, high, found in _by_image(features, part, query):
            pairs = candidates.filter(pa.array((query >= low) & (query < high)))
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
        pairs = pieces.select(PAIRS.names).sort_by([("image_id", "ascending"), ("query_id", "ascending")])
        queries = _Lookup.of_queries(pieces)
        with progress.track(f"registration {part}", len(pairs), unit="pairs") as advance:
            ids = pairs["image_id"].to_numpy()
            for low, high, images in _by_image(features, part // self.blocks, ids):
                rows = pairs.filter(pa.array((ids >= low) & (ids < high)))
                with one_blas_thread():
                    found = list(self._register_all(rows, queries, images))
                results = [pa.array([getattr(one, name) for one in found]) for name in Registration._fields]
                columns = [*(column.combine_chunks() for column in rows.columns), *results]
                yield pa.table(columns, names=REGISTERED.names).cast(REGISTERED).to_batches()[0]
                advance(len(rows))

    def _register_all(self, pairs: pa.Table, queries: "_Lookup", images: "_Lookup") -> Iterator[Registration]:
        """The registration of each pair; pairs of one image follow each other."""
        last, b = -1, None
        for query, image in zip(pairs["query_id"].to_pylist(), pairs["image_id"].to_pylist(), strict=True):
            if image != last:
                last, b = image, images.of(image)
            a = queries.of(query)
            yield NONE if a is None or b is None else self.lay_over(a, b)

    def lay_over(self, a: LocalFeatures, b: LocalFeatures) -> Registration:
        """How well the picture of an image lies over that of its query."""
        return register(a, b)

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        pairs, features = inputs["candidates"], inputs["features"]
        parts = catalog_parts(inputs)
        blocks = self.blocks or max(1, round(pairs.rows / parts / PAIRS_AT_ONCE))
        made = Shape(pool=pairs.rows, row_bytes=edge_bytes(given) + FOUND_BYTES, parts=parts * blocks, columns=6)
        # Of the pairs of a query that fall into one block, the first alone brings its features.
        each = max(1, 2 * pairs.rows / max(1, features.rows))  # pairs of a query
        share = made.parts * (1 - (1 - 1 / made.parts) ** each) / each if made.parts > 1 else 1 / each
        size = share * features.row_bytes + edge_bytes(given)
        sent = Sent(pairs.rows, pairs.parts, made.parts, size, memory_bytes=FEATURE_BYTES, raw=True)
        # The more parts, the more of its pairs do: in the end each one.
        demand = Demand(pairs=pairs.rows, rows=pairs.rows, written=made.num_bytes, settles=True)
        listed = given.num_images(("pool", "curated", "heldout")) / parts
        group = min(1, ROW_GROUP_BYTES * parts / max(1, features.num_bytes), ROW_GROUP_ROWS / listed)  # of a part
        read = [features.scanned(), features.opened(blocks), features.fetched(1 + (blocks - 1) * group)]
        return Demand.phases([demand, *read, shuffled(sent, given)]), made


class _Lookup:
    """Features by image id, as they are stored until one is asked for."""

    def __init__(self, ids: np.ndarray, rows: pa.Table) -> None:
        self._rows = rows
        self._places = {image_id: row for row, image_id in enumerate(ids.tolist())}

    @classmethod
    def of_images(cls, rows: pa.Table) -> "_Lookup":
        """Those of some rows of the table of features."""
        return cls(rows["image_id"].to_numpy(), rows.select(FEATURE_NAMES))

    @property
    def first(self) -> int:
        """The id of the first of them."""
        return next(iter(self._places))

    @classmethod
    def of_queries(cls, pieces: pa.Table) -> "_Lookup":
        """Those that came with the pairs, by query."""
        given = pieces.filter(pieces["points"].is_valid()) if len(pieces) else pieces
        return cls(given["query_id"].to_numpy(), given.select(FEATURE_NAMES))

    def columns(self, ids: np.ndarray, wanted: np.ndarray) -> list[pa.ChunkedArray]:
        """The stored columns of images, (N,) each; null where they are not wanted, or an image could not be opened."""
        places = [
            self._places.get(image_id, -1) if want else -1 for image_id, want in zip(ids.tolist(), wanted, strict=True)
        ]
        at = np.array(places, np.int64)
        return list(self._rows.take(pa.array(at, mask=at < 0)).columns)

    def of(self, image_id: int) -> LocalFeatures | None:
        """Those of one image; None: it could not be opened."""
        row = self._places.get(image_id)
        return None if row is None else read_features(self._rows.slice(row, 1).to_pylist()[0])


_NOTHING = _Lookup(np.empty(0, np.int64), FEATURES.empty_table().select(FEATURE_NAMES))


def _by_image(features: Table, part: int, image_ids: np.ndarray) -> Iterator[tuple[int, int, _Lookup]]:
    """(first id, first id after it, features of those of `image_ids`) of blocks of images that are all of a part.

    Every row group is read once, in order; a block is some of one.
    """
    if len(image_ids) == 0:
        return
    wanted = np.unique(image_ids)
    held, low = _NOTHING, part << 32
    for rows in features.read_images(part, int(wanted[0]), int(wanted[-1]) + 1):
        found = rows.filter(np.isin(rows["image_id"].to_numpy(), wanted))
        for start in range(0, len(found), IMAGES_AT_ONCE):
            block = _Lookup.of_images(found.slice(start, IMAGES_AT_ONCE))
            if held is not _NOTHING:
                yield low, block.first, held
                low = block.first
            held = block
    yield low, (part + 1) << 32, held


def _with_features(pairs: pa.Table, bucket: np.ndarray, found: _Lookup) -> pa.Table:
    """Pairs as `PIECE`: the first of each query in a bucket has its features."""
    query = pairs["query_id"].to_numpy()
    _, first = np.unique(np.stack([bucket, query]), axis=1, return_index=True)
    columns = found.columns(query, np.isin(np.arange(len(query)), first))
    return pa.Table.from_arrays([*pairs.columns, *columns], schema=PIECE)
