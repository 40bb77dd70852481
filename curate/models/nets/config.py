"""Architectures as configuration: what a network is built from, readable without torch."""

import difflib
import json
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from curate.config import Settings, parse
from curate.errors import ConfigError, foreign_text
from curate.models.nets.timm_arguments import check_arguments, check_name

DEFAULT_PATCH = 14
"""Side of a patch where a preset names none: DINOv2's."""

AxisRange = Annotated[FiniteFloat, Field(ge=1, le=1000)]
"""Largest factor r of coordinates; a factor is drawn log-uniformly between 1/r and r."""


class ViTConfig(Settings):
    """The architecture of a vision transformer of DINOv2 (learned positions) or DINOv3 (rotary ones)."""

    dim: int = Field(ge=1, le=16_384)
    """Width of a token."""
    depth: int = Field(ge=1, le=512)
    """Number of blocks."""
    heads: int = Field(ge=1, le=1024)
    """Attention heads; divides `dim`."""
    ffn: Literal["mlp", "swiglu"] = "mlp"
    """Feed-forward layer: an MLP with GELU, or SwiGLU."""
    ffn_hidden: int | None = Field(default=None, ge=1, le=65_536)
    """Width inside the feed-forward layer; null: 4 x dim, of SwiGLU 8/3 x dim, rounded up to a multiple of 8."""
    qkv_bias: Literal["full", "masked", "none"] = "full"
    """Bias of queries, keys and values: of all three, of all but the keys, whose third is held at 0, or none."""
    norm_eps: float = Field(default=1e-6, gt=0, le=1)
    """Added to the variance in every layer norm: 1e-6 in DINOv2, 1e-5 in DINOv3."""
    positions: Literal["learned", "rotary"] = "learned"
    """How patches know where they are: by stored embeddings that are added to them, or by rotations of queries and
    keys, which need no parameters."""
    rope_dtype: Literal["fp32", "bf16"] = "fp32"
    """Precision in which queries and keys are rotated; bf16 only in a bf16 forward pass."""
    rope_shift: float | None = Field(default=None, ge=0, le=1000)
    """In training, a shift of each axis is drawn from [-s, s], where the picture spans [-1, 1]; null: none."""
    rope_jitter: AxisRange | None = None
    """In training, a factor of each axis is drawn from 1/r to r; null: none."""
    rope_rescale: AxisRange | None = None
    """In training, a factor of both axes is drawn from 1/r to r: 2 in DINOv3; null: none."""
    local_norm: bool = False
    """Whether cls and registers of local crops have a final norm of their own, in training alone."""
    num_registers: int = Field(default=0, ge=0, le=1024)
    """Register tokens: extra tokens without position, which no output contains."""
    patch_size: int = Field(default=DEFAULT_PATCH, ge=1, le=1024)
    """Side of a patch, pixels."""
    image_size: int = Field(default=518, ge=1, le=16_384)
    """Side of the square images for whose grid of patches position embeddings are stored, pixels; released: 518. Rotary
    positions are the same at every size."""
    in_channels: int = Field(default=3, ge=1, le=64)
    """Color channels."""
    drop_path_rate: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Stochastic depth: the share of a batch that skips a residual branch in training, equal in all blocks."""
    layer_scale_init: FiniteFloat = 1e-5
    """Value that the factors of LayerScale start from."""
    interpolate_offset: FiniteFloat | None = None
    """Patches added to the side of the wanted grid in resampling positions; null: 0.1 without registers, else 0."""
    interpolate_antialias: bool | None = None
    """Whether the resampling of positions is antialiased; null: only with registers."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ViTConfig":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.positions == "rotary" and self.dim // self.heads % 4:
            raise ValueError(f"dim {self.dim} / heads {self.heads}: rotary positions need a multiple of 4")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side of the stored position embeddings."""
        return self.image_size // self.patch_size

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward layer."""
        if self.ffn_hidden is not None:
            return self.ffn_hidden
        if self.ffn == "mlp":
            return 4 * self.dim
        return (int(4 * self.dim * 2 / 3) + 7) // 8 * 8

    @property
    def resampling(self) -> tuple[float, bool]:
        """(offset in patches, antialias) of the resampling of positions, as in the released models."""
        offset, antialias = self.interpolate_offset, self.interpolate_antialias
        return (
            (0.0 if self.num_registers else 0.1) if offset is None else offset,
            self.num_registers > 0 if antialias is None else antialias,
        )


PRESETS: dict[str, dict[str, Any]] = {
    "vit_tiny": {"dim": 192, "depth": 12, "heads": 3},
    "vit_small": {"dim": 384, "depth": 12, "heads": 6},
    "vit_base": {"dim": 768, "depth": 12, "heads": 12},
    "vit_large": {"dim": 1024, "depth": 24, "heads": 16},
    "vit_giant": {"dim": 1536, "depth": 40, "heads": 24, "ffn": "swiglu"},
}
"""Sizes by name, as timm calls them; each also with four registers, and those of DINOv3."""
PRESETS |= {f"{name}_reg4": {**preset, "num_registers": 4} for name, preset in PRESETS.items()}

DINOV3: dict[str, Any] = {
    "patch_size": 16,
    "image_size": 256,
    "num_registers": 4,
    "positions": "rotary",
    "rope_rescale": 2.0,
    "qkv_bias": "masked",
    "norm_eps": 1e-5,
}
"""What the models of DINOv3 have in common. Source: Simeoni et al. 2025, arXiv:2508.10104, section 3 and appendix C."""
DINOV3_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3},
    "small": {"dim": 384, "depth": 12, "heads": 6},
    "small_plus": {"dim": 384, "depth": 12, "heads": 6, "ffn": "swiglu", "ffn_hidden": 1536},
    "base": {"dim": 768, "depth": 12, "heads": 12},
    "large": {"dim": 1024, "depth": 24, "heads": 16},
    "huge_plus": {"dim": 1280, "depth": 32, "heads": 20, "ffn": "swiglu", "ffn_hidden": 5120},
    "7b": {
        "dim": 4096,
        "depth": 40,
        "heads": 32,
        "ffn": "swiglu",
        "ffn_hidden": 8192,
        "qkv_bias": "none",
        "local_norm": True,
    },
}
"""Sizes of the released models, and `tiny`, which is not one of them."""
PRESETS |= {f"dinov3_{name}": DINOV3 | size for name, size in DINOV3_SIZES.items()}


def vit_config(name: str, **changes: Any) -> ViTConfig:
    """The preset `name` with fields changed.

    Raises:
        ConfigError: no such preset, or a field that does not fit.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(PRESETS)}"
        raise ConfigError(f"{name}: no such ViT preset; {hint}")
    return parse(ViTConfig, PRESETS[name] | changes, where=name)


class TowerConfig(Settings):
    """A timm architecture; `tower_config` makes one that is checked."""

    name: Annotated[str, AfterValidator(check_name)]
    """timm's name, without a pretrained tag."""
    token_size: int | None = Field(default=None, ge=1, le=1024)
    """Side in pixels of the patches to whose grid the last feature map is resized, so that a student has as many tokens
    as the ViT that it is distilled from; null: the map stays as it is."""
    outputs: int | None = Field(default=None, ge=1, le=16_384)
    """Width of a linear layer after pooling, timm's classifier, which vector and tokens go through, as CLIP's
    projection into the space of texts; null: none."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of the architecture, JSON-ready: those of `timm_arguments.py`; `drop_path_rate` is stochastic
    depth."""

    @model_validator(mode="after")
    def _takes_arguments(self) -> "TowerConfig":
        check_arguments(self.kwargs)
        return self

    @property
    def dim(self) -> int:
        """Width of the pooled vector and of a token; asks timm, which imports torch."""
        return self.outputs or _facts(self.name, json.dumps(self.kwargs))[0]

    @property
    def patch_size(self) -> int:
        """Side in pixels of what a token stands for; asks timm, which imports torch.

        Raises:
            ConfigError: the architecture does not tell.
        """
        side = self.token_size or _facts(self.name, json.dumps(self.kwargs))[1]
        if side is None:
            raise ConfigError(f"{self.name}: timm does not tell how many pixels a token stands for; set token_size")
        return side

    def create(self) -> Any:
        """The timm model with fresh weights from torch's global generator.

        Raises:
            ConfigError: timm has no such architecture, or does not build it with these arguments.
        """
        import timm  # only here: it takes seconds and 50 MB, and a ViT of ours needs none of it

        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "timm.list_models() has the names"
            raise ConfigError(f"{self.name}: timm has no such architecture; {hint}")
        try:
            return timm.create_model(self.name, num_classes=self.outputs or 0, **self.kwargs)
        except Exception as error:  # each architecture checks its arguments in its own way, or stumbles over them
            raise ConfigError(
                f"{self.name}: timm does not build it with {self.kwargs}: {foreign_text(error)}"
            ) from error


@lru_cache(maxsize=64)
def _facts(name: str, kwargs: str) -> tuple[int, int | None]:
    """Width of a token, and the pixels of its side where timm tells them."""
    import torch

    with torch.device("meta"):
        net = TowerConfig(name=name, kwargs=json.loads(kwargs)).create()
    stages = getattr(net, "feature_info", None)
    return int(net.num_features), int(stages[-1]["reduction"]) if stages else None


Architecture = ViTConfig | TowerConfig
"""What can be trained and exported."""
