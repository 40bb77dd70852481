"""Operations by formula are those that torch counts on the graph."""

import pytest
import torch

from curate.errors import ConfigError
from curate.models.flops import forward_flops, picture_flops, vit_flops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("vit_small", {}),
        ("vit_small_reg4", {"depth": 2}),
        ("vit_giant", {"depth": 1, "dim": 192, "heads": 3}),
        ("dinov3_small", {"depth": 2}),
        ("dinov3_7b", {"depth": 1, "dim": 192, "heads": 3, "ffn_hidden": 400}),
    ],
)
def test_formula_counts_what_the_graph_holds(preset: str, changes: dict[str, int]) -> None:
    config = vit_config(preset, image_size=112, **changes)
    vit = VisionTransformer(config, generator=torch.Generator().manual_seed(0))
    assert picture_flops(vit, 112) == pytest.approx(vit_flops(config, 112), rel=0.01)


def test_known_models_have_their_published_cost() -> None:
    # ResNet-50: 4.09 G multiply-adds at 224 px (torchvision's table), hence 8.3 at 320 px; EfficientNet-Lite0: 0.4.
    assert forward_flops("sscd") / 2 == pytest.approx(4.09e9 * (320 / 224) ** 2, rel=0.02)
    assert forward_flops("lite0") / 2 == pytest.approx(0.4e9, rel=0.1)
    # timm's table for vit_giant_patch14_dinov2 at 518 px: 1,784 G multiply-adds, attention included.
    assert vit_flops(vit_config("vit_giant"), 518) / 2 == pytest.approx(1784e9, rel=0.02)
    assert forward_flops("dinov3_vits16") == vit_flops(vit_config("dinov3_small"), 256)
    assert forward_flops("luma24") == 0


def test_model_of_unknown_size_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="size is not known"):
        forward_flops("timm/vit_base_patch16_siglip_224.v2_webli")
