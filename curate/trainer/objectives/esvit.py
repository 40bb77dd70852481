"""EsViT: DINO between crops, and between each region of a crop and the region most like it in another crop.

Regions are the backbone's last tokens: a ViT's patches, or the last stage of a multi-stage model such as Swin. The
whole crop is what the backbone pools: a ViT's cls token, Swin's mean over regions.

Source: Li et al. 2021, arXiv:2106.09785.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from curate.models.export import Trained
from curate.models.vit import Features
from curate.trainer.objective import Moment, Objective, Outcome, Views, tower
from curate.trainer.objectives.dino import CenteredSettings, all_crops, centered_targets, make_dino_head, view_loss
from curate.trainer.parallel import World


class EsVitSettings(CenteredSettings):
    """Cross-entropy between crops and between their matched regions."""

    kind: Literal["esvit"] = "esvit"
    """Name of the objective."""
    view_weight: float = Field(default=0.5, ge=0.0)
    """Of the loss between crops."""
    region_weight: float = Field(default=0.5, ge=0.0)
    """Of the loss between regions; its head scores every token, which takes most of the memory."""


class Regions(NamedTuple):
    """The N regions of one view of B images."""

    tokens: Tensor  # (B, N, D) of the backbone
    scores: Tensor  # (B, N, K) the student's over prototypes, or the teacher's targets


class EsVit(Objective):
    """Both losses, each with its own head and centre."""

    center: Tensor
    region_center: Tensor

    def __init__(self, student: nn.ModuleDict, settings: EsVitSettings, *, prototypes: int, world: World) -> None:
        """`student` holds `backbone`, `dino_head` and `region_head`."""
        super().__init__(student, world=world)
        self.settings = settings
        self.register_buffer("center", torch.zeros(prototypes))
        self.register_buffer("region_center", torch.zeros(prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        return dict.fromkeys(("view", "region"), math.log(len(self.center)))

    def forward(self, views: Views, moment: Moment) -> Outcome:
        settings, num_images = self.settings, views.num_images
        with torch.no_grad():
            seen = tower(self.teacher).forward_crops([views.large])
            scores, regions = score(self.teacher, seen)
        targets = centered_targets(scores, self.center, settings, moment, world=self.world)
        region_targets = centered_targets(regions, self.region_center, settings, moment, world=self.world)
        groups = tower(self.student).forward_crops(all_crops(views), generator=moment.generator)
        scores, regions = score(self.student, groups)
        view = view_loss(scores, targets, settings, num_images=num_images)
        region = region_loss(
            by_view(groups, regions, num_images),
            by_view(seen, region_targets, num_images),
            temperature=settings.student_temperature,
        )
        total = settings.view_weight * view + settings.region_weight * region
        return Outcome(total, {"view": view, "region": region}, seen[0].cls, targets)


def score(networks: nn.ModuleDict, groups: Sequence[Features]) -> tuple[Tensor, Tensor]:
    """Scores (V * B, K) of whole crops and (M, K) of all their regions, one after another."""
    crops, regions = [group.cls for group in groups], [group.patches.flatten(0, 1) for group in groups]
    return networks["dino_head"](torch.cat(crops)), networks["region_head"](torch.cat(regions))


def by_view(groups: Sequence[Features], scores: Tensor, num_images: int) -> list[Regions]:
    """The regions of each view in turn, from (M, K) of all regions."""
    views: list[Regions] = []
    parts = scores.split([group.patches.shape[:2].numel() for group in groups])
    for group, part in zip(groups, parts, strict=True):
        of_crops = part.unflatten(0, group.patches.shape[:2])
        views += map(Regions, group.patches.split(num_images), of_crops.split(num_images))
    return views


def region_loss(student: Sequence[Regions], teacher: Sequence[Regions], *, temperature: float = 0.1) -> Tensor:
    """Cross-entropy between each region of the student and the teacher's most similar one, by their tokens' cosine.

    Args:
        student: all views with the student's scores, the global ones first.
        teacher: the global views in the same order with targets in place of scores; rows sum to 1.

    Returns:
        () float32, nats; mean over regions, images and the pairs of different views.
    """
    pairs = []
    for v, view in enumerate(student):
        with torch.autocast(view.scores.device.type, enabled=False):
            logits = view.scores.float() / temperature
            normaliser = logits.logsumexp(dim=-1)  # (B, N)
            for guide in (guide for t, guide in enumerate(teacher) if t != v):
                # All products, then the matched ones: gathering targets first would hold (B, N, K) of them a pair.
                products = logits @ guide.scores.transpose(1, 2)  # (B, N, M)
                matched = products.gather(-1, most_similar(view.tokens, guide.tokens).unsqueeze(-1)).squeeze(-1)
                pairs.append((normaliser - matched).mean())
    return torch.stack(pairs).mean()


@torch.no_grad()
def most_similar(tokens: Tensor, others: Tensor) -> Tensor:
    """(B, N) int64: for each of `tokens` (B, N, D) the one of `others` (B, M, D) with the highest cosine."""
    unit, other = F.normalize(tokens.float(), dim=-1), F.normalize(others.float(), dim=-1)
    return (unit @ other.transpose(1, 2)).argmax(dim=-1)


def build(
    settings: EsVitSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> EsVit:
    """Around `backbone` with `dino_head` for whole crops and `region_head` for their tokens."""
    heads = {
        name: make_dino_head(backbone, settings, prototypes=prototypes, generator=generator)
        for name in ("dino_head", "region_head")
    }
    return EsVit(nn.ModuleDict({"backbone": backbone, **heads}), settings, prototypes=prototypes, world=world)
