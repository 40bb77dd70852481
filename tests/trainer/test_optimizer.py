import pytest
import torch
from torch import nn

from curate.models.vit import vit_config
from curate.trainer.config import ObjectiveSettings, OptimizerSettings, TrainConfig, resolve
from curate.trainer.objective import build_networks
from curate.trainer.optimizer import clip_gradients, lr_factor, make_optimizer, set_schedule

SETTINGS = OptimizerSettings(layer_decay=0.5, patch_embed_lr=0.2, weight_decay=(0.1, 0.3))
DEPTH = 3


@pytest.fixture(scope="module")
def networks():
    vit = vit_config("vit_tiny", depth=DEPTH, image_size=16, patch_size=8, num_registers=2)
    heads = ObjectiveSettings(head_hidden=16, head_bottleneck=8)
    return build_networks(vit, heads, prototypes=12, generator=torch.Generator().manual_seed(0))


def group_of(optimizer, parameter):
    (found,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return found


def test_every_parameter_lies_in_one_group(networks):
    optimizer = make_optimizer(networks, SETTINGS, depth=DEPTH)
    grouped = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in networks.parameters())


def test_only_biases_norms_and_gammas_escape_weight_decay(networks):
    optimizer = make_optimizer(networks, SETTINGS, depth=DEPTH)
    free = {n for n, p in networks.named_parameters() if group_of(optimizer, p)["decay_factor"] == 0}
    wanted = {
        n
        for n, p in networks.named_parameters()
        if (p.ndim == 1) or ".norm" in n  # vectors: biases, gammas, norm weights
    }
    assert free == wanted
    assert "backbone.cls_token" not in free
    assert "dino_head.last_layer.scale" not in free


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
def test_learning_rate_falls_with_the_distance_to_the_output(name, factor):
    assert lr_factor(name, SETTINGS, depth=DEPTH) == pytest.approx(factor)


def test_prototypes_are_frozen_at_first_and_schedule_reaches_every_group(networks):
    settings = SETTINGS.model_copy(update={"warmup_iterations": 10, "freeze_last_layer_iterations": 5})
    config = TrainConfig(shards="", output="", optimizer=settings, batch_size=256, iterations=100)
    effective = resolve(config, num_images=100, num_samples=100)
    optimizer = make_optimizer(networks, settings, depth=DEPTH)
    prototypes = group_of(optimizer, networks["dino_head"].last_layer.direction)
    mlp = group_of(optimizer, networks["dino_head"].mlp[0].weight)
    lr = set_schedule(optimizer, 4, settings, effective=effective, num_steps=100)
    assert lr == pytest.approx(settings.base_lr * 0.5 * 4 / 10)  # sqrt(256 / 1024) = 0.5
    assert (prototypes["lr"], mlp["lr"]) == (0.0, lr)
    lr = set_schedule(optimizer, 5, settings, effective=effective, num_steps=100)
    assert prototypes["lr"] == lr > 0
    assert mlp["weight_decay"] == pytest.approx(0.1, abs=0.01)
    set_schedule(optimizer, 100, settings, effective=effective, num_steps=100)
    assert mlp["weight_decay"] == pytest.approx(0.3)
    assert mlp["lr"] == pytest.approx(settings.final_lr)


def test_each_network_is_clipped_on_its_own():
    networks = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    networks["a"].weight.grad = torch.tensor([[12.0]])
    networks["b"].weight.grad = torch.tensor([[2.0]])
    norms = clip_gradients(networks, 3.0)
    assert {name: norm.item() for name, norm in norms.items()} == {"a": 12.0, "b": 2.0}
    assert networks["a"].weight.grad.item() == pytest.approx(3.0)
    assert networks["b"].weight.grad.item() == 2.0
