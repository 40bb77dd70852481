"""Weights of DINOv2 ViTs in the names of torch.hub (which are ours), of timm and of Hugging Face; those of DINOv3 are
in `dinov3_names`.

The three hold the same numbers in different layouts. Where a plain renaming does not do:

| | torch.hub | timm | Hugging Face |
|---|---|---|---|
| qkv | one matrix | one matrix | query, key and value apart |
| SwiGLU | w12, w3 | fc1, fc2, as in an MLP | weights_in, weights_out |
| position of cls | in pos_embed | with registers added to cls_token | in position_embeddings |
| mask token | yes | no | yes |

An MLP and a packed SwiGLU have the same names in timm, and are told apart by their shapes: fc1 of SwiGLU makes twice
as many values as fc2 takes. `tests/models/files/test_formats.py` compares outputs in all three libraries.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from curate.errors import WeightsError, foreign_text
from curate.models.files import dinov3_names
from curate.models.files.state_dict import StateDict, abridged

logger = logging.getLogger(__name__)

StateDictFormat = Literal["hub", "timm", "huggingface", "dinov3", "dinov3 timm", "dinov3 huggingface"]

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
"""Parts of names, torch.hub's and Hugging Face's; qkv and the last norm are handled apart."""


PARTS = ("query", "key", "value")
LOCAL_NORM = ("local_cls_norm.weight", "local_cls_norm.bias")
"""Tensors that only a training reads, and for which neither timm nor Hugging Face has a place."""


def detect_format(keys: Iterable[str], *, where: str = "weights") -> StateDictFormat:
    """The format of the weights of a DINOv2 or DINOv3 ViT, by the names of its tensors.

    Raises:
        WeightsError: the names are of none of the formats.
    """
    names = {key.removeprefix("dinov2.").removeprefix("dinov2_with_registers.") for key in keys}
    if any(name.endswith("layer.0.attention.q_proj.weight") for name in names):
        return "dinov3 huggingface"
    if "embeddings.cls_token" in names:
        return "huggingface"
    if "cls_token" in names and "patch_embed.proj.weight" in names:
        if "storage_tokens" in names or dinov3_names.PERIODS in names:
            return "dinov3"
        if "blocks.0.gamma_1" in names:
            return "dinov3 timm"
        if "mask_token" in names or "register_tokens" in names:
            return "hub"
        return "hub" if any(".mlp.w12." in name for name in names) else "timm"
    raise WeightsError(
        f"{where}: not the weights of a DINOv2 or DINOv3 ViT; found names such as {abridged(sorted(names))}; needed "
        "are those of torch.hub (cls_token, mask_token, blocks.0.norm1.weight), timm or Hugging Face"
    )


def to_hub(state: Mapping[str, Tensor], *, where: str = "weights") -> StateDict:
    """Weights in any of the formats in our names, which are torch.hub's of DINOv2; a missing mask token (timm has none)
    becomes zeros.

    From a training checkpoint of DINOv2's or DINOv3's authors the backbone is taken. Of a classifier built on a
    backbone the last layer is left out, and the log says so; whatever else has no place is an error.

    Raises:
        WeightsError: the format is none of those, or tensors are missing or left over.
    """
    state = _without_classifier(_take_backbone(state), where=where)
    found = detect_format(state, where=where)
    try:
        converted = _CONVERSIONS[found](state, where=where)
    except (KeyError, IndexError, RuntimeError) as error:  # tensors that are missing, or do not go together
        raise WeightsError(
            f"{where}: not the weights of a ViT in the format of {found}: {foreign_text(error)}; is the file complete?"
        ) from error
    if found.startswith("dinov3"):  # a mask beside a bias says itself what counts of it
        unmasked = {key: value for key, value in converted.items() if f"{key}_mask" not in state}
        dinov3_names.check_key_biases(unmasked, where=where)
    return converted


def is_dinov3(state: Mapping[str, Tensor], *, where: str = "weights") -> bool:
    """Whether weights in any of the formats are of DINOv3 and not of DINOv2.

    Raises:
        WeightsError: the format is none of those.
    """
    return detect_format(_take_backbone(state), where=where).startswith("dinov3")


def check_names_tell(state: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse a ViT of timm's other than DINOv2 and DINOv3: names and shapes do not tell how it is computed.

    Raises:
        WeightsError: it is one.
    """
    scaled = any(".ls1." in name or name.endswith(".gamma_1") for name in state)
    if "blocks.0.norm1.weight" in state and not scaled:
        raise WeightsError(
            f"{where}: a ViT in timm's names without LayerScale, of which there are many kinds; give the id of its "
            "model, timm/NAME, and this file as init_weights"
        )


def _without_classifier(state: Mapping[str, Tensor], *, where: str) -> Mapping[str, Tensor]:
    left_out = [key for key in state if key.startswith(("head.", "classifier."))]
    if left_out:
        logger.info("%s: a classifier is left out: %s", where, abridged(left_out))
    return {key: value for key, value in state.items() if key not in left_out}


def _take_backbone(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The backbone in a training checkpoint, which calls it `backbone.*` and its blocks `blocks.CHUNK.BLOCK.*`."""
    inner = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    chunked = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
    return {chunked.sub("blocks.", key): value for key, value in (inner or state).items()}


def _timm_to_hub(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """Undo timm's names, and with registers give cls a position of zeros, since timm has added it to cls_token."""
    swiglu = is_packed_swiglu(state)
    hub = {swap_ffn(key, to_timm=False) if swiglu else key: value for key, value in state.items()}
    registers = hub.pop("reg_token", None)
    if registers is not None:
        hub["register_tokens"] = registers
        hub["pos_embed"] = torch.cat([torch.zeros_like(hub["cls_token"]), hub["pos_embed"]], dim=1)
    hub["mask_token"] = torch.zeros_like(hub["cls_token"][0])
    return hub


def to_timm(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in torch.hub's names, in those of timm's `vit_*_patch14[_reg4]_dinov2`."""
    swiglu = any(".mlp.w12." in key for key in state)
    timm = {swap_ffn(key, to_timm=True) if swiglu else key: value for key, value in state.items()}
    for name in ("mask_token", *LOCAL_NORM):
        timm.pop(name, None)
    registers = timm.pop("register_tokens", None)
    if registers is not None:
        timm["reg_token"] = registers
        timm["cls_token"] = timm["cls_token"] + timm["pos_embed"][:, :1]
        timm["pos_embed"] = timm["pos_embed"][:, 1:]
    return timm


def is_packed_swiglu(state: Mapping[str, Tensor]) -> bool:
    """Whether the feed-forward layers of a ViT in timm's names are SwiGLU, whose first matrix is two."""
    first, second = state["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc2.weight"]
    return first.shape[0] == 2 * second.shape[1]


def swap_ffn(key: str, *, to_timm: bool) -> str:
    """A name of a tensor of SwiGLU, timm's for torch.hub's or the other way round; others stay as they are."""
    pairs = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
    for hub, timm in pairs:
        key = key.replace(hub, timm) if to_timm else key.replace(timm, hub)
    return key


def _huggingface_to_hub(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    names = {key.removeprefix("dinov2.").removeprefix("dinov2_with_registers."): key for key in state}
    hub: StateDict = {}
    for name, key in names.items():
        split = re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.(weight|bias)", name)
        if split:
            parts = [name.replace(".query.", f".{part}.") for part in PARTS]
            missing = [part for part in parts if part not in names]
            if missing:
                raise WeightsError(f"{where}: {abridged(missing)} missing beside {name}")
            hub[f"blocks.{split[1]}.attn.qkv.{split[2]}"] = torch.cat([state[names[p]] for p in parts])
        elif ".attention.attention." not in name:
            hub[_rename_huggingface(name)] = state[key]
    _refuse_lone_parts(names, where=where)
    if "mask_token" not in hub:
        hub["mask_token"] = torch.zeros_like(hub["cls_token"][0])
    return hub


def _refuse_lone_parts(names: Collection[str], *, where: str) -> None:
    """Refuse keys and values whose queries are missing, since they are read together."""
    attention = ".attention.attention."
    read = {name.replace(".query.", f".{part}.") for name in names if ".query." in name for part in PARTS}
    lone = sorted(name for name in names if attention in name and name not in read)
    if lone:
        raise WeightsError(f"{where}: {abridged(lone)} without queries beside them; is the file complete?")


def _rename_huggingface(name: str) -> str:
    if name.startswith("layernorm."):
        return name.replace("layernorm.", "norm.")
    for hub, theirs in HUGGINGFACE_NAMES:
        name = name.replace(theirs, hub)
    return name


def to_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in torch.hub's names, in those of the checkpoints of `Dinov2Model` and `Dinov2WithRegistersModel`."""
    theirs: StateDict = {}
    for key, value in state.items():
        if key in LOCAL_NORM:
            continue
        split = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key)
        if split:
            for part, piece in zip(PARTS, value.chunk(3), strict=True):
                theirs[f"encoder.layer.{split[1]}.attention.attention.{part}.{split[2]}"] = piece.clone()
            continue
        name = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        for hub, huggingface in HUGGINGFACE_NAMES:
            name = name.replace(hub, huggingface)
        theirs[name] = value
    return theirs


_CONVERSIONS: Mapping[str, Callable[..., Any]] = {
    "hub": lambda state, **_: dict(state),
    "timm": _timm_to_hub,
    "huggingface": _huggingface_to_hub,
    "dinov3": dinov3_names.from_meta,
    "dinov3 timm": dinov3_names.from_timm,
    "dinov3 huggingface": dinov3_names.from_huggingface,
}
