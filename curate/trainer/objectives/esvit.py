"""EsViT: DINO between crops, and between each region of a crop and the region most like it in another crop.

Regions are the backbone's last tokens: a ViT's patches, or the last stage of a multi-stage model such as Swin. The
whole crop is what the backbone pools: a ViT's cls token, Swin's mean over regions.

Source: Li et al. 2021, arXiv:2106.09785.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.features import Features
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection
from curate.trainer.losses import add_koleo
from curate.trainer.objective import NUM_GLOBAL, Moment, Objective, Outcome, Views, tower
from curate.trainer.objectives.dino import all_crops, centered_targets, head_of, make_dino_head
from curate.trainer.objectives.settings import EsVitSettings
from curate.trainer.parallel import World
from curate.trainer.projected import Part, dino_part, projected_loss


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
        settings, world, temperature = self.settings, self.world, self.settings.student_temperature
        with torch.no_grad():
            (seen,) = tower(self.teacher).forward_crops([views.large])
            crops, regions = project(self.teacher, [seen])
            targets = centered_targets(crops, self.center, settings, moment, world=world)(slice(None))
            of_region = centered_targets(regions, self.region_center, settings, moment, world=world)
        groups = tower(self.student).forward_crops(all_crops(views), generator=moment.generator)
        crops, regions = project(self.student, groups)
        (first, second), weights = match_regions(groups, seen)
        compared = {
            "view": dino_part(crops, targets.unflatten(0, (NUM_GLOBAL, -1))),
            "region": Part(regions, lambda rows: (of_region(first[rows]) + of_region(second[rows])) / 2, weights),
        }
        factors = {"view": settings.view_weight, "region": settings.region_weight}
        total, parts = projected_loss(compared, factors, temperature=temperature)
        total = add_koleo(total, parts, groups[0].cls, settings, world=world)
        return Outcome(total, parts, seen.cls, targets)


def project(networks: nn.ModuleDict, groups: Sequence[Features]) -> tuple[Projection, Projection]:
    """Whole crops (V * B, K) and all their regions (M, K), one after another, through their heads."""
    crops, regions = [group.cls for group in groups], [group.patches.flatten(0, 1) for group in groups]
    heads = head_of(networks, "dino_head"), head_of(networks, "region_head")
    return heads[0].project(torch.cat(crops)), heads[1].project(torch.cat(regions))


@torch.no_grad()
def match_regions(groups: Sequence[Features], guide: Features) -> tuple[Tensor, Tensor]:
    """For each region of the student the most similar one, by their tokens' cosine, of the teacher's global views.

    Args:
        groups: the student's, the 2B global crops first.
        guide: the teacher's global crops.

    Returns:
        matches: (2, M) int64, rows among all regions of the teacher in its first and second view; for a global crop
            both are the same row of the view that is not its own.
        weights: (M,) float32, with which the cross-entropies add up to the mean over regions, images and pairs of
            different views.
    """
    num_images, num_regions = len(guide.cls) // NUM_GLOBAL, guide.patches.shape[1]
    num_pairs = NUM_GLOBAL * (sum(len(group.cls) for group in groups) // num_images - 1)
    device = guide.patches.device
    start = num_regions * torch.arange(len(guide.cls), device=device).view(NUM_GLOBAL, 1, num_images, 1)
    keys = F.normalize(guide.patches.float(), dim=-1).unflatten(0, (NUM_GLOBAL, -1))  # (2, B, N, D)
    matches, weights = [], []
    for group in groups:
        tokens = F.normalize(group.patches.float(), dim=-1).unflatten(0, (-1, num_images))  # (V, B, n, D)
        with torch.autocast(device.type, enabled=False):
            found = start + torch.einsum("vbnd,tbmd->tvbnm", tokens, keys).argmax(dim=-1)  # (2, V, B, n)
        own = group is groups[0]
        if own:
            found = torch.stack([found[1, 0], found[0, 1]]).expand_as(found)
        matches.append(found.flatten(1))
        share = (1 if own else NUM_GLOBAL) / (num_pairs * num_images * tokens.shape[2])
        weights.append(torch.full((matches[-1].shape[1],), share, device=device))
    return torch.cat(matches, dim=1), torch.cat(weights)


def build_esvit(
    settings: EsVitSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> EsVit:
    """Around `backbone` with `dino_head` for whole crops and `region_head` for their tokens."""
    heads = {
        name: make_dino_head(backbone, settings, prototypes=prototypes, generator=generator)
        for name in ("dino_head", "region_head")
    }
    return EsVit(nn.ModuleDict({"backbone": backbone, **heads}), settings, prototypes=prototypes, world=world)
