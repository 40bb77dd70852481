"""Weights of DINOv2 ViTs in the names of torch.hub (ours), timm and Hugging Face; their safe reading."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from curate.errors import WeightsError

State = dict[str, Tensor]
Format = Literal["hub", "timm", "huggingface"]

WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training scripts put the weights in a torch file."""

HUGGINGFACE_NAMES = (
    ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("blocks.", "encoder.layer."),
    (".attn.proj.", ".attention.output.dense."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
    (".mlp.w12.", ".mlp.weights_in."),
    (".mlp.w3.", ".mlp.weights_out."),
)
"""Pieces of names, torch.hub's and Hugging Face's; qkv and the last norm are handled apart."""


def load_state(path: str | Path) -> State:
    """The tensors of a weight file on the CPU; nothing in the file is ever executed.

    Args:
        path: a .safetensors or torch file, or a Hugging Face folder that holds one.

    Raises:
        WeightsError: missing, damaged, or a pickle with more than tensors.
    """
    file = find_weight_file(path)
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file}: not a readable safetensors file: {error}") from error
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(
            f"{file}: cannot be read as a torch file of plain tensors ({_first_line(error)}); "
            "files that run code are refused: save the state_dict alone, or as .safetensors"
        ) from error
    return _unwrap(loaded, file)


def find_weight_file(path: str | Path) -> Path:
    """The file that holds the weights: `path` itself, or the one inside a Hugging Face folder.

    Raises:
        WeightsError: there is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(f"{path}: no such weight file")
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return path / name
    raise WeightsError(f"{path}: a folder without model.safetensors or pytorch_model.bin")


def _unwrap(loaded: object, file: Path) -> State:
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{file}: holds a {type(loaded).__name__}, a state_dict (name to tensor) is needed")
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{file}: not a state_dict: {_some(others)} are no tensors")
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def detect_format(keys: Iterable[str], *, where: str = "weights") -> Format:
    """Whose names these are, for a DINOv2 ViT.

    Raises:
        WeightsError: nobody's.
    """
    names = {key.removeprefix("dinov2.").removeprefix("dinov2_with_registers.") for key in keys}
    if "embeddings.cls_token" in names:
        return "huggingface"
    if "cls_token" in names and "patch_embed.proj.weight" in names:
        if "mask_token" in names or "register_tokens" in names:
            return "hub"
        return "hub" if any(".mlp.w12." in name for name in names) else "timm"
    raise WeightsError(
        f"{where}: not the weights of a DINOv2 ViT; found names such as {_some(sorted(names))}; "
        "needed are those of torch.hub (cls_token, mask_token, blocks.0.norm1.weight), timm or Hugging Face"
    )


def to_hub(state: Mapping[str, Tensor], *, where: str = "weights") -> State:
    """Any of the three formats in torch.hub's names; a missing mask_token (timm has none) becomes zeros.

    Of a training checkpoint of DINOv2's authors the backbone is taken.

    Raises:
        WeightsError: the format is none of the three.
    """
    state = _take_backbone(state)
    found = detect_format(state, where=where)
    if found == "timm":
        return _timm_to_hub(state)
    if found == "huggingface":
        return _huggingface_to_hub(state, where=where)
    return dict(state)


def _take_backbone(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A training checkpoint has names `backbone.*` beside its heads, and blocks in chunks: `blocks.CHUNK.BLOCK.*`."""
    inner = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    chunked = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
    return {chunked.sub("blocks.", key): value for key, value in (inner or state).items()}


def _timm_to_hub(state: Mapping[str, Tensor]) -> State:
    """Undo timm's renames; its register models fold the position of cls into cls_token."""
    swiglu = _is_packed_swiglu(state)
    hub = {_swap_ffn(key, to_timm=False) if swiglu else key: value for key, value in state.items()}
    registers = hub.pop("reg_token", None)
    if registers is not None:
        hub["register_tokens"] = registers
        hub["pos_embed"] = torch.cat([torch.zeros_like(hub["cls_token"]), hub["pos_embed"]], dim=1)
    hub["mask_token"] = torch.zeros_like(hub["cls_token"][0])
    return {key: value for key, value in hub.items() if not key.startswith("head.")}


def to_timm(state: Mapping[str, Tensor]) -> State:
    """torch.hub's names to timm's `vit_*_patch14[_reg4]_dinov2`; timm keeps no mask_token."""
    swiglu = any(".mlp.w12." in key for key in state)
    timm = {_swap_ffn(key, to_timm=True) if swiglu else key: value for key, value in state.items()}
    timm.pop("mask_token", None)
    registers = timm.pop("register_tokens", None)
    if registers is not None:
        timm["reg_token"] = registers
        timm["cls_token"] = timm["cls_token"] + timm["pos_embed"][:, :1]
        timm["pos_embed"] = timm["pos_embed"][:, 1:]
    return timm


def _is_packed_swiglu(state: Mapping[str, Tensor]) -> bool:
    first, second = state["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc2.weight"]
    return first.shape[0] == 2 * second.shape[1]


def _swap_ffn(key: str, *, to_timm: bool) -> str:
    pairs = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
    for hub, timm in pairs:
        key = key.replace(hub, timm) if to_timm else key.replace(timm, hub)
    return key


def _huggingface_to_hub(state: Mapping[str, Tensor], *, where: str) -> State:
    names = {key.removeprefix("dinov2.").removeprefix("dinov2_with_registers."): key for key in state}
    hub: State = {}
    for name, key in names.items():
        if name.startswith("classifier."):
            continue
        split = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", name)
        if split:
            parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            missing = [part for part in parts if part not in names]
            if missing:
                raise WeightsError(f"{where}: {_some(missing)} missing beside {name}")
            hub[f"blocks.{split[1]}.attn.qkv.{split[2]}"] = torch.cat([state[names[p]] for p in parts])
        elif ".attention.attention." not in name:
            hub[_rename_huggingface(name)] = state[key]
    if "mask_token" not in hub:
        hub["mask_token"] = torch.zeros_like(hub["cls_token"][0])
    return hub


def _rename_huggingface(name: str) -> str:
    if name.startswith("layernorm."):
        return name.replace("layernorm.", "norm.")
    for hub, theirs in HUGGINGFACE_NAMES:
        name = name.replace(theirs, hub)
    return name


def to_huggingface(state: Mapping[str, Tensor]) -> State:
    """torch.hub's names to those in the checkpoints of `Dinov2Model` and `Dinov2WithRegistersModel`."""
    theirs: State = {}
    for key, value in state.items():
        split = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key)
        if split:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs[f"encoder.layer.{split[1]}.attention.attention.{part}.{split[2]}"] = piece.clone()
            continue
        name = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        for hub, huggingface in HUGGINGFACE_NAMES:
            name = name.replace(hub, huggingface)
        theirs[name] = value
    return theirs


def fill(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load every tensor of `state` into `model`; both must hold the same names and shapes.

    Raises:
        WeightsError: names missing or unknown, or shapes that differ, with what was found and needed.
    """
    check_names(state, {key: tuple(value.shape) for key, value in model.state_dict().items()}, where=where)
    model.load_state_dict(dict(state))


def check_names(
    state: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], *, where: str, owner: str = "the model"
) -> None:
    """Refuse tensors that are not exactly those of `owner`.

    Raises:
        WeightsError: names missing or unknown, or shapes that differ, with what was found and needed.
    """
    problems = []
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{key} has {tuple(value.shape)}, {owner} needs {wanted[key]}"
        for key, value in state.items()
        if key in wanted and tuple(value.shape) != wanted[key]
    ]
    if missing:
        problems.append(f"missing {_some(missing)}")
    if unknown:
        problems.append(f"unknown {_some(unknown)}")
    problems += shapes[:3]
    if problems:
        raise WeightsError(f"{where}: does not fit {owner}: {'; '.join(problems)}; is it another model's file?")


def _some(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
