import pytest
import torch
from torch import nn

from curate.models.nets.config import vit_config
from curate.models.nets.tower import TimmTower, tower_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import OptimizerSettings
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.optimizer import clip_gradients, make_optimizer, optimizer_state, set_rates
from curate.trainer.parallel import World

SETTINGS = OptimizerSettings(layer_decay=0.5, patch_embed_lr=0.2, weight_decay=(0.1, 0.3), base_lr=2e-4)
DEPTH = 3


@pytest.fixture(scope="module")
def networks():
    vit = vit_config("vit_tiny", depth=DEPTH, image_size=16, patch_size=8, num_registers=2)
    heads = DinoV2Settings(head_hidden=16, head_bottleneck=8)
    generator = torch.Generator().manual_seed(0)
    backbone = VisionTransformer(vit, generator=generator)
    return heads.build(backbone, prototypes=12, world=World(), generator=generator).student


def group_of(optimizer, parameter):
    (found,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return found


def test_every_parameter_lies_in_one_group(networks):
    optimizer = make_optimizer(networks, SETTINGS)
    grouped = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in networks.parameters())


def test_only_biases_norms_and_gammas_escape_weight_decay(networks):
    optimizer = make_optimizer(networks, SETTINGS)
    free = {n for n, p in networks.named_parameters() if group_of(optimizer, p)["decay_factor"] == 0}
    wanted = {
        n
        for n, p in networks.named_parameters()
        if (p.ndim == 1) or ".norm" in n  # vectors: biases, gammas, norm weights
    }
    assert free == wanted
    assert "backbone.cls_token" not in free
    assert "dino_head.last_layer.scale" not in free


def test_timm_models_have_the_same_groups():
    """Vectors and relative positions escape weight decay; patches are embedded at a rate of their own."""
    kwargs = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 2}
    swin = TimmTower(tower_config("swin_tiny_patch4_window7_224", image_size=16, **kwargs))
    networks = nn.ModuleDict({"backbone": swin})
    optimizer = make_optimizer(networks, SETTINGS)
    embed, block = swin.net.patch_embed.proj.weight, swin.net.layers[0].blocks[0].attn.qkv.weight
    assert group_of(optimizer, embed)["lr_factor"] < 0.2 * group_of(optimizer, block)["lr_factor"]
    free = {n for n, p in networks.named_parameters() if group_of(optimizer, p)["decay_factor"] == 0}
    decayed = {n for n, _ in networks.named_parameters()} - free
    assert "backbone.net.layers.0.blocks.0.attn.relative_position_bias_table" in free
    assert "backbone.net.patch_embed.norm.weight" in free
    assert decayed == {n for n, p in networks.named_parameters() if p.ndim > 1 and "relative" not in n}


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("backbone.blocks.2.attn.qkv.weight", 0.5),
        ("backbone.blocks.0.attn.qkv.weight", 0.5**3),
        ("backbone.pos_embed", 0.5**4),
        ("backbone.register_tokens", 0.5**4),
        ("backbone.patch_embed.proj.weight", 0.5**4 * 0.2),
        ("backbone.norm.weight", 1.0),
        ("dino_head.mlp.0.weight", 1.0),
        ("ibot_head.last_layer.direction", 1.0),
    ],
)
def test_learning_rate_falls_with_the_distance_to_the_output(networks, name, factor):
    optimizer = make_optimizer(networks, SETTINGS)
    parameter = dict(networks.named_parameters())[name]
    assert group_of(optimizer, parameter)["lr_factor"] == pytest.approx(factor)


def test_rates_reach_every_group_with_its_factors(networks):
    optimizer = make_optimizer(networks, SETTINGS)
    prototypes = group_of(optimizer, networks["dino_head"].last_layer.direction)
    mlp = group_of(optimizer, networks["dino_head"].mlp[0].weight)
    norm = group_of(optimizer, networks["backbone"].norm.weight)
    block = group_of(optimizer, networks["backbone"].blocks[2].attn.qkv.weight)
    set_rates(optimizer, lr=0.2, weight_decay=0.1, backbone=0.5, last_layer=0.0)
    assert (prototypes["lr"], mlp["lr"], norm["lr"], block["lr"]) == (0.0, 0.2, 0.1, 0.05)
    assert (mlp["weight_decay"], norm["weight_decay"]) == (0.1, 0.0)
    set_rates(optimizer, lr=0.2, weight_decay=0.1)
    assert (prototypes["lr"], mlp["lr"], norm["lr"], block["lr"]) == (0.2, 0.2, 0.2, 0.1)


def test_betas_are_those_of_the_settings(networks):
    optimizer = make_optimizer(networks, OptimizerSettings(betas=(0.9, 0.99)))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.99)}


def test_each_network_is_clipped_on_its_own():
    networks = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    networks["a"].weight.grad = torch.tensor([[12.0]])
    networks["b"].weight.grad = torch.tensor([[2.0]])
    norms = clip_gradients(networks, OptimizerSettings(clip_norm=3.0))
    assert {name: norm.item() for name, norm in norms.items()} == {"a": 12.0, "b": 2.0}
    assert networks["a"].weight.grad.item() == pytest.approx(3.0)
    assert networks["b"].weight.grad.item() == 2.0


def test_each_parameter_is_clipped_on_its_own_in_dino():
    networks = nn.ModuleDict({"a": nn.Linear(1, 1)})
    networks["a"].weight.grad, networks["a"].bias.grad = torch.tensor([[12.0]]), torch.tensor([5.0])
    norms = clip_gradients(networks, OptimizerSettings(clip_norm=6.0, clip_by="parameter"))
    assert norms["a"].item() == pytest.approx(13.0)
    assert networks["a"].weight.grad.item() == pytest.approx(6.0)
    assert networks["a"].bias.grad.item() == 5.0


def test_moments_exist_from_the_start_and_change_nothing():
    plain, ours = (nn.ModuleDict({"backbone": nn.Linear(3, 2)}) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    optimizer = make_optimizer(ours, SETTINGS)
    peer = torch.optim.AdamW(plain.parameters(), lr=0.1, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = 0.1, 0.0
    assert set(optimizer_state(optimizer, ours)) == {
        f"backbone.{name}.{kind}" for name in ("weight", "bias") for kind in ("step", "exp_avg", "exp_avg_sq")
    }
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        for networks, stepped in ((plain, peer), (ours, optimizer)):
            stepped.zero_grad()
            networks["backbone"](x).square().sum().backward()
            stepped.step()
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
