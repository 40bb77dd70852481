"""What the trainer asks of an objective, whatever it minimises.

An objective is a student and a teacher, each a `backbone` and heads, and the loss between them. The trainer owns the
rest: the teacher's average, schedules, clipping, processes, checkpoints, exports.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from curate.models.nets.trained import Trained
from curate.trainer.parallel import World

NUM_GLOBAL = 2
"""Global crops an image."""


class Views(NamedTuple):
    """The crops of B images on the device, normalised, views before images."""

    large: Tensor  # (2B, 3, G, G): the first global crop of all images, then the second
    small: Tensor  # (L * B, 3, S, S); L may be 0

    @property
    def num_images(self) -> int:
        return len(self.large) // NUM_GLOBAL


class Moment(NamedTuple):
    """What one forward pass is told beside its crops."""

    temperature: float
    """The teacher's; 0 for objectives without prototypes."""
    rng: np.random.Generator
    """Equal on all ranks: draws what is laid out for the whole batch, such as masks."""
    generator: torch.Generator
    """This rank's own: draws what each process may draw for itself, such as stochastic depth."""


@dataclass(frozen=True)
class Outcome:
    """One forward pass: what is minimised and what is watched."""

    total: Tensor  # () float32, mean over this rank's images
    parts: dict[str, Tensor]  # () float32 each, before their weights
    features: Tensor  # (2B, D) the teacher's pooled tokens of the global crops
    targets: Tensor | None = None  # (2B, K) the teacher's distributions, where there are prototypes


class Objective(nn.Module):
    """Base of the objectives: `forward(views, moment)` gives an `Outcome`."""

    def __init__(self, student: nn.ModuleDict, *, world: World, masks: bool = False) -> None:
        """The teacher starts as a copy of the student; `masks`: whether patches are hidden from the student."""
        super().__init__()
        self.world = world
        self.guide: nn.ModuleDict | None = None
        """Frozen networks that make the targets in the teacher's place, where one distils."""
        self.student = student
        if not masks and hasattr(student["backbone"], "mask_token"):
            student["backbone"].mask_token.requires_grad_(False)  # DDP waits for every gradient, and it would get none
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.teacher.eval()

    @property
    def chance(self) -> Mapping[str, float]:
        """Loss parts by name with the value, nats, at which the student has learned nothing."""
        return {}

    @property
    def backbone(self) -> Trained:
        """The teacher's backbone: the product of training."""
        return tower(self.teacher)

    def train(self, mode: bool = True) -> "Objective":
        """Put the student in training mode; teacher and guide never are."""
        super().train(mode)
        for frozen in (self.teacher, self.guide):
            if frozen is not None:
                frozen.eval()
        return self

    def lasting(self) -> dict[str, Tensor]:
        """The state that a checkpoint keeps: student, teacher and buffers, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("guide.")}


def tower(networks: nn.ModuleDict) -> Trained:
    """The backbone among `networks`; objectives call `forward_crops` or `forward_needed`, where FSDP's hooks sit."""
    return cast(Trained, networks["backbone"])
