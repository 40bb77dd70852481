"""Warnings of collapse, on made-up rows and on real runs: some healthy, some made to collapse in three ways."""

import itertools
import math

import pytest

from benchmarks.collapse import COLLAPSED, HEALTHY, watch, write_photos
from curate.config import parse
from curate.trainer.collapse import Watchdog, informed
from curate.trainer.config import TrainConfig

CHANCE = math.log(64)


def row(step, *, std=0.8, loss=3.0, entropy=2.5, used=60.0):
    return {"step": step, "feature_std": std, "loss_dino": loss, "teacher_entropy": entropy, "prototypes_used": used}


def watchdog(rows=(), **changes):
    values = {"shards": "a", "output": "b", "iterations": 1000, "log_every": 10, **changes}
    return Watchdog(parse(TrainConfig, values, where="test"), lambda: {"dino": CHANCE}, rows=rows)


def warned(rows, **changes):
    """Names of the warnings by the step that brought them."""
    dog = watchdog(**changes)
    return {one.name.removeprefix("warned_"): r["step"] for r in rows for one in dog.check(r)}


def steps(first, last):
    return range(first, last + 1, 10)


def test_a_run_that_learns_brings_no_warning():
    assert warned([row(step) for step in steps(10, 1000)]) == {}


def test_features_that_are_lost_are_told_soon_and_those_that_never_came_late():
    lost = [row(s) for s in steps(10, 300)] + [row(s, std=0.01) for s in steps(310, 1000)]
    assert warned(lost) == {"features": 350}
    never = [row(s, std=0.01) for s in steps(10, 1000)]
    assert warned(never) == {"features": 310}  # a tenth of warm-up, a fifth of the run


def test_features_that_are_coming_are_no_collapse():
    """As with a LayerScale of 1e-5, where all features are equal at first."""
    rows = [row(s, std=min(0.8, 1e-5 * math.exp(s / 80))) for s in steps(10, 1000)]
    assert warned(rows) == {}


def test_the_way_of_a_loss_through_ln_k_is_no_collapse():
    rows = [row(s, loss=CHANCE * (1.1 - s / 4000)) for s in steps(10, 1000)]
    assert warned(rows) == {}
    assert warned([row(s, loss=CHANCE * 1.001) for s in steps(10, 1000)]) == {"dino": 610}


def test_one_prototype_for_all_images_is_told_soon():
    rows = [row(s) for s in steps(10, 300)] + [row(s, entropy=1e-4, used=1.0, loss=1e-3) for s in steps(310, 1000)]
    assert warned(rows) == {"one_prototype": 350}


def test_all_prototypes_for_all_images_are_told_late_and_explain_the_loss():
    rows = [row(s, entropy=4.158, used=63.99, loss=CHANCE) for s in steps(10, 1000)]
    assert warned(rows) == {"undecided": 310}


def test_a_warning_comes_once_also_in_a_run_that_was_stopped():
    rows = [row(s, std=0.01) for s in steps(10, 500)]
    for stop in (10, 300, 310, 320):
        before, after = [r for r in rows if r["step"] <= stop], [r for r in rows if r["step"] > stop]
        first = watchdog()
        told = [r | {one.name: 1.0 for one in first.check(r)} for r in before]
        second = watchdog(told)
        found = [(r["step"], one.name) for r in after for one in second.check(r)]
        assert found == ([(310, "warned_features")] if stop < 310 else [])


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"objective": {"kind": "dino", "prototypes": 64}}, "a lower objective.center_momentum"),
        ({"objective": {"prototypes": 64, "centering": "softmax"}}, "objective.centering=sinkhorn"),
        ({"objective": {"prototypes": 64, "koleo_weight": 0}}, "a weight of KoLeo, objective.koleo_weight=0.1"),
    ],
)
def test_the_advice_fits_the_settings(changes, advice):
    dog = watchdog(**changes)
    rows = [row(s, entropy=1e-4, used=1.0) for s in steps(10, 300)]
    (text,) = (one.text for r in rows for one in dog.check(r))
    assert text.startswith("all images get one prototype; ")
    assert advice in text


def test_what_targets_say_is_the_mutual_information():
    assert informed(row(1, entropy=0.0, used=64)) == 1
    assert informed(row(1, entropy=math.log(8), used=64)) == pytest.approx(0.5)
    assert informed(row(1, entropy=math.log(64), used=64)) == 0
    assert informed({"step": 1}) == 1


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    return {blank: write_photos(root / f"{blank}", blank=blank) for blank in (False, True)}


@pytest.mark.parametrize("name", list(itertools.islice(HEALTHY, 3)))
def test_a_healthy_run_is_not_warned_of(shards, tmp_path, name):
    assert watch(HEALTHY[name], shards[False], tmp_path / "run", seed=0).warnings == {}


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_run_that_is_made_to_collapse_is_warned_of(shards, tmp_path, name, caplog):
    given = COLLAPSED[name]
    found = watch(given.changes, shards[given.blank], tmp_path / "run", seed=0).warnings
    assert given.wanted in found
    assert sum("may help" in text for text in caplog.messages) == len(found)
