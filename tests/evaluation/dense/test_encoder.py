import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from curate.errors import ConfigError
from curate.evaluation.dense.encoder import PatchEncoder, upsample
from curate.models.backbones.inside import look_inside
from curate.models.backbones.load import load_backbone
from curate.models.nets.tower import TimmTower, tower_config
from tests.evaluation.backbones import VIT, backbone_of, vit_backbone


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def one(encoder: PatchEncoder, picture: Image.Image) -> torch.Tensor:
    (features,) = encoder.encode([picture])
    return features


def test_pictures_are_resized_to_whole_patches_of_about_their_aspect() -> None:
    encoder = PatchEncoder.of(vit_backbone(), grid=3)
    assert encoder.fit(noise(100, 50)).size == (6 * 14, 3 * 14)
    assert encoder.fit(noise(50, 70)).size == (3 * 14, 4 * 14)


def test_features_are_those_that_visualize_draws_in_any_batch() -> None:
    backbone = vit_backbone()
    encoder = PatchEncoder.of(backbone, grid=3)
    pictures = [noise(42, 42, seed) for seed in range(11)] + [noise(56, 42, 20), noise(42, 42, 21)]
    found = list(encoder.encode(pictures))
    assert [tuple(one.shape) for one in found] == [(3, 3, VIT.dim)] * 11 + [(3, 4, VIT.dim), (3, 3, VIT.dim)]
    for picture, features in zip(pictures, found, strict=True):
        np.testing.assert_allclose(features.numpy(), look_inside(backbone, picture, block=None).patches, atol=1e-5)


def test_lite0_gives_its_last_feature_maps() -> None:
    backbone = load_backbone("lite0", precision="fp32")
    encoder, picture = PatchEncoder.of(backbone, grid=2), noise(64, 64)
    pixels = (torch.from_numpy(np.asarray(picture, np.float32)) / 255 - 0.5) / 0.5
    expected = backbone.module.forward_features(pixels.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    torch.testing.assert_close(one(encoder, picture), expected, rtol=1e-4, atol=1e-4)


def test_pixels_are_those_of_the_squares() -> None:
    encoder, picture = PatchEncoder.of(load_backbone("pixels16"), grid=2), noise(48, 32)
    values = (np.asarray(picture, np.float32) / 255 - 0.5) / 0.25
    found = one(encoder, picture)
    assert found.shape == (2, 3, 768)
    square = values[16:32, 32:48].transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(found[1, 2].numpy(), square, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_models_of_timm_have_maps(name: str) -> None:
    tower = TimmTower(tower_config(name, image_size=64 if "swin" not in name else None)).eval()
    encoder = PatchEncoder.of(backbone_of(tower, dim=tower.dim), grid=2)
    assert one(encoder, noise(224, 224)).shape == (2, 2, tower.dim)
    plain = timm.create_model(name, num_classes=0, **({"img_size": 64} if "vit" in name else {})).eval()
    encoder = PatchEncoder.of(backbone_of(plain, dim=plain.num_features), grid=2)
    assert one(encoder, noise(224, 224)).shape == (2, 2, plain.num_features)


def test_a_model_of_one_vector_a_picture_is_an_error() -> None:
    with pytest.raises(ConfigError, match="luma24: gives one vector a picture and no features of patches"):
        PatchEncoder.of(load_backbone("luma24"))
    with pytest.raises(ConfigError, match="tiny: gives one vector"):
        PatchEncoder.of(backbone_of(nn.Flatten(), dim=1))


def test_maps_are_upsampled_about_the_centers_of_patches() -> None:
    grown = upsample(torch.tensor([[[0.0], [4.0]]]), (2, 8))[..., 0]
    np.testing.assert_allclose(grown[0].numpy(), [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
