from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.inside import MAX_ASPECT, fit_picture, has_attention, look_inside, num_blocks, patch_side
from curate.models.files.formats import to_timm
from curate.models.info import ModelInfo
from curate.models.nets.config import ViTConfig
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.preprocess import Preprocess
from tests.models.nets.seeded import seeded

TINY = ViTConfig(
    dim=24, depth=3, heads=3, image_size=56, num_registers=2, layer_scale_init=1.0,
    interpolate_offset=0.0, interpolate_antialias=True,
)  # fmt: skip


def frozen(module: nn.Module, size: int = 56) -> Backbone:
    how = Preprocess(
        size=size, resize="square", short_edge=size, interpolation="bicubic", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    info = ModelInfo(model="toy", dim=24, license="none", preprocess=how, how_to_get="")
    return Backbone(info, module.eval(), torch.device("cpu"), "fp32")


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def normalized(picture: Image.Image) -> Tensor:
    pixels = (np.asarray(picture) / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float()


def timm_twin(ours: VisionTransformer, *, dynamic: bool) -> Any:
    config = ours.config
    registers = "_reg4" if config.num_registers else ""
    twin = timm.create_model(
        f"vit_small_patch14{registers}_dinov2",
        embed_dim=config.dim,
        depth=config.depth,
        num_heads=config.heads,
        img_size=config.image_size,
        num_classes=0,
        dynamic_img_size=dynamic,
        **({"reg_tokens": config.num_registers} if config.num_registers else {}),
    ).eval()
    twin.load_state_dict(to_timm(ours.state_dict()))
    return twin


def materialized(twin: Any, block: int, images: Tensor) -> Tensor:
    """(B, H, T, T) of timm's unfused attention, caught where it would be dropped out."""
    attention, caught = twin.blocks[block].attn, []
    attention.fused_attn = False
    handle = attention.attn_drop.register_forward_hook(lambda _, given, made: caught.append(made))
    with torch.no_grad():
        twin.forward_features(images)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("block", [0, 1, -1])
@pytest.mark.parametrize("size", [(56, 56), (28, 70)])
def test_attention_and_patches_are_those_of_timm(registers: int, block: int, size: tuple[int, int]) -> None:
    ours = seeded(TINY.model_copy(update={"num_registers": registers}))
    twin, picture = timm_twin(ours, dynamic=True), noise(*size)
    found = look_inside(frozen(ours), picture, block=block)
    grid = size[1] // 14, size[0] // 14
    expected = materialized(twin, block, normalized(picture))[0, :, 0, 1 + registers :].unflatten(1, grid)
    assert found.attention is not None
    np.testing.assert_allclose(found.attention, expected, rtol=1e-4, atol=1e-6)
    patches = twin.forward_features(normalized(picture))[0, 1 + registers :].unflatten(0, grid)
    np.testing.assert_allclose(found.patches, patches.detach(), rtol=1e-4, atol=1e-5)


def test_attention_is_the_softmax_of_the_blocks_own_queries_and_keys() -> None:
    ours = seeded(TINY.model_copy(update={"depth": 1}))
    picture = noise(56, 56)
    with torch.no_grad():
        block: Any = ours.blocks[0]
        tokens = block.norm1(ours._embed(normalized(picture), None)[0]).numpy()
        weight, bias = block.attn.qkv.weight.numpy(), block.attn.qkv.bias.numpy()
    found = look_inside(frozen(ours), picture).attention
    assert found is not None
    for head in range(3):
        rows = slice(8 * head, 8 * head + 8)
        q = weight[:24][rows] @ tokens[0] + bias[:24][rows]
        logits = np.array([q @ (weight[24:48][rows] @ token + bias[24:48][rows]) for token in tokens]) / 8**0.5
        shares = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(found[head].ravel(), shares[3:], rtol=1e-4)


@pytest.mark.parametrize("size", [(56, 56), (28, 70)])
def test_a_timm_vit_of_a_fixed_size_gives_the_same_and_stays_as_it_is(size: tuple[int, int]) -> None:
    ours, picture = seeded(TINY), noise(*size)
    backbone = frozen(timm_twin(ours, dynamic=False))
    expected, found = look_inside(frozen(ours), picture), look_inside(backbone, picture)
    np.testing.assert_allclose(found.patches, expected.patches, rtol=1e-4, atol=1e-5)
    assert found.attention is not None
    assert expected.attention is not None
    np.testing.assert_allclose(found.attention, expected.attention, rtol=1e-4, atol=1e-6)
    assert backbone.embed(torch.zeros(1, 3, 56, 56, dtype=torch.uint8)).shape == (1, 24)


def test_no_hook_stays_behind() -> None:
    ours = seeded(TINY)
    look_inside(frozen(ours), noise(28, 28))
    assert not any(module._forward_pre_hooks for module in ours.modules())


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 100), (112, 112)), ((300, 200), (168, 112)), ((200, 299), (112, 168)), ((1000, 100), (224, 112))],
)
def test_pictures_keep_their_aspect_in_whole_patches(size: tuple[int, int], expected: tuple[int, int]) -> None:
    fitted = fit_picture(noise(*size), frozen(VisionTransformer(TINY)), short_edge=110)
    assert fitted.size == expected
    assert max(fitted.size) / min(fitted.size) <= MAX_ASPECT


def test_of_a_long_picture_the_middle_is_shown() -> None:
    stripes = np.zeros((50, 500, 3), np.uint8)
    stripes[:, 200:300] = 255
    fitted = np.asarray(fit_picture(Image.fromarray(stripes), frozen(VisionTransformer(TINY)), short_edge=56))
    assert fitted.shape == (56, 112, 3)
    assert fitted.min() == 255


@pytest.mark.filterwarnings("ignore::UserWarning")  # timm's, about its own interpolation
@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_models_without_cls_have_patches_and_no_attention(name: str) -> None:
    module = timm.create_model(name, num_classes=0)
    backbone = frozen(module, 224)
    assert (patch_side(backbone), has_attention(backbone)) == (32, False)
    picture = noise(128, 224)
    found = look_inside(backbone, picture, block=None)
    assert found.attention is None
    assert found.patches.shape == (7, 4, module.num_features)
    with pytest.raises(ConfigError, match=r"toy: no attention of a cls token to show .*--no-attention"):
        look_inside(backbone, picture)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_towers_of_the_trainer_are_seen_through_as_their_timm_models(name: str) -> None:
    small = {"depth": 2} if name.startswith("vit") else {}
    tower = TimmTower(tower_config(name, **small))
    backbone, alone = frozen(tower, 64), frozen(tower.net, 64)
    picture, block = noise(96, 64), -1 if has_attention(backbone) else None
    assert patch_side(backbone) == patch_side(alone)
    found = look_inside(backbone, picture, block=block)
    with torch.no_grad():
        expected = tower.forward_features(normalized(picture)).patches[0]
    np.testing.assert_allclose(found.patches.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    assert (found.attention is None) == (not name.startswith("vit"))
    if found.attention is not None:
        np.testing.assert_array_equal(found.attention, look_inside(alone, picture).attention)


def test_feature_maps_lie_as_the_picture_does() -> None:
    backbone = frozen(timm.create_model("resnet10t", num_classes=0), 224)
    picture = np.zeros((96, 128, 3), np.uint8)
    changed = picture.copy()
    changed[:, 96:] = 255
    before, after = (look_inside(backbone, Image.fromarray(p), block=None).patches for p in (picture, changed))
    difference = np.abs(after - before).mean(axis=(0, 2))
    assert difference[0] < 0.1 * difference[-1]


def test_a_timm_vit_without_cls_has_no_attention_to_show() -> None:
    module = timm.create_model("vit_tiny_patch16_224", num_classes=0, class_token=False, global_pool="avg", depth=1)
    assert not has_attention(frozen(module, 224))
    assert look_inside(frozen(module, 224), noise(32, 48), block=None).patches.shape == (3, 2, 192)


def test_a_model_of_single_vectors_is_an_error() -> None:
    with pytest.raises(ConfigError, match="toy: gives one vector a picture and no features of patches; use a DINOv2"):
        patch_side(frozen(nn.Flatten()))


@pytest.mark.parametrize("block", [3, -4])
def test_a_block_that_is_not_there_is_an_error(block: int) -> None:
    backbone = frozen(VisionTransformer(TINY))
    assert num_blocks(backbone) == 3
    with pytest.raises(ConfigError, match=f"toy: no block {block}; it has 3: 0 to 2, or -1 for the last"):
        look_inside(backbone, noise(28, 28), block=block)
