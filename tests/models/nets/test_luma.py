"""The luma descriptor, against an independent implementation."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import correlate

from curate.models.backbones.load import describe, load_backbone
from curate.models.backbones.luma import SIDE
from curate.models.nets.luma import BLUR, FLOOR, RADIUS, LumaDescriptor
from curate.ops.images.preprocess import preprocess


def reference(pixels: np.ndarray) -> np.ndarray:
    """(576,) of (3, 48, 48) in 0..1, by scipy."""
    luma = 0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]
    small = luma.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
    steps = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * (BLUR * SIDE) ** 2))
    kernel /= kernel.sum()
    detail = small - correlate(small, kernel, mode="nearest")
    return (detail / (np.sqrt(correlate(detail**2, kernel, mode="nearest")) + FLOOR)).ravel()


def test_descriptor_equals_scipy() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    found = LumaDescriptor(SIDE)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(found, [reference(p.astype(np.float64)) for p in pixels], atol=1e-4)


def test_brightness_hardly_matters() -> None:
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(40, 160, (12, 12, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    backbone = load_backbone("luma24", device="cpu")
    both = [picture, ImageEnhance.Brightness(picture).enhance(1.3)]
    pixels = np.stack([preprocess(p, backbone.preprocess) for p in both])
    vectors = backbone.embed(torch.from_numpy(pixels)).numpy()
    assert vectors[0] @ vectors[1] > 0.98


def test_it_needs_no_weights() -> None:
    info = describe("luma24")
    assert info.weights_present
    assert info.weights_hash == ""
    assert info.dim == SIDE * SIDE


@pytest.mark.parametrize("shade", [0, 1, 77, 128, 200, 255])
def test_a_picture_of_one_color_has_no_descriptor_and_a_faint_one_does(shade: int) -> None:
    plain = torch.full((1, 3, 48, 48), shade / 255) * torch.tensor([1.0, 0.5, 0.25])[None, :, None, None]
    assert (LumaDescriptor(24)(plain) == 0).all()
    faint = plain.clone()
    faint[:, :, 20:28] += 1 / 255
    assert LumaDescriptor(24)(torch.cat([plain, faint]))[1].abs().max() > 0.05
