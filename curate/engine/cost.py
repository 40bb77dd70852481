"""What a stage costs, in terms that no machine enters: its operations, bytes and rows, as a law of its inputs.

Each stage states its own law (`Stage.cost`); what the engine does around any stage, such as the footers that it looks
at, is in `engine/demands.py`. `curate.scale` sums both over a recipe and divides by the rates of machines.
Where the data decide (how many copies there are, how large an image is), a law takes what the user assumes.

Bytes are those that files have. A part is opened by one read of its end (`sealing.TAIL_BYTES`), which is all of a small
one; the columns of a row group then come by one read where they lie side by side. What columns take: vectors, hashes
and images what they are; ids in the order of the catalog 1.2 bytes, in any other order as much as tells them apart (2.5
bytes of a million, 3.7 of a billion), similarities 3.3, and names that repeat next to nothing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from curate.config import Settings
from curate.engine.part_writer import ROW_GROUP_ROWS
from curate.engine.shuffle import TASK_MEMORY
from curate.sealing import BLOCK_BYTES, TAIL_BYTES

PASS_ROWS = 0.1
"""What reading a narrow row and looking it up takes, in rows that are sorted or joined."""
SIMILARITY_BYTES = 3.3
"""Bytes of a similarity, compressed."""
ID_BYTES = 1.2
"""Bytes of an id in the order of the catalog."""
FOOTER_BYTES, COLUMN_BYTES = 400, 300
"""Bytes of a part beside its rows, and more for each of its columns: footer, seal, schema with its documentation."""
SPAN_BYTES = 32 << 20
"""Bytes that a read of columns side by side fetches at most."""
PIECE_BYTES, DENSE = 1 << 20, 0.5
"""Bytes of a piece in which a file of many images is read, and the share of them that must be wanted."""
STEP_REQUESTS = 8
"""Requests of the driver for a table, whatever its size: its manifest twice, progress, listings, parts that tell a
schema."""


class Assumptions(Settings):
    """What no law can know: facts of the images that are to come."""

    images: Annotated[int, Field(ge=1)]
    """Images of the pool."""
    curated: Annotated[int, Field(ge=0)] = 0
    """Images of the curated sets."""
    heldout: Annotated[int, Field(ge=0)] = 0
    """Images of the held-out sets."""
    kept: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Share of the pool that deduplication keeps."""
    selected: Annotated[int, Field(ge=1)] | None = None
    """Images of the selection; null: as the config says, where it does."""
    image_bytes: Annotated[int, Field(ge=1)] = 100_000
    """Bytes of an encoded image."""
    megapixels: Annotated[float, Field(gt=0)] = 0.35
    """Megapixels of an image; 0.35 have 512 pixels on the short side."""
    pairs: Annotated[float, Field(ge=0)] = 2.0
    """Pairs of copies that a search finds for each image."""
    doubted: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of these pairs that are verified by laying one picture over the other, where the recipe does so."""
    hash_pairs: Annotated[float, Field(ge=0)] = 1.0
    """Pairs of near perceptual hashes that a search finds for each image."""
    chosen: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Images that occur in verified pairs, for each image of the pool."""
    name_bytes: Annotated[float, Field(ge=0)] = 110
    """Bytes of what names an image, its uri and key, compressed."""
    own_bytes: Annotated[float, Field(ge=0)] = 100
    """Bytes of an image's own columns, such as a caption, compressed."""
    bordered: Annotated[float, Field(ge=0, le=1)] = 0.03
    """Share of the images within a border of one color."""
    task_memory: Annotated[int, Field(ge=1 << 20)] = TASK_MEMORY
    """Bytes that a task may use, `executor.task_memory`: rows on their way take two levels where it is small."""
    file_images: Annotated[float, Field(ge=1)] = 1
    """Images of a file of the sources; 1: each is a file of its own, more: tars or Parquet files."""

    @property
    def kept_images(self) -> int:
        """Images of the pool that deduplication keeps."""
        return round(self.kept * self.images)

    def num_images(self, roles: tuple[str, ...]) -> int:
        """Images of these roles."""
        sizes = {"pool": self.images, "curated": self.curated, "heldout": self.heldout}
        return sum(sizes[role] for role in roles)


@dataclass(frozen=True)
class Demand:
    """What a stage does, in all its tasks together."""

    megapixels: float = 0
    """Read, decoded and resized."""
    rows: float = 0
    """Rows sorted, joined or drawn, in parallel."""
    pairs: float = 0
    """Pairs of small pictures that are aligned."""
    forward: float = 0
    """Floating point operations of networks."""
    products: float = 0
    """Floating point operations of searches and k-means, in parallel."""
    serial_rows: float = 0
    """As `rows`, in one process."""
    serial_products: float = 0
    """As `products`, in one process."""
    read: float = 0
    """Bytes read."""
    written: float = 0
    """Bytes written that stay."""
    scratch: float = 0
    """Bytes written that are removed when the table is complete."""
    memory: float = 0
    """Bytes of the largest task, beside code and models."""
    tasks: float = 0
    """Tasks that a scheduler handles, beside one for each part of the table."""
    requests: float = 0
    """Requests to the store and the sources: reads, and files published, removed or looked at."""
    serial_read: float = 0
    """Of `read`, bytes that one process reads: the driver, or the one task that makes a state."""
    parts_read: float | None = None
    """Parts that are read of the inputs that are read part by part; None: all."""
    process_read: float = 0
    """Of `read`, where one process works: bytes that each process reads once and keeps."""
    process_requests: float = 0
    """Of `requests`, the same."""
    n_log_n: bool = False
    """Whether it grows as N log N instead of N, as sorts do and searches whose lists grow with the images."""
    settles: bool = False
    """Whether what it takes an image grows with N up to a bound: the second level of a shuffle, lists that each query
    probes, a sample of a bounded size. Its other fields tell by how much."""
    note: str = ""
    """What a reader of the plan should know."""

    @classmethod
    def sum(cls, demands: "list[Demand]") -> "Demand":
        """The demand of stages that work side by side over the same parts."""
        apart = ("tasks", "parts_read", "n_log_n", "settles", "note")
        names = [field.name for field in fields(cls) if field.name not in apart]
        added = {name: sum(getattr(demand, name) for demand in demands) for name in names}
        return cls(
            **added,
            tasks=max((d.tasks for d in demands), default=0),
            parts_read=next((d.parts_read for d in demands if d.parts_read is not None), None),
            n_log_n=any(d.n_log_n for d in demands),
            settles=any(d.settles for d in demands),
            note=", ".join(d.note for d in demands if d.note),
        )

    @classmethod
    def phases(cls, demands: "Iterable[Demand]") -> "Demand":
        """The demand of work that follows each other."""
        every = list(demands)
        tasks, memory = sum(d.tasks for d in every), max((d.memory for d in every), default=0)
        return replace(cls.sum(every), tasks=tasks, memory=memory)

    def with_reading(self, images: float, given: Assumptions, *, of: float = 0) -> "Demand":
        """The same, and `images` encoded images read and decoded.

        Args:
            of: images of the files that are opened; 0: no more than are read.
        """
        opened = self.with_bytes(images, given, of=of)
        return replace(opened, megapixels=self.megapixels + images * given.megapixels)

    def with_bytes(self, images: float, given: Assumptions, *, of: float = 0) -> "Demand":
        """The same, and the bytes of `images` encoded images read: of files that hold many in pieces, if most of
        them are wanted."""
        whole = max(of, images)
        through = given.file_images > 1 and images >= DENSE * whole
        read = (whole if through else images) * given.image_bytes
        pieces = read / PIECE_BYTES if through else images
        requests = pieces + (whole / given.file_images if through else 0)
        return replace(self, read=self.read + read, requests=self.requests + requests)


class Shape(NamedTuple):
    """What the law of a later stage needs to know of a table."""

    pool: float = 0
    """Rows of the pool, or all rows where roles do not matter."""
    curated: float = 0
    """Rows of curated images."""
    heldout: float = 0
    """Rows of held-out images."""
    row_bytes: float = 0
    """Bytes of a row."""
    dim: int = 0
    """Dimensions of its vectors."""
    lists: int = 0
    """Inverted lists, or leaf clusters."""
    stored: float = 0
    """Of the rows of inverted lists, those that are stored; the others are queries."""
    parts: float = 1
    """Parts of the table."""
    columns: int = 4
    """Columns as Parquet stores them: those of a struct count each."""
    widths: Mapping[str, float] = MappingProxyType({})
    """Bytes of a row by column, of tables of which stages read few; empty: all columns count as read."""
    settles: bool = False
    """Whether requests for its parts grow in that way, see `Demand.settles`."""

    @property
    def rows(self) -> float:
        """All rows."""
        return self.pool + self.curated + self.heldout

    @property
    def num_bytes(self) -> float:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def around_bytes(self) -> float:
        """Bytes of a part beside its rows."""
        return FOOTER_BYTES + COLUMN_BYTES * self.columns

    def of(self, roles: tuple[str, ...]) -> float:
        """Rows of these roles."""
        return float(sum(getattr(self, role) for role in roles))

    def share(self, names: Iterable[str]) -> float:
        """Share of the bytes of a row that some columns take."""
        return sum(self.widths.get(name, 0) for name in names) / self.row_bytes if self.widths else 1

    def parts_of(self, role: str, given: Assumptions) -> float:
        """Parts of the images of one role, of a table that follows the catalog: a part holds images of one source."""
        share = given.num_images((role,)) / max(1, given.num_images(("pool", "curated", "heldout")))
        return max(1, round(self.parts * share)) if share else 0

    def opened(self, times: float = 1) -> Demand:
        """Every part opened so many times, for its rows or its footer alone: one read of its end."""
        end = min(TAIL_BYTES, self.num_bytes / self.parts + self.around_bytes)
        return Demand(read=times * self.parts * end, requests=times * self.parts)

    def fetched(self, times: float = 1, *, share: float = 1, ranges: int = 1) -> Demand:
        """What reading every part takes after it was opened: nothing where its end is all of it.

        Args:
            share: of the bytes of a row, those of the columns that are read.
            ranges: of bytes that do not lie side by side, in each row group.
        """
        if share == 0:  # what of it is read, the stage states
            return Demand()
        rows = self.num_bytes / self.parts
        whole = rows + self.around_bytes - TAIL_BYTES  # what came with the end is not read again
        if whole <= 0:
            return Demand()
        if share < 1:
            ranges *= math.ceil(self.rows / self.parts / ROW_GROUP_ROWS)
        each = min(share * rows + (share < 1) * ranges * BLOCK_BYTES, whole)  # whole blocks, each with its checksum
        reads = ranges * math.ceil(each / ranges / SPAN_BYTES)
        return Demand(read=times * self.parts * each, requests=times * self.parts * reads)

    def scanned(self, times: float = 1, *, share: float = 1, ranges: int = 1) -> Demand:
        """The whole table read so many times by tasks of other parts."""
        return Demand.sum([self.opened(times), self.fetched(times, share=share, ranges=ranges)])


def id_bytes(given: Assumptions) -> float:
    """Bytes of an id in any order but that of the catalog: as much as tells it apart."""
    return math.log2(max(2, given.num_images(("pool", "curated", "heldout")))) / 8


def edge_bytes(given: Assumptions) -> float:
    """Bytes of a pair in a table: an id in order, one in any other order, and a similarity."""
    return ID_BYTES + id_bytes(given) + SIMILARITY_BYTES


Shapes = Mapping[str, Any]
"""Shapes of a stage's inputs by name; None where left out, a list where the stage takes many."""


def catalog_parts(inputs: Shapes) -> float:
    """Parts of the catalog, which tables have that follow it; 1 where a law is asked without one."""
    catalog = inputs.get("catalog")
    return 1 if catalog is None else float(catalog.parts)
