"""Weights of DINOv3 ViTs in our names, and in those of its authors, of timm and of Hugging Face.

Ours are those of DINOv2's torch.hub checkpoints (`formats.py`), without position embeddings. Where the others differ:

| | ours | DINOv3's authors | timm | Hugging Face |
|---|---|---|---|---|
| registers | register_tokens | storage_tokens | reg_token | embeddings.register_tokens |
| qkv weight | one matrix | one matrix | one matrix | q_proj, k_proj and v_proj apart |
| qkv bias | one vector | one vector, and bias_mask | q_bias and v_bias | biases of q_proj and v_proj |
| SwiGLU | w12 (gate, then value) and w3 | w1, w2 and w3 | fc1_g, fc1_x and fc2 | gate_, up_ and down_proj |
| MLP | fc1 and fc2 | fc1 and fc2 | fc1 and fc2 | up_proj and down_proj |
| norm of local crops | local_cls_norm | local_cls_norm | none | none |
| mask token | (1, D) | (1, D) | none | (1, 1, D) |
| rotary periods | none: a formula | rope_embed.periods | none | none |

The third of the keys in a qkv bias is held at 0. A file without qkv biases is a model without them: timm and Hugging
Face have such classes too. What only a training reads and a format has no place for becomes, when it is read back, what
a training starts it from: mask tokens are zeros, and a norm of local crops is gone.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from curate.errors import WeightsError
from curate.models.files.state_dict import StateDict, abridged
from curate.models.nets.rotary import periods

PERIODS = "rope_embed.periods"
BIAS_MASK = ".attn.qkv.bias_mask"
BIAS = ".attn.qkv.bias"
MAX_PERIODS = 4096
"""Periods of a head at most: a quarter of the widest that is built."""

TIMM_NAMES = (
    ("register_tokens", "reg_token"),
    (".ls1.gamma", ".gamma_1"),
    (".ls2.gamma", ".gamma_2"),
    (".mlp.w1.", ".mlp.fc1_g."),
    (".mlp.w2.", ".mlp.fc1_x."),
    (".mlp.w3.", ".mlp.fc2."),
)
"""Parts of names, ours (with the gated layer's first products apart) and timm's; qkv is handled apart."""
HUGGINGFACE_NAMES = (
    ("patch_embed.proj.", "embeddings.patch_embeddings."),
    ("cls_token", "embeddings.cls_token"),
    ("mask_token", "embeddings.mask_token"),
    ("register_tokens", "embeddings.register_tokens"),
    ("blocks.", "layer."),
    (".attn.proj.", ".attention.o_proj."),
    (".ls1.gamma", ".layer_scale1.lambda1"),
    (".ls2.gamma", ".layer_scale2.lambda1"),
    (".mlp.w1.", ".mlp.gate_proj."),
    (".mlp.w2.", ".mlp.up_proj."),
    (".mlp.w3.", ".mlp.down_proj."),
    (".mlp.fc1.", ".mlp.up_proj."),
    (".mlp.fc2.", ".mlp.down_proj."),
)
"""The same with Hugging Face's; of the names that mean two things there, the layer's kind decides."""


def from_meta(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """Weights in the names of DINOv3's authors, in ours.

    Raises:
        WeightsError: rotary periods or a mask of biases that are not DINOv3's, or a norm that our model has not.
    """
    ours = {key.replace("storage_tokens", "register_tokens"): value for key, value in state.items()}
    if PERIODS in ours:
        _check_periods(ours.pop(PERIODS), where=where)
    for name in [key for key in ours if key.endswith(BIAS_MASK)]:
        bias = name.removesuffix("_mask")
        mask = ours.pop(name)
        if _needed(ours, bias, where=where).shape == mask.shape:
            ours[bias] = torch.where(mask == 0, torch.zeros_like(ours[bias]), ours[bias])  # as the model itself does
        else:
            raise WeightsError(f"{where}: {name} has {tuple(mask.shape)}, {bias} another shape; is the file damaged?")
    return _pack_gates(ours, where=where)


def to_meta(state: Mapping[str, Tensor], *, head_dim: int) -> StateDict:
    """Weights in our names, in those of DINOv3's authors."""
    theirs: StateDict = {}
    for key, value in _unpack_gates(state).items():
        theirs[key.replace("register_tokens", "storage_tokens")] = value
        if key.endswith(BIAS):
            theirs[f"{key}_mask"] = _key_mask(value)
    return theirs | {PERIODS: periods(head_dim)}


def heads_of(state: Mapping[str, Tensor]) -> int | None:
    """Number of attention heads that a file of DINOv3's authors tells; None: it is none, or does not tell."""
    told, tokens = (next((v for k, v in state.items() if k.endswith(end)), None) for end in (PERIODS, "cls_token"))
    if told is None or tokens is None or not told.numel() or not tokens.ndim:
        return None
    return tokens.shape[-1] // (4 * told.numel()) or None


def _key_mask(bias: Tensor) -> Tensor:
    """Ones where the bias counts: everywhere in a model whose keys have learned one."""
    mask = torch.ones_like(bias)
    if not has_key_bias(bias):
        mask.chunk(3)[1].zero_()
    return mask


def has_key_bias(bias: Tensor) -> bool:
    """Whether the third of the keys in a qkv bias is not 0."""
    return bool(bias.chunk(3)[1].any())


def _check_periods(found: Tensor, *, where: str) -> None:
    """The released files hold them in bfloat16."""
    wanted = periods(4 * min(found.numel(), MAX_PERIODS))
    if found.shape != wanted.shape or not torch.allclose(found.float(), wanted, rtol=2**-7):
        told = ", ".join(f"{value:.3g}" for value in found.flatten()[:4].tolist())
        raise WeightsError(
            f"{where}: {PERIODS} of another base than 100 ({told}); such rotary positions are not implemented"
        )


def from_timm(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """Weights in the names of timm's `vit_*_patch16_dinov3`, in ours."""
    ours: StateDict = {}
    gated = any(".mlp.fc1_g." in key for key in state)
    for key, value in state.items():
        if key.endswith(".attn.v_bias"):
            continue  # joined with that of the queries
        if key.endswith(".attn.q_bias"):
            ours[key.replace(".attn.q_bias", BIAS)] = _join(state, key, ".q_bias", ".v_bias", where=where)
            continue
        pairs = [(theirs, mine) for mine, theirs in TIMM_NAMES if gated or theirs != ".mlp.fc2."]
        ours[_renamed(key, pairs)] = value
    _refuse_orphans(state, ".attn.v_bias", ".attn.q_bias", where=where)
    return _with_mask_token(_pack_gates(ours, where=where), where=where)


def to_timm(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in our names, in those of timm's `vit_*_patch16_dinov3[_qkvb]`."""
    theirs: StateDict = {}
    for key, value in _unpack_gates(state).items():
        if key == "mask_token" or key.startswith("local_cls_norm."):
            continue  # timm has no place for what only a training reads
        if key.endswith(BIAS):
            query, _, values = value.chunk(3)
            stem = key.removesuffix(BIAS)
            theirs |= {f"{stem}.attn.q_bias": query.clone(), f"{stem}.attn.v_bias": values.clone()}
            continue
        theirs[_renamed(key, TIMM_NAMES)] = value
    return theirs


def _renamed(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        key = key.replace(old, new)
    return key


def from_huggingface(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """Weights in the names of `DINOv3ViTModel`, of its released checkpoints or of its modules, in ours."""
    plain = {re.sub(r"^(model\.)+(?=layer\.)", "", key): value for key, value in state.items()}
    ffn = ".mlp.w" if any(".mlp.gate_proj." in key for key in plain) else ".mlp.fc"
    pairs = [(theirs, mine) for mine, theirs in HUGGINGFACE_NAMES if ".mlp." not in mine or mine.startswith(ffn)]
    ours: StateDict = {}
    for key, value in plain.items():
        part = re.fullmatch(r"layer\.(\d+)\.attention\.([qkv])_proj\.(weight|bias)", key)
        if part is None:
            ours[_renamed(key, pairs)] = value
        elif part[2] == "q" and part[3] == "weight":
            pieces = [_needed(plain, key.replace(".q_proj.", f".{kind}_proj."), where=where) for kind in "qkv"]
            ours[f"blocks.{part[1]}.attn.qkv.weight"] = torch.cat(pieces)
        elif part[2] == "q":
            ours[f"blocks.{part[1]}{BIAS}"] = _join(plain, key, ".q_proj.", ".v_proj.", where=where)
    _refuse_orphans(plain, ".attention.k_proj.bias", None, where=where)
    for kind in ("weight", "bias"):
        _refuse_orphans(plain, f".attention.v_proj.{kind}", f".attention.q_proj.{kind}", where=where)
    _refuse_orphans(plain, ".attention.k_proj.weight", ".attention.q_proj.weight", where=where)
    if "mask_token" in ours and ours["mask_token"].ndim == 3:
        ours["mask_token"] = ours["mask_token"].flatten(0, 1)
    if "register_tokens" in ours and not ours["register_tokens"].numel():
        del ours["register_tokens"]
    return _with_mask_token(_pack_gates(ours, where=where), where=where)


def to_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """Weights in our names, in those of the released checkpoints of `DINOv3ViTModel`."""
    theirs: StateDict = {}
    for key, value in _unpack_gates(state).items():
        if key.startswith("local_cls_norm."):
            continue  # no place for it
        split = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)", key)
        if split:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                if (part, split[2]) != ("k", "bias"):
                    theirs[f"layer.{split[1]}.attention.{part}_proj.{split[2]}"] = piece.clone()
            continue
        theirs[_renamed(key, HUGGINGFACE_NAMES)] = value.unsqueeze(0) if key == "mask_token" else value
    if "register_tokens" not in state:  # without registers they are an empty tensor there
        theirs["embeddings.register_tokens"] = state["cls_token"][:, :0].clone()
    return theirs


def check_key_biases(state: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse qkv biases whose third of the keys is not 0: timm and Hugging Face have no place for them.

    Raises:
        WeightsError: there is such a bias.
    """
    wrong = [key for key, value in state.items() if key.endswith(BIAS) and has_key_bias(value)]
    if wrong:
        raise WeightsError(
            f"{where}: a bias of the keys that is not 0, in {abridged(wrong)}; DINOv3 has none: is it another model's, "
            "or trained with model.qkv_bias=full?"
        )


def _pack_gates(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """w1 and w2 of SwiGLU layers as one matrix, w12."""
    packed = {key: value for key, value in state.items() if ".mlp.w1." not in key and ".mlp.w2." not in key}
    for key, value in state.items():
        if ".mlp.w1." in key:
            second = _needed(state, key.replace(".mlp.w1.", ".mlp.w2."), where=where)
            packed[key.replace(".mlp.w1.", ".mlp.w12.")] = torch.cat([value, second])
    _refuse_orphans(state, ".mlp.w2.weight", ".mlp.w1.weight", where=where)
    _refuse_orphans(state, ".mlp.w2.bias", ".mlp.w1.bias", where=where)
    return packed


def _unpack_gates(state: Mapping[str, Tensor]) -> StateDict:
    plain: StateDict = {}
    for key, value in state.items():
        if ".mlp.w12." in key:
            gate, values = value.chunk(2)
            plain |= {key.replace(".w12.", ".w1."): gate.clone(), key.replace(".w12.", ".w2."): values.clone()}
        else:
            plain[key] = value
    return plain


def _join(state: Mapping[str, Tensor], key: str, query: str, value: str, *, where: str) -> Tensor:
    """The qkv bias of those of queries and values, with zeros for the keys."""
    first, last = state[key], _needed(state, key.replace(query, value), where=where)
    return torch.cat([first, torch.zeros_like(first), last])


def _needed(state: Mapping[str, Tensor], key: str, *, where: str) -> Tensor:
    if key not in state:
        raise WeightsError(f"{where}: {key} is missing; is the file complete?")
    return state[key]


def _refuse_orphans(state: Mapping[str, Tensor], ending: str, partner: str | None, *, where: str) -> None:
    """Refuse tensors that are read together with another one, which is missing (`partner`), or not at all (None)."""
    lost = [key for key in state if key.endswith(ending)]
    if partner is not None:
        lost = [key for key in lost if key.removesuffix(ending) + partner not in state]
    if lost:
        beside = "no place for them in a DINOv3 ViT" if partner is None else f"no {partner.strip('.')} beside them"
        raise WeightsError(f"{where}: {abridged(lost)}: {beside}; is the file complete, or another model's?")


def _with_mask_token(state: StateDict, *, where: str) -> StateDict:
    if "mask_token" in state:
        return state
    return state | {"mask_token": torch.zeros_like(_needed(state, "cls_token", where=where).flatten(0, -2))}
