import logging
import math

import pytest
import torch

from curate.errors import CurateError, TrainingDiverged
from curate.trainer.diagnostics import Watchdog, batch_figures, check_finite, feature_std
from curate.trainer.objective import ObjectiveOutput

CHANCE = {"dino": math.log(16)}


def row(step, *, std=0.8, loss=3.0):
    return {"step": step, "feature_std": std, "loss_dino": loss}


def output(targets, features):
    return ObjectiveOutput(torch.tensor(0.0), {}, features, targets)


def test_feature_std_is_one_for_isotropic_and_zero_for_equal_features():
    random = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0))
    assert feature_std(random) == pytest.approx(1, abs=0.01)
    assert feature_std(torch.ones(10, 4)) == pytest.approx(0, abs=1e-6)


def test_watch_knows_decided_and_undecided_teachers():
    features = torch.randn(4, 3)
    decided = batch_figures(output(torch.eye(4), features))
    assert decided["teacher_entropy"] == 0
    assert decided["prototypes_used"] == pytest.approx(4)
    undecided = batch_figures(output(torch.full((4, 8), 1 / 8), features))
    assert undecided["teacher_entropy"] == pytest.approx(math.log(8))
    same = batch_figures(output(torch.eye(4)[:1].repeat(4, 1), features))
    assert same["prototypes_used"] == pytest.approx(1)


def test_each_warning_comes_once_and_only_after_some_patience(caplog):
    caplog.set_level(logging.WARNING)
    watchdog = Watchdog(patience=10)
    watchdog.check(row(5, std=0.0, loss=math.log(16)), CHANCE)
    assert not caplog.messages
    for step in (11, 12):
        watchdog.check(row(step, std=0.01), CHANCE)
        watchdog.check(row(step, loss=math.log(16) * 1.01), CHANCE)
    assert [m.split(":")[1].split()[0] for m in caplog.messages] == ["features", "the"]
    assert "have collapsed" in caplog.messages[0]
    assert "the loss dino 2.800 is about 2.773 (ln K)" in caplog.messages[1]


def test_healthy_rows_give_no_warning(caplog):
    watchdog = Watchdog(patience=0)
    watchdog.check(row(100), CHANCE)
    assert not caplog.messages


def test_loss_that_is_no_number_says_which_and_what_helps():
    check_finite({"loss_dino": 1.0}, step=3, learning_rate=1e-3)
    with pytest.raises(TrainingDiverged, match=r"iteration 3: loss is not finite \(loss_ibot nan\).*lower"):
        check_finite({"loss_dino": 1.0, "loss_ibot": math.nan}, step=3, learning_rate=1e-3)
    assert issubclass(TrainingDiverged, CurateError)


def test_without_prototypes_only_the_features_are_watched():
    assert set(batch_figures(output(None, torch.randn(4, 3)))) == {"feature_std"}
