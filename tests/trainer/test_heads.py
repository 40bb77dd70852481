import torch

from curate.trainer.heads import LinearPrototypeLayer, PrototypeHead, PrototypeLayer


def test_prototype_layer_equals_torch_weight_norm():
    layer = PrototypeLayer(8, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.scale.uniform_(0.5, 2.0)
    reference = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 5, bias=False))
    with torch.no_grad():
        reference.parametrizations.weight.original0.copy_(layer.scale)
        reference.parametrizations.weight.original1.copy_(layer.direction)
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), reference(x))


def test_prototype_scale_is_trainable():
    layer = PrototypeLayer(8, 5)
    layer(torch.randn(3, 8)).square().sum().backward()
    assert layer.scale.grad.abs().sum() > 0


def test_scores_of_unit_scale_are_cosines():
    head = PrototypeHead(6, 9, hidden=16, bottleneck=8, generator=torch.Generator().manual_seed(0))
    scores = head(100 * torch.randn(50, 6))
    assert scores.shape == (50, 9)
    assert scores.abs().max() <= 1 + 1e-5


def test_one_generator_seed_gives_one_head():
    first, second = (
        PrototypeHead(6, 9, hidden=16, bottleneck=8, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_all_but_prototypes_with_gradients_are_in_the_precision_of_products():
    head, x = (
        PrototypeHead(6, 9, hidden=16, bottleneck=8, generator=torch.Generator().manual_seed(0)),
        torch.randn(4, 6),
    )
    plain = head.project(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        student = head.project(x)
        with torch.no_grad():
            teacher = head.project(x)
        student.scores().sum().backward()
    assert {part.dtype for part in plain} == {torch.float32}
    assert {part.dtype for part in teacher} == {student.units.dtype} == {torch.bfloat16}
    assert student.prototypes.dtype == torch.float32  # their gradient need not be rounded
    torch.testing.assert_close(teacher.prototypes, plain.prototypes.bfloat16())
    assert head.last_layer.direction.grad.dtype == torch.float32


def test_plain_prototypes_equal_a_linear_layer_and_learn_their_lengths():
    layer = LinearPrototypeLayer(8, 500, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.Linear(8, 500, bias=False)
    reference.load_state_dict(layer.state_dict())
    x = torch.randn(3, 8)
    torch.testing.assert_close(layer(x), reference(x))
    assert 0.015 < layer.weight.std() < 0.025
    layer(x).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0
