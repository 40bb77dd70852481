"""Planted copies as stages read them: halves that share no image, originals, views and how like they are."""

from pathlib import Path

import numpy as np

from curate.ops.copies.copyspace import CopySpace
from curate.ops.vectors import normalize
from curate.stages.copies.planted import PlantedCopies, read_planted
from tests.stages.copies.toy_calibration import COPIES, DIM, FRAMED, PLANTED, features, given_planted, planted_rows


def judging(root: Path) -> PlantedCopies:
    return read_planted(given_planted(root), half=1)


def test_halves_share_no_image_and_keep_every_copy(tmp_path: Path) -> None:
    table = given_planted(tmp_path)
    fits, judges = (read_planted(table, half=half) for half in (0, 1))
    assert not set(fits.image_ids.tolist()) & set(judges.image_ids.tolist())
    assert len(fits.image_ids) + len(judges.image_ids) == PLANTED * (COPIES + 1)
    rows = {(row["image_id"], row["copy"]): row for row in planted_rows()}
    for half in (fits, judges):
        for at, key in enumerate(zip(half.image_ids.tolist(), half.number.tolist(), strict=True)):
            assert half.vectors[at].tobytes() == rows[key]["vector"]
            assert half.features(at).encoded == rows[key]["picture"]


def test_originals_are_the_rows_of_the_images_themselves(tmp_path: Path) -> None:
    found = read_planted(given_planted(tmp_path), half=0)
    copies = found.copies()
    assert len(copies) == COPIES * (len(found.image_ids) // (COPIES + 1))
    own = found.originals_of(found.image_ids[copies])
    assert np.array_equal(found.image_ids[own], found.image_ids[copies])
    assert not found.number[own].any()


def test_a_picture_within_a_border_has_two_views(tmp_path: Path) -> None:
    found = judging(tmp_path)
    views = found.views(None)
    framed = np.flatnonzero(found.number == FRAMED)
    assert sorted(views.rows.tolist()) == sorted([*range(len(found.number)), *framed.tolist()])
    rows = {(row["image_id"], row["copy"]): row for row in planted_rows()}
    for row in framed.tolist():
        raw = [vector.tobytes() for vector in views.vectors[views.rows == row]]
        planted = rows[int(found.image_ids[row]), FRAMED]
        assert raw == [planted["vector"], planted["within"]]


def test_views_lie_in_the_space_that_is_searched(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    space = CopySpace(rng.standard_normal(DIM).astype(np.float32), rng.standard_normal((DIM, 6)).astype(np.float32))
    found = judging(tmp_path)
    expected = normalize((found.views(None).vectors - space.mean) @ space.axes)
    np.testing.assert_allclose(found.views(space).vectors, expected, atol=1e-5)


def test_likeness_is_that_of_the_most_similar_views(tmp_path: Path) -> None:
    found = judging(tmp_path)
    rows = {(row["image_id"], row["copy"]): row for row in planted_rows()}
    expected = []
    for row in found.copies().tolist():
        image, number = int(found.image_ids[row]), int(found.number[row])
        names = ["vector", "within"] if number == FRAMED else ["vector"]
        whole = np.frombuffer(rows[image, 0]["vector"], np.float32)
        expected.append(max(float(np.frombuffer(rows[image, number][name], np.float32) @ whole) for name in names))
    np.testing.assert_allclose(found.likeness(found.views(None)), expected, atol=1e-6)


def test_features_are_those_of_the_picture(tmp_path: Path) -> None:
    found = judging(tmp_path)
    for row in (0, 1):
        expected = features(0, int(found.image_ids[row]), edited=bool(found.number[row]))
        assert np.array_equal(found.features(row).stored_points, expected.stored_points)
        assert np.array_equal(found.features(row).stored_descriptors, expected.stored_descriptors)
