"""The section of the levels: a row and a curve for each."""

import numpy as np

from curate.engine.show import Curves, Heading, Numbers, Text
from curate.ops.clusters.balance import level_figures, size_figures
from curate.stages.clusters.levels import LevelFigures, SizeFigures, images_section, tree_section


def level(sizes: list[int], *, wanted: int) -> LevelFigures:
    return LevelFigures(**level_figures(np.array(sizes), np.ones(len(sizes)), wanted))


def test_every_level_has_its_figures() -> None:
    section = tree_section("centroids", [level([3, 1], wanted=3), level([4], wanted=1)])
    heading, curves, numbers, text = section.blocks
    assert heading == Heading("centroids")
    assert isinstance(curves, Curves)
    assert [(line.name, line.values[-1]) for line in curves.lines] == [("leaves", 100), ("level 1", 100)]
    assert isinstance(numbers, Numbers)
    assert numbers.rows == (
        ("leaves", 2, 1, 1.88, 1.8, 1, 3, 3, 2.0),  # 3 x (9 + 1) / 16
        ("level 1", 1, 0, 1.0, 1.0, 4, 4, 4, 1.0),
    )
    assert isinstance(text, Text)


def test_assigned_images_are_a_row_of_the_same_head_without_inertia() -> None:
    sizes = SizeFigures(**size_figures(np.array([3, 1]), 2))
    (row,) = images_section("centroids", "leaves in assignments, all images", sizes).blocks
    assert isinstance(row, Numbers)
    assert row.head == next(
        b.head for b in tree_section("centroids", [level([1], wanted=1)]).blocks if isinstance(b, Numbers)
    )
    assert row.rows == (("leaves in assignments, all images", 2, 0, 1.25, 1.8, 1, 3, 3, None),)


def test_flat_clusters_are_no_leaves_and_levels_without_images_have_no_curve() -> None:
    (_, numbers, _) = tree_section("centroids", [level([], wanted=2)]).blocks
    assert isinstance(numbers, Numbers)
    assert numbers.rows == (("clusters", 0, 2, None, 0.0, 0, 0, 0, 0.0),)
