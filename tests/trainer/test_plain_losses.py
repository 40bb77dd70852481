"""The reference of the projected losses beside plain loops."""

import math

import numpy as np
import pytest
import torch

from tests.trainer.plain_losses import dino_loss, ibot_loss

RNG = np.random.default_rng(0)


def scores(*shape):
    return torch.from_numpy(RNG.normal(size=shape).astype(np.float32))


def cross_entropy(target, student_scores, temperature):
    scaled = np.exp(student_scores / temperature)
    return -sum(t * math.log(p) for t, p in zip(target, scaled / scaled.sum(), strict=True))


def test_dino_loss_equals_plain_mean_over_pairs_of_other_views():
    student, targets = scores(5, 3, 6), torch.softmax(scores(2, 3, 6), dim=-1)
    pairs = [
        np.mean([cross_entropy(targets[t, b].tolist(), student[v, b].numpy(), 0.1) for b in range(3)])
        for t in range(2)
        for v in range(5)
        if t != v
    ]
    assert len(pairs) == 2 * 3 + 2  # 2L + 2
    assert dino_loss(student, targets).item() == pytest.approx(np.mean(pairs), rel=1e-5)


def test_dino_loss_ignores_a_views_own_target():
    student, targets = scores(2, 3, 6), torch.softmax(scores(2, 3, 6), dim=-1)
    student.requires_grad_()
    changed = targets.clone()
    changed[0] = torch.softmax(scores(3, 6), dim=-1)
    (first,) = torch.autograd.grad(dino_loss(student, targets), student)
    (second,) = torch.autograd.grad(dino_loss(student, changed), student)
    torch.testing.assert_close(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


def test_ibot_loss_equals_plain_mean_within_crops_over_all_crops():
    masked = [2, 0, 3, 0]  # patches masked in each of four crops
    student, targets = scores(5, 6), torch.softmax(scores(5, 6), dim=-1)
    weights = torch.tensor([1 / 2] * 2 + [1 / 3] * 3)
    total, row = 0.0, 0
    for count in masked:
        losses = [cross_entropy(targets[i].tolist(), student[i].numpy(), 0.1) for i in range(row, row + count)]
        total += np.mean(losses) if losses else 0.0
        row += count
    assert ibot_loss(student, targets, weights, num_crops=4).item() == pytest.approx(total / 4, rel=1e-5)
