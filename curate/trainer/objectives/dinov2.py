"""DINOv2: DINO between crops, iBOT on masked patches, KoLeo; also by distillation from a frozen teacher.

Source: Oquab et al. 2023, arXiv:2304.07193.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from curate.models.nets.config import ViTConfig
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, PrototypeHead, make_head
from curate.trainer.losses import add_koleo, sinkhorn_targets, softmax_targets, update_center
from curate.trainer.masks import draw_masks
from curate.trainer.objective import NUM_GLOBAL, Moment, Objective, Outcome, Views, tower
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets, dino_part, ibot_part, projected_loss


class DinoV2(Objective):
    """Student and teacher, each a backbone and heads, and the loss between them."""

    dino_center: Tensor
    ibot_center: Tensor

    def __init__(
        self,
        student: nn.ModuleDict,
        settings: DinoV2Settings,
        *,
        prototypes: int,
        world: World,
    ) -> None:
        """`student` holds `backbone`, `dino_head` and, unless tied, `ibot_head`."""
        super().__init__(student, world=world, masks=settings.distill_from is None)
        self.settings = settings
        self.register_buffer("dino_center", torch.zeros(prototypes))
        self.register_buffer("ibot_center", torch.zeros(prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        return {"dino": math.log(len(self.dino_center))}

    def forward(self, views: Views, moment: Moment) -> Outcome:
        """The loss of one batch."""
        return self.loss(views, self._draw_masks(views, moment), moment)

    def _draw_masks(self, views: Views, moment: Moment) -> Tensor:
        """(2B, N) bool on the CPU: this rank's share of the masks of the whole batch."""
        patch = cast(ViTConfig, self.backbone.config).patch_size
        grid, rank, size = views.large.shape[-1] // patch, self.world.rank, self.world.size
        share = 0.0 if self.guide is not None or self.settings.ibot_weight == 0 else self.settings.masked_share
        masks = draw_masks(
            len(views.large) * size, grid, rng=moment.rng, share=share, ratios=self.settings.mask_ratio
        ).reshape(NUM_GLOBAL, size, views.num_images, -1)
        return torch.from_numpy(masks[:, rank].reshape(len(views.large), -1))

    def loss(self, views: Views, masks: Tensor, moment: Moment) -> Outcome:
        """As `forward`, with masks (2B, N) bool on the CPU, the patches hidden from the student."""
        large, small = views
        judged = masks if self.guide is None else torch.ones_like(masks)  # patches that the iBOT loss looks at
        rows = judged.flatten().nonzero().squeeze(1)  # (M,), found on the CPU: no wait for the device
        weights = (1 / judged.sum(dim=1).clamp_min(1)).repeat_interleave(judged.shape[1])[rows]
        rows, weights, masks = (x.to(large.device, non_blocking=True) for x in (rows, weights, masks))
        cls_targets, patch_targets, features = self._targets(large, rows, moment.temperature)
        groups = tower(self.student).forward_needed(
            [large, small] if len(small) else [large],
            ([masks, None] if len(small) else [masks]) if self.guide is None else None,
            patches=[rows, None] if len(small) else [rows],
            generator=moment.generator,
        )
        views_cls = torch.cat([group.cls for group in groups])  # (V * B, D)
        of_cls, of_patches = self._project(self.student, views_cls, groups[0].patches)
        by_view = cls_targets.unflatten(0, (NUM_GLOBAL, -1))
        compared = {"dino": dino_part(of_cls, by_view)}
        if self.settings.ibot_weight > 0:
            compared["ibot"] = ibot_part(of_patches, patch_targets, weights, num_crops=len(large))
        factors = {"dino": self.settings.dino_weight, "ibot": self.settings.ibot_weight}
        total, parts = projected_loss(compared, factors, temperature=self.settings.student_temperature)
        total = add_koleo(total, parts, groups[0].cls, self.settings, world=self.world)
        return Outcome(total, parts, features, cls_targets)

    def _project(self, networks: nn.ModuleDict, cls: Tensor, patches: Tensor) -> tuple[Projection, Projection]:
        """cls tokens and patches through their heads; a tied head runs once for both."""
        if self.settings.ibot_weight == 0:
            return _head(networks, "dino_head").project(cls).split(len(cls))
        if "ibot_head" in networks:
            return _head(networks, "dino_head").project(cls), _head(networks, "ibot_head").project(patches)
        return _head(networks, "dino_head").project(torch.cat([cls, patches])).split(len(cls))

    @torch.no_grad()
    def _targets(self, large: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, Targets, Tensor]:
        """The teacher on unmasked global crops: (2B, K) cls targets, those of M patches, (2B, D) features."""
        networks = self.teacher if self.guide is None else self.guide
        (seen,) = tower(networks).forward_needed([large], patches=[rows])
        of_cls, of_patches = self._project(networks, seen.cls, seen.patches)
        cls_targets = self._sharpen(of_cls, self.dino_center, temperature)(slice(None))
        if self.settings.ibot_weight == 0:
            return cls_targets, cls_targets.__getitem__, seen.cls
        return cls_targets, self._sharpen(of_patches, self.ibot_center, temperature), seen.cls

    def _sharpen(self, teacher: Projection, center: Tensor, temperature: float) -> Targets:
        """Sinkhorn needs the scores of all rows together; a softmax only the row's own, when the loss comes to it."""
        if self.settings.centering == "sinkhorn":
            return sinkhorn_targets(teacher.scores(), temperature=temperature, world=self.world).__getitem__
        before = center.clone()
        update_center(center, teacher, world=self.world)
        return lambda rows: softmax_targets(teacher.scores(rows), before, temperature=temperature)


def _head(networks: nn.ModuleDict, name: str) -> PrototypeHead:
    return cast(PrototypeHead, networks[name])


def build_dinov2(
    settings: DinoV2Settings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> DinoV2:
    """Around `backbone` with `dino_head` and, unless the heads are tied or iBOT is off, `ibot_head`."""
    names = ["dino_head"] + ["ibot_head"] * (settings.ibot_weight > 0 and not settings.tied_heads)
    heads = {name: make_head(backbone, settings, prototypes=prototypes, generator=generator) for name in names}
    return DinoV2(nn.ModuleDict({"backbone": backbone, **heads}), settings, prototypes=prototypes, world=world)
