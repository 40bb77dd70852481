"""What a task lists of a source, what it tells of that, and what of it a catalog does not hold yet."""

import base64
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.stage import Known
from curate.sources.class_names import Names, common_classes
from curate.sources.found import Found, Span
from curate.sources.urls import is_row_of_urls
from curate.tables import CATALOG

RowsPerPart = Annotated[int, Field(ge=1)] | Literal["auto"]
LISTED = pa.schema(list(CATALOG)[3:])
"""Columns of a listed image: those of the catalog but for its id, source and role."""
FEWEST_ROWS, MOST_ROWS = 256, 65_536
"""Images of a part, where their number is chosen."""
FEWEST_OF_PARQUET = 2048
"""The same of Parquet files, of which a part reads whole row groups: often a thousand images each."""
PARTS = 16
"""Parts that a set of images is cut into at least, where it is large enough: for several workers, and for resuming."""
ROWS_HELD = 1 << 20
"""Known images that a task compares with at once, about; those of one folder are held whole."""


def choose_rows_per_part(num_images: int, kinds: Iterable[str] = ()) -> int:
    """Images of a part, for so many images in all: a power of two, so that few more of them change nothing.

    Depends on no machine, so that a run is the same wherever it is made.

    Args:
        kinds: formats of the sources.
    """
    fewest = FEWEST_OF_PARQUET if "parquet" in kinds else FEWEST_ROWS
    wanted = num_images // PARTS
    return min(MOST_ROWS, max(fewest, 1 << max(0, wanted.bit_length() - 1)))


@dataclass
class Told:
    """What listing a group tells; JSON-ready, and small: bytes for each archive in it, none for an image."""

    source: str
    kind: str
    """Format that listed it."""
    listed: int = 0
    """Images in it."""
    known: int = 0
    """Of these, those that the catalog holds."""
    changed: int = 0
    """Of the known ones, those that are not what they were."""
    spans: list[tuple[int, int | None, int | None]] = field(default_factory=list)
    """(images, number of the archive, place of what it declares in `classes`) of those that the catalog gains."""
    classes: list[dict[str, list[str]]] = field(default_factory=list)
    left_out: dict[str, Any] = field(default_factory=dict)
    """See `LeftOut.pack`."""
    tables: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Tables of descriptions by key: their rows, and which of them the images asked for."""

    @classmethod
    def parse(cls, text: str) -> "Told":
        """What `text` made."""
        return cls(*json.loads(text))

    def text(self) -> str:
        """As a text."""
        return json.dumps(list(vars(self).values()))

    def rows(self) -> int:
        """Images that the catalog gains."""
        return sum(images for images, _, _ in self.spans)

    def cuts(self, group: int) -> Iterator[Span]:
        """The spans by which parts are cut; `group` keeps archives of several groups apart."""
        for images, archive, _ in self.spans:
            yield Span(images, None if archive is None else group << 32 | archive)

    def add(self, rows: Sequence[Found], declared: dict[int, int]) -> None:
        """Count images.

        Args:
            declared: place in `classes` by identity of what was declared; filled.
        """
        for item in rows:
            place = None if item.classes is None else self._place(item.classes, declared)
            if self.spans and self.spans[-1][1:] == (item.container, place):
                self.spans[-1] = (self.spans[-1][0] + 1, item.container, place)
            else:
                self.spans.append((1, item.container, place))

    def _place(self, classes: Mapping[str, Names], declared: dict[int, int]) -> int:
        if id(classes) not in declared:
            found = {column: list(names) for column, names in classes.items()}
            if found not in self.classes:
                self.classes.append(found)
            declared[id(classes)] = self.classes.index(found)
        return declared[id(classes)]

    def classes_of(self, start: int, stop: int) -> Iterator[Mapping[str, Names]]:
        """What the archives of some of the rows declare."""
        first = 0
        for images, _, place in self.spans:
            if place is not None and first < stop and first + images > start:
                yield {column: tuple(names) for column, names in self.classes[place].items()}
            first += images


def classes_text(found: Iterable[Mapping[str, Names]]) -> bytes:
    """What the archives of a part declare in common, for its metadata."""
    return json.dumps(common_classes(found), sort_keys=True).encode()


def listed_rows(found: Sequence[Found]) -> pa.RecordBatch:
    """Images as rows of `LISTED`."""
    columns = [pa.array([getattr(item, column.name) for item in found], column.type) for column in LISTED]
    return pa.RecordBatch.from_arrays(columns, schema=LISTED)


def pack_numbers(numbers: np.ndarray) -> str:
    """Ascending numbers as a short text."""
    return base64.b64encode(zlib.compress(np.diff(numbers, prepend=0).astype(np.uint32).tobytes())).decode()


def unpack_numbers(packed: str) -> np.ndarray:
    """(N,) int64, what `pack_numbers` was given."""
    return np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint32), dtype=np.int64)


# -- comparing with a catalog ----------------------------------------------------------------------------------------


class _State(NamedTuple):
    """Columns by which an image of a source is known, and those that tell whether it changed."""

    source: str
    uri: str
    key: str
    offset: int | None
    row: int | None
    length: int | None
    modified: int | None
    sidecars: Sequence[Mapping[str, Any]] | None


def home_of(uri: str, key: str, offset: int | None, row: int | None) -> str:
    """Where an image is looked for again: its archive or table, or the folder of its file."""
    if row is not None and is_row_of_urls(uri, row):
        return key.rpartition("#")[0]
    return uri.rpartition("/")[0] if row is None and offset is None else uri


def only_new(found: Iterable[Found], known: Known, told: Told) -> Iterator[Found]:
    """What the catalog does not list yet; what it does is counted, and what changed since.

    A file that a list names twice is known where it is known once.
    """
    homes: OrderedDict[str, dict[int, int]] = OrderedDict()
    for item in found:
        home = home_of(item.uri, item.key, item.offset, item.row)
        if home not in homes:
            homes[home] = {}
            for rows in known.rows_of(home, list(_State._fields)):
                homes[home].update(_digests(rows, told.source))
            while len(homes) > 1 and sum(map(len, homes.values())) > ROWS_HELD:
                homes.popitem(last=False)
        before = homes[home].get(_place(item.uri, item.key, item.offset, item.row))
        beside = None if item.sidecars is None else tuple(map(tuple, item.sidecars))
        told.listed += 1
        told.known += before is not None
        if before is None:
            yield item
        else:
            told.changed += before != hash((item.length, item.modified, beside))


def _digests(rows: pa.Table, source: str) -> Iterator[tuple[int, int]]:
    """(place, state) of each row of a source, as numbers that stand for them in this process."""
    for one in (_State(**row) for row in rows.select(list(_State._fields)).to_pylist()):
        if one.source == source:
            beside = None if one.sidecars is None else tuple(tuple(each.values()) for each in one.sidecars)
            yield _place(one.uri, one.key, one.offset, one.row), hash((one.length, one.modified, beside))


def _place(uri: str, key: str, offset: int | None, row: int | None) -> int:
    """What an image of a source is known by: two tables may hold the same URL in the same row."""
    return hash((uri, offset, row) if row is None else (uri, offset, row, key))
