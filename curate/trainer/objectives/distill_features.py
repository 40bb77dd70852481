"""Distillation of features: the student predicts the pooled features and patches of frozen backbones.

It needs no heads, which hardly any released backbone comes with, and takes backbones of any kind. The features of each
teacher are standardized, so that dimensions and teachers count alike; a linear map leads from the student's tokens to
them. Patches of a teacher are resized to the student's grid.

Source: the losses of Ranzinger et al. 2024, arXiv:2312.06709 (AM-RADIO), with running statistics.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.feed.crops import Crops
from curate.models.nets.trained import Trained
from curate.trainer.feature_teachers import FeatureTeacher, RunningStandard, on_grid
from curate.trainer.losses import add_koleo
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.feature_settings import DistillFeaturesSettings
from curate.trainer.parallel import World

TERMS = ("cls_cosine", "cls_l1", "patch_cosine", "patch_l1")


class FeatureMaps(nn.Module):
    """Linear maps from the student's tokens to the features of each teacher: of the whole and, where there are some, of
    patches."""

    def __init__(self, dim: int, teachers: list[FeatureTeacher], *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.whole = nn.ModuleList(_linear(dim, teacher.dim, generator) for teacher in teachers)
        self.patches = nn.ModuleDict(
            {str(i): _linear(dim, one.dim, generator) for i, one in enumerate(teachers) if one.has_patches}
        )

    def forward(self, cls: Tensor, patches: Tensor) -> tuple[list[Tensor], dict[int, Tensor]]:
        """(C, D) and (C, N, D) -> predictions of each teacher's features, and of its patches by its number."""
        return [layer(cls) for layer in self.whole], {int(i): layer(patches) for i, layer in self.patches.items()}


def _linear(dim: int, out: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(dim, out)
    nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class DistillFeatures(Objective):
    """Cosine and smooth L1 distances between predicted and given features."""

    feature_teachers: nn.ModuleList

    def __init__(
        self, student: nn.ModuleDict, settings: DistillFeaturesSettings, teachers: list[FeatureTeacher], *, world: World
    ) -> None:
        """`student` holds `backbone` and `maps`."""
        super().__init__(student, world=world)
        self.settings, self.feature_teachers = settings, nn.ModuleList(teachers)
        self.standards = nn.ModuleDict(
            {
                f"{kind}_{i}": RunningStandard(teacher.dim, momentum=settings.statistics_momentum, world=world)
                for i, teacher in enumerate(teachers)
                for kind in ("cls", *(["patch"] if teacher.has_patches else []))
            }
        )

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, of which the global ones alone are used."""
        images, settings = crops.global_crops, self.settings
        (seen,) = backbone_of(self.student).forward_crops([images], generator=context.generator)
        of_cls, of_patches = self.student["maps"](seen.cls, seen.patches)
        terms = {name: torch.zeros((), device=images.device) for name in TERMS}
        total = sum(teacher.weight for teacher in settings.teachers)
        for i, teacher in enumerate(self.feature_teachers):
            pooled, patches = teacher(images)
            compared = {"cls": (of_cls[i], pooled.float())}
            if patches is not None:
                given = on_grid(patches, seen.patches.shape[1])
                compared["patch"] = (of_patches[i].flatten(0, 1), given.flatten(0, 1))
            for kind, (predicted, features) in compared.items():
                cosine, l1 = distances(predicted, self.standards[f"{kind}_{i}"](features))
                share = settings.teachers[i].weight / total
                terms[f"{kind}_cosine"] = terms[f"{kind}_cosine"] + share * cosine
                terms[f"{kind}_l1"] = terms[f"{kind}_l1"] + share * l1
        loss = self._weigh(terms)
        loss, terms = add_koleo(loss, terms, seen.cls, settings, world=self.world, factor=context.weights.koleo)
        return ObjectiveOutput(loss, terms, seen.cls.detach(), seen=seen.cls)

    def _weigh(self, terms: dict[str, Tensor]) -> Tensor:
        settings = self.settings
        kinds = {"cls": settings.cls_weight, "patch": settings.patch_weight}
        ways = {"cosine": settings.cosine_weight, "l1": settings.smooth_l1_weight}
        weighed = [kinds[kind] * ways[way] * terms[f"{kind}_{way}"] for kind in kinds for way in ways]
        return torch.stack(weighed).sum()


def distances(predicted: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """1 - cosine, and the smooth L1 distance, of two (M, D): () float32 each, means over rows and over both."""
    with torch.autocast(predicted.device.type, enabled=False):
        predicted, features = predicted.float(), features.float()
        return 1 - F.cosine_similarity(predicted, features, dim=-1).mean(), F.smooth_l1_loss(predicted, features)


def build_distill_features(
    settings: DistillFeaturesSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> DistillFeatures:
    """Distillation into `backbone`, with `maps`."""
    teachers = [FeatureTeacher(one) for one in settings.teachers]
    maps = FeatureMaps(backbone.config.dim, teachers, generator=generator)
    return DistillFeatures(nn.ModuleDict({"backbone": backbone, "maps": maps}), settings, teachers, world=world)
