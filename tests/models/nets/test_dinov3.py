"""DINOv3's architecture beside the classes of timm and transformers, on equal random weights."""

import pytest
import torch

from curate.models.files.dinov3_names import to_huggingface, to_timm
from curate.models.nets.config import ViTConfig
from curate.models.nets.vit import VisionTransformer
from tests.models.nets.dinov3_models import VARIANTS, huggingface_model, randomize, timm_model
from tests.models.nets.seeded import images

SIZES = [(64, 64), (48, 112), (160, 32), (224, 224)]


def ours(config: ViTConfig) -> VisionTransformer:
    network = randomize(VisionTransformer(config).eval())
    assert isinstance(network, VisionTransformer)
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_timm(variant: str) -> None:
    network = ours(VARIANTS[variant])
    theirs = timm_model(network.config)
    theirs.load_state_dict(to_timm(network.state_dict()))
    first = 1 + network.config.num_registers
    with torch.no_grad():
        for size in SIZES:
            x = images(2, 3, *size)
            found, expected = network.forward_features(x), theirs.forward_features(x)
            wanted = (expected[:, 0], expected[:, 1:first], expected[:, first:])
            torch.testing.assert_close(tuple(found), wanted, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(network(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_transformers(variant: str) -> None:
    network = ours(VARIANTS[variant])
    theirs = huggingface_model(network.config)
    renamed = {
        key.replace("layer.", "model.layer."): value for key, value in to_huggingface(network.state_dict()).items()
    }
    theirs.load_state_dict(renamed)
    first = 1 + network.config.num_registers
    masks = {size: images(2, size[0] * size[1] // 256, seed=5) > 0.5 for size in SIZES}
    with torch.no_grad():
        for size in SIZES:
            x = images(2, 3, *size)
            found = network.forward_features(x, masks[size])
            expected = theirs(x, bool_masked_pos=masks[size]).last_hidden_state
            wanted = (expected[:, 0], expected[:, 1:first], expected[:, first:])
            torch.testing.assert_close(tuple(found), wanted, rtol=1e-5, atol=1e-5)
