"""What an export of the trainer says of itself.

An export is one .safetensors. Its metadata key `curate` holds JSON: the architecture (`vit`, the fields of a ViT, whose
tensors have the names of its authors, DINOv2's or DINOv3's; or `tower`, a timm model with timm's names), the
preprocessing, where the weights come from, and the timm architecture that computes the same. timm reads the file too:

    timm.create_model(ARCHITECTURE, pretrained=True, pretrained_cfg_overlay={"file": PATH}, **KWARGS)

with ARCHITECTURE and KWARGS from the metadata. Outputs are equal at the stored image size; at others timm resamples the
positions of a DINOv2 ViT in its own way. A DINOv3 ViT without registers is converted first (`curate export --to timm`):
timm knows its authors' names by the registers.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, FiniteFloat, ValidationError

from curate.config import Settings
from curate.errors import WeightsError
from curate.models.files.description import problems, read_description
from curate.models.files.weights import find_weight_file
from curate.models.info import IMAGENET_MEAN, IMAGENET_STD
from curate.models.nets.config import Architecture, TowerConfig, ViTConfig
from curate.ops.images.preprocess import Preprocess

BACKBONE, HEADS = "backbone.safetensors", "heads.safetensors"
"""Names under which the trainer leaves its exports in a folder."""
HOWTO = "set `weights` to the .safetensors that the trainer exported"


Triple = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Positive = Annotated[FiniteFloat, Field(gt=0)]


class ExportInfo(Settings):
    """What an export says of itself besides its architecture."""

    image_size: int = Field(ge=1, le=4096)
    """Side of the square pictures that it embeds, pixels."""
    resize: Literal["short_edge_crop", "square"] = "short_edge_crop"
    """Whether the short edge is brought to `short_edge` and the center cropped, or the whole picture squeezed into the
    square."""
    short_edge: int = Field(ge=1, le=8192)
    """Short edge before the center crop, pixels; equals `image_size` for square."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    """How pictures are resized."""
    mean: Triple = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD
    """What RGB is divided by then."""
    license: str = Field(
        default="yours: trained on your own data",
        validation_alias=AliasChoices("license", "licence"),
        max_length=1000,
    )
    """Shown beside the model; files of earlier versions spell it `licence`."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """How it was trained: objective, steps, data, version; JSON-ready."""

    @property
    def preprocess(self) -> Preprocess:
        """How pictures are made for it."""
        return Preprocess(
            size=self.image_size,
            resize=self.resize,
            short_edge=self.short_edge,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )


def heads_beside(export: str) -> Path:
    """Where the heads of an export lie, which is a file or the folder that holds it."""
    path = Path(export)
    return (path.parent if path.is_file() or path.suffix == ".safetensors" else path) / HEADS


def describe_export(config: Architecture, info: ExportInfo) -> dict[str, Any]:
    """The metadata of an export, JSON-ready."""
    architecture, kwargs = timm_equivalent(config)
    return {
        "vit" if isinstance(config, ViTConfig) else "tower": config.model_dump(mode="json"),
        "export": info.model_dump(mode="json"),
        "timm": {"architecture": architecture, "kwargs": kwargs},
    }


def without_local_norm(config: ViTConfig) -> ViTConfig:
    """The architecture as timm and Hugging Face hold it: they have no place for what only a training reads."""
    return config.model_copy(update={"local_norm": False})


def read_header(path: str | Path) -> tuple[Architecture, ExportInfo]:
    """Architecture and description of an export, without its weights.

    Raises:
        WeightsError: missing, damaged, or no export of the trainer.
    """
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
            f"{path}: its metadata do not fit this version ({problems(error)}); export it again"
        ) from error


def timm_equivalent(config: Architecture) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of the timm model that computes the same, for a ViT at the stored image size."""
    if isinstance(config, TowerConfig):
        return config.name, {**config.kwargs, "num_classes": config.outputs or 0}
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
    return _timm_dinov3(config, kwargs) if config.positions == "rotary" else _timm_dinov2(config, kwargs)


def _timm_dinov2(config: ViTConfig, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    size = "giant" if config.ffn == "swiglu" else "small"
    registers = "_reg4" if config.num_registers else ""
    # Half a unit more, since timm takes int(dim * ratio); SwiGLU counts gate and value together.
    width = 2 * config.hidden if config.ffn == "swiglu" else config.hidden
    kwargs = kwargs | {"mlp_ratio": (width + 0.5) / config.dim}
    if config.num_registers:
        kwargs["reg_tokens"] = config.num_registers
    if config.qkv_bias == "none":
        kwargs["qkv_bias"] = False
    return f"vit_{size}_patch14{registers}_dinov2", kwargs


def _timm_dinov3(config: ViTConfig, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    gated = config.ffn == "swiglu"
    own = {
        "mlp_ratio": (config.hidden + 0.5) / config.dim,
        "swiglu_mlp": gated,
        "swiglu_align_to": int(gated),  # any width, and layers for gate and value apart
        "num_reg_tokens": config.num_registers,
        "global_pool": "token",  # timm averages the patches, DINOv3's authors take cls
    }
    biased = "" if config.qkv_bias == "none" else "_qkvb"
    return f"vit_small_patch16_dinov3{biased}", kwargs | own
