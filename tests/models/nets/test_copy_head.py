"""The copy descriptor: what it computes, and that it tells copies from pictures of the same kind."""

import io
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from curate.models.backbones.load import describe, load_backbone
from curate.models.nets.copy_head import copy_descriptor
from curate.models.thresholds import COPY_THRESHOLDS
from curate.ops.images.preprocess import preprocess


def test_descriptor_is_the_unit_power_of_the_channel_means():
    maps = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = 0
    wanted = maps.numpy().astype(np.float64).mean(axis=(2, 3)) ** 0.25
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(copy_descriptor(maps).numpy(), wanted, rtol=1e-5)
    assert copy_descriptor(maps.to(torch.bfloat16)).dtype == torch.float32


def test_descriptor_ignores_where_things_are_and_how_strong():
    maps = torch.rand(2, 8, 7, 7, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(copy_descriptor(maps.flip(3)), copy_descriptor(maps))
    torch.testing.assert_close(copy_descriptor(3 * maps), copy_descriptor(maps))


def test_maps_of_zeros_give_zeros():
    assert torch.equal(copy_descriptor(torch.zeros(2, 4, 3, 3)), torch.zeros(2, 4))


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("lite0-copy", device="cpu", precision="fp32")


def test_copies_pass_the_threshold_and_other_birds_do_not(backbone):
    folder = resources.files("curate").joinpath("samples/photos/birds")
    files = sorted(folder.iterdir(), key=lambda file: file.name)[:4]
    originals = [Image.open(io.BytesIO(file.read_bytes())).convert("RGB") for file in files]
    crops = [p.crop((5, 8, p.width * 97 // 100, p.height * 95 // 100)) for p in originals]
    pictures = [*originals, *map(ImageOps.mirror, originals), *crops]
    pixels = torch.from_numpy(np.stack([preprocess(p, backbone.preprocess) for p in pictures]))
    vectors = backbone.embed(pixels)
    assert vectors.shape == (12, backbone.dim)
    similarity = (vectors[:4] @ vectors.T).reshape(4, 3, 4)
    threshold = COPY_THRESHOLDS["lite0-copy"].threshold
    same = torch.eye(4, dtype=torch.bool)[:, None].expand(4, 3, 4)
    assert similarity[same].min() > threshold
    assert similarity[~same].max() < threshold


def test_whole_picture_is_seen(backbone):
    assert backbone.preprocess.resize == "square"
    assert describe("lite0-copy").weights_hash == describe("lite0").weights_hash
