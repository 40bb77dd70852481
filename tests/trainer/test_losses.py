import numpy as np
import pytest
import torch

from curate.trainer.heads import Projection
from curate.trainer.losses import (
    add_koleo,
    koleo_loss,
    softmax_targets,
    update_center,
)
from curate.trainer.objectives.settings import ObjectiveSettings
from curate.trainer.parallel import World

RNG = np.random.default_rng(0)


def scores(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_softmax_targets_equal_plain_softmax_of_centered_scores():
    x, center = scores(4, 7), scores(7)
    found = softmax_targets(x, center, temperature=0.06)
    wanted = [softmax((row - center.numpy()) / 0.06) for row in x.numpy()]
    np.testing.assert_allclose(found.numpy(), np.stack(wanted), atol=1e-5)


def test_center_moves_a_tenth_of_the_way_to_the_mean_score():
    center, teacher = torch.ones(6), Projection(scores(5, 4), scores(6, 4))
    update_center(center, teacher, world=World())
    wanted = 0.9 + 0.1 * (teacher.units.numpy() @ teacher.prototypes.numpy().T).mean(axis=0)
    np.testing.assert_allclose(center.numpy(), wanted, atol=1e-6)


def test_center_stays_where_there_are_no_rows():
    center = torch.ones(3)
    update_center(center, Projection(torch.empty(0, 4), scores(3, 4)), world=World())
    assert center.tolist() == [1, 1, 1]


def test_koleo_equals_plain_nearest_neighbor_search():
    x = scores(7, 4)
    unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    nearest = [min(np.linalg.norm(unit[i] - unit[j]) for j in range(7) if j != i) for i in range(7)]
    assert koleo_loss(x).item() == pytest.approx(-np.mean(np.log(np.array(nearest) + 1e-8)), abs=1e-5)


def test_koleo_stays_finite_on_duplicates():
    x = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.5]], requires_grad=True)
    loss = koleo_loss(x)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    assert x.grad[:2].abs().max() == 0  # each other's nearest: nothing to follow
    assert x.grad[2:].abs().max() > 0


def test_koleo_of_one_row_is_an_error():
    with pytest.raises(ValueError, match="1 rows; a nearest neighbor needs at least 2"):
        koleo_loss(scores(1, 3))


def test_koleo_spreads_each_view_among_all_images_or_those_of_a_group():
    features, settings = torch.randn(8, 5), ObjectiveSettings(kind="any", koleo_weight=0.5)
    views = features.chunk(2)
    loss, terms = add_koleo(torch.tensor(2.0), {}, features, settings, world=World())
    assert terms["koleo"].item() == pytest.approx(sum(koleo_loss(view).item() for view in views))
    assert loss.item() == pytest.approx(2 + 0.5 * terms["koleo"].item())
    grouped = settings.model_copy(update={"koleo_group": 2})
    _, terms = add_koleo(torch.tensor(2.0), {}, features, grouped, world=World())
    pairs = [koleo_loss(view[i : i + 2]).item() for view in views for i in (0, 2)]
    assert terms["koleo"].item() == pytest.approx(sum(pairs) / 2)


def test_no_weight_leaves_koleo_out():
    without = ObjectiveSettings(kind="any")
    assert add_koleo(torch.tensor(2.0), {}, torch.ones(8, 5), without, world=World()) == (2, {})
