"""Where the bytes of a shard's images come from: their sources, or the shard as an earlier run left it."""

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import part_of, row_of
from curate.engine.table import Table
from curate.errors import SourceError, TableError
from curate.sources.config import Source
from curate.sources.read import UNAVAILABLE, Read, by_file, unreadable
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import source_of
from curate.tables import BLUR, BLUR_COLUMNS, BLURS

logger = logging.getLogger(__name__)


def read_unchanged(places: pa.Table, digests: Sequence[bytes], lengths: Sequence[int]) -> Iterator[Read]:
    """The bytes of images that were inspected before, in the order of the catalog; or why there are none any more.

    An archive that cannot be read costs its own images alone.

    Args:
        places: rows of the catalog, of one source.
        digests: SHA-256 of each image, as it was inspected.
        lengths: bytes of each, likewise.
    """
    if len(places) == 0:
        return
    source, start = source_of(places), 0
    longest = max(lengths)  # a limit of the first pass may have allowed any length
    for uri, rows in by_file(places):
        for found in _each(rows, source, longest):
            read = found
            if read.data is not None and hashlib.sha256(read.data).digest() != digests[start]:
                read = unreadable("another sha256 than when it was inspected")
            if read.data is None:
                logger.warning("%s (%s): cannot be had for the shards: %s", uri, places["key"][start], read.error)
            yield read
            start += 1


def _each(rows: pa.Table, source: Source, longest: int) -> Iterator[Read]:
    """What reading gives for each row of one file, whatever happens."""
    done = 0
    try:
        for read in read_bytes(rows, source, max_bytes=longest):
            yield read
            done += 1
    except SourceError as error:
        yield from itertools.repeat(unreadable(str(error)), len(rows) - done)


class Fetched(NamedTuple):
    """What was read of the images of a shard one by one."""

    data: dict[int, bytes]
    """Image id to bytes; images that cannot be had are left out."""
    away: frozenset[int]
    """Those of them that an error kept away which may pass."""


def fetch(rows: pa.Table, catalog: Table) -> Fetched:
    """The bytes of images of a shard from their sources.

    Args:
        rows: columns image_id, sha256 and num_bytes.
    """
    data: dict[int, bytes] = {}
    away: set[int] = set()
    wanted = {
        one["image_id"]: (bytes.fromhex(one["sha256"]), one["num_bytes"])
        for one in rows.select(["image_id", "sha256", "num_bytes"]).to_pylist()
    }
    ids = np.array(sorted(wanted), np.int64)
    for part in np.unique(part_of(ids)).tolist():
        mine = ids[part_of(ids) == part]
        facts = [wanted[image_id] for image_id in mine.tolist()]
        reads = read_unchanged(catalog.read(part).take(row_of(mine)), *zip(*facts, strict=True))
        for image_id, read in zip(mine.tolist(), reads, strict=True):
            if read.data is not None:
                data[image_id] = read.data
            elif read.reject == UNAVAILABLE:
                away.add(image_id)
    return Fetched(data, frozenset(away))


def faces_of(rows: pa.Table | pa.RecordBatch) -> list[Any]:
    """The boxes that are blurred in each picture; None: it is not known which, or nothing is blurred at all."""
    name = BLURS.names[1]
    found: list[Any] = rows[name].to_pylist() if name in rows.schema.names else [None] * len(rows)
    return found


class EarlierShard:
    """The bytes in a shard as an earlier run left it."""

    def __init__(self, before: Table, part: int, *, blur: bytes | None = None) -> None:
        """`blur` is how faces are blurred now, as JSON: what was blurred in another way is not there."""
        self._before, self._part = before, part
        self._place: dict[int, tuple[int, str]] = {}
        """Image id to its row and SHA-256."""
        self._starts = np.zeros(1, np.int64)
        self.repaired: dict[int, str] = {}
        """What was repaired of an image: its bytes are not those of its SHA-256."""
        self.blurred: dict[int, str] = {}
        """What is told of a picture whose faces were blurred, likewise."""
        self._faces: dict[int, Any] = {}
        try:
            with before.open(part) as file:
                groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                schema = file.schema_arrow
            same = (schema.metadata or {}).get(BLUR) == blur
            names = [name for name in BLUR_COLUMNS.names if name in schema.names]
            rows = before.read(part, ["image_id", "sha256", "repaired", *names])
            ids, digests, told = (rows[name].to_pylist() for name in ("image_id", "sha256", "repaired"))
        except (TableError, KeyError):  # none, damaged, or written by an earlier version
            return
        if names:
            notes, faces = (rows[name].to_pylist() for name in BLUR_COLUMNS.names)
            self.blurred = {image_id: note for image_id, note in zip(ids, notes, strict=True) if note is not None}
            self._faces = {i: boxes for i, boxes in zip(ids, faces, strict=True) if i in self.blurred}
        self._starts = np.cumsum([0, *groups])
        self.repaired = {image_id: text for image_id, text in zip(ids, told, strict=True) if text is not None}
        self._place = {
            image_id: (row, digest)
            for row, (image_id, digest) in enumerate(zip(ids, digests, strict=True))
            if same or image_id not in self.blurred
        }

    def has(self, rows: pa.Table) -> np.ndarray:
        """(N,) bool: whether each of these images lies there, with the same SHA-256, and the same faces blurred."""
        facts = zip(rows["image_id"].to_pylist(), rows["sha256"].to_pylist(), faces_of(rows), strict=True)
        return np.array([self._is_there(*one) for one in facts], bool)

    def _is_there(self, image_id: int, digest: str, faces: Any) -> bool:
        """What was repaired before its faces are blurred is read anew, so that it does not matter what lies here."""
        if self._place.get(image_id, (0, ""))[1] != digest or self._faces.get(image_id) not in (None, faces):
            return False
        return not faces or image_id in self.blurred or image_id not in self.repaired

    def read(self, image_ids: Sequence[int]) -> dict[int, bytes]:
        """The bytes of these images, as far as they are there and have the SHA-256 that the shard says."""
        at = {self._place[image_id][0]: image_id for image_id in image_ids if image_id in self._place}
        found: dict[int, bytes] = {}
        rows = np.array(sorted(at), np.int64)
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            mine = rows[groups == group]
            with self._before.open(self._part) as file:
                pictures = file.read_row_group(group, columns=["image"])["image"]
            for row in mine.tolist():
                data = pictures[row - int(self._starts[group])].as_py()["bytes"]
                image_id = at[row]
                changed = image_id in self.repaired or image_id in self.blurred
                if changed or hashlib.sha256(data).hexdigest() == self._place[image_id][1]:
                    found[image_id] = data
        return found
