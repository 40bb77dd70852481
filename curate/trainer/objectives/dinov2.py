"""DINOv2: DINO between crops, iBOT on masked patches, KoLeo; also by distillation from a frozen teacher.

Source: Oquab et al. 2023, arXiv:2304.07193.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from curate.feed.crops import Crops
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, head_of, head_shape, make_head
from curate.trainer.losses import centered_targets
from curate.trainer.masked_views import dino_chance, draw_judged, masked_step
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput
from curate.trainer.objectives.settings import DinoV2Settings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets
from curate.trainer.sinkhorn import projected_sinkhorn


class DinoV2(Objective):
    """Cross-entropy between crops as in DINO, between the patches that the student does not see, and KoLeo."""

    dino_center: Tensor
    ibot_center: Tensor

    def __init__(self, student: nn.ModuleDict, settings: DinoV2Settings, *, world: World) -> None:
        """`student` holds `backbone`, `dino_head` and, unless tied, `ibot_head`."""
        super().__init__(student, world=world, masks=settings.distill_from is None)
        self.settings = settings
        self._chance: dict[str, float] = {}
        of_patches = "ibot_head" if "ibot_head" in student else "dino_head"
        self.register_buffer("dino_center", torch.zeros(head_of(student, "dino_head").num_prototypes))
        self.register_buffer("ibot_center", torch.zeros(head_of(student, of_patches).num_prototypes))

    @property
    def chance(self) -> Mapping[str, float]:
        """Of the term between crops, whose pairs have the weights of the last forward pass."""
        return self._chance

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, with masks drawn for them."""
        masks = draw_judged(crops, self.backbone.config, self.settings, rng=context.rng, world=self.world)
        return self.forward_masked(crops, masks, context)

    def forward_masked(self, crops: Crops, masks: Tensor, context: ForwardContext) -> ObjectiveOutput:
        """As `forward`, with the given masks (2B, N), bool on the CPU: the patches that iBOT judges."""
        local = context.weights.local
        self._chance["dino"] = dino_chance(len(self.dino_center), crops, local_weight=local)

        def sharpen(kind: Literal["dino", "ibot"], scored: Projection) -> Targets:
            return self._sharpen(kind, scored, context.temperature)

        return masked_step(self, crops, masks, context, settings=self.settings, sharpen=sharpen, local_weight=local)

    def _sharpen(self, kind: Literal["dino", "ibot"], scored: Projection, temperature: float) -> Targets:
        if self.settings.centering == "sinkhorn":
            return projected_sinkhorn(scored, temperature=temperature, world=self.world)
        center = self.dino_center if kind == "dino" else self.ibot_center
        return centered_targets(scored, center, temperature=temperature, world=self.world)


def build_dinov2(
    settings: DinoV2Settings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> DinoV2:
    """DINOv2 around `backbone`, with `dino_head` and, unless the heads are tied or iBOT is off, `ibot_head`."""
    shapes = {"dino_head": head_shape(settings, prototypes)}
    if settings.ibot_weight > 0 and not settings.tied_heads:
        shapes["ibot_head"] = head_shape(settings, prototypes, settings.ibot_head)
    heads = {name: make_head(backbone, shape, generator=generator) for name, shape in shapes.items()}
    return DinoV2(nn.ModuleDict({"backbone": backbone, **heads}), settings, world=world)
