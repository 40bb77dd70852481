"""Plain ViTs in the names of Hugging Face's `ViTModel`: those of its `Dinov2Model` but for four, without LayerScale.

Source of the architecture: Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.errors import WeightsError
from curate.models.files.state_dict import StateDict, abridged

logger = logging.getLogger(__name__)

FAMILY = "vit"
"""Of `conventions.CONVENTIONS`."""
LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
NAMES = (
    (re.compile(r"(?<=\d)\.layernorm_before\."), ".norm1."),
    (re.compile(r"(?<=\d)\.layernorm_after\."), ".norm2."),
    (re.compile(r"(?<=\d)\.intermediate\.dense\."), ".mlp.fc1."),
    (re.compile(r"(?<=\d)\.output\.dense\."), ".mlp.fc2."),
)
"""Parts of names, `ViTModel`'s and `Dinov2Model`'s."""
PREFIX, HEADS = "vit.", ("pooler.", "classifier.")
"""What names begin with in a model with a classifier; and those of tensors after the last norm."""
NORM_EPS = 1e-12
"""Of the released models."""
RESAMPLING = {"interpolate_offset": 0.0, "interpolate_antialias": False}
"""How `ViTModel` resamples positions."""


def is_huggingface_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a `ViTModel`, alone or under a classifier."""
    return any(name.endswith("encoder.layer.0.layernorm_before.weight") for name in state)


def to_dinov2(state: Mapping[str, Tensor], *, where: str) -> StateDict:
    """The same weights in the names of `Dinov2Model`, with factors of LayerScale of 1, which change nothing.

    A pooler or classifier is left out, and the log says so.

    Raises:
        WeightsError: patch embedding or cls token are missing.
    """
    plain = {name.removeprefix(PREFIX): value for name, value in state.items()}
    left_out = sorted(name for name in plain if name.startswith(HEADS))
    if left_out:
        logger.info("%s: what follows the last norm is left out: %s", where, abridged(left_out))
    named = {_renamed(name): value for name, value in plain.items() if name not in left_out}
    if "embeddings.cls_token" not in named:
        raise WeightsError(f"{where}: not the weights of a ViT: embeddings.cls_token is missing; is the file complete?")
    dim = named["embeddings.cls_token"].shape[-1]
    layers = {match[0] for match in map(LAYER.match, named) if match is not None}
    for layer in layers:
        named |= {f"{layer}layer_scale{number}.lambda1": torch.ones(dim) for number in (1, 2)}
    return named


def _renamed(name: str) -> str:
    for theirs, other in NAMES:
        name = theirs.sub(other, name)
    return name


def constants(told: Mapping[str, Any], *, where: Path) -> dict[str, Any]:
    """Fields of our architecture that no shape shows.

    Args:
        told: the config.json of a Hugging Face folder; empty: there is none, and the released models' count.

    Raises:
        WeightsError: the epsilon of the layer norms is no small positive number.
    """
    eps = told.get("layer_norm_eps", NORM_EPS)
    if type(eps) not in (int, float) or not 0 < eps <= 1:
        raise WeightsError(f"{where}: layer_norm_eps is {str(eps)[:40]!r}, a number above 0 and up to 1 is needed")
    return {"norm_eps": eps, **RESAMPLING}
