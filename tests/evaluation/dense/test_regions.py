"""Against a plain implementation of the definitions: pixels are paired one by one, distances are computed in full."""

import math

import numpy as np
import pytest

from curate.evaluation.dense.overlap import count_overlap, mean_iou
from curate.evaluation.dense.regions import outline, outline_agreement, region_overlap


def disk(x: float, y: float, radius: float, *, side: int = 96) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def plain_outline(region: np.ndarray) -> list[tuple[int, int]]:
    height, width = region.shape
    found = []
    for i in range(height):
        for j in range(width):
            below, right = min(i + 1, height - 1), min(j + 1, width - 1)
            if (
                region[i, j] != region[below, j]
                or region[i, j] != region[i, right]
                or region[i, j] != region[below, right]
            ):
                found.append((i, j))
    return found


def plain_f(told: np.ndarray, true: np.ndarray) -> float:
    first, second = plain_outline(told), plain_outline(true)
    reach = math.ceil(0.008 * math.sqrt(told.shape[0] ** 2 + told.shape[1] ** 2))

    def share(points: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        near = [min(math.dist(p, q) for q in others) <= reach for p in points]
        return sum(near) / len(near)

    precision, recall = share(first, second), share(second, first)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 7.0, 60.0])
def test_j_and_f_are_those_of_a_plain_implementation(shift: float) -> None:
    told, true = disk(30 + shift, 44, 14), disk(30, 44, 15) | disk(60, 70, 6)
    inter = sum(bool(a and b) for a, b in zip(told.ravel(), true.ravel(), strict=True))
    union = sum(bool(a or b) for a, b in zip(told.ravel(), true.ravel(), strict=True))
    assert region_overlap(told, true) == pytest.approx(inter / union)
    assert {tuple(p) for p in np.argwhere(outline(told))} == set(plain_outline(told))
    assert outline_agreement(told, true) == pytest.approx(plain_f(told, true))


def test_a_region_agrees_with_itself_and_nothing_with_an_empty_one() -> None:
    empty, some = np.zeros((20, 20), bool), disk(9, 9, 4, side=20)
    assert region_overlap(some, some) == outline_agreement(some, some) == 1
    assert region_overlap(empty, empty) == outline_agreement(empty, empty) == 1
    assert region_overlap(empty, some) == outline_agreement(empty, some) == outline_agreement(some, empty) == 0


def test_mean_iou_is_that_of_scikit_learn_and_leaves_unknown_pixels_out() -> None:
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(0)
    true, told = rng.integers(-1, 4, (3, 9, 7)), rng.integers(0, 4, (3, 9, 7))
    counts = np.stack([count_overlap(a, b, 6) for a, b in zip(told, true, strict=True)])  # classes 4, 5: nowhere
    known = true >= 0
    assert mean_iou(counts, np.ones(3)) == pytest.approx(jaccard_score(true[known], told[known], average="macro"))
    twice = np.concatenate([true[1][known[1]]] * 2 + [true[0][known[0]]])
    answers = np.concatenate([told[1][known[1]]] * 2 + [told[0][known[0]]])
    assert mean_iou(counts, np.array([1.0, 2.0, 0.0])) == pytest.approx(jaccard_score(twice, answers, average="macro"))
