"""DIET: tell every image of a small set from all others, by a linear layer with a row for each.

Source: Ibrahim et al. 2023, arXiv:2302.10260 ("DIET", a datum as its own class).
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from curate.feed.crops import Crops
from curate.models.nets.trained import Trained
from curate.trainer.losses import add_koleo
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.feature_settings import DietSettings
from curate.trainer.parallel import World


class Diet(Objective):
    """Cross-entropy of every crop with the number of its image."""

    def __init__(self, student: nn.ModuleDict, settings: DietSettings, *, world: World) -> None:
        """`student` holds `backbone` and `classifier`."""
        super().__init__(student, world=world)
        self.settings, self.num_images = settings, cast(nn.Linear, student["classifier"]).out_features

    @property
    def chance(self) -> Mapping[str, float]:
        """The log of the number of images."""
        return {"diet": math.log(self.num_images)}

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, whose numbers come with them.

        Raises:
            ValueError: they do not.
        """
        if crops.images is None:
            raise ValueError("objective=diet: the crops do not say which images they show (Crops.images)")
        groups = backbone_of(self.student).forward_needed(crops.groups, generator=context.generator)
        logits = self.student["classifier"](torch.cat([group.cls for group in groups])).float()  # (V * B, N)
        labels = crops.images.to(logits.device, non_blocking=True).repeat(len(logits) // crops.num_images)
        terms = {"diet": F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)}
        figures = {"diet_accuracy": (logits.detach().argmax(dim=1) == labels).float().mean()}
        seen = groups[0].cls
        loss, terms = add_koleo(
            terms["diet"], terms, seen, self.settings, world=self.world, factor=context.weights.koleo
        )
        return ObjectiveOutput(loss, terms, seen.detach(), figures=figures, seen=seen)


def build_diet(
    settings: DietSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> Diet:
    """DIET around `backbone`, with `classifier`; `prototypes` is the number of images."""
    classifier = nn.Linear(backbone.config.dim, prototypes, bias=False)
    nn.init.trunc_normal_(classifier.weight, std=0.02, generator=generator)
    return Diet(nn.ModuleDict({"backbone": backbone, "classifier": classifier}), settings, world=world)
