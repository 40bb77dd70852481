"""CalibrateCopies: the rule of a toy pool equals that of a direct computation over all that its copies find."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binomtest

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished
from curate.engine.image_ids import part_of, row_of
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Curves, Numbers, Text
from curate.errors import ConfigError
from curate.ops.copies.precision import precision_curve
from curate.ops.copies.registration import register, registration_score
from curate.stages.copies.calibrate import (
    ALIKE,
    COSINES,
    CURVE_POINTS,
    DOUBTLESS,
    LEAST_SCORE,
    LIKELY,
    NEVER,
    CalibrateCopies,
    CalibrationFigures,
    _sure,
)
from curate.stages.copies.plant import PlantFigures
from curate.stages.copies.planted import PlantedCopies, read_planted
from curate.stages.copies.search_planted import GIVEN_UP, SearchPlanted
from curate.tables import FEATURES
from tests.engine.test_finished import opened
from tests.stages.copies.toy_calibration import COPIES, PLANTED, ROWS, add_within, declare, features, given_features
from tests.stages.planted import make

PRECISION = {"precision": 0.9, "heldout_precision": 0.6}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    root = tmp_path_factory.mktemp("calibrated")
    p, refs = declare(root)
    given_features(root)
    found = p.add("found", SearchPlanted(device="cpu"), within=add_within(p, refs["catalog"]), **refs)
    seen = Ref("features", FEATURES)
    p.add("thresholds", CalibrateCopies(**PRECISION), features=seen, found=found, planted=refs["planted"])
    make(p)
    return p


@cache
def score(original: int, image: int, *, edited: bool) -> float:
    """Of a planted picture and an image of the pool."""
    found = register(features(0, original, edited=edited), features(part_of(image), row_of(image)))
    return float(registration_score(np.float32([found.agreement]), np.array([found.num_points]))[0])


def by_hand(p: Pipeline, precision: float) -> tuple[float, float, float]:
    """(threshold, precision, recall): the lowest score whose bound is enough, else that of the highest bound."""
    asking = read_planted(p.store.table("planted"), half=1)
    floor = np.quantile(likeness(asking), GIVEN_UP)
    right, wrong, unclear, copies = [], [], [], len(asking.copies())
    for row in p.store.table("found").read_all().to_pylist():
        original, image = int(asking.image_ids[-1 - row["query_id"]]), row["image_id"]
        if image == (1 << 32 | ROWS - 1):  # it could not be opened
            continue
        laid = score(original, image, edited=True) if row["similarity"] >= np.float32(floor) else -1.0
        if original == image:
            right.append(laid)
        elif laid >= DOUBTLESS or (laid >= LEAST_SCORE and score(original, image, edited=False) >= LIKELY):
            unclear.append(laid)
        else:
            wrong.append(laid)
    assert len(right) == copies
    assert max(wrong) >= LEAST_SCORE
    rows = []
    for threshold in sorted({x for x in right + wrong + unclear if x >= LEAST_SCORE}):
        hits, others = (sum(x >= threshold for x in some) for some in (right, wrong))
        if hits:
            low = binomtest(hits, hits + others).proportion_ci(0.9, method="exact").low
            rows.append((threshold, hits / (hits + others), low, hits / copies))
    sure = [row for row in rows if row[2] >= precision]
    good = [row for row in rows if row[1] >= precision]
    chosen = min(sure) if sure else max(good, key=lambda row: (row[2], -row[0]))
    return chosen[0], chosen[1], chosen[3]


def likeness(asking: PlantedCopies) -> np.ndarray:
    return asking.likeness(asking.views(None))


def test_thresholds_equal_those_of_all_pairs(calibrated: Pipeline) -> None:
    figures = CalibrationFigures.of(calibrated.store.table("thresholds"))
    for chosen, precision in ((figures.pool, 0.9), (figures.heldout, 0.6)):
        threshold, seen, recall = by_hand(calibrated, precision)
        assert (chosen.threshold, chosen.precision, chosen.recall) == pytest.approx((threshold, seen, recall), abs=2e-5)
        assert precision <= chosen.precision
        assert chosen.precision_low < chosen.precision
    assert figures.heldout.threshold <= figures.pool.threshold
    rows = calibrated.store.table("thresholds").read_all().to_pylist()
    assert [row["use"] for row in rows[:3]] == ["pool", "heldout", None]
    assert len(rows) <= 2 + CURVE_POINTS + len(COSINES)


def test_copies_that_the_pool_already_holds_are_no_mistakes(calibrated: Pipeline) -> None:
    asking = read_planted(calibrated.store.table("planted"), half=1)
    same = 0
    for row in calibrated.store.table("found").read_all().to_pylist():
        original, image = int(asking.image_ids[-1 - row["query_id"]]), row["image_id"]
        same += image == (1 << 32 | original) and original % 3 == 0
    assert same > 3  # they are found, and lie over the original beyond doubt
    assert CalibrationFigures.of(calibrated.store.table("thresholds")).pool.precision == 1


def test_cosines_are_quantiles_of_how_like_copies_are(calibrated: Pipeline) -> None:
    figures = CalibrationFigures.of(calibrated.store.table("thresholds"))
    like = likeness(read_planted(calibrated.store.table("planted"), half=1))
    assert figures.floor == pytest.approx(np.quantile(like, GIVEN_UP), abs=1e-5)
    assert figures.alike == pytest.approx(np.quantile(like, ALIKE), abs=1e-5)
    assert figures.sure == NEVER  # thirty copies prove no such precision


def test_a_cosine_is_sure_where_thousands_of_pairs_show_it() -> None:
    similarity = np.linspace(1, 0.5, 5000).astype(np.float32)
    right = np.ones(5000, bool)
    right[3000:4000] = False
    unclear = np.zeros(5000, bool)
    found = _sure(similarity, right, unclear)
    assert similarity[3010] < found < similarity[2990]
    unclear[3000:4000] = True
    assert _sure(similarity, right, unclear) == similarity[-1]
    assert _sure(similarity[:500], right[:500], unclear[:500]) == NEVER


def shown(p: Pipeline) -> tuple[CalibrateCopies, Finished]:
    """The stage and its run, as if copies had been planted by a stage of it."""
    table = p.store.table("planted")
    manifest = table.complete_manifest()
    table.write_manifest(replace(manifest, figures=PlantFigures(images=PLANTED, copies=PLANTED * COPIES).model_dump()))
    run = opened(p)
    return run.only(CalibrateCopies)[0], run


def test_chosen_thresholds_stand_below_their_curves(calibrated: Pipeline) -> None:
    stage, run = shown(calibrated)
    table = run.only(CalibrateCopies)[1]
    (section,) = stage.show(table, run)
    assert section.title == "Thresholds, measured"
    chart, numbers, text = section.blocks
    assert isinstance(chart, Curves)
    assert [line.name for line in chart.lines] == ["precision", "recall"]
    assert all((np.diff(line.x) > 0).all() and np.isfinite(line.values).all() for line in chart.lines)
    assert isinstance(numbers, Numbers)
    figures = CalibrationFigures.of(table)
    assert [row[:2] for row in numbers.rows] == [
        ("within the pool", round(figures.pool.threshold, 3)),
        ("with held-out images", round(figures.heldout.threshold, 3)),
    ]
    assert isinstance(text, Text)
    assert f"Measured with {PLANTED * COPIES} copies of {PLANTED} images of this pool" in text.text
    assert "no pair counts unverified" in text.text
    assert f"from a cosine of {figures.floor:.3f} on" in text.text


def test_precision_out_of_reach_names_the_field() -> None:
    message = r"^heldout_precision=0\.9999: no threshold reaches .* on copies planted in this pool; lower it, or use"
    curve = precision_curve(np.array([0.9, 0.8]), np.array([False, True]), np.zeros(2, bool))
    with pytest.raises(ConfigError, match=message):
        CalibrateCopies(heldout_precision=0.9999)._choose(curve, "heldout_precision")


def test_cost_is_two_registrations_of_each_pair() -> None:
    inputs = {"found": Shape(pool=900, row_bytes=20), "features": Shape(pool=100, row_bytes=1000)}
    demand, made = CalibrateCopies().cost(inputs, Assumptions(images=65_536))
    assert (demand.pairs, made.rows) == (1800, CURVE_POINTS)
