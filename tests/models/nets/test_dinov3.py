"""DINOv3's architecture beside the classes of timm and transformers, on equal random weights."""

import pytest
import torch

from curate.errors import ConfigError
from curate.models.files.dinov3_names import to_huggingface, to_timm
from curate.models.nets import lean
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.models.nets.dinov3_models import VARIANTS, huggingface_model, randomize, timm_model
from tests.models.nets.seeded import images

LARGEST = ("dinov3_huge_plus", "dinov3_7b")
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


def losses(network: VisionTransformer, seed: int = 7) -> dict[str, torch.Tensor]:
    """Gradients of a loss on two groups of crops, one masked, and the tokens as "output"."""
    crops = [images(5, 3, 64, 64), images(6, 3, 32, 48, seed=2)]
    mask = images(5, 16, seed=3) > 1
    network.zero_grad()
    parts = network.forward_crops(crops, [mask, None], generator=torch.Generator().manual_seed(seed))
    tokens = torch.cat([part.flatten() for group in parts for part in group])
    (tokens * torch.linspace(-1, 1, len(tokens))).sum().backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    assert len(found) == len(list(network.parameters()))
    return found | {"output": tokens.detach()}


def trained(variant: str, **changes: float) -> VisionTransformer:
    return ours(VARIANTS[variant].model_copy(update={"drop_path_rate": 0.3, **changes})).train()


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_computed_again_or_in_place_changes_no_gradient(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained(variant)
    found = losses(network)
    monkeypatch.setattr(lean, "runs_plain", lambda: True)
    assert_close(found, losses(network))


def test_activation_checkpointing_draws_the_same_rotations_again() -> None:
    network = trained("7b")
    kept = losses(network)
    network.checkpoints_blocks = True
    for name, gradient in losses(network).items():
        assert torch.equal(gradient, kept[name]), name


def test_compiled_blocks_give_the_same_outputs_and_gradients() -> None:
    plain, compiled = trained("swiglu"), trained("swiglu")
    compiled.compile_blocks(backend="aot_eager", fullgraph=True)
    assert_close(losses(compiled), losses(plain))


def test_rotations_of_a_training_follow_the_generator_alone() -> None:
    network = trained("mlp", drop_path_rate=0.0)
    first, again, other = (losses(network, seed)["output"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    network.eval()
    assert torch.equal(losses(network, 1)["output"], losses(network, 2)["output"])


def test_biases_of_keys_are_held_at_zero() -> None:
    network = trained("mlp")
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        losses(network)
        optimizer.step()
    for block in network.blocks:
        queries, keys, values = block.attn.qkv.bias.chunk(3)
        assert not keys.any()
        assert queries.all()
        assert values.all()


def test_local_crops_have_a_norm_of_their_own_for_cls_and_registers_in_training() -> None:
    network = trained("7b", drop_path_rate=0.0, rope_rescale=None)
    crops = [images(2, 3, 64, 64), images(3, 3, 32, 32, seed=2)]
    with torch.no_grad():
        plain = network.forward_crops(crops)
        network.local_cls_norm.bias += 1.0  # type: ignore[union-attr, operator]
        shifted = network.forward_crops(crops)
        needed = network.forward_needed(crops, patches=[torch.tensor([3, 17]), torch.tensor([2])])
        evaluated = network.eval().forward_crops(crops)
    torch.testing.assert_close(shifted[1].cls, plain[1].cls + 1)
    torch.testing.assert_close(shifted[1].registers, plain[1].registers + 1)
    for found, expected in ((shifted[1].patches, plain[1].patches), *zip(shifted[0], plain[0], strict=True)):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(needed[1].cls, shifted[1].cls)
    torch.testing.assert_close(needed[1].patches[0], shifted[1].patches[0, 2])
    torch.testing.assert_close(needed[0].patches[1], shifted[0].patches[1, 1])
    assert not torch.allclose(evaluated[1].cls, shifted[1].cls)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bf16_gradients_stay_close_to_fp32(precision: str) -> None:
    network = trained("mlp").train()
    expected = losses(network)
    low = ours(network.config.model_copy(update={"rope_dtype": precision})).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses(low)
    for name, gradient in expected.items():
        similarity = torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert similarity > 0.98, name
    assert_close(losses(low), expected)  # in a fp32 pass rotations are fp32


def test_initialization_follows_the_recipe() -> None:
    network = VisionTransformer(vit_config("dinov3_small", depth=1), generator=torch.Generator().manual_seed(5))
    block = network.blocks[0]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight, network.cls_token, network.register_tokens):
        assert weight is not None
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not block.attn.qkv.bias.any()
    assert not network.mask_token.any()
    assert block.norm1.eps == network.norm.eps == 1e-5
    assert torch.equal(block.ls1.gamma, torch.full((384,), 1e-5))


@pytest.mark.parametrize(("name", "millions"), [("small", 21), ("small_plus", 29), ("base", 86), ("large", 300)])
def test_presets_have_the_published_number_of_parameters(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = VisionTransformer(vit_config(f"dinov3_{name}"))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_the_largest_presets_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        found = [sum(p.numel() for p in VisionTransformer(vit_config(name)).parameters()) for name in LARGEST]
    assert found == pytest.approx([840e6, 6716e6], rel=0.01)


def test_fields_that_do_not_fit_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="dim 30 / heads 3: rotary positions need a multiple of 4"):
        vit_config("dinov3_small", dim=30, heads=3)
    with pytest.raises(ValueError, match="positions are rotary: no embeddings of them are stored"):
        ours(VARIANTS["mlp"]).positions((4, 4))
