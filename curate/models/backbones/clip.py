"""open_clip models: the image side as an embedder, the text side for text queries.

Ids are `open_clip/ARCH` with a `weights` path, or `open_clip/ARCH:TAG` with a released tag. Weights are read by
open_clip with `weights_only=True`, since it converts several foreign formats; nothing in a file is executed.
"""

import difflib
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg
from torch import Tensor, nn

from curate.errors import ConfigError, WeightsError
from curate.models.conventions import CONVENTIONS
from curate.models.files.weights import HubFile, locate
from curate.models.info import ModelInfo
from curate.ops.images.preprocess import Preprocess

PREFIX = "open_clip/"
LICENSES = {"openai": "MIT"}
"""Licenses of released tags; those of other tags are on their model cards."""


def describe(model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
    """See `load.describe`."""
    architecture, released = _parse(model)
    config = open_clip.get_model_config(architecture)
    side = config["vision_cfg"].get("image_size", 224)
    hub, howto = _source(released, model)
    return ModelInfo(
        model=model,
        dim=config["embed_dim"],
        license=LICENSES.get(model.partition(":")[2], "see the model card of the weights"),
        preprocess=_clip_preprocess(model, side, released),
        how_to_get=howto,
        weights=locate(weights, hub, model=model, fetch=fetch, howto=howto),
        pooling=CONVENTIONS["open_clip"].pooling,
    )


def _parse(model: str) -> tuple[str, dict[str, Any]]:
    """Architecture and open_clip's facts about the released tag (none without a tag)."""
    architecture, _, tag = model.removeprefix(PREFIX).partition(":")
    if open_clip.get_model_config(architecture) is None:
        near = difflib.get_close_matches(architecture, open_clip.list_models(), n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "open_clip.list_models() has the names"
        raise ConfigError(f"{model}: open_clip has no such architecture; {hint}")
    released = get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not released:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise ConfigError(f"{model}: no released weights {tag!r}; known are: {', '.join(tags) or 'none'}")
    return architecture, released


def _source(released: dict[str, Any], model: str) -> tuple[HubFile | None, str]:
    repo, _, name = released.get("hf_hub", "").rpartition("/")
    if not repo:
        tag = "add a released tag (open_clip/ARCH:TAG) or " if not released else ""
        return None, f"{tag}set `weights` to the path of an open_clip checkpoint"
    names = (name,) if name else ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    hub = HubFile(repo, names)
    return hub, f"download {hub.url} and set `weights` to its path"


def _clip_preprocess(model: str, side: int | list[int], released: dict[str, Any]) -> Preprocess:
    size = side if isinstance(side, int) else side[0]
    if not isinstance(side, int) and len(set(side)) > 1:
        raise ConfigError(f"{model}: takes pictures of {side}; square input is needed")
    return Preprocess(
        size=size,
        resize="square" if released.get("resize_mode") == "squash" else "short_edge_crop",
        short_edge=size,
        interpolation=released.get("interpolation") or "bicubic",
        mean=tuple(released.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(released.get("std") or open_clip.OPENAI_DATASET_STD),
    )


class ImageTower(nn.Module):
    """The image side of a CLIP, as a module that maps pictures to vectors."""

    def __init__(self, clip: Any, architecture: str) -> None:
        super().__init__()
        self.clip = clip
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized -> (B, D)."""
        return self.clip.encode_image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Vectors (B, D) of texts, on the device of the model."""
        tokens = open_clip.get_tokenizer(self.architecture)(texts)
        return self.clip.encode_text(tokens.to(next(self.clip.parameters()).device))


def build(info: ModelInfo) -> ImageTower:
    """The model with its weights.

    Raises:
        WeightsError: the file is another model's.
    """
    file = info.weights_file()
    architecture, released = _parse(info.model)
    clip = open_clip.create_model(architecture, pretrained=None, force_quick_gelu=released.get("quick_gelu", False))
    _fill(clip, file, info.model)
    return ImageTower(clip, architecture)


def _fill(clip: nn.Module, file: Path, model: str) -> None:
    try:
        open_clip.load_checkpoint(clip, str(file), strict=True, weights_only=True)
    except Exception as error:  # pickle, safetensors, torch and open_clip each raise their own kind
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(f"{model}: {file}: does not fit the model: {reason}") from error
