"""The scores of both rules on a chain and on planted pairs whose truth is known."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.chains import IN_A_ROW, _score_both, plant_in_a_row


def test_both_rules_are_scored_by_what_they_drop_and_for_which_image() -> None:
    source = np.array([0, 0, 0, 1, 1, 1])  # three copies each, and a false pair between them
    rows, cols = np.array([0, 1, 2, 3, 4]), np.array([1, 2, 3, 4, 5])
    join, split = _score_both(
        "toy", rows, cols, np.array([0.9, 0.9, 0.8, 0.9, 0.9]), np.array([1, 2, 1, 1, 2, 1]), source
    )
    assert (join.precision, join.recall, join.dropped, join.wrong, join.lost, join.largest) == (6 / 15, 1, 5, 3, 1, 6)
    assert (join.f1_gone, join.f1_gone_for) == pytest.approx((2 * 4 / 9, 2 * 2 / 9))
    assert (split.precision, split.recall, split.dropped, split.wrong, split.lost, split.largest) == (1, 1, 4, 0, 0, 3)
    assert (split.f1, split.f1_gone, split.f1_gone_for) == (1, 1, 1)


def test_copies_in_a_row_are_edited_further_and_further() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    pictures = [Image.fromarray(noise).resize((400 + i, 400)) for i in range(2)]
    planted = plant_in_a_row(pictures, seed=0)
    assert planted.source.tolist() == [0, 1] + [0] * IN_A_ROW + [1] * IN_A_ROW
    assert [len(edits) for edits in planted.edits] == [0, 0] + [1] * 2 * IN_A_ROW
