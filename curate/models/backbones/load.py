"""From a model id to a frozen embedder: the built-in backbones, and those that plug in.

| id | weights |
|---|---|
| `lite0`, `lite0-copy` | packaged |
| `luma24` | none: a fixed function of the pixels |
| `pixels16` | none: the pixels of squares, for comparison |
| `dinov2_vits14` ... `dinov2_vitg14_reg`, or their timm names | path (torch.hub, timm, Hugging Face), URL or hub |
| `dinov3_vits16` ... `dinov3_vit7b16`, or their timm names | the same |
| `sscd` | path or URL of the TorchScript file |
| `curate` | path of an export of the trainer |
| `onnx` | path of an ONNX file with its declaration, see `files/declaration.py` |
| `sscd-int8`, `sscd-distilled` | of an installed package, see `installed.py` |
| `timm/NAME[.tag]` | path, URL or hub |
| `open_clip/ARCH[:TAG]` | path, URL or hub |
| `my_package.module:NAME`, `./my_file.py:NAME`, an entry point in `curate.backbones` | what the plug-in says |

A plug-in is the path of an ONNX file with its declaration or of the folder that holds it, a package with both in its
folder, or an object or module with the two functions of `Family`:

    def describe(model, weights, *, fetch) -> ModelInfo    # facts alone: called for every plan and status
    def build(info) -> nn.Module                           # (B, 3, S, S) normalized float -> (B, D)

`describe` gets the id and the `weights` of the config, and must be cheap: import torch in `build`, so that a dry run
does not wait for it. `files.weights.locate` finds weights by path, URL or hub; `fetch=False` must not download. The
preprocessing in the `ModelInfo` says how pictures are resized to S and normalized. The vectors need not have unit
length. A third function, `outline(info) -> nn.Module`, may give the network without its weights, for plans. A module
with a method `encode_text(list[str]) -> (B, D)` can be asked for texts too. Tables know a model by its id and by the
hash of its weights: code that changes what it computes needs a new id.
"""

import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from curate.errors import ConfigError
from curate.models.backbones import dinov2, dinov3, exported, installed, lite0, luma, onnx_file, pixels, sscd
from curate.models.device import PrecisionChoice, resolve_device, resolve_precision
from curate.models.info import ModelInfo
from curate.models.names import BY_FILE, resolve_model
from curate.registry import distribution_of, known_names, resolve

if TYPE_CHECKING:
    from torch import nn

    from curate.models.backbones.backbone import Backbone

logger = logging.getLogger(__name__)


class Family(Protocol):
    """Models that are described and built alike."""

    def describe(self, model: str, weights: str | None, *, fetch: bool) -> ModelInfo:
        """Facts of the model; `fetch` downloads weights that are not on this machine yet."""
        ...

    def build(self, info: ModelInfo) -> "nn.Module":
        """The network with its weights, on the CPU."""
        ...


BUILT_IN: Mapping[str, str] = {
    **{model: family.__name__ for family in (lite0, luma, pixels, dinov2, dinov3, sscd) for model in family.MODELS},
    **{model: f"{installed.__name__}:{name}" for model, name in installed.MODELS.items()},
    **{model: family.__name__ for family in (exported, onnx_file) for model in family.MODELS},
    "timm/NAME": "curate.models.backbones.timm_models",
    "open_clip/NAME": "curate.models.backbones.clip",
}
"""Modules of families by id; timm's and open_clip's serve every id with that beginning, and take seconds to load."""

EXAMPLES = {
    "timm/NAME": "timm/vit_base_patch16_siglip_224.v2_webli",
    "open_clip/NAME": "open_clip/ViT-B-32:laion2b_s34b_b79k",
}
"""What `known_models` lists of the families whose models have no list here."""


def load_backbone(
    model: str, *, weights: str | None = None, device: str = "auto", precision: PrecisionChoice = "auto"
) -> "Backbone":
    """Build the frozen embedder `model` on a device, fetching weights that are not here yet.

    Args:
        model: an id, a file or a folder, see `models/names.py`.
        weights: path or https URL (`#sha256=HEX` pins it); None: packaged or from the model hub.
        device: auto, cpu, cuda or cuda:N.
        precision: of the forward pass; auto: bfloat16 where the device is faster with it and the model bears it.

    Raises:
        ConfigError: unknown model or device, or a device or precision that the model does not run in.
        WeightsError: weights that are absent, unreadable or another model's.
        MissingExtra: the library that runs the model is not installed.
    """
    from curate.memory import keep_freed_memory
    from curate.models.backbones.backbone import Backbone
    from curate.models.nets.onnx_network import OnnxNetwork
    from curate.models.placement import place

    where = resolve_device(device)
    keep_freed_memory()
    info = describe(model, weights, fetch=True)
    check_precision(info, precision)
    module = place(_family(info.model).build(info), where)
    if isinstance(module, OnnxNetwork):
        module.prepare(where)
    return Backbone(
        info,
        module,
        device=where,
        precision=resolve_precision(precision, where, bf16=info.bf16),
        encode_text=getattr(module, "encode_text", None),
    )


def outline(model: str, weights: str | None = None) -> "nn.Module | None":
    """The network of a backbone on the device `meta`: its tensors have their shapes and take no memory, and of the
    weights no more than a header is read, where there are some on this machine.

    Args:
        model: as in `load_backbone`.
        weights: as in `load_backbone`.

    Returns:
        The network; None for families of which only the weights know it.

    Raises:
        ConfigError: unknown model.
        WeightsError: a given path does not exist, or a header is damaged.
    """
    import torch

    info = describe(model, weights)
    make = getattr(_family(info.model), "outline", None)
    if make is None:
        return None
    with torch.device("meta"):
        outlined: nn.Module = make(info)
    return outlined


@cache
def _tell_package(model: str, package: str) -> None:
    """Tell once a process whose license the weights of an installed package have."""
    if package:
        logger.info("%s: weights of the installed %s", model, package)


def check_precision(info: ModelInfo, precision: PrecisionChoice) -> None:
    """Refuse a precision that the model does not know.

    Raises:
        ConfigError: bf16, of a model that computes as its file says.
    """
    if info.own_precision and precision == "bf16":
        raise ConfigError(f"{info.model}: computes in the precision of its file; set precision to auto, not to bf16")


def weights_for_plan(model: str, weights: str | None) -> str | None:
    """The weights that a plan asks: those that are here, and those without which the id says nothing; a plan is made on
    machines, too, that do not have them yet."""
    here = weights is not None and Path(weights).expanduser().exists()
    return weights if here or model in BY_FILE.values() else None


def describe(model: str, weights: str | None = None, *, fetch: bool = False) -> ModelInfo:
    """Facts of a model without building it: dimensions, preprocessing, license, where its weights are.

    Args:
        model: as in `load_backbone`.
        weights: as in `load_backbone`.
        fetch: download weights that are not on this machine; else they are reported as absent.

    Raises:
        ConfigError: unknown model, or a plug-in that does not keep the contract above.
        WeightsError: a given path does not exist, or a download failed.
    """
    model, weights = resolve_model(model, weights)
    name = dinov2.canonical(model) or dinov3.canonical(model) or model
    info = _family(name).describe(name, weights, fetch=fetch)
    if not isinstance(info, ModelInfo):
        raise ConfigError(f"model: {model!r}: its describe() gave a {type(info).__name__}, a ModelInfo is needed")
    if fetch:  # it is about to be used, here or by workers whose words nobody reads
        _tell_package(info.model, info.package)
    return info


def known_models() -> list[ModelInfo]:
    """Facts of every backbone that has a name without weights, built in or installed, and of the examples."""
    named = (name for name in known_names("backbone", BUILT_IN) if name not in BY_FILE.values())
    return [describe(EXAMPLES.get(name, name)) for name in named]


def _family(model: str) -> Family:
    open_family = f"{model.partition('/')[0]}/NAME"
    name = open_family if open_family in BUILT_IN else model
    found = resolve("backbone", name, BUILT_IN, key="model")
    family: Any = installed.family_of(found, None if name in BUILT_IN else distribution_of("backbone", name))
    missing = [method for method in ("describe", "build") if not callable(getattr(family, method, None))]
    if missing:
        raise ConfigError(
            f"model: {model!r}: no backbone, since it has no {' and no '.join(missing)}; see "
            "curate/models/backbones/load.py for what a plug-in must have"
        )
    checked: Family = family
    return checked
