"""DINOv2: DINO between crops, iBOT on masked patches, KoLeo; also by distillation from a frozen teacher.

Source: Oquab et al. 2023, arXiv:2304.07193.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.config import ViTConfig
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, head_of, head_shape, make_head
from curate.trainer.losses import add_koleo, centered_targets
from curate.trainer.masks import draw_masks
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets, dino_term, ibot_term, projected_loss
from curate.trainer.sinkhorn import projected_sinkhorn


class DinoV2(Objective):
    """Cross-entropy between crops as in DINO, between the patches that the student does not see, and KoLeo."""

    dino_center: Tensor
    ibot_center: Tensor

    def __init__(self, student: nn.ModuleDict, settings: DinoV2Settings, *, world: World) -> None:
        """`student` holds `backbone`, `dino_head` and, unless tied, `ibot_head`."""
        super().__init__(student, world=world, masks=settings.distill_from is None)
        self.settings = settings
        of_patches = "ibot_head" if "ibot_head" in student else "dino_head"
        self.register_buffer("dino_center", torch.zeros(head_of(student, "dino_head").num_prototypes))
        self.register_buffer("ibot_center", torch.zeros(head_of(student, of_patches).num_prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        """ln K of the term between crops."""
        return {"dino": math.log(len(self.dino_center))}

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, with masks drawn for them."""
        return self.forward_masked(crops, self._draw_masks(crops, context), context)

    def _draw_masks(self, crops: Crops, context: ForwardContext) -> Tensor:
        """(2B, N) bool on the CPU: this rank's share of the masks of the whole batch."""
        patch, num_crops = cast(ViTConfig, self.backbone.config).patch_size, len(crops.global_crops)
        grid, rank, size = crops.global_crops.shape[-1] // patch, self.world.rank, self.world.size
        unmasked = self.frozen_teacher is not None or self.settings.ibot_weight == 0
        share = 0.0 if unmasked else self.settings.masked_share
        masks = draw_masks(num_crops * size, grid, rng=context.rng, share=share, ratios=self.settings.mask_ratio)
        by_rank = masks.reshape(NUM_GLOBAL_CROPS, size, crops.num_images, -1)
        return torch.from_numpy(by_rank[:, rank].reshape(num_crops, -1))

    def forward_masked(self, crops: Crops, masks: Tensor, context: ForwardContext) -> ObjectiveOutput:
        """As `forward`, with the given masks (2B, N), bool on the CPU: the patches hidden from the student."""
        global_crops = crops.global_crops
        judged = masks if self.frozen_teacher is None else torch.ones_like(masks)  # patches that iBOT looks at
        rows = judged.flatten().nonzero().squeeze(1)  # (M,), found on the CPU: no wait for the device
        weights = (1 / judged.sum(dim=1).clamp_min(1)).repeat_interleave(judged.shape[1])[rows]
        rows, weights, masks = (x.to(global_crops.device, non_blocking=True) for x in (rows, weights, masks))
        cls_targets, patch_targets, features = self._targets(global_crops, rows, context.temperature)
        unseen = [None] * (len(crops.groups) - 1)  # local crops have neither masks nor judged patches
        groups = backbone_of(self.student).forward_needed(
            crops.groups,
            [masks, *unseen] if self.frozen_teacher is None else None,
            patches=[rows, *unseen],
            generator=context.generator,
        )
        views_cls = torch.cat([group.cls for group in groups])  # (V * B, D)
        of_cls, of_patches = self._project(self.student, views_cls, groups[0].patches)
        terms = {"dino": dino_term(of_cls, cls_targets.unflatten(0, (NUM_GLOBAL_CROPS, -1)))}
        if self.settings.ibot_weight > 0:
            terms["ibot"] = ibot_term(of_patches, patch_targets, weights, num_crops=len(global_crops))
        factors = {"dino": self.settings.dino_weight, "ibot": self.settings.ibot_weight}
        loss, values = projected_loss(terms, factors, temperature=self.settings.student_temperature)
        loss, values = add_koleo(loss, values, groups[0].cls, self.settings, world=self.world)
        return ObjectiveOutput(loss, values, features, cls_targets)

    def _project(self, networks: nn.ModuleDict, cls: Tensor, patches: Tensor) -> tuple[Projection, Projection]:
        """cls tokens and patches through their heads; a tied head runs once for both."""
        if self.settings.ibot_weight == 0:
            return head_of(networks, "dino_head").project(cls).split(len(cls))
        if "ibot_head" in networks:
            return head_of(networks, "dino_head").project(cls), head_of(networks, "ibot_head").project(patches)
        return head_of(networks, "dino_head").project(torch.cat([cls, patches])).split(len(cls))

    @torch.no_grad()
    def _targets(self, global_crops: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, Targets, Tensor]:
        """The teacher on unmasked global crops: (2B, K) cls targets, those of M patches, (2B, D) features."""
        networks = self.teacher if self.frozen_teacher is None else self.frozen_teacher
        (seen,) = backbone_of(networks).forward_needed([global_crops], patches=[rows])
        of_cls, of_patches = self._project(networks, seen.cls, seen.patches)
        cls_targets = self._sharpen(of_cls, self.dino_center, temperature)(slice(None))
        if self.settings.ibot_weight == 0:
            return cls_targets, cls_targets.__getitem__, seen.cls
        return cls_targets, self._sharpen(of_patches, self.ibot_center, temperature), seen.cls

    def _sharpen(self, teacher: Projection, center: Tensor, temperature: float) -> Targets:
        if self.settings.centering == "sinkhorn":
            return projected_sinkhorn(teacher, temperature=temperature, world=self.world)
        return centered_targets(teacher, center, temperature=temperature, world=self.world)


def build_dinov2(
    settings: DinoV2Settings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> DinoV2:
    """DINOv2 around `backbone`, with `dino_head` and, unless the heads are tied or iBOT is off, `ibot_head`."""
    shapes = {"dino_head": head_shape(settings, prototypes)}
    if settings.ibot_weight > 0 and not settings.tied_heads:
        shapes["ibot_head"] = head_shape(settings, prototypes, settings.ibot_head)
    heads = {name: make_head(backbone, shape, generator=generator) for name, shape in shapes.items()}
    return DinoV2(nn.ModuleDict({"backbone": backbone, **heads}), settings, world=world)
