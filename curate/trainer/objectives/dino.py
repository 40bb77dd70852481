"""DINO: the student's scores of every crop follow the teacher's of the global ones, centered and sharpened.

Source: Caron et al. 2021, arXiv:2104.14294.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.files.heads import HeadShape
from curate.models.nets.trained import Trained
from curate.trainer.heads import PrototypeHead, PrototypeLayer, head_of, head_shape, make_head
from curate.trainer.losses import add_koleo, centered_targets
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.settings import CenteredSettings, DinoSettings
from curate.trainer.parallel import World
from curate.trainer.projected import dino_term, projected_loss


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
        """ln K of the only term."""
        return {"dino": math.log(len(self.center))}

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images."""
        with torch.no_grad():
            features = backbone_of(self.teacher).forward_needed([crops.global_crops])[0].cls
            scored = head_of(self.teacher, "dino_head").project(features)
            targets = centered_targets(
                scored,
                self.center,
                temperature=context.temperature,
                momentum=self.settings.center_momentum,
                world=self.world,
            )(slice(None))
        groups = backbone_of(self.student).forward_needed(crops.groups, generator=context.generator)
        student = head_of(self.student, "dino_head").project(torch.cat([group.cls for group in groups]))
        by_view = targets.unflatten(0, (NUM_GLOBAL_CROPS, -1))
        terms = {"dino": dino_term(student, by_view)}
        loss, values = projected_loss(terms, temperature=self.settings.student_temperature)
        loss, values = add_koleo(
            loss, values, groups[0].cls, self.settings, world=self.world, factor=context.weights.koleo
        )
        return ObjectiveOutput(loss, values, features, targets, seen=groups[0].cls)


def make_dino_head(
    backbone: Trained, settings: CenteredSettings, shape: HeadShape, *, generator: torch.Generator
) -> PrototypeHead:
    """A head of this shape for the tokens of `backbone`, its prototypes of length 1 for good if the settings say so."""
    head = make_head(backbone, shape, generator=generator)
    assert isinstance(head.last_layer, PrototypeLayer)
    head.last_layer.scale.requires_grad_(not settings.norm_last_layer)
    return head


def build_dino(
    settings: DinoSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Dino:
    """DINO around `backbone`, with `dino_head`."""
    head = make_dino_head(backbone, settings, head_shape(settings, prototypes), generator=generator)
    student = nn.ModuleDict({"backbone": backbone, "dino_head": head})
    return Dino(student, settings, prototypes=prototypes, world=world)
