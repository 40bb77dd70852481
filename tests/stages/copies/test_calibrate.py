"""CalibrateCopies: thresholds of a toy pool equal those of a direct computation over all pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished
from curate.engine.pipeline import Pipeline
from curate.engine.show import Curves, Numbers, Text
from curate.errors import ConfigError, TableError
from curate.ops.copies.precision import precision_curve
from curate.stages.copies.calibrate import (
    CURVE_POINTS,
    CalibrateCopies,
    CalibrationFigures,
    likeness_of_copies,
    may_be_copies,
    searched_from,
)
from curate.stages.copies.plant import PlantFigures
from curate.stages.copies.planted import read_planted
from tests.engine.test_finished import opened
from tests.stages.copies.toy_calibration import COPIES, PLANTED, ROWS, declare, pool_pictures, pool_vectors
from tests.stages.planted import make


def calibrated(root: Path, **fields: float) -> Pipeline:
    p, refs = declare(root)
    p.add("thresholds", CalibrateCopies(device="cpu", **fields), space=None, **refs)
    make(p)
    return p


def by_hand(p: Pipeline, precision: float) -> tuple[float, float]:
    """(threshold, recall): the lowest similarity at which enough of the clear pairs are right."""
    asking = read_planted(p.store.table("planted"), half=1)
    pool, pictures = pool_vectors().reshape(-1, 32), pool_pictures()
    ids = np.array([part << 32 | row for part in range(2) for row in range(ROWS)])
    likeness = likeness_of_copies(asking)
    floor, alike_from = np.quantile(likeness, 0.05), np.quantile(likeness, 0.5)
    right, wrong = [], []
    for row in np.flatnonzero(asking.number > 0).tolist():
        original = int(asking.image_ids[row])
        for image_id, cosine in zip(ids.tolist(), (pool @ asking.vectors[row]).tolist(), strict=True):
            same_picture = np.array_equal(pictures[0, original], pictures[image_id >> 32, image_id & 0xFFFFFFFF])
            unclear = same_picture or pool[original] @ pool[ids.tolist().index(image_id)] >= alike_from
            if image_id == original:
                right.append(cosine)
            elif cosine >= floor and not unclear:
                wrong.append(cosine)
    good = [
        threshold
        for threshold in [cosine for cosine in right + wrong if cosine >= floor]
        if (hits := sum(c >= threshold for c in right)) / (hits + sum(c >= threshold for c in wrong)) >= precision
    ]
    return min(good), sum(cosine >= min(good) for cosine in right) / len(right)


def test_thresholds_equal_those_of_all_pairs(tmp_path: Path) -> None:
    p = calibrated(tmp_path, precision=0.95, heldout_precision=0.8)
    figures = CalibrationFigures.of(p.store.table("thresholds"))
    for chosen, precision in ((figures.pool, 0.95), (figures.heldout, 0.8)):
        threshold, recall = by_hand(p, precision)
        assert chosen.threshold == pytest.approx(threshold, abs=1e-5)
        assert chosen.recall == pytest.approx(recall, abs=1e-5)
        assert precision <= chosen.precision
        assert chosen.precision_low < chosen.precision
    assert figures.heldout.threshold < figures.pool.threshold
    rows = p.store.table("thresholds").read_all().to_pylist()
    assert [row["use"] for row in rows[:3]] == ["pool", "heldout", None]
    assert len(rows) <= 2 + CURVE_POINTS


def shown(p: Pipeline) -> tuple[CalibrateCopies, Finished]:
    """The stage and its run, as if copies had been planted by a stage of it."""
    table = p.store.table("planted")
    manifest = table.complete_manifest()
    table.write_manifest(replace(manifest, figures=PlantFigures(images=PLANTED, copies=PLANTED * COPIES).model_dump()))
    run = opened(p)
    return run.only(CalibrateCopies)[0], run


def test_chosen_thresholds_stand_below_their_curves(tmp_path: Path) -> None:
    stage, run = shown(calibrated(tmp_path, precision=0.95, heldout_precision=0.8))
    table = run.only(CalibrateCopies)[1]
    (section,) = stage.show(table, run)
    assert section.title == "Thresholds, measured"
    chart, numbers, text = section.blocks
    assert isinstance(chart, Curves)
    assert [line.name for line in chart.lines] == ["precision", "recall"]
    assert all((np.diff(line.x) > 0).all() for line in chart.lines)
    assert isinstance(numbers, Numbers)
    figures = CalibrationFigures.of(table)
    assert [row[:2] for row in numbers.rows] == [
        ("within the pool", round(figures.pool.threshold, 3)),
        ("with held-out images", round(figures.heldout.threshold, 3)),
    ]
    assert isinstance(text, Text)
    assert f"Measured with {PLANTED * COPIES} copies of {PLANTED} images of this pool" in text.text


def test_precision_out_of_reach_names_the_field() -> None:
    message = r"^heldout_precision=0\.9999: no threshold reaches .* on copies planted in this pool; lower it, or use"
    curve = precision_curve(np.array([0.9, 0.8]), np.array([False, True]), np.zeros(2, bool))
    with pytest.raises(ConfigError, match=message):
        CalibrateCopies(heldout_precision=0.9999)._choose(curve, "heldout_precision")


def test_a_pool_without_the_originals_is_an_error(tmp_path: Path) -> None:
    p, refs = declare(tmp_path, first_role="curated")
    p.add("thresholds", CalibrateCopies(device="cpu"), space=None, **refs)
    with pytest.raises(TableError, match="no planted copy has its original in the pool"):
        make(p)


def test_images_that_can_be_laid_over_the_original_or_are_as_like_it_as_copies_are_unclear() -> None:
    likeness = np.array([0.6, 0.8, 1.0])
    found = may_be_copies(np.array([0.6, 0.1, 0.1]), np.array([0.0, 0.85, 0.7]), likeness)
    assert found.tolist() == [True, True, False]
    assert searched_from(likeness) == pytest.approx(0.62)


def test_cost_is_every_judging_copy_against_the_pool() -> None:
    inputs = {"embeddings": Shape(pool=65_536, row_bytes=100, dim=8), "planted": Shape(pool=400)}
    demand, made = CalibrateCopies().cost(inputs, Assumptions(images=65_536))
    assert demand.products == 2 * 200 * 65_536 * 8
    assert (demand.pairs, made.rows) == (200 * 8, CURVE_POINTS)
