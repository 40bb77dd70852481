"""What a stage costs, in terms that no machine enters: its operations, bytes and rows, as a law of its inputs.

Each stage states its own law (`Stage.cost`); `curate.scale` sums the laws of a recipe and divides by the rates of
machines. Where the data decide (how many copies there are, how large an image is), a law takes what the user assumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from curate.config import Settings

EDGE_BYTES = 24
"""Bytes of an edge or of another narrow row in a table."""


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
    """Tasks that a scheduler handles."""
    requests: float = 0
    """Requests to the store and the sources: reads, and files published, removed or looked at."""
    serial_read: float = 0
    """Of `read`, bytes that one process reads: the driver, or the one task that makes a state."""
    n_log_n: bool = False
    """Whether it grows as N log N instead of N, as sorts do and searches whose lists grow with the images."""
    note: str = ""
    """What a reader of the plan should know."""

    @classmethod
    def sum(cls, demands: "list[Demand]") -> "Demand":
        """The demand of stages that work side by side over the same parts."""
        apart = ("tasks", "n_log_n", "note")
        names = [field.name for field in fields(cls) if field.name not in apart]
        added = {name: sum(getattr(demand, name) for demand in demands) for name in names}
        return cls(
            **added,
            tasks=max(d.tasks for d in demands),
            n_log_n=any(d.n_log_n for d in demands),
            note=", ".join(d.note for d in demands if d.note),
        )

    def with_reading(self, images: float, given: Assumptions) -> "Demand":
        """The same, and `images` encoded images read and decoded."""
        return replace(
            self,
            megapixels=self.megapixels + images * given.megapixels,
            read=self.read + images * given.image_bytes,
        )


class Shape(NamedTuple):
    """What the law of a later stage needs to know of a table."""

    pool: float = 0
    """Rows of the pool, or all rows where roles do not matter."""
    curated: float = 0
    """Rows of curated images."""
    heldout: float = 0
    """Rows of held-out images."""
    row_bytes: float = EDGE_BYTES
    """Bytes of a row."""
    dim: int = 0
    """Dimensions of its vectors."""
    lists: int = 0
    """Inverted lists, or leaf clusters."""
    stored: float = 0
    """Of the rows of inverted lists, those that are stored; the others are queries."""

    @property
    def rows(self) -> float:
        """All rows."""
        return self.pool + self.curated + self.heldout

    @property
    def num_bytes(self) -> float:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    def of(self, roles: tuple[str, ...]) -> float:
        """Rows of these roles."""
        return float(sum(getattr(self, role) for role in roles))


Shapes = Mapping[str, Any]
"""Shapes of a stage's inputs by name; None where left out, a list where the stage takes many."""
