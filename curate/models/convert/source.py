"""Backbones to convert or to train on: an export of the trainer, weights of DINOv2 or DINOv3 from anywhere, or a model
of the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curate.errors import ConfigError, WeightsError, first_line
from curate.models.backbones import dinov2, dinov3
from curate.models.backbones.weight_shapes import needed_shape
from curate.models.conventions import preprocess_of
from curate.models.convert.registered import is_trainable, load_registered
from curate.models.files import convnext_names, dinov3_names, formats, vit_names
from curate.models.files.description import find_description, read_config
from curate.models.files.digest import hash_file
from curate.models.files.export import load_trained, read_export
from curate.models.files.header import BACKBONE, HEADS, ExportInfo, read_header
from curate.models.files.heads import HeadsInfo, read_heads
from curate.models.files.state_dict import StateDict, fill, read_state_dict
from curate.models.files.weights import find_weight_file
from curate.models.nets.config import TowerConfig, ViTConfig
from curate.models.nets.rotary import BASE
from curate.models.nets.tower import TimmTower
from curate.models.nets.trained import Trained, build_trained
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.preprocess import Preprocess

CONFIG = "config.json"
"""Name of the description in a Hugging Face folder."""
MAX_HEADS = 1024
"""Attention heads of a ViT at most."""
UNKNOWN_LICENSE = "unknown: that of the weights it was made from"


@dataclass(frozen=True)
class LoadedBackbone:
    """A trainable network with its weights, and what is known of them."""

    name: str
    """What the user called it."""
    network: Trained
    """In evaluation mode."""
    info: ExportInfo
    """What its export says of itself, or what is known of released weights."""
    heads: tuple[HeadsInfo, StateDict] | None = None
    """Projection heads, where they were asked for."""
    file: Path | None = None
    """The weight file."""
    presumed: bool = False
    """Whether `info` is that of the family, since the file does not tell its own."""

    @property
    def image_size(self) -> int:
        """Side of pictures at which all formats agree, pixels; for a DINOv2 ViT that of its stored positions."""
        config = self.network.config
        return config.image_size if isinstance(config, ViTConfig) else self.info.image_size


def load_source(source: str, *, weights: str | None = None, heads: bool = False, own: bool = True) -> LoadedBackbone:
    """Build the network that `source` names.

    Args:
        source: an export of `curate train` or the folder that holds it; a file or folder with weights of DINOv2 or
            DINOv3 in the names of their authors, timm, Hugging Face or a training checkpoint, or of a plain ViT in
            those of Hugging Face; or the id of a model of the registry that can be trained on, see `registered.py`.
        weights: path or https URL of the weights of a model id; None: packaged or from the model hub.
        heads: read the projection heads too, from the file itself or from heads.safetensors beside it.
        own: whether a ViT of timm that computes what ours does becomes ours.

    Raises:
        WeightsError: nothing there, not readable, no such ViT, or without heads where they are wanted.
        ConfigError: a model id that cannot be trained on.
    """
    path = Path(source).expanduser()
    if weights is not None and (path.exists() or not is_trainable(source)):
        raise ConfigError(f"{source}: no id of a model, so that it has no weights beside it; leave init_weights out")
    found = _from_path(source, path) if path.exists() else _from_id(source, weights, own=own)
    found.network.eval()
    return replace(found, heads=_find_heads(found)) if heads else found


def outline_source(source: str) -> Trained:
    """The network that `load_source` builds, on the device `meta` where the file describes itself, as an export of
    `curate train` does; of another file it takes the tensors to know.

    Raises:
        WeightsError: as `load_source`.
    """
    path = Path(source).expanduser()
    file = path / BACKBONE if (path / BACKBONE).is_file() else path
    if file.suffix != ".safetensors" or find_description(file) is None:
        return load_source(source).network
    with torch.device("meta"):
        return build_trained(read_header(file)[0])


def is_source(source: str) -> bool:
    """Whether there is such a file or folder, or a model of this id; what it holds is not looked at."""
    return Path(source).expanduser().exists() or is_trainable(source)


def _from_id(source: str, weights: str | None, *, own: bool) -> LoadedBackbone:
    network, info = load_registered(source, weights, own=own)
    file = info.weights_file()
    return LoadedBackbone(source, network, _released_info(file, info.preprocess, info.license), file=file)


def _from_path(source: str, path: Path) -> LoadedBackbone:
    file = path / BACKBONE if (path / BACKBONE).is_file() else find_weight_file(path)
    if file.suffix == ".safetensors" and find_description(file) is not None:
        return LoadedBackbone(source, *read_export(file), file=file)
    found = read_state_dict(file)
    told = _told_beside(file)
    if vit_names.is_huggingface_vit(found):
        return _from_plain_vit(source, file, vit_names.to_dinov2(found, where=source), told)
    formats.check_names_tell(found, where=source)
    family = dinov3 if formats.is_dinov3(found, where=source) else dinov2
    state = formats.to_hub(found, where=source)
    heads = _heads_in(told, where=file.parent / CONFIG) if told is not None else dinov3_names.heads_of(found)
    config = family.config_from_weights(state, heads=heads, where=source)
    _check_constants(told, config, where=file.parent / CONFIG)
    return _presumed(source, file, load_trained(config, state, where=source), family.FAMILY)


def _from_plain_vit(source: str, file: Path, named: StateDict, told: Mapping[str, Any] | None) -> LoadedBackbone:
    """A ViT of Hugging Face, whose config.json, if there is one, tells what shapes do not."""
    where = file.parent / CONFIG
    state = formats.to_hub(named, where=source)
    heads = None if told is None else _heads_in(told, where=where)
    plain = dinov2.config_from_weights(state, heads=heads, where=source)
    inner = needed_shape(state, "blocks.0.mlp.fc1.weight", 2, where=source)[0]
    config = plain.model_copy(update={"ffn_hidden": inner} | vit_names.constants(told or {}, where=where))
    _check_constants(told, config, where=where)
    return _presumed(source, file, load_trained(config, state, where=source), vit_names.FAMILY)


def _presumed(source: str, file: Path, network: Trained, family: str) -> LoadedBackbone:
    info = _released_info(file, preprocess_of(family), UNKNOWN_LICENSE)
    return LoadedBackbone(source, network, info, file=file, presumed=True)


def _told_beside(file: Path) -> dict[str, Any] | None:
    """The config.json of a Hugging Face folder; None: there is no such file."""
    config = file.parent / CONFIG
    return read_config(config) if config.is_file() else None


def _check_constants(told: Mapping[str, Any] | None, config: ViTConfig, *, where: Path) -> None:
    """Refuse a config.json that tells of another computation than ours; what it does not tell is as in the family.

    Raises:
        WeightsError: it does.
    """
    wanted: dict[str, Any] = {"layer_norm_eps": config.norm_eps}
    if config.positions == "rotary":
        wanted |= {"rope_theta": BASE, "hidden_act": "silu" if config.ffn == "swiglu" else "gelu"}
    elif config.ffn == "mlp":
        wanted |= {"hidden_act": "gelu"}
    for name, value in wanted.items():
        found = (told or {}).get(name, value)
        if found != value:
            raise WeightsError(
                f"{where}: {name} is {str(found)[:40]!r}, {value!r} is what such a ViT is computed with here; are "
                "these weights of DINOv2, DINOv3 or a plain ViT?"
            )


def _heads_in(told: Mapping[str, Any], *, where: Path) -> int:
    """Number of attention heads that a config.json tells."""
    heads = told.get("num_attention_heads")
    if type(heads) is not int or not 0 < heads <= MAX_HEADS:
        raise WeightsError(
            f"{where}: tells no num_attention_heads of 1 to {MAX_HEADS} (found {str(heads)[:40]!r}); "
            "is it the file's own?"
        )
    return heads


def _released_info(file: Path, how: Preprocess, license: str) -> ExportInfo:
    return ExportInfo(
        image_size=how.size,
        resize=how.resize,
        short_edge=how.short_edge,
        interpolation=how.interpolation,
        mean=how.mean,
        std=how.std,
        license=license,
        provenance={"converted_from": file.name, "sha256": hash_file(file)},
    )


def _find_heads(source: LoadedBackbone) -> tuple[HeadsInfo, StateDict]:
    assert source.file is not None
    if source.file.suffix != ".safetensors":
        return read_heads(source.file)
    beside = source.file.parent / HEADS
    if not beside.is_file():
        raise WeightsError(f"{source.name}: {beside} is not there; leave --heads out, or put the heads beside it")
    return read_heads(beside)


def resized(source: LoadedBackbone, size: int) -> LoadedBackbone:
    """The same network for pictures of `size` pixels, with the positions of a ViT resampled once and for all.

    All formats then agree at that size, since no library has to resample.

    Raises:
        ConfigError: a side that patches do not divide, or that the timm model does not take.
    """
    edge = max(source.info.short_edge * size // source.info.image_size, size)
    info = source.info.model_copy(update={"image_size": size, "short_edge": edge})
    vit = source.network
    if not isinstance(vit, VisionTransformer):
        _try_size(source, size)
        return replace(source, info=info)
    if size % vit.config.patch_size:
        raise ConfigError(f"{source.name}: --size {size} is no multiple of its patches of {vit.config.patch_size} px")
    grid = size // vit.config.patch_size
    other = VisionTransformer(vit.config.model_copy(update={"image_size": size})).eval()
    state = dict(vit.state_dict())
    if vit.pos_embed is not None:
        with torch.no_grad():
            state["pos_embed"] = vit.positions((grid, grid))
    fill(other, state, where=source.name)
    return replace(source, network=other, info=info)


def with_plain_map(source: LoadedBackbone) -> LoadedBackbone:
    """A timm model whose tokens are its map as it is, for formats that resize none."""
    config = source.network.config
    if isinstance(config, ViTConfig) or config.token_size is None:
        return source
    other = TimmTower(config.model_copy(update={"token_size": None})).eval()
    fill(other, source.network.state_dict(), where=source.name)
    return replace(source, network=other)


def named_convnext(source: LoadedBackbone) -> str | None:
    """timm's name of a ConvNeXt of which DINOv3 has released one; None: it is another network."""
    config = source.network.config
    return config.name if isinstance(config, TowerConfig) and config.name in convnext_names.SIZES else None


def _try_size(source: LoadedBackbone, size: int) -> None:
    try:
        with torch.no_grad():
            source.network(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise ConfigError(
            f"{source.name}: --size {size}: {source.network.config} does not take it: {reason}"
        ) from error


def need_vit(source: LoadedBackbone, target: str) -> VisionTransformer:
    """The network, where it is a ViT of ours; for formats without a place for other architectures.

    Raises:
        ConfigError: it is a timm model.
    """
    network: nn.Module = source.network
    if isinstance(network, VisionTransformer):
        return network
    raise ConfigError(
        f"{source.name}: {source.network.config} has no counterpart in {target}; choose timm, onnx or safetensors"
    )
