"""Colour and blur, each operator beside torchvision's."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from curate.feed.colors import gaussian_blur, jitter_colors, luma, rotate_hue
from curate.samples.bundled import PHOTOS


def photo(side, *, number=0):
    with Image.open(sorted(PHOTOS.rglob("*.jpg"))[number]) as image:
        resized = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def levels_apart(found, reference):
    """Mean difference in gray levels; torchvision's floats lie in 0..1."""
    scale = 255 if reference.is_floating_point() else 1
    return (found.float() - scale * reference).abs().mean().item()


@pytest.mark.parametrize("number", [0, 90, 300])
@pytest.mark.parametrize("amount", [-0.4, -0.13, 0.05, 0.4])
def test_every_color_operator_is_near_torchvision(number, amount):
    image = photo(64, number=number)
    exact = image.float() / 255  # on uint8 torchvision cuts off fractions after each step
    peers = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for which in range(3):
        found = jitter_colors(image.float(), amount * np.eye(4)[which], order=range(4))
        assert levels_apart(found, peers[which](exact, 1 + amount)) < 0.02
        assert levels_apart(found, peers[which](image, 1 + amount)) < 1
    assert levels_apart(rotate_hue(image.float(), amount), tv.adjust_hue(exact, amount)) < 0.02
    assert levels_apart(luma(image.float()), tv.rgb_to_grayscale(exact)) < 0.02


def test_a_whole_jitter_is_near_torchvision_in_every_order():
    image, rng = photo(64), np.random.default_rng(0)
    for _ in range(20):
        changes, order = (0.4, 0.4, 0.2, 0.1) * rng.uniform(-1, 1, 4), rng.permutation(4)
        reference = image.float() / 255
        for which in order:
            peer = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)[which]
            reference = peer(reference, changes[which] if which == 3 else 1 + changes[which])
        assert levels_apart(jitter_colors(image.float(), changes, order=order), reference) < 0.05


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.3, 2.0])
def test_blur_is_near_torchvisions_kernel_of_nine(sigma):
    image = photo(64)
    reference = tv.gaussian_blur(image, [9, 9], [sigma, sigma])
    assert levels_apart(gaussian_blur(image.float(), sigma), reference) < 0.5
    edge = torch.zeros(3, 32, 32, dtype=torch.uint8)
    edge[:, :, 16:] = 255
    found = gaussian_blur(edge.float(), sigma)
    assert (found - tv.gaussian_blur(edge, [9, 9], [sigma, sigma]).float()).abs().max() < 2


def test_gray_and_hue_of_black_gray_and_white_stay():
    neutral = torch.tensor([0.0, 128.0, 255.0]).expand(3, 1, 3)
    assert torch.equal(rotate_hue(neutral, 0.3), neutral)
