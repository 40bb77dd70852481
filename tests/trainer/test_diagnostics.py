import math

import pytest
import torch

from curate.errors import CurateError, TrainingDiverged
from curate.trainer.diagnostics import FiniteGuard, batch_figures, feature_std
from curate.trainer.objective import ObjectiveOutput


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


def test_loss_that_is_no_number_says_which_and_what_helps():
    guard = FiniteGuard(torch.device("cpu"))
    losses = {"loss": torch.tensor(2.0), "loss_ibot": torch.tensor(1.0)}
    assert guard.look(losses, 2) == 0
    guard.check(rate=lambda _: 1e-3)
    assert guard.look(losses | {"loss_ibot": torch.tensor(math.nan)}, 3) == 1
    assert guard.look(losses, 4) == 1, "no weight may change from there on"
    assert guard.look(losses | {"loss": torch.tensor(math.inf)}, 5) == 1
    with pytest.raises(
        TrainingDiverged, match=r"iteration 3: loss is not finite \(loss_ibot nan\) at .*3.00e-04; lower"
    ):
        guard.check(rate=lambda step: step * 1e-4)
    assert issubclass(TrainingDiverged, CurateError)


def test_without_prototypes_only_the_features_are_watched():
    assert set(batch_figures(output(None, torch.randn(4, 3)))) == {"feature_std"}


def test_a_loss_that_a_phase_adds_is_looked_at_too():
    guard = FiniteGuard(torch.device("cpu"))
    first = {"loss": torch.tensor(1.0)}
    assert guard.look(first, 0) == 0
    assert guard.look(first | {"loss_gram": torch.tensor(2.0)}, 1) == 0
    assert guard.look(first, 2) == 0
    assert guard.look(first | {"loss_gram": torch.tensor(math.nan)}, 3) == 1
    with pytest.raises(TrainingDiverged, match=r"iteration 3: loss is not finite \(loss_gram nan\)"):
        guard.check(rate=lambda step: 0.0)
