"""DINOv2's released backbones, from weights in torch.hub's, timm's or Hugging Face's format."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from curate.errors import WeightsError
from curate.models.backbones.weight_shapes import HEAD_DIM, checked_config, depth_of, needed_shape
from curate.models.conventions import CONVENTIONS, preprocess_of
from curate.models.files.weights import HubFile, locate
from curate.models.info import ModelInfo
from curate.models.nets.config import ViTConfig, vit_config

if TYPE_CHECKING:
    from torch import Tensor, nn

SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
"""Names of sizes in the ids of torch.hub, and in those of timm and our presets."""
MODELS = tuple(f"dinov2_vit{size}14{suffix}" for suffix in ("", "_reg") for size in SIZES)
FAMILY = "dinov2"


def canonical(model: str) -> str | None:
    """The torch.hub id of a model that may be called by its timm name; None: it is no DINOv2 model."""
    if model in MODELS:
        return model
    found = re.fullmatch(r"vit_(small|base|large|giant)_patch14(_reg4)?_dinov2(\.lvd142m)?", model)
    if found is None:
        return None
    return f"dinov2_vit{found[1][0]}14{'_reg' if found[2] else ''}"


def preset(model: str) -> str:
    """Name of our ViT preset for a torch.hub id."""
    size, registers = SIZES[model.removeprefix("dinov2_vit")[0]], model.endswith("_reg")
    return f"vit_{size}{'_reg4' if registers else ''}"


def timm_name(model: str) -> str:
    """Name of timm's architecture for a torch.hub id."""
    size, registers = SIZES[model.removeprefix("dinov2_vit")[0]], model.endswith("_reg")
    return f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`."""
    name = preset(model)
    hub = HubFile(f"timm/{timm_name(model)}.lvd142m", ("model.safetensors", "pytorch_model.bin"))
    howto = f"download {hub.url} (or torch.hub's or Hugging Face's file) and set `weights` to its path"
    return ModelInfo(
        model=model,
        dim=vit_config(name).dim,
        license="Apache-2.0",
        preprocess=preprocess_of(FAMILY),
        pooling=CONVENTIONS[FAMILY].pooling,
        how_to_get=howto,
        weights=locate(weights, hub, model=model, fetch=fetch, howto=howto),
    )


def outline(info: ModelInfo) -> "nn.Module":
    """See `load.outline`."""
    from curate.models.nets.vit import VisionTransformer

    return VisionTransformer(vit_config(preset(info.model)))


def build(info: ModelInfo) -> "nn.Module":
    """The ViT with its weights, and with as many positions as the file has.

    Raises:
        WeightsError: the file is another model's.
    """
    from curate.models.files.export import load_trained
    from curate.models.files.formats import to_hub
    from curate.models.files.state_dict import read_state_dict

    file = info.weights_file()
    where = f"{info.model}: {file}"
    state = to_hub(read_state_dict(file), where=where)
    config = checked_config(preset(info.model), {"image_size": 14 * stored_grid(state, where=where)}, where=where)
    return load_trained(config, state, where=where)


def stored_grid(state: Mapping[str, "Tensor"], *, where: str) -> int:
    """Patches along one side of the grid for which position embeddings are stored.

    Raises:
        WeightsError: the grid is not square.
    """
    patches = needed_shape(state, "pos_embed", 3, where=where)[1] - 1
    grid = math.isqrt(max(0, patches))
    if grid * grid != patches or not grid:
        raise WeightsError(f"{where}: position embeddings for {patches} patches, a square grid is needed")
    return grid


def config_from_weights(state: Mapping[str, "Tensor"], *, heads: int | None = None, where: str) -> ViTConfig:
    """The architecture of weights in torch.hub's names, read from their names and shapes.

    Args:
        heads: number of attention heads, which no shape shows; None: heads of 64 dims, as in every released model.

    Raises:
        WeightsError: the grid of positions is not square, or the width is no multiple of 64.
    """
    dim, channels, patch_size, _ = needed_shape(state, "patch_embed.proj.weight", 4, where=where)
    if heads is None and dim % HEAD_DIM:
        raise WeightsError(
            f"{where}: {dim} dims are no multiple of {HEAD_DIM}, so the number of attention heads is not known; "
            "give a Hugging Face folder with its config.json, or an export of `curate train`"
        )
    fields = {
        "dim": dim,
        "depth": depth_of(state),
        "heads": heads or dim // HEAD_DIM,
        "ffn": "swiglu" if "blocks.0.mlp.w12.weight" in state else "mlp",
        "num_registers": needed_shape(state, "register_tokens", 3, where=where)[1] if "register_tokens" in state else 0,
        "patch_size": patch_size,
        "image_size": patch_size * stored_grid(state, where=where),
        "in_channels": channels,
    }
    return checked_config(None, fields, where=where)
