"""The product of a training: the teacher's backbone and heads, gathered from all ranks and written as exports."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from curate.models.files.export import write_export
from curate.models.files.header import HEADS, ExportInfo
from curate.models.files.heads import describe_heads, pick_heads, write_heads
from curate.models.nets.trained import Trained
from curate.trainer.adapting import adapt, merged
from curate.trainer.config import TrainConfig
from curate.trainer.given_backbone import export_info
from curate.trainer.objective import Objective, backbone_of, members_of
from curate.trainer.parallel import World
from curate.trainer.sharding import full_tensor

STUDENTS = "students"
"""Folder of the exports of students beside the first, each in one of its name."""


class TeacherWeights(NamedTuple):
    """The teacher at one moment of the training."""

    backbone: Trained
    heads: dict[str, Tensor]
    """Tensors of the heads with prototypes, by name; empty for objectives without."""

    def copied_to_cpu(self) -> "TeacherWeights":
        """A copy on the CPU, which training does not change."""
        heads = {name: value.detach().to("cpu", copy=True) for name, value in self.heads.items()}
        return TeacherWeights(copy.deepcopy(self.backbone).cpu(), heads)


def gather_teacher(objective: Objective, config: TrainConfig, world: World, name: str = "") -> TeacherWeights:
    """The teacher's whole weights on every rank; all ranks must call it together.

    Under FSDP2 the backbone is built anew from the gathered tensors; otherwise it is the objective's own, or a copy of
    it with its low-rank changes merged.

    Args:
        name: of the student whose average it is; empty: the first.
    """
    networks = members_of(objective.teacher)[name]
    state = {key: full_tensor(value) for key, value in networks.state_dict().items()}
    backbone = backbone_of(networks)
    if config.parallel == "fsdp" and world.size > 1:
        model = config.students[name].model if name else config.model
        backbone = model.build(config.crops.global_size, generator=torch.Generator())
        if not name:
            adapt(backbone, config, generator=torch.Generator())
        prefix = "backbone."
        backbone.load_state_dict({n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)})
        backbone.to(next(iter(state.values())).device).eval()
    return TeacherWeights(merged(backbone), pick_heads(state))


def gather_teachers(objective: Objective, config: TrainConfig, world: World) -> dict[str, TeacherWeights]:
    """The average of every student by its name, the first one's under ""; all ranks must call it together."""
    return {name: gather_teacher(objective, config, world, name) for name in members_of(objective.teacher)}


def export_path(path: Path, name: str) -> Path:
    """Where the export of the student `name` lies, whose first one lies at `path`."""
    return path.parent / STUDENTS / name / path.name if name else path


def write_teacher(
    path: Path, teacher: TeacherWeights, config: TrainConfig, *, given: ExportInfo | None, provenance: dict[str, Any]
) -> None:
    """Write the backbone to `path`, a .safetensors, and the heads, where there are any, beside it.

    Args:
        given: what is known of the backbone that it goes on from; None: it began afresh.
    """
    write_export(path, teacher.backbone, export_info(config, given, teacher.backbone.config, provenance=provenance))
    if teacher.heads:
        beside = path.with_name(HEADS)
        write_heads(beside, teacher.heads, describe_heads(teacher.heads, provenance=provenance, where=str(beside)))
