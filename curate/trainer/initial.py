"""What a run starts from: fresh weights, released ones, those of an earlier training; and whom it distils."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.models import formats
from curate.models.export import Trained, read_export
from curate.models.heads import HeadsInfo, pick_heads, read_heads
from curate.models.load import load_backbone
from curate.models.tower import TimmTower
from curate.models.vit import VisionTransformer, ViTConfig
from curate.trainer.config import Effective, TrainConfig
from curate.trainer.heads import PrototypeHead
from curate.trainer.objective import Objective
from curate.trainer.objectives import make_objective
from curate.trainer.objectives.dinov2 import DinoV2Settings
from curate.trainer.parallel import World

HEADS = "heads.safetensors"
"""Lies beside `backbone.safetensors` in an export."""


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
    guide = distilled(config)
    if guide is not None:
        objective.guide = load_guide(guide)
    return objective


def distilled(config: TrainConfig) -> Path | None:
    """The export that the run distils, if it does."""
    objective = config.objective
    given = objective.distill_from if isinstance(objective, DinoV2Settings) else None
    if given is None:
        return None
    path = Path(given)
    return path / "backbone.safetensors" if path.is_dir() else path


def given_heads(config: TrainConfig) -> HeadsInfo | None:
    """Of the heads that the run starts from or distils; None: its heads are fresh.

    Raises:
        WeightsError: the file is missing, damaged or holds no heads.
    """
    guide = distilled(config)
    path = guide.with_name(HEADS) if guide is not None else config.init_heads
    return None if path is None else read_heads(path)[0]


def origins(config: TrainConfig) -> dict[str, str]:
    """Digest of each file that a run starts from: a part of what makes two runs one."""
    guide = distilled(config)
    named = {"init_from": config.init_from, "init_heads": config.init_heads}
    named |= {} if guide is None else {"distill_from": str(guide), "distill_heads": str(guide.with_name(HEADS))}
    return {name: _digest(path) for name, path in named.items() if path is not None and Path(path).exists()}


def _digest(path: str) -> str:
    with formats.find_weight_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def load_weights(backbone: Trained, source: str) -> None:
    """Fill `backbone` from a weight file in any of the known formats, or from a model id.

    Raises:
        WeightsError: missing, damaged or another model's.
    """
    if Path(source).expanduser().exists():
        state = formats.load_state(source)
    else:
        state = load_backbone(source, device="cpu", precision="fp32").module.state_dict()
    if isinstance(backbone, VisionTransformer):
        state = formats.to_hub(state, where=source)
        state["pos_embed"] = resample_positions(state["pos_embed"], backbone.config.grid)
    formats.fill(backbone.net if isinstance(backbone, TimmTower) else backbone, state, where=source)


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """(1, 1 + n * n, D) to (1, 1 + grid * grid, D), bicubic; cls keeps its own."""
    stored = round((positions.shape[1] - 1) ** 0.5)
    if stored == grid:
        return positions
    square = positions[:, 1:].float().unflatten(1, (stored, stored)).permute(0, 3, 1, 2)
    resized = F.interpolate(square, (grid, grid), mode="bicubic", antialias=True)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def load_heads(objective: Objective, path: str) -> None:
    """Fill the heads of student and teacher from a file of heads.

    Raises:
        WeightsError: missing, damaged, or of other heads than the objective's.
    """
    _, state = read_heads(path)
    for networks in (objective.student, objective.teacher):
        heads = nn.ModuleDict({name: module for name, module in networks.items() if name != "backbone"})
        wanted = pick_heads(heads.state_dict())
        if not wanted:
            raise ConfigError(f"init_heads={path}: this objective has no prototype heads; leave init_heads out")
        formats.fill(heads, state, where=f"init_heads={path}")


def load_guide(export: Path) -> nn.ModuleDict:
    """Backbone and heads of an export, frozen.

    Raises:
        WeightsError: no export there, or no heads beside it.
    """
    config, state, _ = read_export(export)
    if not isinstance(config, ViTConfig):
        raise ConfigError(f"objective.distill_from={export}: {config.name}, no ViT; distil the export of one")
    backbone = VisionTransformer(config.model_copy(update={"drop_path_rate": 0.0}))
    formats.fill(backbone, state, where=str(export))
    info, tensors = read_heads(export.with_name(HEADS))
    heads = {
        name: PrototypeHead(info.dim, info.prototypes, hidden=info.hidden, bottleneck=info.bottleneck)
        for name in info.names
    }
    guide = nn.ModuleDict({"backbone": backbone, **heads})
    formats.fill(nn.ModuleDict(heads), tensors, where=str(export.with_name(HEADS)))
    return guide.requires_grad_(False)
