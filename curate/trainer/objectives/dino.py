"""DINO: the student's scores of every crop follow the teacher's of the global ones, centred and sharpened.

Source: Caron et al. 2021, arXiv:2104.14294.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from curate.models.export import Trained
from curate.trainer.heads import PrototypeHead, make_head
from curate.trainer.losses import dino_loss, softmax_targets, update_center
from curate.trainer.objective import NUM_GLOBAL, Moment, Objective, Outcome, PrototypeSettings, Views, tower
from curate.trainer.parallel import World


class CenteredSettings(PrototypeSettings):
    """Of objectives whose targets are a softmax around a running centre."""

    center_momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """EMA of the centre of the teacher's scores."""
    norm_last_layer: bool = True
    """Keep all prototypes at length 1: steadier; small models do better without."""


class DinoSettings(CenteredSettings):
    """Cross-entropy between crops alone."""

    kind: Literal["dino"] = "dino"
    """Name of the objective."""


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
            features = tower(self.teacher).forward_crops([views.large])[0].cls
            scores = self.teacher["dino_head"](features)
        targets = centered_targets(scores, self.center, self.settings, moment, world=self.world)
        groups = tower(self.student).forward_crops(all_crops(views), generator=moment.generator)
        scores = self.student["dino_head"](torch.cat([group.cls for group in groups]))
        loss = view_loss(scores, targets, self.settings, num_images=views.num_images)
        return Outcome(loss, {"dino": loss}, features, targets)


@torch.no_grad()
def centered_targets(
    scores: Tensor, center: Tensor, settings: CenteredSettings, moment: Moment, *, world: World
) -> Tensor:
    """Targets (M, K) of the teacher's scores (M, K); `center` (K,) moves in place afterwards."""
    targets = softmax_targets(scores, center, temperature=moment.temperature)
    update_center(center, scores, world=world, momentum=settings.center_momentum)
    return targets


def view_loss(scores: Tensor, targets: Tensor, settings: CenteredSettings, *, num_images: int) -> Tensor:
    """`dino_loss` of scores (V * B, K) and targets (2B, K)."""
    by_view, by_global_view = scores.unflatten(0, (-1, num_images)), targets.unflatten(0, (NUM_GLOBAL, -1))
    return dino_loss(by_view, by_global_view, temperature=settings.student_temperature)


def all_crops(views: Views) -> list[Tensor]:
    """The groups of crops that the student sees, the global ones first."""
    return [views.large, views.small] if len(views.small) else [views.large]


def make_dino_head(
    backbone: Trained, settings: CenteredSettings, *, prototypes: int, generator: torch.Generator
) -> PrototypeHead:
    """A head for the tokens of `backbone`, its prototypes of length 1 for good if the settings say so."""
    head = make_head(backbone, settings, prototypes=prototypes, generator=generator)
    head.last_layer.scale.requires_grad_(not settings.norm_last_layer)
    return head


def build(
    settings: DinoSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Dino:
    """Around `backbone` with `dino_head`."""
    head = make_dino_head(backbone, settings, prototypes=prototypes, generator=generator)
    student = nn.ModuleDict({"backbone": backbone, "dino_head": head})
    return Dino(student, settings, prototypes=prototypes, world=world)
