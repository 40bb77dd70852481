"""OwnVectors: embeddings that were made elsewhere, in place of those of a model.

Each chunk of the files is read once, and its vectors go to the parts of their images. A vector that means nothing is an
error that says where it stands; an image without one is left out of what needs vectors, counted and told.
"""

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import Sent, shuffled
from curate.engine.figures import Figures
from curate.engine.finished import Finished
from curate.engine.image_ids import part_of, row_of
from curate.engine.numbers import count, plural
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import SourceError
from curate.ops.vectors import VectorSpec, normalize, pack, unpack
from curate.sources.vector_files import OwnEmbeddings, chunks_of, content_of, known_content, read_vectors
from curate.stages.images.match_vectors import FILE_BITS, MatchFigures
from curate.stages.images.pictures import wanted_rows
from curate.tables import CATALOG, DUPLICATES, IMAGES, MATCHED_VECTORS, embeddings_schema

logger = logging.getLogger(__name__)

READ_ROWS = 1 << 14
"""Vectors that are sent together."""


class OwnTally(Tally):
    """What a part adds to the figures."""

    vectors: int = 0
    """Rows that are not null; the name is that of `VectorTally`, by which others count these."""
    missing: int = 0
    """Images that are wanted and have no vector."""
    first_missing: tuple[int, ...] = ()
    """Ids of the first of them."""


class OwnFigures(Figures):
    """How many images have a vector."""

    embedded: int
    """Images that have one."""
    missing: int
    """Images that are wanted and have none."""
    examples: tuple[int, ...] = Field(default=())
    """Ids of the first of them."""
    surplus: int = 0
    """Rows of the files whose image is not there."""
    surplus_example: str = ""
    """File and row of one; empty: there is none."""


class OwnVectors(Shuffle):
    """Gives own embeddings to the images; with `duplicates`, to those that a later pass would open."""

    inputs: ClassVar[dict[str, Input]] = {
        "grouped": each(MATCHED_VECTORS),
        "matched": whole(MATCHED_VECTORS),
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
        "duplicates": whole(DUPLICATES, optional=True),
    }
    parts_like: ClassVar[str | None] = "catalog"
    tally: ClassVar[type[Tally] | None] = OwnTally
    pins_are_data: ClassVar[bool] = True

    own: OwnEmbeddings
    """Where the vectors are."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        files = self.own.known_files()
        dim = next((file.dim for file in files if file.dim), 0)
        if not dim:
            raise self.own.field_error("table", f"={self.own.table}: holds no vector")
        other = next((file for file in files if file.dim not in (0, dim)), None)
        if other is not None:
            raise SourceError(f"{other.path}: vectors of {other.dim} values, those of {files[0].path} have {dim}")
        return embeddings_schema(dim, dtype=self.own.dtype, model=self.own.model, weights=known_content(files))

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return self.output_schema()

    def pins(self) -> dict[str, str]:
        return {"vectors": content_of(self.own.files())}

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        return float(inputs["grouped"].num_rows() * (8 + VectorSpec.of(pieces).dim * np.dtype(self.own.dtype).itemsize))

    def scatter(self, part: int, *, grouped: pa.Table, **tables: Table | None) -> Iterator[Scattered]:
        files, schema = self.own.known_files(), self.output_schema()
        chunks = chunks_of(files)
        if not chunks or len(grouped) == 0:
            return
        chunk, rows = chunks[part], grouped["row"].to_numpy() & ((1 << FILE_BITS) - 1)
        for start in range(chunk.start, chunk.stop, READ_ROWS):
            some = chunk._replace(start=start, stop=min(start + READ_ROWS, chunk.stop))
            low, high = np.searchsorted(rows, (some.start, some.stop))
            vectors = normalize(read_vectors(files[chunk.file], some)).astype(self.own.dtype)
            ids = grouped["image_id"].slice(low, high - low).combine_chunks()
            column = pack(vectors[rows[low:high] - start])
            yield from partition(pa.table([ids, column], schema=schema), part_of(ids.to_numpy()))

    def run(self, part: int, *, pieces: pa.Table, catalog: Table, images: Table, **tables: Table | None) -> Batches:
        rows, schema, duplicates = catalog.read(part), self.output_schema(), tables["duplicates"]
        judged = None if duplicates is None else duplicates.read(part)
        wanted = wanted_rows(rows, images.read(part), judged, None) & (rows["role"].to_numpy() != "heldout")
        vectors, _ = unpack(pieces["vector"], VectorSpec.of(schema))
        place = row_of(pieces["image_id"].to_numpy())
        if len(np.unique(place)) < len(place):
            twice = np.flatnonzero(np.bincount(place) > 1)[0]
            raise SourceError(
                f"own embeddings: {rows['key'][int(twice)].as_py()} has several vectors, under several ids"
            )
        found = np.zeros((len(rows), vectors.shape[1]), vectors.dtype)
        known = np.zeros(len(rows), bool)
        found[place], known[place] = vectors, True
        ids = rows["image_id"].combine_chunks()
        yield pa.RecordBatch.from_arrays([ids, pack(found, valid=known & wanted)], schema=schema)
        missing = np.flatnonzero(wanted & ~known)
        first = tuple(ids.take(pa.array(missing[: OwnTally.most])).to_pylist())
        told = OwnTally(vectors=int((known & wanted).sum()), missing=len(missing), first_missing=first)
        yield tally_batch(told, schema)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> OwnFigures:
        found, matched = OwnTally.of(table), MatchFigures.of(inputs["matched"])
        wanted = found.vectors + found.missing
        if found.missing > self.own.max_missing * wanted or (wanted and not found.vectors):
            hint = f"; {matched.surplus:,} rows found no image, as {matched.surplus_example}" if matched.surplus else ""
            raise SourceError(
                f"{table.name}: {count(found.missing)} of {plural(wanted, 'image')} have no vector in {self.own.table}"
                f"{hint}; look at `id` and `id_column`, or raise {self.own.field_error('max_missing', '')}"
            )
        return OwnFigures(
            embedded=found.vectors,
            missing=found.missing,
            examples=found.first_missing,
            surplus=matched.surplus,
            surplus_example=matched.surplus_example,
        )

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        figures = OwnFigures.of(table)
        if figures.missing:
            names = ", ".join(run.name_image(one) for one in figures.examples)
            images = plural(figures.missing, "image")
            yield f"{table.name}: {images} without a vector, left out of what needs one: {names}"
        if figures.surplus:
            yield f"{table.name}: {plural(figures.surplus, 'vector')} without an image, as {figures.surplus_example}"

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        pinned = table.complete_manifest().pins.get("vectors", "")[:digits]
        yield "Models", f"{table.name}: {self.own.model}, vectors made elsewhere (digest {pinned})"

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        assert isinstance(figures, OwnFigures)
        return figures.embedded

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        later = inputs.get("duplicates") is not None
        files, catalog = self.own.known_files(), inputs["catalog"]
        dim = max((file.dim for file in files), default=0)
        made = catalog._replace(pool=given.kept_images if later else catalog.pool, heldout=0)
        made = made._replace(
            row_bytes=ID_BYTES + dim * np.dtype(self.own.dtype).itemsize, dim=dim, columns=2, widths={}
        )
        rows = float(sum(file.rows for file in files))
        sent = Sent(rows, max(1, len(chunks_of(files))), catalog.parts, row_bytes=made.row_bytes, raw=True)
        memory = made.row_bytes * catalog.rows / catalog.parts * 3
        demand = Demand(rows=rows, read=4 * rows * dim, written=made.num_bytes, memory=memory)
        return Demand.phases([demand, shuffled(sent, given)]), made
