"""DINO: the student's scores of every crop follow the teacher's of the global ones, centred and sharpened.

Source: Caron et al. 2021, arXiv:2104.14294.
"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, PrototypeHead, make_head
from curate.trainer.losses import add_koleo, softmax_targets, update_center
from curate.trainer.objective import NUM_GLOBAL, Moment, Objective, Outcome, Views, tower
from curate.trainer.objectives.settings import CenteredSettings, DinoSettings
from curate.trainer.parallel import World
from curate.trainer.projected import dino_part, projected_loss


class Dino(Objective):
    """Cross-entropy between each global crop of the teacher and every other crop of the student."""

    center: Tensor

    def __init__(self, student: nn.ModuleDict, settings: DinoSettings, *, prototypes: int, world: World) -> None:
        """`student` holds `backbone` and `dino_head`."""
        super().__init__(student, world=world)
        self.settings = settings
        self.register_buffer("center", torch.zeros(prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        return {"dino": math.log(len(self.center))}

    def forward(self, views: Views, moment: Moment) -> Outcome:
        with torch.no_grad():
            features = tower(self.teacher).forward_needed([views.large])[0].cls
            scored = head_of(self.teacher, "dino_head").project(features)
            targets = centered_targets(scored, self.center, self.settings, moment, world=self.world)(slice(None))
        groups = tower(self.student).forward_needed(all_crops(views), generator=moment.generator)
        student = head_of(self.student, "dino_head").project(torch.cat([group.cls for group in groups]))
        by_view = targets.unflatten(0, (NUM_GLOBAL, -1))
        compared = {"dino": dino_part(student, by_view)}
        total, parts = projected_loss(compared, temperature=self.settings.student_temperature)
        total = add_koleo(total, parts, groups[0].cls, self.settings, world=self.world)
        return Outcome(total, parts, features, targets)


def centered_targets(
    teacher: Projection, center: Tensor, settings: CenteredSettings, moment: Moment, *, world: World
) -> Callable[[slice | Tensor], Tensor]:
    """The targets (n, K) of the teacher's rows that are asked for; `center` (K,) moves in place for the next pass."""
    before = center.clone()
    update_center(center, teacher, world=world, momentum=settings.center_momentum)
    return lambda rows: softmax_targets(teacher.scores(rows), before, temperature=moment.temperature)


def all_crops(views: Views) -> list[Tensor]:
    """The groups of crops that the student sees, the global ones first."""
    return [views.large, views.small] if len(views.small) else [views.large]


def head_of(networks: nn.ModuleDict, name: str) -> PrototypeHead:
    """The head `name`, whose `project` the losses call."""
    return cast(PrototypeHead, networks[name])


def make_dino_head(
    backbone: Trained, settings: CenteredSettings, *, prototypes: int, generator: torch.Generator
) -> PrototypeHead:
    """A head for the tokens of `backbone`, its prototypes of length 1 for good if the settings say so."""
    head = make_head(backbone, settings, prototypes=prototypes, generator=generator)
    head.last_layer.scale.requires_grad_(not settings.norm_last_layer)
    return head


def build_dino(
    settings: DinoSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Dino:
    """Around `backbone` with `dino_head`."""
    head = make_dino_head(backbone, settings, prototypes=prototypes, generator=generator)
    student = nn.ModuleDict({"backbone": backbone, "dino_head": head})
    return Dino(student, settings, prototypes=prototypes, world=world)
