"""Any timm model as an embedder: its pooled features, with its own preprocessing.

It is pooled as its authors do, where timm does otherwise: see `conventions.py`.
"""

import difflib
import logging
import math
import re
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from curate.errors import ConfigError, WeightsError
from curate.models.conventions import CONVENTIONS, timm_pooling
from curate.models.files import convnext_names
from curate.models.files.completeness import check_complete
from curate.models.files.state_dict import abridged, read_state_dict
from curate.models.files.weights import HubFile, locate
from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess

logger = logging.getLogger(__name__)

PREFIX = "timm/"
HUB_NAMES = ("model.safetensors", "pytorch_model.bin")


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`."""
    with torch.device("meta"):
        net = _create(model)
    released: dict[str, Any] = net.pretrained_cfg
    hub = HubFile(released["hf_hub_id"].removesuffix("/"), HUB_NAMES) if released.get("hf_hub_id") else None
    source = f"download {hub.url}" if hub else "get a checkpoint of this architecture"
    howto = f"{source} and set `weights` to its path"
    return ModelInfo(
        model=model,
        dim=net.head_hidden_size,
        license=released.get("license") or "unknown, see the model card",
        preprocess=_timm_preprocess(model, resolve_model_data_config(net)),
        how_to_get=howto,
        weights=locate(weights, hub, model=model, fetch=fetch, howto=howto),
        pooling=timm_pooling(model.removeprefix(PREFIX)).get("global_pool") or CONVENTIONS["timm"].pooling,
    )


def _create(model: str, **options: Any) -> Any:
    name = model.removeprefix(PREFIX)
    if re.fullmatch(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)?", name) is None or not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "timm.list_models() has the names"
        raise ConfigError(f"{model}: timm has no such model; {hint}")
    try:
        return timm.create_model(name, num_classes=0, **timm_pooling(name), **options)
    except RuntimeError as error:
        if "Invalid pretrained tag" not in str(error):
            raise
        raise ConfigError(f"{model}: {error}; known are: {', '.join(_tags(name))}") from error


def _tags(name: str) -> list[str]:
    return timm.list_pretrained(name.partition(".")[0] + ".*")


def _timm_preprocess(model: str, data: dict[str, Any]) -> Preprocess:
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(f"{model}: takes {channels} x {height} x {width}; square RGB input is needed")
    squash = data["crop_mode"] == "squash"
    return Preprocess(
        size=height,
        resize="square" if squash else "short_edge_crop",
        short_edge=height if squash else math.floor(height / data["crop_pct"]),
        interpolation="bicubic" if data["interpolation"] == "random" else data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def outline(info: ModelInfo) -> nn.Module:
    """See `load.outline`."""
    net: nn.Module = _create(info.model)
    return net


def build(info: ModelInfo) -> nn.Module:
    """The model with its weights, through timm's own conversion of foreign names.

    Raises:
        WeightsError: the file is another model's, or holds tensors that timm's model has no place for.
    """
    file = info.weights_file()
    with torch.device("meta"):
        classifier = _create(info.model).pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    found = read_state_dict(file)
    if convnext_names.is_huggingface(found):
        found = convnext_names.from_huggingface(found)
    state = {key: value for key, value in found.items() if not key.startswith(_under(heads))}
    if len(state) < len(found):
        logger.info("%s: a classifier is left out: %s", file, abridged(sorted(found.keys() - state.keys())))
    # Left to itself, timm drops the classifier and with it all strictness: missing weights would stay random.
    overlay = {"state_dict": state, "num_classes": 0, "classifier": None}
    try:
        net = _create(info.model, pretrained=True, pretrained_cfg_overlay=overlay)
    except (RuntimeError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{info.model}: {file}: does not fit the model: {reason}") from error
    check_complete(state, net.state_dict(), where=f"{info.model}: {file}", hint=_hint(info.model))
    return net


def _hint(model: str) -> str:
    """What to do about tensors that timm's model has no place for."""
    biased = model.partition(".")[0] + "_qkvb"
    if timm.is_model(biased.removeprefix(PREFIX)):
        return f"{biased} has biases of queries and values, and dinov3_vit... models have a place for all tensors"
    return ""


def _under(heads: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{head}." for head in heads)
