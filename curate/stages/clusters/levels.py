"""Figures of the levels of a cluster tree, and how the report shows them."""

from collections.abc import Sequence

import numpy as np

from curate.engine.figures import Figures
from curate.engine.show import Block, Cell, Color, Curves, Heading, Line, Numbers, Section, Text

COLUMNS = ("clusters", "empty", "imbalance", "effective clusters", "smallest", "median", "largest", "inertia")
COLORS: tuple[Color, ...] = ("a", "b", "c", "d")
TITLE = "Levels of the clusters"


class SizeFigures(Figures):
    """How evenly clusters share the images, see `size_figures`."""

    clusters: int
    """Clusters with images in them."""
    empty: int
    """Clusters that were wanted and have no image."""
    imbalance: float | None
    """1 where all clusters are equal, 2 where a random image finds twice as many in its cluster as then; null: there
    are no images."""
    effective: float
    """exp(entropy) of the sizes: the number of equally large clusters that would be as diverse."""
    smallest: int
    """Images of the smallest cluster that has any."""
    median: int
    """Images of the median cluster among those that have any."""
    largest: int
    """Images of the largest cluster."""


class LevelFigures(SizeFigures):
    """One level of a tree."""

    inertia: float
    """Sum of squared L2 distances to the centroid: of images, above the leaves of the centroids below."""
    curve: tuple[float, ...]
    """Share of the images, 0..1, in the smallest 0, 5, 10, ... 100 % of the clusters; empty: there are no images."""


def tree_section(name: str, levels: Sequence[LevelFigures]) -> Section:
    """The levels of the tree of that name, leaves first: curves, and a row for each."""
    names = ["clusters"] if len(levels) == 1 else ["leaves", *(f"level {number}" for number in range(1, len(levels)))]
    lines = [
        Line(of, 100 * np.array(level.curve), color, np.linspace(0, 100, len(level.curve)))
        for of, level, color in zip(names, levels, COLORS, strict=False)
        if level.curve
    ]
    text = (
        "Sizes count the images that were fitted. Imbalance: 1 where all clusters are equal, 2 where a random image "
        "finds twice as many in its cluster as then. Inertia: sum of squared distances to the centroid, of images, "
        "and above the leaves of the centroids below."
    )
    blocks: list[Block] = [Heading(name)]
    if lines:
        blocks.append(Curves(lines, x_label="smallest clusters, %", y_label="images in them, %", from_zero=True))
    rows = tuple(_row(of, level, level.inertia) for of, level in zip(names, levels, strict=True))
    return Section(TITLE, (*blocks, Numbers((name, *COLUMNS), rows), Text(text)))


def images_section(tree: str, name: str, sizes: SizeFigures) -> Section:
    """A row below those of the tree of that name: the images that were assigned to its leaves."""
    return Section(TITLE, (Numbers((tree, *COLUMNS), (_row(name, sizes, None),)),))


def _row(name: str, sizes: SizeFigures, inertia: float | None) -> tuple[Cell, ...]:
    imbalance = None if sizes.imbalance is None else round(sizes.imbalance, 2)
    extremes = (sizes.smallest, sizes.median, sizes.largest)
    return name, sizes.clusters, sizes.empty, imbalance, round(sizes.effective, 1), *extremes, inertia
