"""From a model id to a frozen embedder; the registry of known backbones.

| id | weights |
|---|---|
| `lite0`, `lite0-copy` | packaged |
| `luma24` | none: a fixed function of the pixels |
| `dinov2_vits14` ... `dinov2_vitg14_reg`, or their timm names | path (torch.hub, timm, Hugging Face), URL or hub |
| `sscd` | path or URL of the TorchScript file |
| `curate` | path of an export of the trainer |
| `timm/NAME[.tag]` | path, URL or hub |
| `open_clip/ARCH[:TAG]` | path, URL or hub |
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from torch import nn

from curate.errors import ConfigError
from curate.models.backbones import copyhead, dinov2, lite0, luma, sscd
from curate.models.backbones.backbone import Backbone, ModelInfo
from curate.models.device import (
    PrecisionChoice,
    keep_freed_memory,
    place,
    resolve_device,
    resolve_precision,
)
from curate.models.files import export


class Describe(Protocol):
    """Facts of a model of the family; `fetch` downloads weights that are not here yet."""

    def __call__(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo: ...


@dataclass(frozen=True)
class Family:
    """Models that are described and built alike."""

    describe: Describe
    build: Callable[[ModelInfo], nn.Module]


FAMILIES = {
    **dict.fromkeys(lite0.MODELS, Family(lite0.describe, lite0.build)),
    **dict.fromkeys(copyhead.MODELS, Family(copyhead.describe, copyhead.build)),
    **dict.fromkeys(luma.MODELS, Family(luma.describe, luma.build)),
    **dict.fromkeys(dinov2.MODELS, Family(dinov2.describe, dinov2.build)),
    **dict.fromkeys(sscd.MODELS, Family(sscd.describe, sscd.build)),
    **dict.fromkeys(export.MODELS, Family(export.describe, export.build)),
}
"""Families by exact id."""

PREFIXES = {"timm/": "curate.models.backbones.timm_models", "open_clip/": "curate.models.backbones.clip"}
"""Modules of families by the start of the id; imported when asked for, since open_clip takes seconds."""

SHOWN = (
    *lite0.MODELS,
    *copyhead.MODELS,
    *luma.MODELS,
    *dinov2.MODELS,
    *sscd.MODELS,
    "open_clip/ViT-B-32:laion2b_s34b_b79k",
    "timm/vit_base_patch16_siglip_224.v2_webli",
)
"""What `known_models` lists; of the open families one example each."""


def load_backbone(
    model: str, *, weights: str | None = None, device: str = "auto", precision: PrecisionChoice = "auto"
) -> Backbone:
    """Build the frozen embedder `model` on a device, fetching weights that are not here yet.

    Args:
        model: an id, see above.
        weights: path or https URL (`#sha256=HEX` pins it); None: packaged or from the model hub.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ConfigError: unknown model or device.
        WeightsError: weights that are absent, unreadable or another model's.
    """
    where = resolve_device(device)
    keep_freed_memory()
    info = describe(model, weights, fetch=True)
    module = _family(info.model).build(info)
    return Backbone(
        info,
        place(module, where),
        device=where,
        precision=resolve_precision(precision, where, bf16=info.bf16),
        encode_text=getattr(module, "encode_text", None),
    )


def describe(model: str, weights: str | None = None, *, fetch: bool = False) -> ModelInfo:
    """Facts of a model without building it: dimensions, preprocessing, licence, where its weights are.

    Args:
        weights: as in `load_backbone`.
        fetch: download weights that are not on this machine; else they are reported as absent.

    Raises:
        ConfigError: unknown model.
        WeightsError: a given path does not exist, or a download failed.
    """
    name = _canonical(model)
    return _family(name).describe(name, weights, fetch=fetch)


def known_models() -> list[ModelInfo]:
    """Facts of every named backbone, and of one example of each open family."""
    return [describe(model) for model in SHOWN]


def _canonical(model: str) -> str:
    return dinov2.canonical(model) or model


def _family(model: str) -> Family:
    if model in FAMILIES:
        return FAMILIES[model]
    for prefix, name in PREFIXES.items():
        if model.startswith(prefix):
            module = import_module(name)
            return Family(module.describe, module.build)
    near = difflib.get_close_matches(model, FAMILIES, n=1)
    known = ", ".join((*FAMILIES, *(f"{prefix}NAME" for prefix in PREFIXES)))
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {known}"
    raise ConfigError(f"model {model!r}: not known; {hint}")
