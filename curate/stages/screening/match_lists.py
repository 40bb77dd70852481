"""MatchLists: which images stand in lists of hashes of pictures that must not be in the pool.

Lists are confidential and large, so they are read where they are by each process that matches, and nothing of them
enters a table or a message but the list's name, its digest and its size. They are known by content: another list, or
another version of one, is data that came in, and makes this table alone again, from facts that are there.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution, Settings, digest, identity
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.numbers import count, plural
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.ops.images.hashes import HASH_BYTES
from curate.ops.screening.exact_hashes import is_listed
from curate.ops.screening.near_hashes import NONE, NearHashes
from curate.sources.hash_lists import HashList
from curate.stages.images.image_tally import value_counts
from curate.stages.screening.list_facts import ListFacts, hashes_of, list_digest, list_facts
from curate.tables import DIGESTS, IMAGE_ID, IMAGES, score

BYTES_OF_IMAGES = ("md5", "sha1")
"""Kinds of hashes that `images` does not have."""
FACTS = pa.schema([IMAGES.field(name) for name in ("image_id", "sha256", "pdq", "pdq_within_border", "pdq_quality")])
"""What is read of an image."""
LOOKUP_ROWS = 12.0
"""What looking up an image among a million PDQ hashes takes, in rows that are sorted or joined."""
LISTED_HASH_BYTES = 90
"""Bytes of memory of a listed PDQ hash with its place in the tables of the search."""


class ListTally(Tally):
    """What a part adds to the figures."""

    columns: ClassVar[tuple[str, ...]] = ("listed", "listed_by")

    lists: dict[str, int] = Field(default_factory=dict)
    """Images by list."""
    kinds: dict[str, int] = Field(default_factory=dict)
    """The same by the kind of hash that they were found by."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        return cls(lists=value_counts(rows["listed"].drop_null()), kinds=value_counts(rows["listed_by"].drop_null()))


class MatchedList(Settings):
    """A list, and what it matched."""

    facts: ListFacts
    images: int
    """Images that it names first."""


class ListFigures(Figures):
    """What lists there were, and what they matched."""

    lists: dict[str, MatchedList]
    """By name, in the order of the config."""
    kinds: dict[str, int]
    """Images by the kind of hash that they were found by."""


class MatchLists(Map):
    """Which list names each image, and by what. Of several lists the first one counts."""

    inputs: ClassVar[dict[str, Input]] = {"images": each(FACTS), "digests": each(DIGESTS, optional=True)}
    tally: ClassVar[type[Tally] | None] = ListTally
    explained_as: ClassVar[str] = "lists"
    pins_are_data: ClassVar[bool] = True

    lists: Annotated[tuple[HashList, ...], Execution()] = ()
    """The lists, known by their content, see `pins`."""

    def score_names(self) -> tuple[str, ...]:
        """Names of its columns of scores."""
        return ("listed", "listed_by", "listed_bits")

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return pa.schema(
            [
                IMAGE_ID,
                score("listed", pa.string(), "name of the first list that holds a hash of the image; null: none does"),
                score("listed_by", pa.string(), "kind of that hash: sha256, md5, sha1 or pdq"),
                score("listed_bits", pa.int16(), "bits of 256 in which its PDQ hash differs; null: found by bytes"),
            ]
        )

    def pins(self) -> dict[str, str]:
        """Of each list its place, what is compared and its content; copies are the business of rules."""
        left_out = ("name", "with_copies")
        return {
            one.name: digest([number, {k: v for k, v in identity(one).items() if k not in left_out}, list_digest(one)])
            for number, one in enumerate(self.lists)
        }

    def run(self, part: int, *, images: pa.Table, digests: pa.Table | None) -> Batches:
        found = _Found.nothing(len(images))
        tables = {"sha256": images["sha256"]} | ({} if digests is None else {k: digests[k] for k in BYTES_OF_IMAGES})
        for kind, column in tables.items():
            known, rows = bytes_of(column)
            for number, listed in hashes_of(self.lists, kind):
                found.add(rows[is_listed(listed, known)], number, kind)
        for number, nearest in self._near(images):
            rows = np.flatnonzero(nearest < NONE)
            found.add(rows, number, "pdq", nearest[rows])
        names = pa.array([one.name for one in self.lists], pa.string())
        columns = found.columns(names)
        yield pa.RecordBatch.from_arrays([images["image_id"].combine_chunks(), *columns], schema=self.output_schema())

    def _near(self, images: pa.Table) -> Iterator[tuple[int, np.ndarray]]:
        """(number of a list, (N,) int16 bits to its nearest hash, NONE beyond its radius) of lists with PDQ hashes."""
        quality = images["pdq_quality"].fill_null(-1).to_numpy()
        for searched in _searches(self.lists, tuple(self.pins().values())):
            nearest = np.full((len(images), len(searched.numbers)), NONE, np.int16)
            for name in ("pdq", "pdq_within_border"):
                known, rows = bytes_of(images[name])
                nearest[rows] = np.minimum(nearest[rows], searched.hashes.find(known))
            for place, number in enumerate(searched.numbers):
                given, bits = self.lists[number], nearest[:, place]
                yield number, np.where((bits <= given.radius) & (quality >= given.least_quality), bits, NONE)

    # -- telling about it ------------------------------------------------------------------------------------

    def summarize(self, table: Table, **inputs: Any) -> ListFigures:
        found = ListTally.of(table)
        lists = {
            one.name: MatchedList(facts=list_facts(one), images=found.lists.get(one.name, 0)) for one in self.lists
        }
        return ListFigures(lists=lists, kinds=found.kinds)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        images: Shape = inputs["images"]
        made = images._replace(row_bytes=ID_BYTES + 1, columns=4, widths={})
        hashes = sum(list_facts(one).counts.get("pdq", 0) for one in self.lists)
        rows = images.rows * (1 + LOOKUP_ROWS * hashes / 1e6)
        return Demand(rows=rows, written=made.num_bytes, memory=LISTED_HASH_BYTES * hashes), made

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        for name, one in ListFigures.of(table).lists.items():
            kinds = ", ".join(f"{count(number)} {kind}" for kind, number in one.facts.counts.items())
            yield "Lists", f"{name}: {kinds} (digest {one.facts.digest[:digits]}), {plural(one.images, 'image')} on it"

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        for name, one in ListFigures.of(table).lists.items():
            if one.facts.unreadable:
                lines = ", ".join(map(str, one.facts.first))
                entries = plural(one.facts.unreadable, "entry", "entries")
                yield f"list {name}: {entries} are no hashes, as on line {lines}"
            if one.facts.others:
                kinds = ", ".join(f"{count(number)} {kind}" for kind, number in one.facts.others.items())
                yield f"list {name}: not compared: {kinds}"

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            if row["listed"] is not None:
                bits = "" if row["listed_bits"] is None else f", {plural(row['listed_bits'], 'bit')} off"
                yield f"on the list {row['listed']} by {row['listed_by']}{bits}"


def needs_digests(lists: tuple[HashList, ...]) -> bool:
    """Whether a list holds hashes that `images` does not have."""
    return any(list_facts(one).counts.keys() & set(BYTES_OF_IMAGES) for one in lists)


def bytes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """((M, W) uint8, (M,) int64 rows) of the values of a column of fixed-size binary that are not null."""
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    values = column.drop_null().combine_chunks()
    width = column.type.byte_width
    data = np.frombuffer(values.buffers()[1] or b"", np.uint8)[values.offset * width :][: len(values) * width]
    return data.reshape(-1, width), rows


class _Found:
    """The list that each image is on: that of the smallest number, and of its hashes the first kind that matches."""

    def __init__(self, number: np.ndarray, kind: np.ndarray, bits: np.ndarray) -> None:
        self._number, self._kind, self._bits = number, kind, bits

    @classmethod
    def nothing(cls, num_images: int) -> "_Found":
        """No image is on a list."""
        none = np.full(num_images, -1, np.int32)
        return cls(none, np.full(num_images, None, object), none.astype(np.int16))

    def add(self, rows: np.ndarray, number: int, kind: str, bits: np.ndarray | None = None) -> None:
        """Images (M,) that list `number` holds by this kind of hash, (M,) bits off."""
        first = (self._number[rows] < 0) | (number < self._number[rows])
        rows = rows[first]
        self._number[rows], self._kind[rows] = number, kind
        self._bits[rows] = -1 if bits is None else bits[first]

    def columns(self, names: pa.Array) -> list[pa.Array]:
        """listed, listed_by and listed_bits."""
        number = pa.array(self._number, mask=self._number < 0)
        return [names.take(number), pa.array(self._kind, pa.string()), pa.array(self._bits, mask=self._bits < 0)]


class _Search(NamedTuple):
    """A search in the PDQ hashes of several lists at once."""

    hashes: NearHashes
    numbers: tuple[int, ...]
    """Of the lists, in the order of the groups."""


@lru_cache(maxsize=1)
def _searches(lists: tuple[HashList, ...], content: tuple[str, ...]) -> list[_Search]:
    """One of lists that mean mirrored pictures too, one of the others; tables are built once a process.

    Args:
        content: tells one version of the lists from another.
    """
    found = []
    with_hashes = hashes_of(lists, "pdq")
    for oriented in (True, False):
        mine = [(number, rows) for number, rows in with_hashes if lists[number].oriented == oriented]
        if mine:
            groups = np.concatenate([np.full(len(rows), group) for group, (_, rows) in enumerate(mine)])
            hashes = np.concatenate([rows for _, rows in mine]).reshape(-1, HASH_BYTES)
            radius = max(lists[number].radius for number, _ in mine)
            search = NearHashes(hashes, groups, radius=radius, oriented=oriented)
            found.append(_Search(search, tuple(number for number, _ in mine)))
    return found
