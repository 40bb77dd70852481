"""DINOv3's weights in all four layouts: there and back, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from curate.errors import WeightsError
from curate.models.files import dinov3_names, formats
from curate.models.files.dinov3_names import PERIODS
from curate.models.files.state_dict import StateDict, fill, read_state_dict
from curate.models.nets.config import ViTConfig
from curate.models.nets.rotary import periods
from curate.models.nets.vit import VisionTransformer
from tests.models.nets.dinov3_models import VARIANTS, huggingface_model, randomize, timm_model
from tests.models.nets.seeded import images

FORMATS = ("dinov3", "dinov3 timm", "dinov3 huggingface")
VARIANT = pytest.mark.parametrize("variant", VARIANTS)


def weights(config: ViTConfig) -> StateDict:
    return dict(randomize(VisionTransformer(config)).state_dict())


def named(state: StateDict, form: str) -> StateDict:
    if form == "dinov3":
        return dinov3_names.to_meta(state, head_dim=16)
    return (dinov3_names.to_timm if form == "dinov3 timm" else dinov3_names.to_huggingface)(state)


@VARIANT
@pytest.mark.parametrize("form", FORMATS)
def test_each_format_round_trips(form: str, variant: str) -> None:
    state = weights(VARIANTS[variant])
    if form != "dinov3":  # the others have no place for it
        state = {name: value for name, value in state.items() if not name.startswith("local_cls_norm")}
    if form == "dinov3 timm":
        state["mask_token"] = torch.zeros_like(state["mask_token"])
    theirs = named(state, form)
    assert formats.detect_format(theirs) == form
    back = formats.to_hub(theirs)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], value) for name, value in state.items())


@VARIANT
def test_weights_of_the_other_libraries_give_their_outputs(variant: str, tmp_path: Path) -> None:
    config = VARIANTS[variant].model_copy(update={"local_norm": False})
    x = images(2, 3, 48, 80)
    theirs = randomize(huggingface_model(config))
    theirs.save_pretrained(tmp_path)  # in the names of this version of transformers
    ours = VisionTransformer(config).eval()
    fill(ours, formats.to_hub(read_state_dict(tmp_path)), where="test")
    other = randomize(timm_model(config))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).pooler_output, rtol=1e-5, atol=1e-5)
        fill(ours, formats.to_hub(other.state_dict()), where="test")
        torch.testing.assert_close(ours(x), other(x), rtol=1e-5, atol=1e-5)


def test_names_of_the_authors_have_their_layout() -> None:
    state = named(weights(VARIANTS["swiglu"]), "dinov3")
    width, hidden = 48, 100
    shapes = {name: tuple(value.shape) for name, value in state.items() if name.startswith("blocks.0.")}
    expected = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.qkv.bias_mask": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "ls1.gamma": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.w1.weight": (hidden, width),
        "mlp.w1.bias": (hidden,),
        "mlp.w2.weight": (hidden, width),
        "mlp.w2.bias": (hidden,),
        "mlp.w3.weight": (width, hidden),
        "mlp.w3.bias": (width,),
        "ls2.gamma": (width,),
    }
    assert shapes == {f"blocks.0.{name}": shape for name, shape in expected.items()}
    around = {name for name in state if not name.startswith("blocks.")}
    assert around == {
        *("cls_token", "storage_tokens", "mask_token", PERIODS),
        *("patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"),
    }
    assert state[PERIODS].tolist() == pytest.approx([100 ** (2 * i / 8) for i in range(4)])


def test_released_files_hold_periods_in_bfloat16_and_biases_under_a_mask() -> None:
    plain = weights(VARIANTS["mlp"])
    state = named(plain, "dinov3")
    state[PERIODS] = state[PERIODS].bfloat16()
    state["blocks.0.attn.qkv.bias"] = state["blocks.0.attn.qkv.bias"].clone()
    state["blocks.0.attn.qkv.bias"][48:96] = 7.0  # the model multiplies them with 0
    back = formats.to_hub(state)
    assert all(torch.equal(back[name], value) for name, value in plain.items())


def test_a_training_checkpoint_gives_its_backbone() -> None:
    plain = weights(VARIANTS["7b"])
    teacher = {f"backbone.{name}": value for name, value in named(plain, "dinov3").items()}
    back = formats.to_hub(teacher | {"dino_head.mlp.0.bias": torch.zeros(1)})
    assert back.keys() == plain.keys()


def test_a_classifier_is_left_out_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    state = named(weights(VARIANTS["mlp"]), "dinov3 timm") | {"head.weight": torch.ones(10, 48)}
    with caplog.at_level("INFO"):
        assert "head.weight" not in formats.to_hub(state, where="file.bin")
    assert "file.bin: a classifier is left out: head.weight" in caplog.text


def without(state: StateDict, *names: str) -> StateDict:
    return {name: value for name, value in state.items() if name not in names}


def changed(state: StateDict, **tensors: Tensor) -> StateDict:
    return state | {name.replace("__", "."): value for name, value in tensors.items()}


Q, V = "layer.0.attention.q_proj", "layer.0.attention.v_proj"


@pytest.mark.parametrize(
    ("form", "variant", "gone", "told"),
    [
        ("dinov3 timm", "mlp", "blocks.1.attn.v_bias", "blocks.1.attn.v_bias is missing"),
        ("dinov3 timm", "mlp", "blocks.1.attn.q_bias", "blocks.1.attn.v_bias: no attn.q_bias beside them"),
        ("dinov3 timm", "swiglu", "blocks.0.mlp.fc1_x.bias", "blocks.0.mlp.w2.bias is missing"),
        ("dinov3 huggingface", "mlp", f"{V}.bias", f"{V}.bias is missing"),
        ("dinov3 huggingface", "mlp", f"{Q}.bias", f"{V}.bias: no attention.q_proj.bias beside them"),
        ("dinov3 huggingface", "mlp", f"{V}.weight", f"{V}.weight is missing"),
        ("dinov3 huggingface", "swiglu", "layer.1.mlp.gate_proj.weight", "blocks.1.mlp.w2.weight: no mlp.w1.weight"),
        ("dinov3", "swiglu", "blocks.1.mlp.w2.weight", "blocks.1.mlp.w2.weight is missing"),
    ],
)
def test_a_tensor_that_is_read_with_others_is_not_lost_in_silence(
    form: str, variant: str, gone: str, told: str
) -> None:
    state = named(weights(VARIANTS[variant]), form)
    with pytest.raises(WeightsError, match=f"file.bin: .*{told}"):
        formats.to_hub(without(state, gone), where="file.bin")


def test_what_is_not_dinov3_is_refused() -> None:
    state = weights(VARIANTS["mlp"])
    key_bias = {"layer.0.attention.k_proj.bias": torch.ones(48)}
    with pytest.raises(WeightsError, match=r"layer.0.attention.k_proj.bias: no place for them in a DINOv3 ViT"):
        formats.to_hub(named(state, "dinov3 huggingface") | key_bias)
    other = changed(named(state, "dinov3"), rope_embed__periods=10.0 ** (torch.arange(4) / 4))
    with pytest.raises(WeightsError, match=r"rope_embed.periods of another base than 100 \(1, 1.78, 3.16, 5.62\)"):
        formats.to_hub(other)
    unmasked = without(named(state, "dinov3"), "blocks.0.attn.qkv.bias_mask")
    unmasked["blocks.0.attn.qkv.bias"] = torch.ones(144)
    with pytest.raises(WeightsError, match=r"a bias of the keys that is not 0, in blocks.0.attn.qkv.bias; DINOv3 has"):
        formats.to_hub(unmasked)
    masked = changed(named(state, "dinov3"), blocks__0__attn__qkv__bias_mask=torch.ones(5))
    with pytest.raises(WeightsError, match=r"blocks.0.attn.qkv.bias_mask has \(5,\), .* another shape"):
        formats.to_hub(masked)


def test_heads_are_told_by_the_periods_alone(tmp_path: Path) -> None:
    state = named(weights(VARIANTS["mlp"]), "dinov3")
    assert state[PERIODS].equal(periods(16))
    assert dinov3_names.heads_of(state) == 3
    assert dinov3_names.heads_of(without(state, PERIODS)) is None
    save_file(state, tmp_path / "vit.safetensors")
    assert read_state_dict(tmp_path / "vit.safetensors").keys() == state.keys()
