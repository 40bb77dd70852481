import os
import shutil

import pytest
import timm
import torch

from curate.config import parse
from curate.models.files.formats import to_hub, to_timm
from curate.models.nets import lean
from curate.models.nets.config import ViTConfig, vit_config
from curate.models.nets.vit import VisionTransformer
from tests.models.nets.seeded import TINY, images, seeded


@pytest.mark.parametrize("size", [224, 518])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("vit_small", "vit_small_patch14_dinov2"),
        ("vit_small_reg4", "vit_small_patch14_reg4_dinov2"),
        ("vit_giant", "vit_giant_patch14_dinov2"),
    ],
)
def test_outputs_equal_timm(name: str, theirs: str, size: int) -> None:
    depth = 1 if name == "vit_giant" else 2
    # timm resamples positions with antialias and without offset, the released models without registers do not
    config = vit_config(name, depth=depth, interpolate_offset=0.0, interpolate_antialias=True)
    ours = seeded(config)
    reference = timm.create_model(theirs, depth=depth, dynamic_img_size=True, num_classes=0).eval()
    reference.load_state_dict(to_timm(ours.state_dict()))
    x = images(1, 3, size, size)
    with torch.no_grad():
        found, expected = ours.forward_features(x), reference.forward_features(x)
    first = 1 + config.num_registers
    torch.testing.assert_close(found.cls, expected[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.registers, expected[:, 1:first], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.patches, expected[:, first:], rtol=1e-5, atol=1e-5)


def test_positions_are_sampled_at_the_scale_of_the_released_models() -> None:
    model = seeded(TINY.model_copy(update={"num_registers": 0, "interpolate_offset": 0.1}))
    grid = model.pos_embed[:, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, scale_factor=(6.1 / 4, 2.1 / 4), mode="bicubic")
    found = model.positions((6, 2))
    torch.testing.assert_close(found[:, 1:], expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(found[:, :1], model.pos_embed[:, :1])


def test_masked_patches_are_mask_tokens_whatever_their_pixels() -> None:
    model = seeded(TINY)
    first, second = images(2, 3, 56, 56), images(2, 3, 56, 56, seed=2)
    everything = torch.ones(2, 16, dtype=torch.bool)
    torch.testing.assert_close(
        model.forward_features(first, everything).patches, model.forward_features(second, everything).patches
    )
    one = torch.zeros(2, 16, dtype=torch.bool)
    one[:, 5] = True
    changed = first.clone()
    changed[:, :, 14:28, 14:28] += 1  # the pixels of patch 5, in row 1 and column 1
    torch.testing.assert_close(model.forward_features(first, one).cls, model.forward_features(changed, one).cls)
    assert not torch.allclose(model(first), model(changed))


def test_crop_groups_in_one_pass_equal_separate_passes() -> None:
    model = seeded(TINY)
    crops = [images(4, 3, 56, 56), images(6, 3, 28, 42, seed=2), images(1, 3, 14, 14, seed=3)]
    mask = images(4, 16, seed=4) > 0
    together = model.forward_crops(crops, [mask, None, None])
    for crop, part, masked in zip(crops, together, [mask, None, None], strict=True):
        for found, expected in zip(part, model.forward_features(crop, masked), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("again", [False, True])
def test_tokens_that_are_needed_are_those_of_the_whole_pass(ffn: str, rate: float, again: bool) -> None:
    model = seeded(TINY.model_copy(update={"ffn": ffn, "drop_path_rate": rate})).train()
    model.checkpoints_blocks = again
    large, small = images(5, 3, 56, 56), images(7, 3, 28, 28)
    masks = images(5, 16, seed=2) > 0.5
    rows = masks.flatten().nonzero().squeeze(1)

    def gradients(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        loss = torch.stack([output.sin().sum() for output in outputs]).sum()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    whole = model.forward_crops([large, small], [masks, None], generator=torch.Generator().manual_seed(3))
    expected = [whole[0].cls, whole[0].patches.flatten(0, 1)[rows], whole[1].cls]
    found = model.forward_needed(
        [large, small], [masks, None], patches=[rows, None], generator=torch.Generator().manual_seed(3)
    )
    assert found[1].patches.shape == (0, TINY.dim)
    outputs = [found[0].cls, found[0].patches, found[1].cls]
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(gradients(outputs), gradients(expected), rtol=1e-4, atol=1e-5)


def test_the_last_feed_forward_layer_sees_only_what_is_needed() -> None:
    model, seen = seeded(TINY), []
    for block in model.blocks:
        block.mlp.fc1.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    with torch.no_grad():
        model.forward_needed([images(3, 3, 56, 56)], patches=[torch.tensor([0, 17])])
    assert seen == [3 * (1 + 2 + 16), 3 + 2]


def test_stochastic_depth_depends_on_the_generator_alone() -> None:
    model = seeded(TINY.model_copy(update={"drop_path_rate": 0.5})).train()
    crops = [images(8, 3, 28, 28)]
    first, again, other = (
        model.forward_crops(crops, generator=torch.Generator().manual_seed(seed))[0].cls for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_evaluation_ignores_stochastic_depth() -> None:
    model = seeded(TINY.model_copy(update={"drop_path_rate": 0.9}))
    torch.testing.assert_close(model(images(4, 3, 28, 28)), seeded(TINY)(images(4, 3, 28, 28)))


def test_gradients_reach_every_parameter() -> None:
    model = seeded(TINY.model_copy(update={"drop_path_rate": 0.3})).train()
    mask = torch.zeros(4, 16, dtype=torch.bool)
    mask[:, ::3] = True
    parts = model.forward_crops([images(4, 3, 56, 56), images(4, 3, 28, 28)], [mask, None])
    sum(tokens.square().sum() for part in parts for tokens in part).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_bf16_autocast_stays_close_to_fp32() -> None:
    model, x = seeded(TINY), images(2, 3, 56, 56)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x).float()
    assert torch.nn.functional.cosine_similarity(low, model(x)).min() > 0.99


def test_initialization_follows_the_recipe_and_the_generator() -> None:
    config = vit_config("vit_small_reg4", depth=1, image_size=224)
    first, again = (VisionTransformer(config, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    for (name, one), two in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    block = first.blocks[0]
    for weight in (block.attn.qkv.weight, block.mlp.fc1.weight, first.pos_embed):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert abs(weight.mean().item()) < 1e-3
    assert not block.attn.qkv.bias.any()
    assert not first.mask_token.any()
    assert first.cls_token.std().item() == pytest.approx(1e-6, rel=0.2)
    assert first.register_tokens.std().item() == pytest.approx(1e-6, rel=0.1)
    assert torch.equal(block.ls1.gamma, torch.full((384,), 1e-5))


@pytest.mark.parametrize("name", ["vit_small", "vit_base", "vit_large", "vit_giant"])
@pytest.mark.parametrize("registers", ["", "_reg4"])
def test_presets_have_the_names_and_shapes_of_the_released_models(name: str, registers: str) -> None:
    size = name.removeprefix("vit_")
    with torch.device("meta"):
        ours = VisionTransformer(vit_config(name + registers))
        theirs = timm.create_model(f"vit_{size}_patch14{registers}_dinov2", num_classes=0)
        expected = {key: value.shape for key, value in to_hub(theirs.state_dict()).items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected


def test_sizes_that_do_not_fit_are_refused() -> None:
    model = VisionTransformer(parse(ViTConfig, TINY.model_dump(), where="test"))
    with pytest.raises(ValueError, match="images of 56 x 50 px; both sides must be multiples of 14"):
        model(images(1, 3, 56, 50))
    with pytest.raises(ValueError, match=r"mask of shape \(1, 9\); these patches need \(1, 16\)"):
        model.forward_features(images(1, 3, 56, 56), torch.zeros(1, 9, dtype=torch.bool))


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_what_is_computed_again_changes_no_gradient(ffn: str, rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lean layers beside plain ones, which autograd derives."""
    model = seeded(TINY.model_copy(update={"ffn": ffn, "drop_path_rate": rate})).train()
    found = gradients(model)
    monkeypatch.setattr(lean, "runs_plain", lambda: True)
    assert_close(found, gradients(model))


def test_activation_checkpointing_changes_no_gradient() -> None:
    model = seeded(TINY.model_copy(update={"drop_path_rate": 0.4})).train()
    kept = gradients(model)
    model.checkpoints_blocks = True
    for name, gradient in gradients(model).items():
        assert torch.equal(gradient, kept[name]), name


def test_compiled_blocks_give_the_same_outputs_and_gradients() -> None:
    """As traced for forward and backward; kernels in C++ would take a minute to make here."""
    plain, compiled = (seeded(TINY.model_copy(update={"drop_path_rate": 0.4})).train() for _ in range(2))
    compiled.compile_blocks(backend="aot_eager", fullgraph=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert_close(gradients(compiled), gradients(plain))


def test_compiled_blocks_take_any_number_of_needed_patches() -> None:
    plain, compiled = (seeded(TINY).train() for _ in range(2))
    compiled.compile_blocks(backend="aot_eager", fullgraph=True)
    x = images(3, 3, 56, 56)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for count in (5, 9, 1, 30, 12, 7, 40, 3, 20, 2):
            rows = torch.arange(count)
            found, expected = (model.forward_needed([x], patches=[rows])[0] for model in (compiled, plain))
            torch.testing.assert_close(found, expected)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile makes C++ kernels, and g++ is not here")
@pytest.mark.skipif("COMPILE" not in os.environ, reason="takes a minute; COMPILE=1 runs it")
def test_compiled_kernels_give_the_same_outputs_and_gradients() -> None:
    plain, compiled = (seeded(TINY.model_copy(update={"drop_path_rate": 0.4})).train() for _ in range(2))
    compiled.compile_blocks()
    assert_close(gradients(compiled), gradients(plain))


def test_bf16_gradients_stay_close_to_fp32() -> None:
    model = seeded(TINY.model_copy(update={"drop_path_rate": 0.4})).train()
    expected = gradients(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(model)
    for name, gradient in expected.items():
        similarity = torch.nn.functional.cosine_similarity(found[name].flatten(), gradient.flatten(), dim=0)
        assert similarity > 0.98, name


def gradients(model: VisionTransformer) -> dict[str, torch.Tensor]:
    """Of a loss on two groups of crops, one masked; "output" holds the tokens themselves."""
    side = model.config.image_size
    crops = [images(5, 3, side, side), images(6, 3, 14, 14, seed=2)]
    mask = images(5, (side // 14) ** 2, seed=3) > 1
    model.zero_grad()
    parts = model.forward_crops(crops, [mask, None], generator=torch.Generator().manual_seed(7))
    tokens = torch.cat([part.flatten() for group in parts for part in group])
    (tokens * torch.linspace(-1, 1, len(tokens))).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(list(model.parameters()))
    return found | {"output": tokens.detach()}


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()), msg=name)
