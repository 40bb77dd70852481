"""Exports of the trainer: writing them, and reading them back; `header` has what they say of themselves."""

from pathlib import Path

from curate.models.files.description import save_tensors
from curate.models.files.formats import to_hub
from curate.models.files.header import ExportInfo, describe_export, read_header
from curate.models.files.state_dict import StateDict, fill, read_state_dict
from curate.models.nets.config import ViTConfig
from curate.models.nets.trained import Trained, build_trained, inner


def write_export(path: str | Path, backbone: Trained, info: ExportInfo) -> Path:
    """Write the weights under a temporary name, then publish them under `path`.

    Raises:
        WeightsError: `path` is not a .safetensors.
    """
    return save_tensors(Path(path), weights_of(backbone), describe_export(backbone.config, info))


def weights_of(backbone: Trained) -> StateDict:
    """The tensors of an export: of a ViT in torch.hub's names, of a tower in timm's."""
    return dict(inner(backbone).state_dict())


def read_export(path: str | Path) -> tuple[Trained, ExportInfo]:
    """The network with its weights, and what the file says of itself.

    The tensors of a ViT may have timm's or Hugging Face's names, as `curate export` writes them.

    Raises:
        WeightsError: missing, damaged, or no export of this trainer.
    """
    config, info = read_header(path)
    network, state = build_trained(config), read_state_dict(path)
    names = to_hub(state, where=str(path)) if isinstance(config, ViTConfig) else state
    fill(inner(network), names, where=str(path))
    return network, info
