"""What a run starts from: fresh weights, released ones, those of an earlier training; and whom it distils."""

from pathlib import Path

import torch
from torch import nn

from curate.errors import ConfigError
from curate.models.convert.source import load_source, resized
from curate.models.files.digest import hash_file
from curate.models.files.export import weights_of
from curate.models.files.header import BACKBONE, HEADS
from curate.models.files.heads import HeadsInfo, read_heads
from curate.models.files.state_dict import fill
from curate.models.files.weights import find_weight_file
from curate.models.nets.trained import Trained
from curate.models.nets.vit import VisionTransformer
from curate.trainer.config import Effective, TrainConfig, TrainSettings
from curate.trainer.heads import PrototypeHead
from curate.trainer.objective import Objective, PrototypeSettings
from curate.trainer.objectives import make_objective
from curate.trainer.objectives.dinov2 import DinoV2Settings
from curate.trainer.parallel import World


def start_objective(config: TrainConfig, effective: Effective, world: World) -> Objective:
    """The objective before the first iteration; fresh weights are drawn from the seed.

    Raises:
        WeightsError: weights to start from are missing, damaged or another model's.
        ConfigError: they do not fit the objective.
    """
    generator = torch.Generator().manual_seed(config.seed)
    backbone = config.model.build(config.crops.global_size, generator=generator)
    if config.init_from is not None:
        load_weights(backbone, config.init_from)
    objective = make_objective(
        config.objective, backbone, prototypes=effective.prototypes, world=world, generator=generator
    )
    if config.init_heads is not None:
        load_heads(objective, config.init_heads)
    distilled = _distilled(config)
    if distilled is not None:
        objective.guide = load_guide(distilled)
    return objective


def _distilled(config: TrainSettings) -> str | None:
    return config.objective.distill_from if isinstance(config.objective, DinoV2Settings) else None


def given_heads(config: TrainConfig) -> HeadsInfo | None:
    """Of the heads that the run starts from or distils; None: its heads are fresh.

    Raises:
        WeightsError: the file is missing, damaged or holds no heads.
        ConfigError: the objective has no heads that they could fill.
    """
    distilled = _distilled(config)
    if distilled is not None:
        return _beside(distilled)[1]
    if config.init_heads is None:
        return None
    if not isinstance(config.objective, PrototypeSettings):
        raise ConfigError(f"init_heads={config.init_heads}: this objective has no prototype heads; leave it out")
    return read_heads(config.init_heads)[0]


def _beside(export: str) -> tuple[Path, HeadsInfo]:
    path = Path(export)
    heads = (path if path.is_dir() else path.parent) / HEADS
    return heads, read_heads(heads)[0]


def origins(config: TrainSettings) -> dict[str, str]:
    """Digest of each file that a run starts from: a part of what makes two runs one."""
    distilled = _distilled(config)
    named = {"init_from": config.init_from, "init_heads": config.init_heads, "distill_from": distilled}
    named["distill_heads"] = None if distilled is None else str(_beside(distilled)[0])
    return {name: hash_file(_file(path)) for name, path in named.items() if path is not None and Path(path).exists()}


def _file(path: str) -> Path:
    inside = Path(path) / BACKBONE
    return inside if inside.is_file() else find_weight_file(path)


def load_weights(backbone: Trained, source: str) -> None:
    """Fill `backbone` from whatever `load_source` reads, positions resampled to its grid.

    Raises:
        WeightsError: missing, damaged or another model's.
    """
    found = load_source(source)
    if isinstance(backbone, VisionTransformer) and isinstance(found.network, VisionTransformer):
        given, wanted = found.network.config, backbone.config
        if given.grid != wanted.grid:
            found = resized(found, wanted.grid * given.patch_size)
    target: nn.Module = backbone if isinstance(backbone, VisionTransformer) else backbone.net
    fill(target, weights_of(found.network), where=source)


def load_heads(objective: Objective, path: str) -> None:
    """Fill the heads of student and teacher from a file of heads.

    Raises:
        WeightsError: missing, damaged, or of other heads than the objective's.
    """
    _, state = read_heads(path)
    for networks in (objective.student, objective.teacher):
        heads = nn.ModuleDict({name: module for name, module in networks.items() if name != "backbone"})
        fill(heads, state, where=f"init_heads={path}")


def load_guide(export: str) -> nn.ModuleDict:
    """Backbone and heads of an export, frozen.

    Raises:
        WeightsError: no export there, or no heads beside it.
        ConfigError: it is no ViT.
    """
    found = load_source(export, heads=True)
    if not isinstance(found.network, VisionTransformer) or found.heads is None:
        raise ConfigError(f"objective.distill_from={export}: no ViT with heads; distil the export of one")
    info, tensors = found.heads
    heads = nn.ModuleDict(
        {
            name: PrototypeHead(info.dim, info.prototypes, hidden=info.hidden, bottleneck=info.bottleneck)
            for name in info.names
        }
    )
    fill(heads, tensors, where=f"{export}: {HEADS}")
    return nn.ModuleDict({"backbone": found.network, **dict(heads.items())}).requires_grad_(False)
