"""Files of heads that score embeddings: those that are published for CLIP, and any with a declaration beside it.

| published as | layout | embeddings |
|---|---|---|
| improved-aesthetic-predictor | `layers.{0,2,4,6,7}`, no activations | CLIP ViT-L/14 |
| aesthetic-predictor | `weight`, `bias` | CLIP ViT-L/14 |
| CLIP-based-NSFW-Detector | `norm`, `linear_{1..4}`, ReLU, sigmoid | CLIP ViT-L/14 |
| the same | `norm`, `linear_{1..3}`, ReLU, sigmoid | CLIP ViT-B/32 |
| the same, `h14_nsfw.pth` | `layers.{0,3,6,9,12,15,16}`, ReLU | OpenCLIP ViT-H/14 |

Their files are `sac+logos+ava1-l14-linearMSE.pth`, `sa_0_4_vit_l_14_linear.pth` and
`clip_ViT-{L-14,B-32}_openai_binary_nsfw_head.pth`: torch files of plain tensors, or the same tensors as .safetensors.
Nothing in a file is executed. The older Keras form of the NSFW detector (a zip with a SavedModel) is not read. All of
them take vectors of unit length.

A head of one's own is a .safetensors or torch file with linear layers, and `NAME.safetensors.yaml` beside it:

    models: [dinov2_vits14]   # the embeddings that it takes
    layers: [fc1, fc2]        # names of its linear layers in order; default: by their names
    activation: relu          # after each layer but the last: none, relu, gelu
    output: sigmoid           # none, sigmoid, softmax
    take: 0                   # which value of the last layer is the score
    mean: norm.mean           # optional: tensors that are subtracted from vectors, and by whose root they are divided
    variance: norm.variance
    doc: probability of a watermark, 0..1
    license: MIT
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field

from curate.config import Settings
from curate.errors import WeightsError
from curate.models.files.declaration import declaration_path, read_declared
from curate.models.files.weights import find_weight_file
from curate.ops.screening.heads import Activation, Head, Layer, Output

if TYPE_CHECKING:
    from torch import Tensor

MAX_BYTES = 1 << 28
"""A larger file holds no head."""
VIT_L14 = ("open_clip/ViT-L-14:openai", "open_clip/ViT-L-14-quickgelu:openai")
VIT_B32 = ("open_clip/ViT-B-32:openai", "open_clip/ViT-B-32-quickgelu:openai")
VIT_H14 = ("open_clip/ViT-H-14:laion2b_s32b_b79k",)
SMALLEST_DEVIATION = 1e-10
"""Added to standard deviations, as the published heads do."""


class HeadDeclaration(Settings):
    """What a file of a head does not say of itself."""

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ids of the models whose embeddings it takes."""
    layers: tuple[str, ...] | None = None
    """Names of its linear layers, in order; null: all of them by their names, numbers in them as numbers."""
    activation: Activation = "none"
    """What follows each layer but the last."""
    output: Output = "none"
    """What the values of the last layer become."""
    take: Annotated[int, Field(ge=0)] = 0
    """Which of them is the score, from 0."""
    mean: str | None = None
    """Name of a tensor that is subtracted from vectors; null: nothing is."""
    variance: str | None = None
    """Name of a tensor by whose root they are divided then; null: they are not."""
    doc: str = "score of a head on embeddings"
    """What is measured, with its unit and range."""
    license: str | None = None
    """License of the head; null: unknown."""


@dataclass(frozen=True)
class ScoringHead:
    """A head, and what it is for."""

    head: Head
    models: tuple[str, ...]
    """Ids of the models whose embeddings it takes."""
    doc: str
    """What is measured."""


@dataclass(frozen=True)
class _Layout:
    """A published head."""

    layers: Mapping[str, tuple[int, int]]
    """By name of a linear layer, in order: values that it gives and takes."""
    activations: tuple[Activation, ...]
    models: tuple[str, ...]
    doc: str
    output: Output = "none"
    normalizes: bool = False

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, by name."""
        first = next(iter(self.layers.values()))[1]
        found: dict[str, tuple[int, ...]] = {}
        for name, (fan_out, fan_in) in self.layers.items():
            dot = "." if name else ""
            found |= {f"{name}{dot}weight": (fan_out, fan_in), f"{name}{dot}bias": (fan_out,)}
        return found | ({"norm.mean": (first,), "norm.variance": (first,)} if self.normalizes else {})


def _chain(names: list[str], widths: list[int]) -> dict[str, tuple[int, int]]:
    """Layers between these widths, each with its (out, in)."""
    return {name: (out, into) for name, (into, out) in zip(names, itertools.pairwise(widths), strict=True)}


AESTHETIC = "aesthetic quality as people rated it, about 1..10"
UNSAFE = "how likely it is not safe for work, 0..1"
_LINEAR = [f"linear_{number}" for number in range(1, 5)]
LAYOUTS = (
    _Layout(
        _chain([f"layers.{number}" for number in (0, 2, 4, 6, 7)], [768, 1024, 128, 64, 16, 1]),
        ("none",) * 5,
        VIT_L14,
        AESTHETIC,
    ),
    _Layout(_chain([""], [768, 1]), ("none",), VIT_L14, AESTHETIC),
    _Layout(
        _chain(_LINEAR, [768, 64, 512, 256, 1]),
        ("relu", "relu", "relu", "none"),
        VIT_L14,
        UNSAFE,
        output="sigmoid",
        normalizes=True,
    ),
    _Layout(
        _chain(_LINEAR[:3], [512, 32, 32, 1]),
        ("relu", "relu", "none"),
        VIT_B32,
        UNSAFE,
        output="sigmoid",
        normalizes=True,
    ),
    _Layout(
        _chain([f"layers.{number}" for number in (0, 3, 6, 9, 12, 15, 16)], [1024, 1024, 2048, 1024, 256, 128, 16, 1]),
        ("relu",) * 5 + ("none",) * 2,
        VIT_H14,
        "how likely it is not safe for work, about 0..1",
    ),
)


def read_scoring_head(path: str | Path) -> ScoringHead:
    """A head from its file, with the declaration beside it or in a published layout.

    Raises:
        WeightsError: missing, damaged, of a layout that is not known, or not what its declaration says.
    """
    from curate.models.files.state_dict import read_state_dict

    file = find_weight_file(path)
    if file.stat().st_size > MAX_BYTES:
        raise WeightsError(f"{file}: {file.stat().st_size:,} bytes; a head has at most {MAX_BYTES:,}")
    if file.suffix in (".zip", ".h5", ".keras", ".pb"):
        raise WeightsError(
            f"{file}: a Keras model is not read; give the head as .safetensors or as a torch state_dict: the models "
            "folder of CLIP-based-NSFW-Detector has them as .pth"
        )
    state = read_state_dict(file)
    declared = declaration_path(file)
    if declared.is_file():
        return _declared(state, read_declared(declared, HeadDeclaration), str(file))
    return _published(state, str(file))


class _Plan(NamedTuple):
    """Which tensors make a head, and how."""

    layers: tuple[str, ...]
    activations: tuple[Activation, ...]
    output: Output
    take: int = 0
    mean: str | None = None
    variance: str | None = None


def _published(state: "Mapping[str, Tensor]", where: str) -> ScoringHead:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    layout = next((one for one in LAYOUTS if one.shapes() == shapes), None)
    if layout is None:
        found = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:4])
        raise WeightsError(
            f"{where}: a head of no published layout ({found}, ...); say what it is in {Path(where).name}.yaml "
            "beside it, as curate/models/files/scoring_heads.py shows"
        )
    names = ("norm.mean", "norm.variance") if layout.normalizes else (None, None)
    plan = _Plan(tuple(layout.layers), layout.activations, layout.output, 0, *names)
    return ScoringHead(_build(state, plan, where), layout.models, layout.doc)


def _declared(state: "Mapping[str, Tensor]", given: HeadDeclaration, where: str) -> ScoringHead:
    names = tuple(_linear_layers(state)) if given.layers is None else given.layers
    activations = (given.activation,) * (len(names) - 1) + ("none",)
    plan = _Plan(names, activations, given.output, given.take, given.mean, given.variance)
    return ScoringHead(_build(state, plan, where), given.models, given.doc)


def _linear_layers(state: "Mapping[str, Tensor]") -> list[str]:
    """Names of all matrices, without their `weight`, numbers in them as numbers."""
    names = [name for name, tensor in state.items() if tensor.ndim == 2 and (name == "weight" or ".weight" in name)]
    found = [name.removesuffix("weight").removesuffix(".") for name in names]
    return sorted(found, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _build(state: "Mapping[str, Tensor]", plan: _Plan, where: str) -> Head:
    """The head that a plan says, checked to be one."""
    layers: list[Layer] = []
    for name, activation in zip(plan.layers, plan.activations, strict=False):
        layers.append(_layer(state, name, activation, where))
        before, weight = layers[-2].weight if len(layers) > 1 else layers[-1].weight.T, layers[-1].weight
        if len(before) != weight.shape[1]:
            raise WeightsError(f"{where}: layer {name} takes {weight.shape[1]} values, {len(before)} come before it")
    if not layers:
        raise WeightsError(f"{where}: no linear layers; name them in its declaration")
    if plan.take >= len(layers[-1].bias):
        raise WeightsError(f"{where}: take={plan.take}, but the last layer gives {len(layers[-1].bias)} values")
    dim = layers[0].weight.shape[1]
    mean, variance = (_of_length(state, name, dim, where) for name in (plan.mean, plan.variance))
    scale = None if variance is None else (1 / (np.sqrt(variance) + SMALLEST_DEVIATION)).astype(np.float32)
    return Head(tuple(layers), plan.output, plan.take, mean, scale)


def _layer(state: "Mapping[str, Tensor]", name: str, activation: Activation, where: str) -> Layer:
    dot = "." if name else ""
    weight = _tensor(state, f"{name}{dot}weight", 2, where)
    has_bias = f"{name}{dot}bias" in state
    bias = _tensor(state, f"{name}{dot}bias", 1, where) if has_bias else np.zeros(len(weight), np.float32)
    if bias.shape != weight.shape[:1]:
        raise WeightsError(f"{where}: layer {name} has {len(weight)} outputs and {len(bias)} biases")
    return Layer(weight, bias, activation)


def _of_length(state: "Mapping[str, Tensor]", name: str | None, dim: int, where: str) -> np.ndarray | None:
    """A tensor by which vectors are normalized; None: they are not."""
    tensor = None if name is None else _tensor(state, name, 1, where)
    if tensor is not None and len(tensor) != dim:
        raise WeightsError(f"{where}: {name} has {len(tensor)} values, the first layer takes {dim}")
    return tensor


def _tensor(state: "Mapping[str, Tensor]", name: str, ndim: int, where: str) -> np.ndarray:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != ndim or not tensor.is_floating_point():
        found = "there is none" if tensor is None else f"it is {tensor.dtype} {tuple(tensor.shape)}"
        raise WeightsError(f"{where}: {name}: numbers in {ndim} dimensions are needed, {found}")
    values: np.ndarray = tensor.float().numpy()
    if not np.isfinite(values).all():
        raise WeightsError(f"{where}: {name}: holds values that are no numbers; is the file damaged?")
    return np.ascontiguousarray(values)
