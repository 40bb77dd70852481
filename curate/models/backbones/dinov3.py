"""DINOv3's released ViTs, from weights in the names of its authors, of timm or of Hugging Face.

Their license lets them be used under conditions of its own; none is bundled. Its ConvNeXts are in timm:
`timm/convnext_tiny.dinov3_lvd1689m` and so on.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from curate.errors import WeightsError
from curate.models.backbones.weight_shapes import HEAD_DIM, checked_config, depth_of, needed_shape
from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.files.weights import HubFile, locate
from curate.models.info import ModelInfo
from curate.models.nets.config import DINOV3, DINOV3_SIZES, ViTConfig, vit_config

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILY = "dinov3"
LICENSE = "DINOv3 License"
LICENSE_URL = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"


class Released(NamedTuple):
    """A released model under the names that it goes by."""

    size: str
    """Of our preset, and of timm's name."""
    timm: str
    """timm's name with its tag; the one with biases where there are two, since it alone can hold every tensor."""
    huggingface: str
    """Repository of its authors on the Hugging Face hub, which asks for an account."""
    family: str = "dinov3"
    """Of `conventions.CONVENTIONS`."""

    @property
    def preset(self) -> str:
        """Name of our ViT preset."""
        return f"dinov3_{self.size}"


def _released(size: str, letters: str, *, data: str = "lvd1689m") -> Released:
    biased = "" if size == "7b" else "_qkvb"
    family = "dinov3" if data == "lvd1689m" else "dinov3-satellite"
    hub = f"facebook/dinov3-vit{letters}16{'plus' if size.endswith('_plus') else ''}-pretrain-{data}"
    return Released(size, f"vit_{size}_patch16_dinov3{biased}.{data}", hub, family)


RELEASED = {
    "dinov3_vits16": _released("small", "s"),
    "dinov3_vits16plus": _released("small_plus", "s"),
    "dinov3_vitb16": _released("base", "b"),
    "dinov3_vitl16": _released("large", "l"),
    "dinov3_vitl16_sat493m": _released("large", "l", data="sat493m"),
    "dinov3_vith16plus": _released("huge_plus", "h"),
    "dinov3_vit7b16": _released("7b", "7b"),
    "dinov3_vit7b16_sat493m": _released("7b", "7b", data="sat493m"),
}
"""By the ids of torch.hub; those of satellite images are a choice of weights there."""
MODELS = tuple(RELEASED)


def canonical(model: str) -> str | None:
    """The torch.hub id of a model that may be called by its timm name; None: it is no released DINOv3 ViT."""
    if model in RELEASED:
        return model
    found = re.fullmatch(r"(vit_\w+?_patch16_dinov3)(?:_qkvb)?(?:\.(\w+))?", model)
    if found is None:
        return None
    for name, released in RELEASED.items():
        stem, _, tag = released.timm.partition(".")
        if stem.removesuffix("_qkvb") == found[1] and tag == (found[2] or "lvd1689m"):
            return name
    return None


def preset(model: str) -> str:
    """Name of our ViT preset for a torch.hub id."""
    return RELEASED[model].preset


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`."""
    released = RELEASED[model]
    hub = HubFile(f"timm/{released.timm}", ("model.safetensors", "pytorch_model.bin"))
    howto = (
        f"download {hub.url} (or its authors' file, or that of {released.huggingface}) and set `weights` to its path; "
        f"its license has conditions: {LICENSE_URL}"
    )
    return ModelInfo(
        model=model,
        dim=vit_config(released.preset).dim,
        license=LICENSE,
        preprocess=preprocess_of(released.family),
        how_to_get=howto,
        weights=locate(weights, hub, model=model, fetch=fetch, howto=howto),
        pooling=CONVENTIONS[released.family].pooling,
    )


def outline(info: ModelInfo) -> "nn.Module":
    """See `load.outline`."""
    from curate.models.nets.vit import VisionTransformer

    return VisionTransformer(vit_config(preset(info.model)))


def build(info: ModelInfo) -> "nn.Module":
    """The ViT with its weights; biases that a file lacks are those of a model without them.

    Raises:
        WeightsError: the file is another model's.
    """
    from curate.models.files.export import load_trained
    from curate.models.files.formats import is_dinov3, to_hub
    from curate.models.files.state_dict import read_state_dict

    file = info.weights_file()
    where = f"{info.model}: {file}"
    found = read_state_dict(file)
    if not is_dinov3(found, where=where):
        raise WeightsError(f"{where}: the weights of a DINOv2 ViT, DINOv3's are needed; is it another model's file?")
    state = to_hub(found, where=where)
    fields = {"qkv_bias": _bias(state), "local_norm": _has_local_norm(state)}
    return load_trained(checked_config(preset(info.model), fields, where=where), state, where=where)


def _bias(state: Mapping[str, "Tensor"]) -> str:
    from curate.models.files.dinov3_names import BIAS, has_key_bias

    biases = [value for name, value in state.items() if name.endswith(BIAS)]
    return "none" if not biases else "full" if any(map(has_key_bias, biases)) else "masked"


def _has_local_norm(state: Mapping[str, "Tensor"]) -> bool:
    return "local_cls_norm.weight" in state


def config_from_weights(state: Mapping[str, "Tensor"], *, heads: int | None = None, where: str) -> ViTConfig:
    """The architecture of weights in our names, read from their names and shapes.

    Args:
        heads: number of attention heads, which no shape shows; None: those of the released model of this width, else
            heads of 64 dims.

    Raises:
        WeightsError: a tensor is missing or of another shape, or the width is no multiple of 64.
    """
    dim, channels, patch_size, _ = needed_shape(state, "patch_embed.proj.weight", 4, where=where)
    known = {size["dim"]: size["heads"] for size in DINOV3_SIZES.values()}
    if heads is None and dim not in known and dim % HEAD_DIM:
        raise WeightsError(
            f"{where}: {dim} dims are no multiple of {HEAD_DIM}, so the number of attention heads is not known; "
            "give its authors' file, which tells it, a Hugging Face folder with its config.json, or an export of "
            "`curate train`"
        )
    gated = "blocks.0.mlp.w12.weight" in state
    inner = needed_shape(state, f"blocks.0.mlp.{'w3' if gated else 'fc2'}.weight", 2, where=where)
    fields = DINOV3 | {
        "dim": dim,
        "depth": depth_of(state),
        "heads": heads or known.get(dim) or dim // HEAD_DIM,
        "ffn": "swiglu" if gated else "mlp",
        "ffn_hidden": inner[1],
        "num_registers": needed_shape(state, "register_tokens", 3, where=where)[1] if "register_tokens" in state else 0,
        "patch_size": patch_size,
        "image_size": patch_size * (DINOV3["image_size"] // DINOV3["patch_size"]),
        "in_channels": channels,
        "qkv_bias": _bias(state),
        "local_norm": _has_local_norm(state),
    }
    return checked_config(None, fields, where=where)
