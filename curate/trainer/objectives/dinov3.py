"""DINOv3: DINO between crops, iBOT on masked patches, KoLeo and, in phases that ask for it, Gram anchoring; also by
distillation from a frozen teacher.

Beside DINOv2: crops and patches have heads of their own, whose prototypes are plain linear layers; masks have exactly
as many patches as asked for; KoLeo looks at groups of 16 images; and pairs with local crops have a weight of their own.

Source: Simeoni et al. 2025, arXiv:2508.10104, sections 3 and 4.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.models.nets.trained import Trained
from curate.trainer.heads import Projection, head_of, head_shape, make_head
from curate.trainer.masked_views import dino_chance, draw_judged, masked_step
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput
from curate.trainer.objectives.settings import DinoV3Settings
from curate.trainer.parallel import World
from curate.trainer.projected import Targets
from curate.trainer.sinkhorn import projected_sinkhorn


class DinoV3(Objective):
    """Cross-entropies of crops and of hidden patches with targets by Sinkhorn-Knopp, KoLeo, and Gram anchoring."""

    def __init__(self, student: nn.ModuleDict, settings: DinoV3Settings, *, world: World) -> None:
        """`student` holds `backbone`, `dino_head` and, where patches are judged, `ibot_head`."""
        super().__init__(student, world=world, masks=settings.distill_from is None)
        self.settings = settings
        self._chance: dict[str, float] = {}

    @property
    def chance(self) -> Mapping[str, float]:
        """Of the term between crops, whose pairs have the weights of the last forward pass."""
        return self._chance

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images, with masks drawn for them."""
        masks = draw_judged(crops, self.backbone.config, self.settings, rng=context.rng, world=self.world, exact=True)
        return self.forward_masked(crops, masks, context)

    def forward_masked(self, crops: Crops, masks: Tensor, context: ForwardContext) -> ObjectiveOutput:
        """As `forward`, with the given masks (2B, N), bool on the CPU: the patches that iBOT judges."""
        settings, num_prototypes = self.settings, head_of(self.student, "dino_head").num_prototypes
        local = settings.local_weight * context.weights.local
        self._chance["dino"] = dino_chance(num_prototypes, crops, local_weight=local)

        def sharpen(_: Literal["dino", "ibot"], scored: Projection) -> Targets:
            return projected_sinkhorn(scored, temperature=context.temperature, world=self.world)

        return masked_step(
            self,
            crops,
            masks,
            context,
            settings=settings,
            sharpen=sharpen,
            local_weight=local,
            koleo_views=NUM_GLOBAL_CROPS if settings.koleo_views == "both" else 1,
        )


def build_dinov3(
    settings: DinoV3Settings, backbone: Trained, *, prototypes: int, world: World, generator: torch.Generator
) -> DinoV3:
    """DINOv3 around `backbone`, with `dino_head` and, unless iBOT is off, `ibot_head`."""
    shapes = {"dino_head": head_shape(settings, prototypes, linear=True)}
    if settings.ibot_weight > 0:
        shapes["ibot_head"] = head_shape(settings, prototypes, settings.ibot_head, linear=True)
    heads = {name: make_head(backbone, shape, generator=generator) for name, shape in shapes.items()}
    return DinoV3(nn.ModuleDict({"backbone": backbone, **heads}), settings, world=world)
