"""EsViT: DINO between crops, and between each region of a crop and the region most like it in another crop.

Regions are the backbone's last tokens: a ViT's patches, or the last stage of a multi-stage model such as Swin. The
whole crop is what the backbone pools: a ViT's cls token, Swin's mean over regions.

Source: Li et al. 2021, arXiv:2106.09785.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.features import Features
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, head_of, head_shape
from curate.trainer.losses import add_koleo, centered_targets
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.dino import make_dino_head
from curate.trainer.objectives.settings import EsVitSettings
from curate.trainer.parallel import World
from curate.trainer.projected import CrossEntropyTerm, dino_term, projected_loss


class EsVit(Objective):
    """Cross-entropies of crops and of regions, each with its own head and center."""

    center: Tensor
    region_center: Tensor

    def __init__(self, student: nn.ModuleDict, settings: EsVitSettings, *, world: World) -> None:
        """`student` holds `backbone`, `dino_head` and `region_head`."""
        super().__init__(student, world=world)
        self.settings = settings
        self.register_buffer("center", torch.zeros(head_of(student, "dino_head").num_prototypes))
        self.register_buffer("region_center", torch.zeros(head_of(student, "region_head").num_prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        """ln K of both terms."""
        return {"view": math.log(len(self.center)), "region": math.log(len(self.region_center))}

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images."""
        settings, world = self.settings, self.world
        targets_of = partial(
            centered_targets, temperature=context.temperature, momentum=settings.center_momentum, world=world
        )
        with torch.no_grad():
            (seen,) = backbone_of(self.teacher).forward_crops([crops.global_crops])
            views, regions = _project_groups(self.teacher, [seen])
            targets = targets_of(views, self.center)(slice(None))
            of_region = targets_of(regions, self.region_center)
        groups = backbone_of(self.student).forward_crops(crops.groups, generator=context.generator)
        views, regions = _project_groups(self.student, groups)
        (first, second), weights = match_regions(groups, seen)
        terms = {
            "view": dino_term(views, targets.unflatten(0, (NUM_GLOBAL_CROPS, -1))),
            "region": CrossEntropyTerm(
                regions, lambda rows: (of_region(first[rows]) + of_region(second[rows])) / 2, weights
            ),
        }
        factors = {"view": settings.view_weight, "region": settings.region_weight}
        loss, values = projected_loss(terms, factors, temperature=settings.student_temperature)
        loss, values = add_koleo(loss, values, groups[0].cls, settings, world=world, factor=context.weights.koleo)
        return ObjectiveOutput(loss, values, seen.cls, targets, seen=groups[0].cls)


def _project_groups(networks: nn.ModuleDict, groups: Sequence[Features]) -> tuple[Projection, Projection]:
    """Whole crops (V * B, K) and all their regions (M, K), one after another, through their heads."""
    views, regions = [group.cls for group in groups], [group.patches.flatten(0, 1) for group in groups]
    heads = head_of(networks, "dino_head"), head_of(networks, "region_head")
    return heads[0].project(torch.cat(views)), heads[1].project(torch.cat(regions))


@torch.no_grad()
def match_regions(student: Sequence[Features], teacher: Features) -> tuple[Tensor, Tensor]:
    """For each region of the student the most similar one, by their tokens' cosine, of the teacher's global crops.

    Args:
        student: its groups of crops, the 2B global ones first.
        teacher: its global crops.

    Returns:
        matches: (2, M) int64, rows among all regions of the teacher in its first and second view; for a global crop
            both are the same row of the view that is not its own.
        weights: (M,) float32, with which the cross-entropies add up to the mean over regions, images and pairs of
            different views.
    """
    num_images, num_regions = len(teacher.cls) // NUM_GLOBAL_CROPS, teacher.patches.shape[1]
    num_pairs = NUM_GLOBAL_CROPS * (sum(len(group.cls) for group in student) // num_images - 1)
    device = teacher.patches.device
    start = num_regions * torch.arange(len(teacher.cls), device=device).view(NUM_GLOBAL_CROPS, 1, num_images, 1)
    keys = F.normalize(teacher.patches.float(), dim=-1).unflatten(0, (NUM_GLOBAL_CROPS, -1))  # (2, B, N, D)
    matches, weights = [], []
    for group in student:
        tokens = F.normalize(group.patches.float(), dim=-1).unflatten(0, (-1, num_images))  # (V, B, n, D)
        with torch.autocast(device.type, enabled=False):
            found = start + torch.einsum("vbnd,tbmd->tvbnm", tokens, keys).argmax(dim=-1)  # (2, V, B, n)
        own = group is student[0]
        if own:
            found = torch.stack([found[1, 0], found[0, 1]]).expand_as(found)
        matches.append(found.flatten(1))
        share = (1 if own else NUM_GLOBAL_CROPS) / (num_pairs * num_images * tokens.shape[2])
        weights.append(torch.full((matches[-1].shape[1],), share, device=device))
    return torch.cat(matches, dim=1), torch.cat(weights)


def build_esvit(
    settings: EsVitSettings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> EsVit:
    """EsViT around `backbone`, with `dino_head` for whole crops and `region_head` for their tokens."""
    shapes = {
        "dino_head": head_shape(settings, prototypes),
        "region_head": head_shape(settings, prototypes, settings.region_head),
    }
    heads = {name: make_dino_head(backbone, settings, shape, generator=generator) for name, shape in shapes.items()}
    return EsVit(nn.ModuleDict({"backbone": backbone, **heads}), settings, world=world)
