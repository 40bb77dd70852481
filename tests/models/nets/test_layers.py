import pytest
import torch

from curate.models.nets import layers
from curate.models.nets.depth import Group, draw_kept
from tests.models.nets.seeded import TINY, images, seeded


def test_stochastic_depth_keeps_the_expectation() -> None:
    config = TINY.model_copy(update={"depth": 1, "drop_path_rate": 0.5})
    model = seeded(config)
    block, groups = model.blocks[0], [Group(8, 5)]
    torch.nn.init.zeros_(block.ls2.gamma)  # one branch: two would not be linear in the draw
    x, draws = images(8 * 5, 24), 300
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        expected = block(x, groups)
        kept = [draw_kept(groups, 0.5, device=x.device, generator=generator) for _ in range(draws)]
        mean = torch.stack([block(x, groups, (one, one)) for one in kept]).mean(0)
    spread = (expected - x).abs().max() / draws**0.5
    assert (mean - expected).abs().max() < 5 * spread


def test_attention_by_products_equals_the_fused_kernel_on_long_and_short_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = seeded(TINY), images(2, 3, 56, 56)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        by_products = model(x)
        monkeypatch.setattr(layers, "SHORT", 0)
        fused = model(x)
    torch.testing.assert_close(by_products, fused, rtol=0.05, atol=0.05)
