"""MatchVectors and GroupMatches: which image each row of own embeddings is of.

The difficulty: a billion rows in files of one order meet a billion images in parts of another, and neither ids nor
vectors fit into memory. So ids meet first, as 16 bytes of a digest: rows and images are sent to buckets by it
(MatchVectors), and what meets is sent back to the chunk of the file that a row lies in (GroupMatches). Then each chunk
is read once, in order, and its vectors go to the parts of their images (`own_vectors.py`): vectors travel once, ids
twice. Reading the vectors of each part where they lie would open every file for every part.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.config import Execution
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import Sent, shuffled
from curate.engine.figures import Figures
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Input, Shuffle, each, whole
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import SourceError
from curate.sources.vector_files import Chunk, OwnEmbeddings, VectorFile, chunks_of, content_of, read_ids
from curate.stages.images.pictures import accepted_mask
from curate.tables import CATALOG, IMAGES, MATCHED_VECTORS

SHA256 = re.compile(r"[0-9a-fA-F]{64}")
FILE_BITS = 40
"""Bits of a row's number within its file."""
MEETING_ROWS = 1 << 20
"""Ids of a bucket, about."""
MEETING = pa.schema(
    [
        pa.field("digest", pa.binary(16), nullable=False),
        pa.field("is_row", pa.bool_(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
    ]
)
"""An id on its way: of a row of the files, or of an image."""
ID_ROWS = 3.0
"""Sorting and hashing an id, in rows that are sorted or joined."""


class MatchTally(Tally):
    """What a bucket adds to the figures."""

    matched: int = 0
    """Rows whose image is there."""
    surplus: int = 0
    """Rows without one."""
    first: tuple[int, ...] = ()
    """The first of these."""


class MatchFigures(Figures):
    """How many vectors found their image."""

    matched: int
    surplus: int
    surplus_example: str = ""
    """File and row of one that did not; empty: there is none."""


class MatchVectors(Shuffle):
    """Joins the ids of own embeddings with those of the images that were accepted."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": whole(pa.schema([CATALOG.field(name) for name in ("image_id", "source", "uri", "key")])),
        "images": whole(pa.schema([IMAGES.field(name) for name in ("image_id", "sha256", "reject")])),
    }
    tally: ClassVar[type[Tally] | None] = MatchTally
    pins_are_data: ClassVar[bool] = True

    own: OwnEmbeddings
    """Where the vectors are, and what their ids mean."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return MATCHED_VECTORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return MEETING

    def pins(self) -> dict[str, str]:
        return {"vectors": content_of(self.own.files())}

    def num_scatter(self, **inputs: Any) -> int:
        return len(inputs["catalog"].parts()) + len(chunks_of(self.own.known_files()))

    def num_parts(self, **inputs: Any) -> int:
        return max(1, -(-self._num_ids(inputs["catalog"]) // MEETING_ROWS))

    def _num_ids(self, catalog: Table) -> int:
        return catalog.num_rows() + sum(file.rows for file in self.own.known_files())

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        return 28.0 * self._num_ids(inputs["catalog"])

    def scatter(self, part: int, *, catalog: Table, images: Table) -> Iterator[Scattered]:
        files, buckets = self.own.known_files(), self.num_parts(catalog=catalog)
        by_digest, parts = self.own.is_digest(files), len(catalog.parts())
        if part < parts:
            digests, place = self._of_images(catalog.read(part), images.read(part), by_digest=by_digest)
        else:
            chunk = chunks_of(files)[part - parts]
            digests = self._of_rows(read_ids(files[chunk.file], chunk), files[chunk.file], chunk, by_digest=by_digest)
            place = (chunk.file << FILE_BITS) + np.arange(chunk.start, chunk.stop)
        is_row = pa.array(np.full(len(place), part >= parts))
        keys = np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2)
        bucket = (keys[:, 0] % np.uint64(buckets)).astype(np.int32)
        yield from partition(
            pa.table([pa.array(digests, pa.binary(16)), is_row, pa.array(place)], schema=MEETING), bucket
        )

    def _of_images(self, catalog: pa.Table, images: pa.Table, *, by_digest: bool) -> tuple[list[bytes], np.ndarray]:
        """Every id that images have, and the images."""
        wanted = pa.array(accepted_mask(images))
        ids, names = catalog["image_id"].filter(wanted).to_numpy(), catalog.filter(wanted)
        if by_digest:
            return [sha256[:16] for sha256 in images["sha256"].filter(wanted).to_pylist()], ids
        digests, place = [], []
        columns = (names[name].to_pylist() for name in ("source", "key", "uri"))
        for image_id, source, key, uri in zip(ids.tolist(), *columns, strict=True):
            called = set(self._names(source, key, uri))
            digests += [_digest(one) for one in sorted(called)]
            place += [image_id] * len(called)
        return digests, np.array(place, np.int64)

    def _names(self, source: str, key: str, uri: str) -> Iterator[str]:
        kind = self.own.id
        if kind in ("auto", "key"):
            yield from (key, f"{source}/{key}")
        if kind in ("auto", "uri"):
            yield uri
        if kind in ("auto", "name"):
            yield from stems(key)

    def _of_rows(self, ids: list[str], file: VectorFile, chunk: Chunk, *, by_digest: bool) -> list[bytes]:
        if not by_digest:
            return [_digest(posixpath.basename(one) if self.own.id == "name" else one) for one in ids]
        wrong = next((number for number, one in enumerate(ids) if not SHA256.fullmatch(one)), None)
        if wrong is not None:
            raise SourceError(
                f"{file.ids or file.path} row {chunk.start + wrong:,}: the id is no SHA-256 in hex (64 digits); say "
                "what ids are by `id`"
            )
        return [bytes.fromhex(one)[:16] for one in ids]

    def run(self, part: int, *, pieces: pa.Table, **tables: Table) -> Batches:
        keys = np.frombuffer(b"".join(pieces["digest"].to_pylist()), np.uint64).reshape(-1, 2)
        is_row, place = (pieces[name].to_numpy() for name in ("is_row", "place"))
        order = np.lexsort((place, ~is_row, keys[:, 1], keys[:, 0]))  # of one id its rows first, in order
        keys, is_row, place = keys[order], is_row[order], place[order]
        first = np.flatnonzero((np.diff(keys[:, 0], prepend=0) != 0) | (np.diff(keys[:, 1], prepend=0) != 0))
        first = np.unique(np.append(first, 0)) if len(place) else first
        group = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(place))))
        rows_of = np.bincount(group[is_row], minlength=len(first))
        images_of = np.bincount(group[~is_row], minlength=len(first))
        self._check_once(rows_of, images_of, place, first)
        met = ~is_row & (rows_of[group] > 0)
        columns = [place[first[group[met]]], place[met]]
        yield pa.RecordBatch.from_arrays(list(map(pa.array, columns)), schema=MATCHED_VECTORS)
        lost = np.sort(place[first[(rows_of > 0) & (images_of == 0)]])
        matched = int((images_of[rows_of > 0] > 0).sum())
        told = MatchTally(matched=matched, surplus=len(lost), first=tuple(lost[: MatchTally.most].tolist()))
        yield tally_batch(told, MATCHED_VECTORS)

    def _check_once(self, rows_of: np.ndarray, images_of: np.ndarray, place: np.ndarray, first: np.ndarray) -> None:
        """Raise where an id does not say which vector is which image's; equal bytes may have several of both."""
        files = self.own.known_files()
        if self.own.is_digest(files):
            return
        twice = np.flatnonzero(rows_of > 1)
        if len(twice):
            places = [where(files, int(place[first[twice[0]] + number])) for number in range(2)]
            raise SourceError(f"own embeddings: {' and '.join(places)} have one id; ids must be unique, or be SHA-256")
        several = np.flatnonzero((rows_of > 0) & (images_of > 1))
        if len(several):
            raise SourceError(
                f"own embeddings: {where(files, int(place[first[several[0]]]))} has an id that is "
                f"{images_of[several[0]]} images'; give SOURCE/KEY as ids, or SHA-256"
            )

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> MatchFigures:
        found = MatchTally.of(table)
        example = where(self.own.known_files(), min(found.first)) if found.first else ""
        return MatchFigures(matched=found.matched, surplus=found.surplus, surplus_example=example)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        images: Shape = inputs["images"]
        rows = float(sum(file.rows for file in self.own.known_files()))
        made = Shape(pool=images.rows, row_bytes=2 * ID_BYTES + 4, parts=max(1, images.rows / MEETING_ROWS), columns=2)
        sent = Sent(images.rows + rows, images.parts + 1, made.parts, row_bytes=28)
        demand = Demand(rows=ID_ROWS * (images.rows + rows), written=made.num_bytes, memory=100 * MEETING_ROWS)
        read = [inputs["catalog"].scanned(), images.scanned(share=images.share(("image_id", "sha256", "reject")))]
        return Demand.phases([demand, *read, shuffled(sent, given)]), made


class GroupMatches(Shuffle):
    """Sends what was matched to the chunk of the file that a row lies in."""

    inputs: ClassVar[dict[str, Input]] = {"matched": each(MATCHED_VECTORS)}

    own: Annotated[OwnEmbeddings, Execution()]
    """Where the vectors are."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return MATCHED_VECTORS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return MATCHED_VECTORS

    def num_parts(self, **inputs: Any) -> int:
        return max(1, len(chunks_of(self.own.known_files())))

    def scatter(self, part: int, *, matched: pa.Table) -> Iterator[Scattered]:
        chunks = chunks_of(self.own.known_files())
        begins = np.array([(chunk.file << FILE_BITS) + chunk.start for chunk in chunks])
        yield from partition(matched, np.searchsorted(begins, matched["row"].to_numpy(), side="right") - 1)

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        yield from pieces.sort_by([("row", "ascending"), ("image_id", "ascending")]).to_batches()

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        matched: Shape = inputs["matched"]
        made = matched._replace(parts=self.num_parts())
        sent = Sent(matched.rows, matched.parts, made.parts, row_bytes=matched.row_bytes, memory_bytes=16)
        return Demand.phases([Demand(rows=2 * matched.rows, written=made.num_bytes), shuffled(sent, given)]), made


def stems(key: str) -> Iterator[str]:
    """What tools call an image by: the last step of its key without its suffix, and without all that follows a dot."""
    name = posixpath.basename(key)
    yield from (name, posixpath.splitext(name)[0], name.partition(".")[0] or name)


def where(files: tuple[VectorFile, ...], row: int) -> str:
    """A row as messages name it."""
    return f"{files[row >> FILE_BITS].path} row {row & ((1 << FILE_BITS) - 1):,}"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
