"""The DINOv2 objective: what student and teacher see, the loss parts, the EMA.

Source: Oquab et al. 2023, arXiv:2304.07193.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from curate.models.vit import VisionTransformer, ViTConfig
from curate.trainer.config import ObjectiveSettings
from curate.trainer.heads import PrototypeHead
from curate.trainer.losses import (
    dino_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_targets,
    softmax_targets,
    update_center,
)
from curate.trainer.parallel import World

NUM_GLOBAL = 2
SINKHORN_ITERATIONS = 3


@dataclass(frozen=True)
class Outcome:
    """One forward pass: what is minimised and what is watched."""

    total: Tensor  # () float32
    parts: dict[str, Tensor]  # () float32 each, before their weights
    targets: Tensor  # (2B, K) the teacher's, of the cls tokens
    features: Tensor  # (2B, D) the teacher's cls tokens


class DinoObjective(nn.Module):
    """Student and teacher, each a backbone and heads, and the loss between them."""

    dino_center: Tensor
    ibot_center: Tensor

    def __init__(
        self, vit: ViTConfig, settings: ObjectiveSettings, *, prototypes: int, world: World, seed: int
    ) -> None:
        """Draw all weights from `seed`; the teacher starts as a copy of the student, without stochastic depth."""
        super().__init__()
        self.settings, self.world = settings, world
        generator = torch.Generator().manual_seed(seed)
        self.student = build_networks(vit, settings, prototypes=prototypes, generator=generator)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher.eval()
        self.register_buffer("dino_center", torch.zeros(prototypes))
        self.register_buffer("ibot_center", torch.zeros(prototypes))

    def train(self, mode: bool = True) -> "DinoObjective":
        """Put the student in training mode; the teacher never is."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self, large: Tensor, small: Tensor, masks: Tensor, *, temperature: float, generator: torch.Generator
    ) -> Outcome:
        """The loss of one batch of B images.

        Args:
            large: (2B, 3, G, G) normalised global crops, views first.
            small: (L * B, 3, S, S) normalised local crops, views first; L may be 0.
            masks: (2B, N) bool on the CPU, patches hidden from the student.
            temperature: the teacher's.
            generator: draws stochastic depth.
        """
        rows = masks.flatten().nonzero().squeeze(1)  # (M,), found on the CPU: no wait for the device
        weights = (1 / masks.sum(dim=1).clamp_min(1)).repeat_interleave(masks.shape[1])[rows]
        rows, weights, masks = (x.to(large.device, non_blocking=True) for x in (rows, weights, masks))
        cls_targets, patch_targets, features = self._targets(large, rows, temperature)
        has_small = len(small) > 0
        groups = _backbone(self.student).forward_crops(
            [large, small] if has_small else [large],
            [masks, None] if has_small else [masks],
            generator=generator,
        )
        views = torch.cat([group.cls for group in groups]).unflatten(0, (-1, len(large) // NUM_GLOBAL))  # (V, B, D)
        parts = {"dino": self._dino(views, cls_targets)}
        if self.settings.ibot_weight > 0:
            hidden = groups[0].patches.flatten(0, 1)[rows]  # (M, D)
            parts["ibot"] = ibot_loss(
                _patch_head(self.student)(hidden),
                patch_targets,
                weights,
                num_crops=len(large),
                temperature=self.settings.student_temperature,
            )
        if self.settings.koleo_weight > 0:
            parts["koleo"] = sum((koleo_loss(view) for view in views[:NUM_GLOBAL]), torch.zeros(()).to(large.device))
        return Outcome(self._total(parts), parts, cls_targets, features)

    def _dino(self, views: Tensor, targets: Tensor) -> Tensor:
        scores = self.student["dino_head"](views.flatten(0, 1)).unflatten(0, views.shape[:2])
        targets = targets.unflatten(0, (NUM_GLOBAL, -1))
        return dino_loss(scores, targets, temperature=self.settings.student_temperature)

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        weights = {
            "dino": self.settings.dino_weight,
            "ibot": self.settings.ibot_weight,
            "koleo": self.settings.koleo_weight,
        }
        return torch.stack([weights[name] * loss for name, loss in parts.items()]).sum()

    @torch.no_grad()
    def _targets(self, large: Tensor, rows: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher on unmasked global crops: (2B, K) cls targets, (M, K) patch targets, (2B, D) features."""
        seen = _backbone(self.teacher).forward_features(large)
        cls_targets = self._sharpen(self.teacher["dino_head"](seen.cls), self.dino_center, temperature)
        if self.settings.ibot_weight > 0:
            scores = _patch_head(self.teacher)(seen.patches.flatten(0, 1)[rows])
            return cls_targets, self._sharpen(scores, self.ibot_center, temperature), seen.cls
        return cls_targets, cls_targets[:0], seen.cls

    def _sharpen(self, scores: Tensor, center: Tensor, temperature: float) -> Tensor:
        if self.settings.centering == "sinkhorn":
            return sinkhorn_targets(
                scores, temperature=temperature, world=self.world, num_iterations=SINKHORN_ITERATIONS
            )
        targets = softmax_targets(scores, center, temperature=temperature)
        update_center(center, scores, world=self.world)
        return targets

    @property
    def backbone(self) -> VisionTransformer:
        """The teacher's backbone: the product of training."""
        return _backbone(self.teacher)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move every weight of the teacher towards the student: t = momentum * t + (1 - momentum) * s."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1 - momentum)


def build_networks(
    vit: ViTConfig, settings: ObjectiveSettings, *, prototypes: int, generator: torch.Generator
) -> nn.ModuleDict:
    """`backbone`, `dino_head` and, unless the heads are tied or iBOT is off, `ibot_head`."""

    def head() -> PrototypeHead:
        return PrototypeHead(
            vit.dim,
            prototypes,
            hidden=settings.head_hidden,
            bottleneck=settings.head_bottleneck,
            generator=generator,
        )

    networks = nn.ModuleDict({"backbone": VisionTransformer(vit, generator=generator), "dino_head": head()})
    if settings.ibot_weight > 0 and not settings.tied_heads:
        networks["ibot_head"] = head()
    return networks


def _backbone(networks: nn.ModuleDict) -> VisionTransformer:
    return cast(VisionTransformer, networks["backbone"])


def _patch_head(networks: nn.ModuleDict) -> nn.Module:
    return networks["ibot_head" if "ibot_head" in networks else "dino_head"]
