import numpy as np
import pytest
import torch

from curate.trainer.objectives.feature_settings import LeJepaSettings
from curate.trainer.objectives.lejepa import agreement, draw_directions, sigreg
from curate.trainer.parallel import World
from curate.trainer.train import train
from tests.trainer import plain_losses
from tests.trainer.objectives.tiny import BATCH, LOCAL, build, config, context, swin, views, vit, without_gradient

SETTINGS = LeJepaSettings(projector_hidden=32, projector_out=12, directions=20, sigreg_weight=0.1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_sigreg_equals_loops_over_directions_and_points():
    features, directions = drawn(3, 50, 6), draw_directions(6, 9, rng=np.random.default_rng(0))
    found = sigreg(features, directions, knots=17, knot_range=5.0, world=World())
    each = [plain_losses.sigreg(view, directions, knots=17, knot_range=5.0) for view in features]
    assert found.item() == pytest.approx(np.mean(each), rel=1e-6)


def by_definition(views, directions, points, *, target):
    """SIGReg and agreement from their formulas in float64: an integral over both signs of t, times the images."""
    z, a, t = np.float64(views), np.float64(directions), np.asarray(points)
    weight = np.exp(-(t**2) / 2)
    characteristic = np.exp(1j * np.einsum("vne,em,t->vnmt", z, a, t)).mean(axis=1)
    statistic = np.trapezoid(np.abs(characteristic - weight) ** 2 * weight, t, axis=-1)
    center = z[:target].mean(axis=0)
    return z.shape[1] * statistic.mean(), np.mean([np.mean((view - center) ** 2) for view in z])


@pytest.mark.parametrize(
    ("changes", "points", "target"),
    [({}, np.linspace(-5, 5, 17), 2), ({"knots": 33, "knot_range": 3.0, "target": "all"}, np.linspace(-3, 3, 33), 5)],
    ids=["the paper's listings", "its authors' minimal example"],
)
def test_the_loss_is_that_of_the_formulas(changes, points, target):
    settings, views = LeJepaSettings(**changes), drawn(5, 30, 8)
    directions = draw_directions(8, 16, rng=np.random.default_rng(0))
    spread, agreed = by_definition(views, directions, points, target=target)
    knots = {"knots": settings.knots, "knot_range": settings.knot_range}
    assert sigreg(views, directions, world=World(), **knots).item() == pytest.approx(spread, rel=1e-6)
    found = agreement(views, global_only=settings.target == "global").item()
    assert found == pytest.approx(agreed, rel=1e-6)


def test_a_gaussian_costs_least():
    directions = draw_directions(4, 64, rng=np.random.default_rng(0))
    gaussian = drawn(1, 4000, 4)
    others = {
        "shifted": gaussian + 0.5,
        "narrow": 0.5 * gaussian,
        "uniform": 3.4 * (torch.rand(1, 4000, 4, generator=torch.Generator().manual_seed(0)) - 0.5),
        "correlated": gaussian[..., :1].expand(-1, -1, 4),
        "collapsed": torch.zeros(1, 4000, 4),
    }
    cost = {name: sigreg(x, directions, knots=17, knot_range=5.0, world=World()).item() for name, x in others.items()}
    least = sigreg(gaussian, directions, knots=17, knot_range=5.0, world=World()).item()
    assert all(value > 3 * least for value in cost.values()), (least, cost)


def test_directions_are_of_length_1_and_follow_the_numbers_that_ranks_share():
    first, again, other = (draw_directions(6, 9, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first.norm(dim=0), torch.ones(9))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("backbone", "target"), [(vit, "global"), (vit, "all"), (swin, "global")])
def test_a_step_equals_the_plain_formulas(backbone, target):
    objective = build(SETTINGS.model_copy(update={"target": target}), backbone()).eval()
    output = objective(views(), context())
    crops = views()
    with torch.no_grad():
        cls = torch.cat([objective.student["backbone"](group) for group in crops.groups])
        z = objective.student["projector"](cls).unflatten(0, (2 + LOCAL, BATCH)).double()
    directions = draw_directions(12, 20, rng=context().rng)
    spread = np.mean([plain_losses.sigreg(view, directions, knots=17, knot_range=5.0) for view in z])
    center = (z[0] + z[1]) / 2 if target == "global" else z.mean(dim=0)
    agreed = float(np.mean([((view - center) ** 2).mean() for view in z]))
    assert output.terms["sigreg"].item() == pytest.approx(spread, rel=1e-5)
    assert output.terms["agreement"].item() == pytest.approx(agreed, rel=1e-5)
    assert output.loss.item() == pytest.approx(0.1 * spread + 0.9 * agreed, rel=1e-5)


def test_gradients_reach_the_student():
    objective = build(SETTINGS, vit())
    objective(views(), context()).loss.backward()
    assert without_gradient(objective) == {"backbone.mask_token"}


def test_views_that_agree_cost_nothing():
    assert agreement(drawn(1, 5, 6).expand(4, 5, 6)).item() < 1e-12


def test_an_even_number_of_points_is_refused():
    with pytest.raises(ValueError, match="knots is 16; needed is an odd number"):
        LeJepaSettings(knots=16)


def test_points_are_learned_into_a_gaussian():
    """From far away to the spread of drawn numbers, by the regularizer alone."""
    points = (0.1 * drawn(1, 256, 3) + 1).requires_grad_()
    optimizer = torch.optim.Adam([points], lr=0.05)
    for step in range(300):
        directions = draw_directions(3, 32, rng=np.random.default_rng(step))
        loss = sigreg(points, directions, knots=17, knot_range=5.0, world=World())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    covariance = torch.cov(points[0].detach().T)
    torch.testing.assert_close(covariance, torch.eye(3), atol=0.15, rtol=0)


def test_a_run_spreads_images_and_keeps_their_views_together(tmp_path):
    small = {"preset": "tiny", "patch_size": 8, "depth": 1, "drop_path": 0.0, "layer_scale": 1.0}
    objective = {"kind": "lejepa", "projector_hidden": 64, "projector_out": 8, "directions": 64, "sigreg_weight": 0.1}
    changes = {"batch_size": 20, "iterations": 30, "checkpoint_every": 30, "log_every": 1}
    crops = {"global_size": 16, "local_size": 8, "num_local": 2}
    optimizer = {"base_lr": 5e-3, "warmup_iterations": 3}
    log = train(config(tmp_path, objective=objective, model=small, crops=crops, optimizer=optimizer, **changes)).log
    first, last = (sum(row["loss_sigreg"] for row in rows) / 5 for rows in (log[:5], log[-5:]))
    assert last < first / 2
    assert log[-1]["loss_agreement"] < 0.5  # of a variance of about 1
