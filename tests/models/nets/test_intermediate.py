import pytest
import timm
import torch
from torch import nn

from curate.models.files import dinov3_names
from curate.models.files.formats import to_timm
from curate.models.nets.config import vit_config
from curate.models.nets.intermediate import block_outputs
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from tests.evaluation.backbones import VIT, backbone_of, seeded_vit, vit_backbone
from tests.models.nets.dinov3_models import VARIANTS, randomize, timm_model


def pixels(count: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 28, 28), generator=generator, dtype=torch.uint8)


def test_blocks_equal_those_of_timm() -> None:
    config = vit_config("vit_tiny_reg4", depth=3, image_size=28, layer_scale_init=1.0)
    ours = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).eval()
    kwargs = {"embed_dim": 192, "num_heads": 3, "depth": 3, "img_size": 28, "num_classes": 0}
    theirs = timm.create_model("vit_small_patch14_reg4_dinov2", **kwargs).eval()
    theirs.load_state_dict(to_timm(ours.state_dict()))
    x = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    read = block_outputs(theirs)
    assert read is not None
    with torch.no_grad():
        found, reference = ours.forward_intermediate(x, 2), read(x, 2)
        torch.testing.assert_close(found[-1], ours.forward_features(x))
    assert len(found) == len(reference) == 2
    for mine, other in zip(found, reference, strict=True):
        for part, wanted in zip(mine, other, strict=True):
            torch.testing.assert_close(part, wanted, rtol=1e-4, atol=1e-5)


def test_blocks_of_dinov3_equal_those_of_timm() -> None:
    ours = randomize(VisionTransformer(VARIANTS["mlp"]).eval())
    assert isinstance(ours, VisionTransformer)
    theirs = timm_model(ours.config)
    theirs.load_state_dict(dinov3_names.to_timm(ours.state_dict()))
    x = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    mine, read = block_outputs(ours), block_outputs(theirs)
    assert mine is not None
    assert read is not None
    with torch.no_grad():
        for found, wanted in zip(mine(x, 2), read(x, 2), strict=True):
            torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-4, atol=1e-5)
        averaging = timm.create_model("vit_small_patch16_dinov3", depth=1, num_classes=0)
        assert block_outputs(averaging) is None


def test_a_number_of_blocks_that_the_model_lacks_is_an_error() -> None:
    for last in (0, 3):
        with pytest.raises(ValueError, match=f"the last {last} blocks of 2: 1 to 2 can be asked for"):
            seeded_vit().forward_intermediate(torch.zeros(1, 3, 28, 28), last)


def test_the_answer_is_the_token_before_the_mean_of_patches() -> None:
    backbone, batch = vit_backbone(), pixels()
    tokens = backbone.embed_blocks(batch, last=4)  # of two blocks
    assert tokens.shape == (10, 3, 16)
    unit = nn.functional.normalize(tokens[:, 1], dim=1)
    torch.testing.assert_close(unit, backbone.embed(batch))
    patches = seeded_vit().forward_features((batch / 255 - 0.5) / 0.25).patches.mean(dim=1)
    torch.testing.assert_close(tokens[:, 2], patches, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.embed_blocks(batch, last=1), tokens[:, 1:])


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_models_that_answer_otherwise_give_their_answer_alone(name: str) -> None:
    pooled = {"global_pool": "avg"} if "distilled" not in name else {}
    net = timm.create_model(name, num_classes=0, depth=1, img_size=32, **pooled).eval()
    assert block_outputs(net) is None
    backbone, batch = backbone_of(net, dim=192, size=32), torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    tokens = backbone.embed_blocks(batch, last=4)
    assert tokens.shape == (3, 1, 192)
    torch.testing.assert_close(nn.functional.normalize(tokens[:, 0], dim=1), backbone.embed(batch))


def test_exported_timm_models_are_seen_through() -> None:
    config = tower_config("vit_tiny_patch16_224", depth=2, img_size=32)
    tower = TimmTower(config, generator=torch.Generator().manual_seed(0)).eval()
    backbone, batch = backbone_of(tower, dim=192, size=32), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    tokens = backbone.embed_blocks(batch, last=4)
    assert tokens.shape == (2, 3, 192)
    torch.testing.assert_close(nn.functional.normalize(tokens[:, 1], dim=1), backbone.embed(batch))
    pooling = TimmTower(tower_config("resnet10t"))
    assert block_outputs(pooling) is None


def test_the_tiny_vit_has_registers_which_are_no_patches() -> None:
    features = seeded_vit().forward_intermediate(torch.zeros(1, 3, 28, 28), 1)[0]
    assert (features.registers.shape[1], features.patches.shape[1]) == (VIT.num_registers, VIT.grid**2)
