"""Image ids, and what the parts of the catalog hold.

`image_id = (part << 32) | row`: no pass over all images numbers them, ids never move when data are added, and the part
and row of an image in the catalog, and in every table aligned with it, follow from its id.
"""

from collections.abc import Iterable
from typing import NamedTuple, overload

import numpy as np

from curate.config import Settings
from curate.engine.figures import Figures
from curate.engine.table import Table
from curate.tables import ROLES

ROW_BITS = 32
ROW_MASK = (1 << ROW_BITS) - 1


@overload
def part_of(image_ids: int) -> int: ...
@overload
def part_of(image_ids: np.ndarray) -> np.ndarray: ...
def part_of(image_ids: int | np.ndarray) -> int | np.ndarray:
    """The part of the catalog that holds an image, or of each of several."""
    return image_ids >> ROW_BITS


@overload
def row_of(image_ids: int) -> int: ...
@overload
def row_of(image_ids: np.ndarray) -> np.ndarray: ...
def row_of(image_ids: int | np.ndarray) -> int | np.ndarray:
    """The row of an image within its part, or of each of several."""
    return image_ids & ROW_MASK


def ids_of_part(part: int, num_rows: int) -> np.ndarray:
    """(N,) int64: the ids of all images of a part, in order of rows."""
    return np.int64(part) << ROW_BITS | np.arange(num_rows, dtype=np.int64)


class LeftOutFigures(Settings):
    """What a source holds and the catalog does not list, for one reason."""

    source: str
    reason: str
    count: int
    """Files, members of archives or rows of tables."""
    example: str
    """The first of them, by its place in the source; "": not told."""


class CatalogFigures(Figures):
    """What the catalog tells of its parts; every part holds images of one source."""

    sources: tuple[str, ...]
    """Names of the sources in the order of their first parts: that of the config, where none was added later."""
    part_source: tuple[int, ...]
    """Of each part: the place of its source in `sources`."""
    part_role: tuple[int, ...]
    """Of each part: the number of its role."""
    part_rows: tuple[int, ...]
    """Of each part: its images."""
    left_out: tuple[LeftOutFigures, ...] = ()
    """What the sources held besides, when they were listed last."""

    @classmethod
    def of_parts(
        cls,
        parts: Iterable[tuple[str, str, int]],
        *,
        sources: Iterable[str] = (),
        left_out: Iterable[LeftOutFigures] = (),
    ) -> "CatalogFigures":
        """From the (source, role, rows) of each part; `sources` are named even where they have no part."""
        listed = list(parts)
        names = tuple(dict.fromkeys([*(source for source, _, _ in listed), *sources]))
        return cls(
            sources=names,
            part_source=tuple(names.index(source) for source, _, _ in listed),
            part_role=tuple(ROLES.index(role) for _, role, _ in listed),
            part_rows=tuple(rows for _, _, rows in listed),
            left_out=tuple(left_out),
        )


class Parts(NamedTuple):
    """Facts of the catalog by part number."""

    role: np.ndarray
    """(P,) int8, number of the role"""
    rank: np.ndarray
    """(P,) int32, place of the source among all, see `CatalogFigures.sources`"""
    rows: np.ndarray
    """(P,) int64, images"""
    source: list[str]
    """(P,) name of the source"""

    @classmethod
    def of(cls, catalog: Table) -> "Parts":
        """Role, source and rows of every part of a complete catalog."""
        figures = CatalogFigures.of(catalog)
        return cls(
            np.array(figures.part_role, np.int8),
            np.array(figures.part_source, np.int32),
            np.array(figures.part_rows, np.int64),
            [figures.sources[number] for number in figures.part_source],
        )

    def num_images(self, roles: Iterable[str]) -> int:
        """Images of these roles, as listed."""
        return int(self.rows[np.isin(self.role, [ROLES.index(role) for role in roles])].sum())

    def role_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(N,) int8: the role of each image."""
        found: np.ndarray = self.role[part_of(image_ids)]
        return found

    def numbers(self, role: int) -> list[int]:
        """Numbers of the parts of a role, ascending."""
        found: list[int] = np.flatnonzero(self.role == role).tolist()
        return found

    def has(self, image_id: int) -> bool:
        """Whether the catalog lists an image of this id."""
        part = part_of(image_id)
        return 0 <= part < len(self.rows) and row_of(image_id) < self.rows[part]
