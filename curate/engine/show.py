"""What a stage shows of its table: sections made of blocks of text, numbers, charts and pictures.

A block says what is to be seen, not how it looks: the report draws a page of blocks, the dataset card takes their
numbers, and a test reads them. Sections of equal titles, from several tables, become one: equal blocks appear once and
tables of numbers with equal heads are joined.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

Color = Literal["a", "b", "c", "d", "e", "f", "ink"]
"""Colors of the style sheet; `ink` is that of text."""
Mark = Literal["", "kept", "heldout", "query", "curated"]
"""How a picture is framed."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Share:
    """A bar in a table of numbers, of this share of the column's width, 0..1."""

    value: float


Cell: TypeAlias = str | int | float | Share | None
"""A cell of a table; numbers are aligned to the right, counts get thousands separators."""


@dataclass(frozen=True)
class Numbers:
    """A table of numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Series:
    """Values under one name."""

    name: str
    values: np.ndarray
    color: Color


@dataclass(frozen=True)
class Line(Series):
    """Values over their own x."""

    x: np.ndarray


@dataclass(frozen=True)
class Marker:
    """A vertical line with a name."""

    name: str
    at: float
    color: Color


@dataclass(frozen=True)
class Curves:
    """Lines over a common x axis; values that are not finite break a line."""

    lines: Sequence[Line]
    x_label: str
    y_label: str
    from_zero: bool = False
    """The y axis holds 0."""


@dataclass(frozen=True)
class Histogram:
    """Counts per bin on a logarithmic axis: edges (B + 1,), each series (B,)."""

    edges: np.ndarray
    series: Sequence[Series]
    markers: Sequence[Marker]
    x_label: str
    counted: str = "pairs"


@dataclass(frozen=True)
class SortedBars:
    """One series as bars in falling order, another as a line over them, each sorted by itself."""

    bars: Series
    steps: Series
    x_label: str
    y_label: str


@dataclass(frozen=True)
class Picture:
    """An image of the catalog with lines under it."""

    image_id: int
    captions: tuple[str, ...] = ()
    mark: Mark = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures in a row that wraps, some to a page."""

    pictures: tuple[Picture, ...]
    more: int = 0
    """Pictures that belong here too and are not shown."""
    group: bool = False
    """The pictures belong together: a frame is drawn around them."""
    blurred: bool = False
    """They are drawn so blurred that one sees no more than colors, and cannot be opened."""
    rest: str = ""
    """Command that lists them all."""


@dataclass(frozen=True)
class Pages:
    """Groups of pictures, some to a page."""

    groups: tuple[Gallery, ...]
    more: int = 0
    """Groups that belong here too and are not shown."""
    rest: str = ""
    """Command that lists them all."""


@dataclass(frozen=True)
class Examples:
    """Images that may not decode: a gallery of those that do, a line of text for each of the others."""

    pictures: tuple[Picture, ...]
    more: int = 0
    """Images that belong here too and are not shown."""
    rest: str = ""
    """Command that lists them all."""


@dataclass(frozen=True)
class Drawing:
    """A picture that was drawn for the page, as JPEG data."""

    jpeg: bytes = field(repr=False)
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawings:
    """Drawings in a row that wraps, in one frame."""

    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Coloring:
    """What the colors of points tell."""

    name: str
    labels: tuple[str, ...]
    codes: np.ndarray
    """(N,) number of each point's label; -1: none"""


@dataclass(frozen=True)
class PointMap:
    """Images as points, those alike near each other: ids, x and y are (N,)."""

    image_ids: np.ndarray
    x: np.ndarray
    y: np.ndarray
    colorings: tuple[Coloring, ...]


@dataclass(frozen=True)
class Beside:
    """Columns of blocks, side by side where the page is wide enough."""

    columns: tuple["Blocks", ...]
    wide: bool = False
    """Two columns at most."""


Block: TypeAlias = (
    Text
    | Heading
    | Numbers
    | Curves
    | Histogram
    | SortedBars
    | Gallery
    | Pages
    | Examples
    | Drawings
    | PointMap
    | Beside
)
Blocks: TypeAlias = tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: Blocks
    first: bool = False
    """Of the result as a whole: such sections come before those of single steps."""


@dataclass(frozen=True)
class FlowStep:
    """A step on the way from the pool to the result: how many images are left, and why the others were kept out.

    The images that are left and those that were kept out are those of the step before.
    """

    name: str
    """What the images that are left are, such as `usable`."""
    pool: int
    """Images of the pool that are left."""
    curated: int | None = None
    """Curated images beside them; None: the step does not concern them."""
    drops: tuple[tuple[str, int], ...] = ()
    """(reason, images of the pool that were kept out for it)."""
    note: str = ""
    kept_out: str = ""
    """Follows `kept out` where all of these are named together, such as `as copies`."""
    station: bool = False
    """Its number stands at the top of the page."""
    merged: bool = False
    """`pool` and `drops` count curated images too: which role an image had that was kept out is not recorded."""

    @property
    def num_dropped(self) -> int:
        """Images that were kept out, for whatever reason."""
        return sum(number for _, number in self.drops)

    def before(self, step: "FlowStep") -> int:
        """Of the step before this one, the images that are counted here."""
        return step.pool + (step.curated or 0) if self.merged else step.pool


LIST_KEPT, LIST_SELECTED, LIST_REJECTED, LIST_GROUPS, LIST_CONTAMINATED = (
    f"curate list WORKDIR --{wanted}" for wanted in ("kept", "selected", "rejected", "groups", "contaminated")
)
"""Commands that list what a gallery does not show."""


Check = Literal["unsafe content", "faces", "illegal content", "watermarks", "licenses", "benchmarks", "copies"]
"""What whoever publishes a data set is asked about; the card lists those that no stage of the run has done, and what a
stage has left open of those that it has."""


def gallery(image_ids: Sequence[int] | np.ndarray, *, total: int = 0, rest: str = "") -> Gallery:
    """Pictures without captions.

    Args:
        total: images that belong there, those that are shown among them.
        rest: command that lists them all.
    """
    pictures = tuple(Picture(int(image_id)) for image_id in image_ids)
    return Gallery(pictures, more=max(0, total - len(pictures)), rest=rest)


def without_empty(blocks: Iterable[Block]) -> Blocks:
    """Blocks that show something: no gallery without pictures, no table without rows, no heading of nothing."""
    found: list[Block] = []
    for block in blocks:
        shown = block
        if isinstance(block, Beside):
            shown = replace(block, columns=tuple(column for column in map(without_empty, block.columns) if column))
        if not _is_empty(shown):
            if isinstance(shown, Heading) and found and isinstance(found[-1], Heading):
                found.pop()
            found.append(shown)
    if found and isinstance(found[-1], Heading):
        found.pop()
    return tuple(found)


def _is_empty(block: Block) -> bool:
    match block:
        case Text(text) | Heading(text):
            return not text
        case Numbers():
            return not block.rows
        case Gallery() | Examples():
            return not block.pictures
        case Pages():
            return not block.groups
        case Drawings():
            return not block.drawings
        case PointMap():
            return len(block.image_ids) == 0
        case Beside():
            return not block.columns
    return False


def images_of(block: Block) -> Iterator[int]:
    """Ids of the images that a block shows as pictures of their own, in order; without those that are blurred."""
    match block:
        case Gallery(blurred=True):
            return
        case Gallery() | Examples():
            yield from (picture.image_id for picture in block.pictures)
        case Pages():
            yield from (image for group in block.groups for image in images_of(group))
        case Beside():
            yield from (image for column in block.columns for one in column for image in images_of(one))
