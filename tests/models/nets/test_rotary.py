"""Rotary positions: the formula, the draws of a training, and rotations in place beside plain ones."""

import math

import pytest
import torch
from torch import Tensor

from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.depth import Group
from curate.models.nets.rotary import (
    PatchRotation,
    Rotation,
    draw_rotations,
    patch_centers,
    periods,
    rotate,
    rotate_tokens,
)
from tests.models.nets.seeded import images

CONFIG = vit_config("dinov3_tiny", dim=48, depth=3, heads=3, image_size=64)
CPU = torch.device("cpu")


def drawn(config: ViTConfig = CONFIG, seed: int = 0, *, training: bool = True) -> list[list[Rotation]]:
    generator = torch.Generator().manual_seed(seed)
    return draw_rotations(config, [(4, 4), (2, 5)], training=training, device=CPU, generator=generator)


def angles_of(rotation: Rotation) -> Tensor:
    """The angles of the slowest pairs, which lie within a half turn."""
    return torch.atan2(rotation.sin, rotation.cos)


def test_angles_are_those_of_the_formula() -> None:
    (found,) = draw_rotations(CONFIG, [(2, 3)], training=False, device=CPU)[0]
    for row in range(2):
        for column in range(3):
            y, x = 2 * (row + 0.5) / 2 - 1, 2 * (column + 0.5) / 3 - 1
            angles = [2 * math.pi * place / 100 ** (2 * i / 8) for place in (y, x) for i in range(4)]
            assert found.cos[3 * row + column].tolist() == pytest.approx([math.cos(a) for a in angles], abs=1e-6)
            assert found.sin[3 * row + column].tolist() == pytest.approx([math.sin(a) for a in angles], abs=1e-6)


def test_attention_depends_on_where_patches_lie_to_one_another() -> None:
    (by,) = draw_rotations(CONFIG, [(1, 9)], training=False, device=CPU)[0]
    same = images(1, 1, 1, 16).expand(1, 9, 1, 16)
    q, k = (rotate_tokens(x, by)[0, :, 0] for x in (same, images(1, 1, 1, 16, seed=2).expand(1, 9, 1, 16)))
    products = q @ k.t()
    for offset in range(-8, 9):
        diagonal = products.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)


def test_a_training_draws_anew_for_each_block_and_group_and_the_teacher_does_not() -> None:
    blocks = drawn()
    assert [len(groups) for groups in blocks] == [2, 2, 2]
    cosines = [groups[0].cos for groups in blocks]
    assert not any(torch.equal(one, two) for one, two in ((cosines[0], cosines[1]), (cosines[1], cosines[2])))
    assert all(torch.equal(one.cos, two.cos) for one, two in zip(drawn()[2], blocks[2], strict=True))
    assert not torch.equal(drawn(seed=1)[0][0].cos, cosines[0])
    fixed = drawn(training=False)
    assert all(groups is fixed[0] for groups in fixed)
    assert torch.equal(drawn(CONFIG.model_copy(update={"rope_rescale": None}))[0][0].cos, fixed[0][0].cos)


def coordinates(config: ViTConfig) -> Tensor:
    """(blocks, N, 2) as drawn, read back from the slowest pair of each axis."""
    found = torch.stack([angles_of(groups[0]) for groups in drawn(config)])  # (L, N, 8)
    return found[..., [3, 7]] * periods(16)[3] / (2 * math.pi)


def test_factors_are_log_uniform_and_one_for_both_axes() -> None:
    config = CONFIG.model_copy(update={"depth": 500})
    factors = coordinates(config) / patch_centers((4, 4))
    torch.testing.assert_close(factors, factors[:, :1, :1].expand_as(factors), rtol=1e-4, atol=1e-4)
    logs = factors[:, 0, 0].log2()
    assert logs.min() > -1
    assert logs.max() < 1
    assert abs(float(logs.mean())) < 0.08  # 3 standard errors
    assert float(logs.std()) == pytest.approx(1 / math.sqrt(3), rel=0.1)


def test_jitter_stretches_each_axis_and_shift_moves_both() -> None:
    jitter = coordinates(CONFIG.model_copy(update={"rope_rescale": None, "rope_jitter": 1.5})) / patch_centers((4, 4))
    torch.testing.assert_close(jitter, jitter[:, :1].expand_as(jitter), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(jitter[..., 0], jitter[..., 1], rtol=0.01)
    assert (jitter.log().abs() < math.log(1.5) + 1e-4).all()
    shift = coordinates(CONFIG.model_copy(update={"rope_rescale": None, "rope_shift": 0.3})) - patch_centers((4, 4))
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=1e-4, atol=1e-4)
    assert 0.01 < float(shift.abs().max()) <= 0.3 + 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotations_in_place_equal_plain_ones_forward_and_backward(dtype: torch.dtype) -> None:
    groups = (Group(2, 18), Group(3, 11))  # 2 and 1 tokens without a place
    qkv = images(2 * 18 + 3 * 11, 3 * 48).to(dtype)
    how = PatchRotation(groups, drawn()[1], heads=3)
    weight = images(*qkv.shape, seed=3)

    def run(grad: bool) -> tuple[Tensor, Tensor | None]:
        leaf = qkv.clone().requires_grad_(grad)
        with torch.set_grad_enabled(grad):
            rotated = rotate(leaf.clone(), how)
        if grad:
            (rotated.float() * weight).sum().backward()
        return rotated.detach(), leaf.grad

    (trained, gradient), (fixed, _) = run(True), run(False)
    expected = qkv.clone().float()
    for start, group, by in ((0, groups[0], how.by[0]), (36, groups[1], how.by[1])):
        part = expected[start : start + group.rows].view(group.images, group.tokens, 9, 16)
        part[:, :, :6] = rotate_tokens(part[:, :, :6], by)
    torch.testing.assert_close(trained, expected.to(dtype), rtol=1e-5, atol=1e-6)
    assert torch.equal(fixed, trained)
    assert gradient is not None
    # a rotation keeps lengths, and so does its transpose, which is the gradient
    torch.testing.assert_close(gradient.float().norm(), weight.norm(), rtol=1e-3, atol=0)
    torch.testing.assert_close((gradient.float() * qkv.float()).sum(), (weight * expected).sum(), rtol=1e-2, atol=2.0)


def test_bf16_angles_round_the_rotation_and_not_the_angle() -> None:
    (exact,), (low,) = (
        draw_rotations(CONFIG, [(30, 30)], training=False, device=CPU, dtype=dtype)[0]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert torch.equal(low.cos, exact.cos.bfloat16())
