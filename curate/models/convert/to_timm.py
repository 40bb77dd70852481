"""A .safetensors in timm's names, with architecture, license and provenance in its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from curate.models.convert.source import LoadedBackbone
from curate.models.convert.target import Forward, Options, Target, Tokens
from curate.models.files import dinov3_names, formats
from curate.models.files.description import save_tensors
from curate.models.files.header import describe_export, timm_equivalent, without_local_norm
from curate.models.nets.config import TowerConfig, ViTConfig
from curate.models.nets.tower import timm_features
from curate.models.nets.trained import inner


def write_timm(source: LoadedBackbone, path: Path, options: Options) -> None:
    """Write the tensors in timm's names, and in timm's layout: see `formats.to_timm` and `dinov3_names.to_timm`."""
    del options
    config, state = source.network.config, dict(inner(source.network).state_dict())
    if isinstance(config, ViTConfig):
        config = without_local_norm(config)
        if config.positions == "rotary":
            dinov3_names.check_key_biases(state, where=source.name)
        state = (dinov3_names if config.positions == "rotary" else formats).to_timm(state)
    save_tensors(path, state, describe_export(config, source.info))


def read_timm(source: LoadedBackbone, path: Path) -> Forward:
    """Load with `timm.create_model`, as `timm_howto` says."""
    config = source.network.config
    name, kwargs = timm_equivalent(config)
    token_size = config.token_size if isinstance(config, TowerConfig) else None  # ours resizes, timm's model does not
    net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=_overlay(path, kwargs), **kwargs).eval()

    def embed(images: Tensor) -> Tokens:
        found = timm_features(net, images, where=name, token_size=token_size)
        return Tokens(found.cls, found.patches)

    return embed


def _overlay(path: Path, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What timm is told of the file; left to itself, it drops a last layer of another width than it knows."""
    return {"file": str(path)} | ({"num_classes": kwargs["num_classes"]} if kwargs["num_classes"] else {})


def timm_howto(source: LoadedBackbone, path: Path) -> str:
    """The call that loads the file."""
    name, kwargs = timm_equivalent(source.network.config)
    told = "".join(f", {key}={value!r}" for key, value in json.loads(json.dumps(kwargs)).items())
    overlay = json.dumps(_overlay(path, kwargs))
    return f'timm.create_model("{name}", pretrained=True, pretrained_cfg_overlay={overlay}{told})'


TIMM = Target(suffix=".safetensors", write=write_timm, read=read_timm, howto=timm_howto)
