"""Files of projection heads, which continued pretraining and distillation start from.

Ours is a .safetensors beside the export of the backbone, in the names of the trainer's networks:

    dino_head.mlp.{0,2,4}.{weight,bias}
    dino_head.last_layer.direction   (prototypes, bottleneck)
    dino_head.last_layer.scale       (prototypes, 1); a prototype is scale * direction / |direction|

and the same under `ibot_head.` where the heads are not tied. The training checkpoints of DINOv2's authors are read
too, in the names of both implementations of torch's weight norm.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from curate.config import Settings
from curate.errors import WeightsError
from curate.models.files.description import problems, read_description, save_tensors
from curate.models.files.state_dict import StateDict, check_names, read_state_dict
from curate.models.files.weights import find_weight_file

SCALE, DIRECTION = ".last_layer.scale", ".last_layer.direction"
WEIGHT_NORM_NAMES = ((".last_layer.weight_g", SCALE), (".last_layer.weight_v", DIRECTION))
"""Endings of names under torch.nn.utils.weight_norm, which the training checkpoints have, and ours."""
PARAMETRIZED_NAMES = (
    (".last_layer.parametrizations.weight.original0", SCALE),
    (".last_layer.parametrizations.weight.original1", DIRECTION),
)
"""The same for torch.nn.utils.parametrizations.weight_norm."""


class HeadsInfo(Settings):
    """What a file of heads says of itself; all its heads have one shape."""

    dim: int = Field(ge=1)
    """Width of the backbone's tokens."""
    hidden: int = Field(ge=1)
    """Width of the two hidden layers."""
    bottleneck: int = Field(ge=1)
    """Width of the unit vectors that are compared with prototypes."""
    prototypes: int = Field(ge=1)
    """Number of prototypes, and so of scores, of each head."""
    names: tuple[str, ...]
    """`dino_head` for the cls token and, unless tied, `ibot_head` for patches."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """How they were trained; JSON-ready."""

    @field_validator("names")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("a file of heads holds at least one")
        return tuple(sorted(names))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor in the file, by name."""
        widths = {"mlp.0": (self.dim, self.hidden), "mlp.2": (self.hidden, self.hidden)}
        widths["mlp.4"] = (self.hidden, self.bottleneck)
        shapes: dict[str, tuple[int, ...]] = {}
        for name in self.names:
            for layer, (fan_in, fan_out) in widths.items():
                shapes |= {f"{name}.{layer}.weight": (fan_out, fan_in), f"{name}.{layer}.bias": (fan_out,)}
            shapes |= {name + DIRECTION: (self.prototypes, self.bottleneck), name + SCALE: (self.prototypes, 1)}
        return shapes


def pick_heads(state: Mapping[str, Tensor]) -> StateDict:
    """The heads among the tensors of a student or teacher: all networks that end in prototypes."""
    names = {key.removesuffix(DIRECTION) for key in state if key.endswith(DIRECTION)}
    return {key: value for key, value in state.items() if key.partition(".")[0] in names}


def describe_heads(state: Mapping[str, Tensor], *, provenance: dict[str, Any] | None = None, where: str) -> HeadsInfo:
    """Sizes and names of heads, read from their tensors.

    Raises:
        WeightsError: no heads, or other layers than those of the trainer's head.
    """
    names = sorted(key.removesuffix(DIRECTION) for key in state if key.endswith(DIRECTION))
    first = state.get(f"{names[0]}.mlp.0.weight") if names else None
    if first is None:
        raise WeightsError(
            f"{where}: no projection heads; needed are dino_head.mlp.0.weight, dino_head{DIRECTION} and so on"
        )
    directions = state[names[0] + DIRECTION]
    if first.ndim != 2 or directions.ndim != 2:
        raise WeightsError(f"{where}: {names[0]} has no matrices as layers; is it another model's file?")
    prototypes, bottleneck = directions.shape
    info = HeadsInfo(
        dim=first.shape[1],
        hidden=first.shape[0],
        bottleneck=bottleneck,
        prototypes=prototypes,
        names=tuple(names),
        provenance=provenance or {},
    )
    check_names(state, info.shapes, where=where, owner="three-layer heads of one shape")
    return info


def write_heads(path: str | Path, state: Mapping[str, Tensor], info: HeadsInfo) -> Path:
    """Write the heads as a .safetensors.

    Args:
        state: exactly the tensors that `info.shapes` names; `pick_heads` takes them out of a network's.

    Raises:
        WeightsError: `path` is not a .safetensors, or `state` is not what `info` describes.
    """
    check_names(state, info.shapes, where=str(path), owner="what HeadsInfo describes")
    return save_tensors(Path(path), state, {"heads": info.model_dump(mode="json")})


def read_heads(path: str | Path) -> tuple[HeadsInfo, StateDict]:
    """Description and tensors of a heads file, or of a training checkpoint of DINOv2's authors.

    Raises:
        WeightsError: missing, damaged, or without heads.
    """
    file = find_weight_file(path)
    if file.suffix != ".safetensors":
        state = pick_heads(from_hub_heads(read_state_dict(file)))
        return describe_heads(state, where=str(file)), state
    described = read_description(file, needed="not a heads file of `curate train`, which writes heads.safetensors")
    try:
        info = HeadsInfo.model_validate(described["heads"])
    except KeyError as error:
        raise WeightsError(f"{file}: holds no heads; give the heads.safetensors beside the backbone") from error
    except ValidationError as error:
        raise WeightsError(
            f"{file}: its metadata do not fit this version ({problems(error)}); export it again"
        ) from error
    state = read_state_dict(file)
    check_names(state, info.shapes, where=str(file), owner="its own description")
    return info, state


def score(state: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    """Scores that the head `name` gives tokens, as the trainer computes them: (M, dim) -> (M, prototypes)."""
    for layer in (0, 2):
        tokens = F.gelu(F.linear(tokens, state[f"{name}.mlp.{layer}.weight"], state[f"{name}.mlp.{layer}.bias"]))
    tokens = F.linear(tokens, state[f"{name}.mlp.4.weight"], state[f"{name}.mlp.4.bias"])
    return F.linear(F.normalize(tokens, dim=-1), state[name + SCALE] * F.normalize(state[name + DIRECTION], dim=1))


def to_hub_heads(state: Mapping[str, Tensor]) -> StateDict:
    """Heads in our names, in those of the training checkpoints of DINOv2's authors (weight_g and weight_v)."""
    return {_rename(key, {ours: theirs for theirs, ours in WEIGHT_NORM_NAMES}): value for key, value in state.items()}


def from_hub_heads(state: Mapping[str, Tensor]) -> StateDict:
    """Heads in the names of torch's weight norm, old or new, in ours; other names stay."""
    return {_rename(key, dict(WEIGHT_NORM_NAMES + PARAMETRIZED_NAMES)): value for key, value in state.items()}


def _rename(key: str, endings: Mapping[str, str]) -> str:
    for old, new in endings.items():
        if key.endswith(old):
            return key.removesuffix(old) + new
    return key
