"""Models of the registry, which embed, as networks that can be trained on.

Each gives, before the first iteration, what the registry's model gives:

| id | becomes |
|---|---|
| `dinov2_...`, `dinov3_...` | our ViT |
| `timm/NAME` | our ViT where it computes the same, see `own_vit.py`; else timm's model, in a tower |
| `open_clip/ARCH[:TAG]` | timm's model that computes the same, its projection as last layer, in a tower |
| `lite0` | timm's EfficientNet-Lite0, in a tower |

Others are made for embedding alone: functions of pixels, graphs, scripts.
"""

from typing import Any

import torch

from curate.errors import ConfigError, WeightsError
from curate.models.backbones import dinov2, dinov3, lite0
from curate.models.convert.own_vit import as_own_vit, same_features
from curate.models.files.state_dict import StateDict, fill
from curate.models.info import ModelInfo
from curate.models.nets.config import TowerConfig
from curate.models.nets.efficientnet import CLASSES, read_tensors
from curate.models.nets.tower import TimmTower, timm_features, tower_config
from curate.models.nets.trained import Trained

TIMM, CLIP = "timm/", "open_clip/"
LITE0 = "tf_efficientnet_lite0"
"""timm's name of EfficientNet-Lite0."""
TRAINABLE = f"dinov2_... and dinov3_... (`curate models` lists them), {lite0.CLASSIC}, {TIMM}NAME, {CLIP}ARCH[:TAG]"
"""Ids of the models that can be trained on."""


def is_trainable(source: str) -> bool:
    """Whether a name is the id of a model that can be trained on; timm and open_clip are not asked."""
    known = any(family.canonical(source) is not None for family in (dinov2, dinov3))
    return known or source == lite0.CLASSIC or source.startswith((TIMM, CLIP))


def untrainable(source: str) -> WeightsError:
    """The error for a name of nothing that can be trained on."""
    return WeightsError(
        f"{source}: no such file or folder, nor a model that can be trained on; those are exports of `curate train`, "
        f"weight files of DINOv2, DINOv3 and of Hugging Face's ViTs, and the ids {TRAINABLE}"
    )


def load_registered(source: str, weights: str | None, *, own: bool = True) -> tuple[Trained, ModelInfo]:
    """The network of a model of the registry, with its weights, in evaluation mode.

    Args:
        source: its id.
        weights: path or https URL; None: packaged or from the model hub.
        own: whether a ViT of timm that computes what ours does becomes ours.

    Raises:
        ConfigError: timm or open_clip has no such model, or none that can be trained on.
        WeightsError: no such model, or weights that are missing, damaged or another model's.
    """
    for family in (dinov2, dinov3):
        model = family.canonical(source)
        if model is not None:
            info = family.describe(model, weights, fetch=True)
            network: Any = family.build(info)
            return network.eval(), info
    if source.startswith(TIMM):
        return _from_timm(source, weights, own=own)
    if source.startswith(CLIP):
        return _from_clip(source, weights)
    if source == lite0.CLASSIC:
        return _from_lite0(source, weights)
    raise untrainable(source)


def _from_timm(source: str, weights: str | None, *, own: bool) -> tuple[Trained, ModelInfo]:
    from curate.models.backbones import timm_models

    info = timm_models.describe(source, weights, fetch=True)
    net: Any = timm_models.build(info).eval()
    size = info.preprocess.size
    vit = as_own_vit(net, size=size, where=source) if own else None
    if vit is not None:
        return vit, info
    name = source.removeprefix(TIMM).partition(".")[0]
    tower = _filled(lambda: _config_like(net, name, size), net.state_dict(), where=source)
    _check_same(tower, lambda images: timm_features(net, images, where=source), size=size, where=source)
    return tower, info


def _config_like(net: Any, name: str, size: int) -> TowerConfig:
    """The architecture of a timm model that was made by its name with a tag, which may say how it is pooled."""
    plain = tower_config(name, image_size=size)
    with torch.device("meta"):
        pooled = getattr(plain.create(), "global_pool", None)
    own = getattr(net, "global_pool", None)
    return tower_config(name, image_size=size, global_pool=own) if isinstance(own, str) and own != pooled else plain


def _filled(config: Any, state: StateDict, *, where: str) -> TimmTower:
    """The tower of what `config` makes, with these weights.

    Raises:
        ConfigError: it cannot be trained on.
    """
    try:
        tower = TimmTower(config()).eval()
        fill(tower.net, state, where=where)
    except (ConfigError, WeightsError) as error:
        raise ConfigError(f"{where}: cannot be trained on: {error}") from error
    return tower


def _check_same(tower: TimmTower, embed: Any, *, size: int, where: str) -> None:
    if not same_features(tower, embed, size=size):
        raise ConfigError(
            f"{where}: cannot be trained on, since {tower.config.name} of timm does not compute the same; those that "
            f"can are {TRAINABLE}"
        )


def _from_lite0(source: str, weights: str | None) -> tuple[Trained, ModelInfo]:
    """By the order of the tensors, which is that of timm's model with its classifier."""
    info = lite0.describe(source, weights, fetch=True)
    config = tower_config(LITE0)
    named = TowerConfig(name=LITE0, outputs=CLASSES).create().state_dict()
    tensors = read_tensors(info.weights_file(), [tuple(value.shape) for value in named.values()])
    state = {name: value for name, value in zip(named, tensors, strict=True) if not name.startswith("classifier.")}
    tower = _filled(lambda: config, state, where=source)
    _check_same(tower, lite0.build(info), size=info.preprocess.size, where=source)
    return tower, info


def _from_clip(source: str, weights: str | None) -> tuple[Trained, ModelInfo]:
    from curate.models.backbones import clip
    from curate.models.convert.from_clip import tower_of

    info = clip.describe(source, weights, fetch=True)
    side = clip.build(info).eval()
    config, state = tower_of(side.clip.visual, size=info.preprocess.size, where=source)
    tower = _filled(lambda: config, state, where=source)
    _check_same(tower, side, size=info.preprocess.size, where=source)
    return tower, info
