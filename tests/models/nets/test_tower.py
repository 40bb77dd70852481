from typing import Any

import pytest
import timm
import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from curate.errors import ConfigError
from curate.models.nets.config import TowerConfig
from curate.models.nets.tower import TimmTower, tower_config

SWIN = "swin_tiny_patch4_window7_224"
SHALLOW = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "img_size": 64, "window_size": 2}
CONVNEXTS = {
    "tiny": ([96, 192, 384, 768], [3, 3, 9, 3]),
    "small": ([96, 192, 384, 768], [3, 3, 27, 3]),
    "base": ([128, 256, 512, 1024], [3, 3, 27, 3]),
    "large": ([192, 384, 768, 1536], [3, 3, 27, 3]),
}
"""Widths and depths of DINOv3's ConvNeXts."""
FAMILIES = pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        (SWIN, SHALLOW),
        ("convnext_atto", {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}),
        ("vit_tiny_patch16_224", {"embed_dim": 24, "depth": 1, "reg_tokens": 2, "img_size": 64}),
    ],
)


def tower(name: str = SWIN, seed: int = 0, **kwargs: Any) -> TimmTower:
    return TimmTower(tower_config(name, **kwargs or SHALLOW), generator=torch.Generator().manual_seed(seed))


def images(size: int, seed: int = 0, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@FAMILIES
@torch.no_grad()
def test_pooled_vectors_are_those_of_timm(name: str, kwargs: dict[str, Any]) -> None:
    ours = tower(name, **kwargs).eval()
    theirs = timm.create_model(name, num_classes=0, **ours.config.kwargs).eval()
    theirs.load_state_dict(ours.net.state_dict())
    for size in (64, 96):
        x = images(size)
        found = ours.forward_features(x)
        torch.testing.assert_close(found.cls, theirs(x), rtol=0, atol=0)
        torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
        assert found.cls.shape == (2, ours.dim)
        assert ours.config.dim == ours.dim


@FAMILIES
@torch.no_grad()
def test_an_image_size_is_told_to_the_models_that_have_one(name: str, kwargs: dict[str, Any]) -> None:
    config = tower_config(name, image_size=64, **{k: v for k, v in kwargs.items() if k != "img_size"})
    assert config.kwargs.get("img_size") == (None if name == "convnext_atto" else 64)
    assert TimmTower(config)(images(64)).shape == (2, config.dim)


def test_a_given_size_wins_over_the_crops() -> None:
    assert tower_config(SWIN, image_size=128, **SHALLOW).kwargs["img_size"] == 64


@torch.no_grad()
def test_swin_pools_the_mean_of_its_tokens() -> None:
    found = tower().eval().forward_features(images(128))
    assert found.patches.shape == (2, 16, 64)  # patches of 4 px, three times halved
    assert found.registers.shape == (2, 0, 64)
    torch.testing.assert_close(found.cls, found.patches.mean(dim=1), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_tokens_lie_row_by_row() -> None:
    model = tower("convnext_atto", dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)).eval()
    found = model.forward_features(images(96)).patches  # (2, 9, 16)
    grid = model.net.head.norm(model.net.forward_features(images(96)))
    torch.testing.assert_close(found[:, 5], grid[:, :, 1, 2])


@torch.no_grad()
def test_registers_and_cls_are_no_patches() -> None:
    model = tower("vit_tiny_patch16_224", embed_dim=24, depth=1, reg_tokens=2, img_size=64).eval()
    found, every = model.forward_features(images(64)), model.net.forward_features(images(64))
    assert torch.equal(torch.cat([every[:, :1], found.registers, found.patches], dim=1), every)
    assert found.registers.shape == (2, 2, 24)


@torch.no_grad()
def test_groups_of_crops_do_not_mix() -> None:
    model = tower().eval()
    together = model.forward_crops([images(128), images(64, count=3)])
    for part, alone in zip(together, (images(128), images(64, count=3)), strict=True):
        torch.testing.assert_close(part.patches, model.forward_features(alone).patches)


@torch.no_grad()
def test_tokens_that_are_needed_are_those_of_the_whole_pass() -> None:
    model = tower().eval()
    large, small = images(128), images(64, count=3)
    rows = torch.tensor([1, 4, 5])
    found = model.forward_needed([large, small], patches=[rows, None])
    whole = model.forward_crops([large, small])
    torch.testing.assert_close(found[0], (whole[0].cls, whole[0].patches.flatten(0, 1)[rows]))
    torch.testing.assert_close(found[1], (whole[1].cls, whole[1].patches.flatten(0, 1)[:0]))


def test_a_seed_gives_the_same_weights_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = tower(), tower(), tower(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    states = [model.state_dict() for model in (first, second, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["net.patch_embed.proj.weight"], states[2]["net.patch_embed.proj.weight"])


@torch.no_grad()
def test_stochastic_depth_is_drawn_from_the_generator() -> None:
    model = tower(SWIN, **SHALLOW, drop_path_rate=0.9).train()
    x = images(64, count=8)

    def run(seed: int) -> torch.Tensor:
        return model.forward_crops([x], generator=torch.Generator().manual_seed(seed))[0].cls

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


ATTO: dict[str, Any] = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}


@torch.no_grad()
def test_tokens_of_a_student_lie_on_the_grid_of_its_teacher() -> None:
    plain = TimmTower(tower_config("convnext_atto", **ATTO), generator=torch.Generator().manual_seed(0)).eval()
    sized = TimmTower(tower_config("convnext_atto", token_size=16, **ATTO)).eval()
    sized.load_state_dict(plain.state_dict())
    assert (plain.config.patch_size, sized.config.patch_size) == (32, 16)
    x = images(96)
    found, whole = sized.forward_features(x), plain.forward_features(x)
    assert found.patches.shape == (2, 36, 16)
    assert torch.equal(found.cls, whole.cls)  # timm computes the same from an export
    larger = torch.nn.functional.interpolate(plain.net.forward_features(x), size=(6, 6), mode="bilinear")
    expected = plain.net.head.norm(larger).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.patches, expected)
    with pytest.raises(ConfigError, match="vit_tiny_patch16_224: gives tokens and no map that could be resized"):
        tower("vit_tiny_patch16_224", depth=1, token_size=8).forward_features(images(224))


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_convnexts_have_the_shapes_of_dinov3s(size: str) -> None:
    """transformers' class of DINOv3's ConvNeXts, whose released sizes are those of timm."""
    dims, depths = CONVNEXTS[size]
    with torch.device("meta"):
        ours = TimmTower(TowerConfig(name=f"convnext_{size}"))
        theirs = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=dims, depths=depths))
    assert ours.dim == dims[-1]
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1]


@torch.no_grad()
def test_pooled_vector_and_tokens_equal_those_of_transformers() -> None:
    ours = TimmTower(
        tower_config("convnext_atto", **ATTO, ls_init_value=0.5), generator=torch.Generator().manual_seed(0)
    )
    shape = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    theirs = DINOv3ConvNextModel(DINOv3ConvNextConfig(**shape, layer_scale_init_value=0.5)).eval()
    pairs = zip(theirs.state_dict().items(), ours.eval().net.state_dict().items(), strict=True)
    theirs.load_state_dict({name: other.reshape(value.shape) for (name, value), (_, other) in pairs})
    x = images(96)
    found, expected = ours.forward_features(x), theirs(x)
    torch.testing.assert_close(found.cls, expected.pooler_output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.patches, expected.last_hidden_state[:, 1:], rtol=1e-5, atol=1e-5)


def test_what_timm_cannot_build_is_refused() -> None:
    with pytest.raises(ConfigError, match="swin_tny: timm has no such architecture; did you mean 'swin"):
        tower_config("swin_tny")
    with pytest.raises(ConfigError, match="zzzz: timm has no such architecture; timm.list_models"):
        tower_config("zzzz")
    with pytest.raises(ConfigError, match="num_classes, pretrained cannot be given to a backbone to train"):
        tower_config(SWIN, pretrained=True, num_classes=3)
    with pytest.raises(ConfigError, match="'widht' is no argument that a backbone may be given"):
        tower_config(SWIN, widht=3)
    with pytest.raises(ConfigError, match="pools to 1280 dims, its tokens have 960"):
        tower_config("mobilenetv4_conv_small")


def test_what_a_tower_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="has no mask token; train it with an objective without masks"):
        tower().forward_crops([images(64)], [torch.zeros(2, 4, dtype=torch.bool)])
    listed = TimmTower(TowerConfig(name="coat_tiny", kwargs={"img_size": 32}))
    with pytest.raises(ConfigError, match="coat_tiny: gives no single map of tokens"):
        listed.forward_features(images(32))
