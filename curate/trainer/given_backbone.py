"""A backbone that a run goes on from: how its weights come into the network of the run, which settings build that
network, and how pictures are made for it."""

import copy
import json
from typing import Any, get_args

import torch

from curate.errors import ConfigError, WeightsError
from curate.feed.settings import CropSettings
from curate.models.convert.source import LoadedBackbone, load_source, resized
from curate.models.files.dinov3_names import BIAS, has_key_bias
from curate.models.files.header import ExportInfo
from curate.models.files.state_dict import fill
from curate.models.nets.config import Architecture, TowerConfig, ViTConfig
from curate.models.nets.tower import ANY_SIZE, TimmTower
from curate.models.nets.trained import Trained
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import ModelSettings, Preset, TrainSettings

COMPUTED = ("dim", "depth", "heads", "ffn", "hidden", "qkv_bias", "norm_eps", "positions", "patch_size", "resampling")
"""What two ViTs must share to compute the same from the same weights, with `num_registers`."""
OF_THE_RUN = ("img_size", "drop_path_rate", *ANY_SIZE)
"""Arguments of timm's models that a training sets by its crops and its stochastic depth."""


def load_weights(backbone: Trained, source: str, weights: str | None = None) -> LoadedBackbone:
    """Fill `backbone` from whatever `load_source` reads, with positions resampled to its grid; returns what was read.

    Raises:
        WeightsError: missing, damaged or another model's.
        ConfigError: a model that cannot be trained on.
    """
    found = load_source(source, weights=weights, own=isinstance(backbone, VisionTransformer))
    given = found.network
    try:
        if isinstance(backbone, VisionTransformer) and isinstance(given, VisionTransformer):
            stored, wanted = given.config, backbone.config
            if stored.positions == "learned" and stored.grid != wanted.grid:
                given = _need_own(resized(found, wanted.grid * stored.patch_size))
            _fill_vit(backbone, given, where=source)
        elif isinstance(backbone, TimmTower) and isinstance(given, TimmTower):
            fill(backbone.net, _sized(given, backbone.config).net.state_dict(), where=source)
        else:
            raise WeightsError(f"{source}: does not fit the model: one of both is a ViT, the other a model of timm")
    except WeightsError as error:
        raise WeightsError(f"{error}{_advice(found)}") from error
    return found


def _need_own(found: LoadedBackbone) -> VisionTransformer:
    assert isinstance(found.network, VisionTransformer)
    return found.network


def _fill_vit(backbone: VisionTransformer, given: VisionTransformer, *, where: str) -> None:
    """Fill a ViT, which may have what the given one lacks and computes the same with: biases of 0, and a norm of local
    crops that starts as that of all tokens."""
    state, wanted = dict(given.state_dict()), backbone.state_dict()
    biases = [value for name, value in state.items() if name.endswith(BIAS)]
    if backbone.config.qkv_bias == "masked" and any(map(has_key_bias, biases)):
        raise WeightsError(f"{where}: its keys have a bias, which model.qkv_bias=masked leaves out; set it to full")
    if given.config.qkv_bias == "none":
        state |= {name: torch.zeros_like(wanted[name]) for name in wanted if name.endswith(".attn.qkv.bias")}
    if given.local_cls_norm is None and backbone.local_cls_norm is not None:
        state |= {f"local_cls_{name}": value for name, value in state.items() if name.startswith("norm.")}
    fill(backbone, state, where=where)


def _sized(given: TimmTower, wanted: TowerConfig) -> TimmTower:
    """The given network for pictures of the size that `wanted` is built for, where timm's model is built for a size."""
    side, own = wanted.kwargs.get("img_size"), given.config.kwargs.get("img_size")
    if side is None or side == own or not hasattr(given.net, "set_input_size"):
        return given
    other = copy.deepcopy(given)
    other.net.set_input_size(img_size=(side, side))
    return other


def _advice(found: LoadedBackbone) -> str:
    """Which settings build the given backbone, for a message."""
    told = ", ".join(f"{name}: {json.dumps(value)}" for name, value in model_fields(found.network.config).items())
    return f"; the settings of this backbone are model: {{{told}}}, and `curate train auto --init` finds them by itself"


def model_fields(config: Architecture) -> dict[str, Any]:
    """Fields of `ModelSettings` that build this network."""
    return _tower_fields(config) if isinstance(config, TowerConfig) else _vit_fields(config)


def _tower_fields(config: TowerConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {"timm": config.name}
    kwargs = {name: value for name, value in config.kwargs.items() if name not in OF_THE_RUN}
    own = {"timm_kwargs": kwargs or None, "outputs": config.outputs, "token_size": config.token_size}
    return fields | {name: value for name, value in own.items() if value is not None}


def _vit_fields(config: ViTConfig) -> dict[str, Any]:
    """The nearest preset, and what differs from it."""
    own: dict[str, Any] = {"ffn_hidden": config.hidden, "num_registers": config.num_registers}
    own |= {name: getattr(config, name) for name in COMPUTED if name in ModelSettings.model_fields}
    if config.positions == "learned":
        own["position_size"] = config.image_size
    by_registers = config.model_copy(update={"interpolate_offset": None, "interpolate_antialias": None})
    if config.resampling != by_registers.resampling:
        own |= dict(zip(("interpolate_offset", "interpolate_antialias"), config.resampling, strict=True))
    best: dict[str, Any] | None = None
    for preset in (name for name in get_args(Preset) if not name.startswith("convnext_")):
        found = {"preset": preset, "patch_size": config.patch_size}
        plain = ModelSettings(**found).vit(config.image_size)
        found |= {n: v for n, v in own.items() if _of_preset(plain, n) != v}
        built = ModelSettings(**found).vit(config.image_size)
        if all(getattr(built, name) == getattr(config, name) for name in COMPUTED):
            best = found if best is None or len(found) < len(best) else best
    assert best is not None, config
    return best


def _of_preset(plain: ViTConfig, name: str) -> Any:
    return {"ffn_hidden": plain.hidden, "position_size": None}.get(name, getattr(plain, name, None))


def check_pixels(found: LoadedBackbone, crops: CropSettings) -> None:
    """Refuse to show a backbone pictures that are normalized otherwise than it knows them.

    Raises:
        ConfigError: they are.
    """
    info = found.info
    if not found.presumed and (info.mean, info.std) != (crops.mean, crops.std):
        mean, std = json.dumps(info.mean), json.dumps(info.std)
        raise ConfigError(
            f"init_from={found.name}: its pictures are normalized by mean {mean} and deviation {std}, the crops by "
            f"{json.dumps(crops.mean)} and {json.dumps(crops.std)}; set crops.mean={mean} crops.std={std}"
        )


def export_info(
    config: TrainSettings, given: ExportInfo | None, network: Architecture, *, provenance: dict[str, Any] | None = None
) -> ExportInfo:
    """What an export of a run says of itself: a backbone that goes on gets its pictures as it always did.

    Args:
        config: of the run.
        given: what is known of the backbone that the run goes on from; None: it began afresh.
        network: what the run trains.
        provenance: of the export; None: unknown.

    Raises:
        ConfigError: `export_size` is no size that the network takes.
    """
    crops, side, provenance = config.crops, _exported_side(config, given, network), provenance or {}
    plain = ExportInfo(image_size=side, short_edge=side, mean=crops.mean, std=crops.std, provenance=provenance)
    if given is None:
        return plain
    edge = max(side, round(side * given.short_edge / given.image_size))
    return plain.model_copy(
        update={
            "resize": given.resize,
            "short_edge": edge if given.resize == "short_edge_crop" else side,
            "interpolation": given.interpolation,
            "license": continued_license(given),
            "provenance": provenance | {"continued_from": given.provenance},
        }
    )


def _exported_side(config: TrainSettings, given: ExportInfo | None, network: Architecture) -> int:
    """Side of the pictures that exports embed, pixels.

    Crops smaller than the pictures that a backbone knows save time in training, and in training alone: it stays better
    at its own size, where its positions are stored for it.
    """
    side, asked = config.crops.global_size, config.export_size
    if asked is not None:
        if asked != side and _is_built_for_a_size(network):
            raise ConfigError(
                f"export_size={asked}: the network is built for the {side} pixels of the global crops; set "
                f"crops.global_size={asked}, or leave export_size out"
            )
        return asked
    if given is None or given.image_size <= side or _is_built_for_a_size(network):
        return side
    if isinstance(network, ViTConfig) and network.positions == "learned" and network.image_size < given.image_size:
        return side
    return given.image_size


def _is_built_for_a_size(network: Architecture) -> bool:
    return isinstance(network, TowerConfig) and "img_size" in network.kwargs


def continued_license(given: ExportInfo) -> str:
    """The license of weights that went on from others: theirs counts."""
    own: str = ExportInfo.model_fields["license"].default
    return own if given.license == own else given.license
