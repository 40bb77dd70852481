"""Exports of the trainer: writing them, and reading them back; `header` has what they say of themselves."""

from pathlib import Path

import torch

from curate.errors import ConfigError, WeightsError
from curate.models.files import convnext_names
from curate.models.files.description import save_tensors
from curate.models.files.dinov3_names import to_meta
from curate.models.files.formats import to_hub
from curate.models.files.header import ExportInfo, describe_export, read_header
from curate.models.files.state_dict import StateDict, check_names, fill, read_state_dict
from curate.models.nets.config import Architecture, ViTConfig
from curate.models.nets.trained import Trained, build_trained, inner


def write_export(path: str | Path, backbone: Trained, info: ExportInfo) -> Path:
    """Write the weights under a temporary name, then publish them under `path`.

    Raises:
        WeightsError: `path` is not a .safetensors.
    """
    return save_tensors(Path(path), weights_of(backbone), describe_export(backbone.config, info))


def weights_of(backbone: Trained) -> StateDict:
    """The tensors of an export: of a ViT in its authors' names, of a tower in timm's."""
    state, config = dict(inner(backbone).state_dict()), backbone.config
    if isinstance(config, ViTConfig) and config.positions == "rotary":
        return to_meta(state, head_dim=config.dim // config.heads)
    return state


def read_export(path: str | Path) -> tuple[Trained, ExportInfo]:
    """The network with its weights, and what the file says of itself.

    The tensors of a ViT may have timm's or Hugging Face's names, as `curate export` writes them.

    Raises:
        WeightsError: missing, damaged, or no export of this trainer.
    """
    config, info = read_header(path)
    state = read_state_dict(path)
    names = to_hub(state, where=str(path)) if isinstance(config, ViTConfig) else convnext_names.to_timm(state)
    return load_trained(config, names, where=str(path)), info


def load_trained(config: Architecture, state: StateDict, *, where: str) -> Trained:
    """The network of an architecture with the tensors of a file.

    The architecture may come from a stranger too. So it is compared with the tensors while it takes no memory yet (on
    the device `meta`): what is then built is no larger than the file.

    Raises:
        WeightsError: the tensors are not those of the architecture, or nothing can be built of it.
    """
    try:
        with torch.device("meta"):
            wanted = inner(build_trained(config)).state_dict()
        check_names(state, {name: tuple(tensor.shape) for name, tensor in wanted.items()}, where=where)
        network = build_trained(config)
    except ConfigError as error:
        raise WeightsError(f"{where}: {error}") from error
    fill(inner(network), state, where=where)
    return network
