import pytest
import torch
import torch.nn.functional as F

from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.gram import gram_loss, gram_patches
from tests.trainer import plain_losses


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_equals_loops_over_pairs_of_patches():
    student, teacher = drawn(3, 9, 6), drawn(3, 9, 5, seed=1)
    assert gram_loss(student, teacher).item() == pytest.approx(plain_losses.gram_loss(student, teacher), rel=1e-6)


def test_equal_directions_of_any_length_and_base_cost_nothing():
    student = drawn(2, 9, 6)
    turned = (student * drawn(2, 9, 1, seed=1).abs()) @ torch.linalg.qr(drawn(6, 6, seed=2))[0]
    assert gram_loss(student, turned).item() < 1e-12


def test_the_gradient_reaches_the_student_alone_and_in_float32():
    student, teacher = drawn(2, 9, 6).requires_grad_(), drawn(2, 9, 6, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = gram_loss(student, teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert student.grad.any()
    assert loss.item() == pytest.approx(plain_losses.gram_loss(student.detach(), teacher), rel=1e-6)


def test_the_map_of_larger_crops_is_resized_before_lengths_are_taken_out():
    config = vit_config("vit_tiny", depth=1, image_size=16, patch_size=4)
    teacher = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()
    crops = drawn(2, 3, 32, 32)
    found = gram_patches(teacher, crops, num_patches=16)
    with torch.no_grad():
        seen = teacher.forward_features(crops).patches
    grid = seen.transpose(1, 2).reshape(2, -1, 8, 8)
    wanted = F.interpolate(grid, scale_factor=0.5, mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    assert not found.requires_grad
    torch.testing.assert_close(gram_patches(teacher, crops, num_patches=64), seen)
