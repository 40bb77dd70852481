"""Architectures as configuration: what a network is built from, readable without torch."""

import difflib
import json
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from curate.config import Settings, parse
from curate.errors import ConfigError, foreign_text
from curate.models.nets.timm_arguments import check_arguments, check_name

NORM_EPS = 1e-6
"""Added to the variance in every layer norm of a ViT."""


class ViTConfig(Settings):
    """The architecture of a DINOv2 vision transformer."""

    dim: int = Field(ge=1, le=16_384)
    """Width of a token."""
    depth: int = Field(ge=1, le=512)
    """Number of blocks."""
    heads: int = Field(ge=1, le=1024)
    """Attention heads; divides `dim`."""
    ffn: Literal["mlp", "swiglu"] = "mlp"
    """Feed-forward layer: an MLP of width 4 x dim with GELU, or SwiGLU of width 8/3 x dim, a multiple of 8."""
    num_registers: int = Field(default=0, ge=0, le=1024)
    """Register tokens: extra tokens without position, which no output contains."""
    patch_size: int = Field(default=14, ge=1, le=1024)
    """Side of a patch, pixels."""
    image_size: int = Field(default=518, ge=1, le=16_384)
    """Side of the square images for whose grid of patches position embeddings are stored, pixels; released: 518."""
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
        return self

    @property
    def grid(self) -> int:
        """Patches along one side of the stored position embeddings."""
        return self.image_size // self.patch_size

    @property
    def hidden(self) -> int:
        """Width inside the feed-forward layer."""
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
"""Sizes by name, as timm calls them; each also with four registers."""
PRESETS |= {f"{name}_reg4": {**preset, "num_registers": 4} for name, preset in PRESETS.items()}


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
        return _dim(self.name, json.dumps(self.kwargs))

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
            return timm.create_model(self.name, num_classes=0, **self.kwargs)
        except Exception as error:  # each architecture checks its arguments in its own way, or stumbles over them
            raise ConfigError(
                f"{self.name}: timm does not build it with {self.kwargs}: {foreign_text(error)}"
            ) from error


@lru_cache(maxsize=64)
def _dim(name: str, kwargs: str) -> int:
    import torch

    with torch.device("meta"):
        return TowerConfig(name=name, kwargs=json.loads(kwargs)).create().num_features


Architecture = ViTConfig | TowerConfig
"""What can be trained and exported."""
