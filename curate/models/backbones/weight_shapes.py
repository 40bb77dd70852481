"""What names and shapes of a ViT's tensors tell of its architecture."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curate.config import parse
from curate.errors import ConfigError, WeightsError
from curate.models.nets.config import ViTConfig, vit_config

if TYPE_CHECKING:
    from torch import Tensor

HEAD_DIM = 64
"""Width of an attention head in nearly every released ViT."""


def checked_config(preset: str | None, fields: Mapping[str, Any], *, where: str) -> ViTConfig:
    """An architecture with fields that were read from a file.

    Args:
        preset: of which the fields are changes; None: they are the whole.

    Raises:
        WeightsError: one of them is out of its range.
    """
    try:
        return parse(ViTConfig, fields, where=where) if preset is None else vit_config(preset, **fields)
    except ConfigError as error:
        raise WeightsError(f"{where}: no DINOv2 or DINOv3 ViT: {error}") from error


def needed_shape(state: Mapping[str, "Tensor"], name: str, axes: int, *, where: str) -> tuple[int, ...]:
    """The shape of a tensor that every ViT has.

    Raises:
        WeightsError: it is missing, or has another number of axes.
    """
    if name not in state or state[name].ndim != axes:
        found = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
        raise WeightsError(
            f"{where}: not the weights of a DINOv2 or DINOv3 ViT: {name} {found}, {axes} axes are needed; is it "
            "another model's file, or a damaged one?"
        )
    return tuple(state[name].shape)


def depth_of(state: Mapping[str, "Tensor"]) -> int:
    """Number of blocks."""
    return len({key.split(".")[1] for key in state if key.startswith("blocks.")})
