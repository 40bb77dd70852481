"""Damaged and incomplete weight files, given to every loader: an error of ours that names the file, never a traceback.

Each file is a good one with one thing wrong: cut at a place, random bytes, nothing at all, a tensor gone, one too many,
one of another shape or type, or something else than tensors.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import Tensor

from curate.errors import ConfigError, WeightsError
from curate.models.backbones import timm_models
from curate.models.backbones.load import load_backbone
from curate.models.convert.source import load_source
from curate.models.files import dinov3_names, formats
from curate.models.files.export import weights_of, write_export
from curate.models.files.header import ExportInfo
from curate.models.files.heads import describe_heads, read_heads, write_heads
from curate.models.files.state_dict import StateDict
from curate.models.nets.config import PRESETS, vit_config
from curate.models.nets.vit import VisionTransformer
from curate.trainer.heads import PrototypeHead

EXPORT = ExportInfo(image_size=32, short_edge=32)
V2 = VisionTransformer(vit_config("vit_tiny_reg4", dim=64, heads=1, depth=1, image_size=28))
V3 = VisionTransformer(vit_config("dinov3_tiny", dim=64, heads=1, depth=1, image_size=32, ffn="swiglu"))


class Loader(NamedTuple):
    """One way to load weights, and good weights for it."""

    load: Callable[[str], object]
    state: Callable[[], StateDict]
    lacks: frozenset[str] = frozenset()
    """Tensors without which the weights are complete too."""
    odd: frozenset[str] = frozenset()
    """Tensors that the library leaves out, whatever they are: only a training reads them."""


def backbone(model: str) -> Callable[[str], object]:
    return lambda path: load_backbone(model, weights=path, device="cpu", precision="fp32")


def renamed(network: VisionTransformer, convert: Callable[..., StateDict]) -> Callable[[], StateDict]:
    return lambda: convert(dict(network.state_dict()))


def resnet() -> StateDict:
    return dict(timm.create_model("resnet10t", num_classes=0).state_dict())


def clip() -> StateDict:
    return dict(open_clip.create_model("ViT-B-32", pretrained=None).state_dict())


MOST = 30
"""Tensors of a file that are damaged at most, spread over it."""
V2_REGISTERS = frozenset({"register_tokens", "mask_token"})  # models without registers and files without a mask token
LOADERS = {
    "source, DINOv2 of torch.hub": Loader(load_source, lambda: dict(V2.state_dict()), V2_REGISTERS),
    "source, DINOv2 of timm": Loader(load_source, renamed(V2, formats.to_timm), frozenset({"reg_token"})),
    "source, DINOv2 of Hugging Face": Loader(
        load_source,
        renamed(V2, formats.to_huggingface),
        frozenset({"embeddings.register_tokens", "embeddings.mask_token"}),
    ),
    "source, DINOv3 of its authors": Loader(
        load_source,
        lambda: weights_of(V3),
        frozenset({"storage_tokens", dinov3_names.PERIODS, "blocks.0.attn.qkv.bias_mask", "mask_token"}),
    ),
    "source, DINOv3 of timm": Loader(load_source, renamed(V3, dinov3_names.to_timm), frozenset({"reg_token"})),
    "source, DINOv3 of Hugging Face": Loader(
        load_source,
        renamed(V3, dinov3_names.to_huggingface),
        frozenset({"embeddings.register_tokens", "embeddings.mask_token"}),
    ),
    "id dinov2_vits14": Loader(backbone("dinov2_vits14"), lambda: dict(V2.state_dict()), frozenset({"mask_token"})),
    "id dinov3_vits16": Loader(
        backbone("dinov3_vits16"),
        lambda: weights_of(V3),
        frozenset({dinov3_names.PERIODS, "blocks.0.attn.qkv.bias_mask", "mask_token"}),
    ),
    "timm": Loader(backbone("timm/resnet10t"), resnet),
    "timm, DINOv3": Loader(
        backbone("timm/vit_small_patch16_dinov3_qkvb"),
        lambda: weights_of(V3),
        frozenset({dinov3_names.PERIODS, "blocks.0.attn.qkv.bias_mask", "mask_token"}),
        frozenset({dinov3_names.PERIODS, "blocks.0.attn.qkv.bias_mask", "mask_token"}),
    ),
    "open_clip": Loader(backbone("open_clip/ViT-B-32"), clip),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Released architectures as small as the weights above."""
    monkeypatch.setitem(PRESETS, "vit_small", PRESETS["vit_tiny_reg4"] | {"dim": 64, "heads": 1, "depth": 1})
    preset = {"dim": 64, "heads": 1, "depth": 1, "ffn": "swiglu"}
    monkeypatch.setitem(PRESETS, "dinov3_small", PRESETS["dinov3_small"] | preset)
    create = timm.create_model
    shape = {"embed_dim": 64, "num_heads": 1, "depth": 1, "swiglu_mlp": True, "swiglu_align_to": 1}
    shape["mlp_ratio"] = (V3.config.hidden + 0.5) / 64

    def smaller(name: str, **given: Any) -> Any:
        return create(name, **(shape if "dinov3" in name else {}), **given)

    monkeypatch.setattr(timm_models.timm, "create_model", smaller)
    tiny = open_clip.get_model_config("ViT-B-32")
    tiny["vision_cfg"] |= {"layers": 1, "width": 64, "head_width": 32, "image_size": 64}
    tiny["text_cfg"] |= {"layers": 1, "width": 64, "heads": 2, "vocab_size": 50}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-B-32", tiny)


def broken_files(folder: Path, good: bytes) -> Iterator[Path]:
    """Files that are no weights at all, or not any more."""
    rng = random.Random(0)
    made = {"empty": b"", "text": b"not found\n" * 40, "noise": rng.randbytes(4000)}
    made |= {f"cut-{share}": good[: len(good) * share // 100] for share in (1, 30, 60, 99)}
    made["flipped"] = bytes(byte ^ 0xFF if at % 7 == 0 and at < 400 else byte for at, byte in enumerate(good))
    for name, data in made.items():
        for suffix in (".safetensors", ".pth"):
            path = folder / f"{name}{suffix}"
            path.write_bytes(data)
            yield path


def other_states(state: StateDict, *, lacks: frozenset[str], odd: frozenset[str]) -> Iterator[tuple[str, StateDict]]:
    """Good files of incomplete or odd tensors."""
    unread = lacks | {name for name in state if name.endswith("num_batches_tracked")}
    step = max(1, len(state) // MOST)
    for name in sorted(state.keys() - unread)[::step]:
        yield f"without {name}", {key: value for key, value in state.items() if key != name}
    for name, value in list(state.items())[::step]:
        if value.numel() > 1 and name not in odd:
            yield f"{name} flat", state | {name: value.flatten()[:-1].clone()}
            yield f"{name} deep", state | {name: value[None, None].clone()}
    yield "one more", state | {"blocks.0.attn.surprise": torch.ones(3)}
    yield "others", {"weight": torch.ones(3, 3)}
    yield "one", {"cls_token": torch.ones(1, 1, 64)}


def refuses(load: Callable[[str], object], path: Path, what: str) -> None:
    found: Exception | None = None
    try:
        load(str(path))
    except Exception as error:  # of whatever kind, to tell of which file it is
        found = error
    assert isinstance(found, WeightsError | ConfigError), f"{what}: {found!r}"
    assert str(path) in str(found), f"{what}: {found}"
    assert len(str(found)) < 3000, what


@pytest.mark.parametrize("name", LOADERS)
def test_files_that_are_damaged_are_refused(name: str, tmp_path: Path) -> None:
    loader = LOADERS[name]
    state = loader.state()
    for path in broken_files(tmp_path, save(state)):
        refuses(loader.load, path, f"{name}: {path.name}")
    refuses(loader.load, tmp_path / "absent.pth", f"{name}: absent")
    (tmp_path / "folder").mkdir()
    refuses(loader.load, tmp_path / "folder", f"{name}: an empty folder")
    for what, value in {"list": [1, 2], "number": 3, "text": {"a": "b"}, "none": None, "nothing": {}}.items():
        torch.save(value, tmp_path / "odd.pth")
        refuses(loader.load, tmp_path / "odd.pth", f"{name}: {what}")


@pytest.mark.parametrize("name", LOADERS)
def test_incomplete_and_odd_tensors_are_refused(name: str, tmp_path: Path) -> None:
    loader = LOADERS[name]
    state: dict[str, Tensor] = {key: value.contiguous() for key, value in loader.state().items()}
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    loader.load(str(path))
    for what, changed in other_states(state, lacks=loader.lacks, odd=loader.odd):
        save_file(changed, path)
        refuses(loader.load, path, f"{name}: {what}")


@pytest.mark.parametrize("network", [V2, V3], ids=["DINOv2", "DINOv3"])
def test_damaged_exports_are_refused(network: VisionTransformer, tmp_path: Path) -> None:
    write_export(tmp_path / "good.safetensors", network, EXPORT)
    good = (tmp_path / "good.safetensors").read_bytes()
    for load in (backbone("curate"), load_source):
        for path in broken_files(tmp_path, good):
            if path.suffix == ".safetensors":
                refuses(load, path, path.name)


def test_damaged_heads_are_refused(tmp_path: Path) -> None:
    head = PrototypeHead(64, 30, hidden=20, bottleneck=8)
    state = {f"dino_head.{name}": value for name, value in head.state_dict().items()}
    write_heads(tmp_path / "heads.safetensors", state, describe_heads(state, where="test"))
    for path in broken_files(tmp_path, (tmp_path / "heads.safetensors").read_bytes()):
        refuses(read_heads, path, path.name)


@pytest.mark.parametrize("model", ["lite0", "sscd"])
def test_other_loaders_refuse_damaged_files(model: str, tmp_path: Path) -> None:
    for path in broken_files(tmp_path, save(dict(V2.state_dict()))):
        refuses(backbone(model), path, f"{model}: {path.name}")
