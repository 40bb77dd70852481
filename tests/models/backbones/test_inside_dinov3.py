"""Attention and patches of DINOv3 ViTs, beside transformers' unfused attention."""

import numpy as np
import pytest
import torch

from curate.errors import ConfigError
from curate.models.backbones.inside import look_inside, patch_side
from curate.models.files.dinov3_names import to_huggingface
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from tests.models.backbones.test_inside import frozen, noise, normalized
from tests.models.nets.dinov3_models import VARIANTS, huggingface_model, randomize, timm_model


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("block", "size"), [(0, (64, 64)), (-1, (48, 112))])
def test_attention_and_patches_are_those_of_transformers(variant: str, block: int, size: tuple[int, int]) -> None:
    ours = randomize(VisionTransformer(VARIANTS[variant]).eval())
    assert isinstance(ours, VisionTransformer)
    theirs = huggingface_model(ours.config)
    state = to_huggingface(ours.state_dict())
    theirs.load_state_dict({key.replace("layer.", "model.layer."): value for key, value in state.items()})
    theirs.set_attn_implementation("eager")
    picture = noise(*size)
    found = look_inside(frozen(ours), picture, block=block)
    with torch.no_grad():
        expected = theirs(normalized(picture), output_attentions=True)
    grid, first = (size[1] // 16, size[0] // 16), 1 + ours.config.num_registers
    attention = expected.attentions[block][0, :, 0, first:].unflatten(1, grid)
    assert found.attention is not None
    np.testing.assert_allclose(found.attention, attention, rtol=1e-4, atol=1e-6)
    patches = expected.last_hidden_state[0, first:].unflatten(0, grid)
    np.testing.assert_allclose(found.patches, patches, rtol=1e-4, atol=1e-4)


def test_a_student_has_as_many_patches_as_its_teacher() -> None:
    config = tower_config("convnext_atto", token_size=16, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))
    backbone = frozen(TimmTower(config), size=64)
    assert patch_side(backbone) == 16
    assert look_inside(backbone, noise(96, 64), block=None).patches.shape == (4, 6, 16)


def test_timms_class_has_patches_and_says_that_it_shows_no_attention() -> None:
    backbone, picture = frozen(timm_model(VARIANTS["mlp"]), size=64), noise(64, 96)
    assert patch_side(backbone) == 16
    assert look_inside(backbone, picture, block=None).patches.shape == (6, 4, 48)
    with pytest.raises(
        ConfigError, match=r"no attention of a cls token to show \(Eva\); ask for the colors .*--no-attention"
    ):
        look_inside(backbone, picture)
