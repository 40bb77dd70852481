"""Files of projection heads, which continued pretraining and distillation start from.

Ours is a .safetensors beside the export of the backbone, in the names of the trainer's networks:

    dino_head.mlp.{0,2,4}.{weight,bias}
    dino_head.last_layer.direction   (prototypes, bottleneck)
    dino_head.last_layer.scale       (prototypes, 1); a prototype is scale * direction / |direction|

or, where the prototypes are the rows of a plain linear layer as in DINOv3, dino_head.last_layer.weight (prototypes,
bottleneck) in place of the last two; and the same under `ibot_head.` where the heads are not tied. Each head has its
own widths. The training checkpoints of DINOv2's authors are read too, in the names of both implementations of torch's
weight norm, and those with plain prototypes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field, ValidationError, field_validator, model_validator
from torch import Tensor

from curate.config import Settings
from curate.errors import WeightsError
from curate.models.files.description import problems, read_description, save_tensors
from curate.models.files.state_dict import StateDict, check_names, read_state_dict
from curate.models.files.weights import find_weight_file

SCALE, DIRECTION, WEIGHT = ".last_layer.scale", ".last_layer.direction", ".last_layer.weight"
WEIGHT_NORM_NAMES = ((".last_layer.weight_g", SCALE), (".last_layer.weight_v", DIRECTION))
"""Endings of names under torch.nn.utils.weight_norm, which the training checkpoints have, and ours."""
PARAMETRIZED_NAMES = (
    (".last_layer.parametrizations.weight.original0", SCALE),
    (".last_layer.parametrizations.weight.original1", DIRECTION),
)
"""The same for torch.nn.utils.parametrizations.weight_norm."""


class HeadShape(Settings):
    """The widths of a head, and what its prototypes are."""

    hidden: int = Field(ge=1)
    """Width of the two hidden layers."""
    bottleneck: int = Field(ge=1)
    """Width of the unit vectors that are compared with prototypes."""
    prototypes: int = Field(ge=1)
    """Number of prototypes, and so of scores."""
    last_layer: Literal["weight_norm", "linear"] = "weight_norm"
    """Prototypes as directions times scales (DINO, DINOv2), or as the rows of a linear layer (DINOv3)."""

    def tensors(self, name: str, dim: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the head `name` on tokens of width `dim`, by name."""
        widths = {"mlp.0": (dim, self.hidden), "mlp.2": (self.hidden, self.hidden)}
        widths["mlp.4"] = (self.hidden, self.bottleneck)
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (fan_in, fan_out) in widths.items():
            shapes |= {f"{name}.{layer}.weight": (fan_out, fan_in), f"{name}.{layer}.bias": (fan_out,)}
        rows = (self.prototypes, self.bottleneck)
        if self.last_layer == "linear":
            return shapes | {name + WEIGHT: rows}
        return shapes | {name + DIRECTION: rows, name + SCALE: (self.prototypes, 1)}


class HeadsInfo(Settings):
    """What a file of heads says of itself."""

    dim: int = Field(ge=1)
    """Width of the backbone's tokens."""
    heads: dict[str, HeadShape]
    """`dino_head` for the cls token and, unless tied, `ibot_head` for patches."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """How they were trained; JSON-ready."""

    @model_validator(mode="before")
    @classmethod
    def _of_one_shape(cls, given: Any) -> Any:
        """Files of earlier versions have names and one shape for all heads."""
        if not isinstance(given, Mapping) or not isinstance(given.get("names"), list | tuple):
            return given
        shape = {key: given[key] for key in ("hidden", "bottleneck", "prototypes") if key in given}
        rest = {key: value for key, value in given.items() if key not in shape and key != "names"}
        return rest | {"heads": {str(name): shape for name in given["names"]}}

    @field_validator("heads")
    @classmethod
    def _some(cls, heads: dict[str, HeadShape]) -> dict[str, HeadShape]:
        if not heads:
            raise ValueError("a file of heads holds at least one")
        return dict(sorted(heads.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the heads, sorted."""
        return tuple(self.heads)

    @property
    def prototypes(self) -> int:
        """Number of prototypes of the head for whole crops."""
        return self.heads.get("dino_head", next(iter(self.heads.values()))).prototypes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor in the file, by name."""
        return {key: size for name, shape in self.heads.items() for key, size in shape.tensors(name, self.dim).items()}


def _head_names(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the heads among some tensors: of the networks that end in prototypes."""
    return sorted({key.removesuffix(end) for key in state for end in (DIRECTION, WEIGHT) if key.endswith(end)})


def pick_heads(state: Mapping[str, Tensor]) -> StateDict:
    """The heads among the tensors of a student or teacher: all networks that end in prototypes."""
    names = set(_head_names(state))
    return {key: value for key, value in state.items() if key.partition(".")[0] in names}


def describe_heads(state: Mapping[str, Tensor], *, provenance: dict[str, Any] | None = None, where: str) -> HeadsInfo:
    """Sizes and names of heads, read from their tensors.

    Raises:
        WeightsError: no heads, or other layers than those of the trainer's head.
    """
    names = _head_names(state)
    first = state.get(f"{names[0]}.mlp.0.weight") if names else None
    if first is None:
        raise WeightsError(
            f"{where}: no projection heads; needed are dino_head.mlp.0.weight, dino_head{DIRECTION} and so on"
        )
    shapes = {name: _describe_head(state, name, where=where) for name in names}
    info = HeadsInfo(dim=first.shape[1], heads=shapes, provenance=provenance or {})
    check_names(state, info.shapes, where=where, owner="three-layer heads")
    return info


def _describe_head(state: Mapping[str, Tensor], name: str, *, where: str) -> HeadShape:
    linear = name + WEIGHT in state
    first, last = state.get(f"{name}.mlp.0.weight"), state[name + (WEIGHT if linear else DIRECTION)]
    if first is None or first.ndim != 2 or last.ndim != 2:
        raise WeightsError(f"{where}: {name} has no matrices as layers; is it another model's file?")
    return HeadShape(
        hidden=first.shape[0],
        bottleneck=last.shape[1],
        prototypes=last.shape[0],
        last_layer="linear" if linear else "weight_norm",
    )


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
    info, state = _read_info(file), read_state_dict(file)
    check_names(state, info.shapes, where=str(file), owner="its own description")
    return info, state


def read_heads_info(path: str | Path) -> HeadsInfo:
    """What `read_heads` describes, of a .safetensors without reading the tensors: its own word alone.

    Raises:
        WeightsError: missing, damaged, or without heads.
    """
    file = find_weight_file(path)
    return _read_info(file) if file.suffix == ".safetensors" else read_heads(file)[0]


def _read_info(file: Path) -> HeadsInfo:
    described = read_description(file, needed="not a heads file of `curate train`, which writes heads.safetensors")
    try:
        return HeadsInfo.model_validate(described["heads"])
    except KeyError as error:
        raise WeightsError(f"{file}: holds no heads; give the heads.safetensors beside the backbone") from error
    except ValidationError as error:
        raise WeightsError(
            f"{file}: its metadata do not fit this version ({problems(error)}); export it again"
        ) from error


def score(state: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    """Scores that the head `name` gives tokens, as the trainer computes them: (M, dim) -> (M, prototypes)."""
    for layer in (0, 2):
        tokens = F.gelu(F.linear(tokens, state[f"{name}.mlp.{layer}.weight"], state[f"{name}.mlp.{layer}.bias"]))
    tokens = F.linear(tokens, state[f"{name}.mlp.4.weight"], state[f"{name}.mlp.4.bias"])
    return F.linear(F.normalize(tokens, dim=-1), prototypes_of(state, name))


def prototypes_of(state: Mapping[str, Tensor], name: str) -> Tensor:
    """(prototypes, bottleneck) of the head `name`."""
    if name + WEIGHT in state:
        return state[name + WEIGHT]
    return state[name + SCALE] * F.normalize(state[name + DIRECTION], dim=1)


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
