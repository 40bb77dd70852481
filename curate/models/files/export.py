"""Exports of the trainer: one .safetensors that explains itself.

The metadata key `curate` holds JSON: the architecture (`vit`, a ViT's fields, with torch.hub's names in the file; or
`tower`, a timm model with timm's), the preprocessing, where the weights come from, and the timm architecture that
equals it. timm reads the file too:

    timm.create_model(ARCHITECTURE, pretrained=True, pretrained_cfg_overlay={"file": PATH}, **KWARGS)

with the two values from the metadata. Outputs are equal at the stored image size; at others timm resamples a ViT's
positions in its own way.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from torch import Tensor, nn

from curate.config import Settings
from curate.errors import WeightsError
from curate.models.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD, ModelInfo
from curate.models.files import formats
from curate.models.files.publish import read_description, save_tensors
from curate.models.files.state_dict import StateDict, fill, read_state_dict
from curate.models.files.weights import find_weight_file, locate
from curate.models.nets.config import TowerConfig, ViTConfig
from curate.models.nets.tower import TimmTower
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.preprocess import Preprocess

MODELS = ("curate",)
HOWTO = "set `weights` to the .safetensors that the trainer exported"


class ExportInfo(Settings):
    """What an export says of itself besides its architecture."""

    image_size: int = Field(ge=1)
    """Side of the square pictures it embeds, pixels."""
    short_edge: int = Field(ge=1)
    """Short edge before the centre crop, pixels."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    """How pictures are resized."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of RGB in 0..1, subtracted."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Of RGB in 0..1, divided by."""
    licence: str = "yours: trained on your own data"
    """Shown beside the model."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """How it came about: objective, steps, data, version; JSON-ready."""


Config = ViTConfig | TowerConfig
"""An architecture that can be trained and exported."""
Trained = VisionTransformer | TimmTower
"""A network of such an architecture."""


def write_export(path: str | Path, backbone: Trained, info: ExportInfo) -> Path:
    """Write the weights under a temporary name, then publish them under `path`.

    Raises:
        WeightsError: `path` is not a .safetensors.
    """
    return save_tensors(Path(path), weights_of(backbone), description(backbone.config, info))


def description(config: Config, info: ExportInfo) -> dict[str, Any]:
    """The metadata of an export, JSON-ready."""
    architecture, kwargs = timm_equivalent(config)
    return {
        "vit" if isinstance(config, ViTConfig) else "tower": config.model_dump(mode="json"),
        "export": info.model_dump(mode="json"),
        "timm": {"architecture": architecture, "kwargs": kwargs},
    }


def weights_of(backbone: Trained) -> StateDict:
    """The tensors of an export: of a ViT in torch.hub's names, of a tower in timm's."""
    return dict((backbone.net if isinstance(backbone, TimmTower) else backbone).state_dict())


def read_export(path: str | Path) -> tuple[Config, StateDict, ExportInfo]:
    """Architecture, weights (see `weights_of`), and description; `curate export` keeps them in other names too.

    Raises:
        WeightsError: missing, damaged, or no export of this trainer.
    """
    config, info = read_header(path)
    state = read_state_dict(path)
    return config, state if isinstance(config, TowerConfig) else formats.to_hub(state, where=str(path)), info


def read_header(path: str | Path) -> tuple[Config, ExportInfo]:
    """Architecture and description, without reading the weights; errors as in `read_export`."""
    file = find_weight_file(path)
    described = read_description(file, needed=f"not an export of `curate train`; {HOWTO}")
    if "heads" in described:
        raise WeightsError(f"{path}: holds projection heads; give the backbone.safetensors beside it")
    try:
        info = ExportInfo.model_validate(described["export"])
        if "tower" in described:
            return TowerConfig.model_validate(described["tower"]), info
        return ViTConfig.model_validate(described["vit"]), info
    except (KeyError, ValidationError) as error:
        raise WeightsError(
            f"{path}: its metadata do not fit this version ({str(error).splitlines()[0]}); export it again"
        ) from error


def build_trained(config: Config, state: Mapping[str, Tensor] | None = None, *, where: str = "weights") -> Trained:
    """A network of this architecture with the weights of an export; None: fresh ones.

    Raises:
        WeightsError: the weights are another architecture's.
    """
    network = VisionTransformer(config) if isinstance(config, ViTConfig) else TimmTower(config)
    if state is not None:
        fill(network.net if isinstance(network, TimmTower) else network, state, where=where)
    return network


def timm_equivalent(config: Config) -> tuple[str, dict[str, Any]]:
    """timm's architecture and keyword arguments that compute the same, for a ViT at the stored image size."""
    if isinstance(config, TowerConfig):
        return config.name, {**config.kwargs, "num_classes": 0}
    size = "giant" if config.ffn == "swiglu" else "small"
    registers = "_reg4" if config.num_registers else ""
    kwargs: dict[str, Any] = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.in_channels,
        "embed_dim": config.dim,
        "depth": config.depth,
        "num_heads": config.heads,
        "num_classes": 0,
        "dynamic_img_size": True,
    }
    # Half a unit more, since timm takes int(dim * ratio); SwiGLU counts gate and value together.
    width = 2 * config.hidden if config.ffn == "swiglu" else config.hidden
    kwargs["mlp_ratio"] = (width + 0.5) / config.dim
    if config.num_registers:
        kwargs["reg_tokens"] = config.num_registers
    return f"vit_{size}_patch14{registers}_dinov2", kwargs


def to_timm(path: str | Path) -> nn.Module:
    """The export as a timm model with equal outputs at its image size; its forward gives the pooled vector."""
    import timm

    config, state, _ = read_export(path)
    architecture, kwargs = timm_equivalent(config)
    model = timm.create_model(architecture, **kwargs)
    fill(model, formats.to_timm(state) if isinstance(config, ViTConfig) else state, where=str(path))
    return model


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`.

    Raises:
        WeightsError: no weights given, since they alone tell the architecture.
    """
    if weights is None:
        raise WeightsError(f"{model}: no weights given; {HOWTO}")
    file = locate(weights, None, model=model, fetch=fetch, howto=HOWTO)
    if file is None:
        raise WeightsError(f"{model}: {weights} is not downloaded yet; {HOWTO}")
    config, export = read_header(file)
    preprocess = Preprocess(
        size=export.image_size,
        resize="short_edge_crop",
        short_edge=export.short_edge,
        interpolation=export.interpolation,
        mean=export.mean,
        std=export.std,
    )
    return ModelInfo(
        model=model,
        dim=config.dim,
        licence=export.licence,
        preprocess=preprocess,
        how_to_get=HOWTO,
        weights=file,
    )


def build(info: ModelInfo) -> nn.Module:
    """The backbone with its weights."""
    file = info.weights_file()
    config, state, _ = read_export(file)
    return build_trained(config, state, where=f"{info.model}: {file}")
