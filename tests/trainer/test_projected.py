import pytest
import torch

from curate.trainer import projected
from curate.trainer.heads import Projection
from curate.trainer.projected import CrossEntropyTerm, dino_term, ibot_term, projected_loss
from tests.trainer.plain_losses import dino_loss, ibot_loss

NUM_PROTOTYPES, DIM = 6, 4


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[(1, 1), (3, 1), (3, 2), (100, 2), (100, 100)])
def chunk_rows(request, monkeypatch):
    """Rows of a chunk and of a piece of it, in float32."""
    rows, piece = request.param
    monkeypatch.setitem(projected.CHUNK, "cpu", NUM_PROTOTYPES * 4 * rows + 5)
    monkeypatch.setitem(projected.PIECE, "cpu", NUM_PROTOTYPES * piece + 1)
    return request.param


def projection(rows, rng):
    units = torch.nn.functional.normalize(torch.randn(rows, DIM, generator=rng), dim=-1)
    return Projection(units.requires_grad_(), torch.randn(NUM_PROTOTYPES, DIM, generator=rng).requires_grad_())


def draw_targets(*shape, rng):
    return torch.randn(*shape, NUM_PROTOTYPES, generator=rng).softmax(dim=-1)


def gradients(loss, inputs):
    return torch.autograd.grad(3 * loss, inputs)


def assert_same_loss_and_gradients(found, wanted, inputs):
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(found, inputs), gradients(wanted, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("chunk_rows")
@pytest.mark.parametrize(("num_views", "batch"), [(5, 3), (2, 3), (2, 1)])
def test_dino_part_equals_the_loss_of_all_scores(num_views, batch, rng):
    student, targets = projection(num_views * batch, rng), draw_targets(2, batch, rng=rng)
    wanted = dino_loss(student.scores().unflatten(0, (num_views, batch)), targets)
    found, values = projected_loss({"dino": dino_term(student, targets)})
    assert_same_loss_and_gradients(found, wanted, student)
    torch.testing.assert_close(values["dino"], wanted.detach(), rtol=1e-5, atol=1e-5)


def test_ibot_part_equals_the_loss_of_all_scores_and_asks_for_each_target_once(chunk_rows, rng):
    student, targets, weights = projection(7, rng), draw_targets(7, rng=rng), torch.rand(7, generator=rng)
    asked = []

    def some(rows):
        asked.append(len(targets[rows]))
        return targets[rows]

    found, _ = projected_loss({"ibot": ibot_term(student, some, weights, num_crops=4)})
    assert_same_loss_and_gradients(found, ibot_loss(student.scores(), targets, weights, num_crops=4), student)
    assert sum(asked) == 7
    assert max(asked) == min(7, *chunk_rows)


@pytest.mark.usefixtures("chunk_rows")
@pytest.mark.parametrize("tied", [True, False])
def test_parts_add_up_with_their_factors(tied, rng):
    first, second = projection(6, rng), projection(7, rng)
    second = second._replace(prototypes=first.prototypes) if tied else second
    of_views, of_patches = draw_targets(2, 3, rng=rng), draw_targets(7, rng=rng)
    weights = torch.rand(7, generator=rng)
    parts = {
        "dino": dino_term(first, of_views),
        "ibot": ibot_term(second, of_patches.__getitem__, weights, num_crops=4),
    }
    found, values = projected_loss(parts, {"dino": 0.5, "ibot": 2.0}, temperature=0.2)
    dino = dino_loss(first.scores().unflatten(0, (2, 3)), of_views, temperature=0.2)
    ibot = ibot_loss(second.scores(), of_patches, weights, num_crops=4, temperature=0.2)
    inputs = list({id(x): x for x in (*first, *second)}.values())
    assert_same_loss_and_gradients(found, 0.5 * dino + 2 * ibot, inputs)
    assert list(values) == ["dino", "ibot"]
    torch.testing.assert_close(torch.stack([*values.values()]), torch.stack([dino, ibot]).detach())
    assert not any(value.requires_grad for value in values.values())


def test_tied_parts_give_prototypes_one_gradient(monkeypatch, rng):
    seen = []
    add = projected._add_product
    monkeypatch.setattr(projected, "_add_product", lambda total, *rest: (seen.append(id(total)), add(total, *rest)))
    first, second = projection(6, rng).split(2)
    parts = {
        name: CrossEntropyTerm(x, draw_targets(len(x.units), rng=rng).__getitem__, torch.ones(len(x.units)))
        for name, x in (("one", first), ("two", second))
    }
    projected_loss(parts)
    assert len(set(seen)) == 1


def test_one_backward_pass_is_all(rng):
    loss, _ = projected_loss({"dino": dino_term(projection(6, rng), draw_targets(2, 3, rng=rng))})
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward"):
        loss.backward()


def test_loss_is_zero_without_masks(rng):
    student = projection(0, rng)
    empty = ibot_term(student, torch.empty(0, NUM_PROTOTYPES).__getitem__, torch.empty(0), num_crops=4)
    loss, values = projected_loss({"ibot": empty})
    loss.backward()
    assert loss == values["ibot"] == 0
    assert not student.prototypes.grad.any()


@pytest.mark.usefixtures("chunk_rows")
def test_products_are_in_bf16_under_autocast_and_sums_in_float32(rng):
    student, targets = projection(15, rng), draw_targets(2, 3, rng=rng)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = projected_loss({"dino": dino_term(student, targets)})
        wanted = dino_loss(student.scores().unflatten(0, (5, 3)), targets)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    for one, other in zip(gradients(found, student), gradients(wanted, student), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.06)


def test_targets_may_be_products_too_under_autocast(rng):
    student, teacher, weights = projection(7, rng), projection(7, rng), torch.ones(7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        units = Projection(teacher.units.detach().bfloat16(), teacher.prototypes.detach().bfloat16())
        part = ibot_term(student, lambda rows: units.scores(rows).float().softmax(dim=-1), weights, num_crops=4)
        found, _ = projected_loss({"ibot": part})
        wanted = ibot_loss(student.scores(), units.scores().float().softmax(dim=-1), weights, num_crops=4)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
