"""Planted copies as stages read them: halves that share no image, and the original of each copy."""

from pathlib import Path

import numpy as np

from curate.stages.copies.planted import read_planted
from tests.stages.copies.toy_calibration import COPIES, PLANTED, given_planted, planted_rows


def test_halves_share_no_image_and_keep_every_copy(tmp_path: Path) -> None:
    table = given_planted(tmp_path)
    fits, judges = (read_planted(table, half=half) for half in (0, 1))
    assert not set(fits.image_ids.tolist()) & set(judges.image_ids.tolist())
    assert len(fits.image_ids) + len(judges.image_ids) == PLANTED * (COPIES + 1)
    rows = {(row["image_id"], row["copy"]): row for row in planted_rows()}
    for image_id, number, vector, picture in zip(*judges, strict=True):
        row = rows[int(image_id), int(number)]
        assert vector.tobytes() == row["vector"]
        assert picture.tobytes() == row["picture"]


def test_originals_are_the_rows_of_the_images_themselves(tmp_path: Path) -> None:
    found = read_planted(given_planted(tmp_path), half=0)
    copies = found.copies()
    assert len(copies) == COPIES * (len(found.image_ids) // (COPIES + 1))
    own = found.originals_of(found.image_ids[copies])
    assert np.array_equal(found.image_ids[own], found.image_ids[copies])
    assert not found.number[own].any()
