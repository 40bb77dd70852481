"""What the trainer asks of an objective, whatever it minimizes.

An objective is a student and a teacher, each a `backbone` and heads, and the loss between them. The trainer owns the
rest: the teacher's moving average, schedules, clipping, processes, checkpoints, exports.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from curate.feed.crops import Crops
from curate.feed.seeds import Stream
from curate.models.files.header import ExportInfo
from curate.models.nets.trained import Trained
from curate.trainer.parallel import World

MEMBER = "/"
"""Between the name of a student beside the first and those of its networks."""


class LossWeights(NamedTuple):
    """Factors of an iteration on an objective's own weights: 1 throughout but where phases or schedules change them.

    An objective reads those of the terms that it has. KoLeo and Gram are not computed where their weight comes to 0;
    the other terms are, since heads need a gradient in every iteration.
    """

    dino: float = 1.0
    """Of the DINO loss between crops as a whole."""
    local: float = 1.0
    """Of the pairs of a local crop and a global one within it."""
    ibot: float = 1.0
    """Of the iBOT loss on masked patches."""
    koleo: float = 1.0
    """Of KoLeo."""
    gram: float = 0.0
    """Weight, not a factor, of the Gram anchoring loss, which needs `Objective.gram_teacher` and `Crops.gram`."""


class ForwardContext(NamedTuple):
    """What a forward pass needs beside its crops."""

    temperature: float
    """Temperature of the teacher's targets; 0 for objectives without prototypes."""
    rng: np.random.Generator
    """Equal on all ranks: draws what is laid out for the whole batch, such as masks."""
    generator: torch.Generator
    """This rank's own: draws what each process may draw for itself, such as stochastic depth."""
    weights: LossWeights = LossWeights()
    """Factors on the weights of the losses in this iteration."""
    reversals: Mapping[str, float] = MappingProxyType({})
    """Factor on the reversed gradient of each adversarial guide in this iteration, 0..1, by its column."""

    @classmethod
    def seeded(
        cls,
        temperature: float,
        *,
        seed: int,
        number: int,
        world: World,
        weights: LossWeights | None = None,
        reversals: Mapping[str, float] | None = None,
    ) -> "ForwardContext":
        """The context of forward pass `number` of a run, counted over all iterations; it depends on nothing before."""
        rank = [world.rank] if world.size > 1 else []
        words = np.random.SeedSequence([Stream.DROP_PATH, seed, number, *rank]).generate_state(1, np.uint64)
        return cls(
            temperature,
            np.random.default_rng([Stream.MASKS, seed, number]),
            torch.Generator().manual_seed(int(words[0] >> np.uint64(1))),
            weights or LossWeights(),
            reversals or {},
        )


@dataclass(frozen=True)
class ObjectiveOutput:
    """What a forward pass gives: the loss to minimize, and what is watched beside it."""

    loss: Tensor  # () float32, mean over this rank's images
    terms: dict[str, Tensor]  # () float32 each, the loss's terms before their weights
    features: Tensor  # (2B, D) pooled features of the global crops: the teacher's or, where it is frozen, the student's
    targets: Tensor | None = None  # (2B, K) the teacher's distributions, where there are prototypes
    figures: dict[str, Tensor] = field(default_factory=dict)  # () each, watched only: the log has their mean over ranks
    seen: Tensor | None = None  # (2B, D) the student's cls of the global crops, with gradients; guides read it


class Objective(nn.Module):
    """Base of the objectives: `forward(crops, context)` gives an `ObjectiveOutput`.

    Under FSDP2, networks must be called where its hooks sit: `forward`, `forward_crops` and `forward_needed` of a
    backbone, `forward` and `project` of a head.
    """

    def __init__(self, student: nn.ModuleDict, *, world: World, masks: bool = False) -> None:
        """The teacher starts as a copy of the student.

        Args:
            student: a `backbone`, and heads under names of the objective's own.
            masks: whether patches are hidden from the student.
        """
        super().__init__()
        self.world = world
        self.frozen_teacher: nn.ModuleDict | None = None
        """Networks of an earlier training that make the targets in the teacher's place, where the student is
        distilled."""
        self.gram_teacher: nn.Module | None = None
        """A frozen backbone, no part of student or teacher, whose similarities of patches anchor the student's; the
        trainer makes, replaces and stores it."""
        self.feature_teachers: nn.ModuleList | None = None
        """Frozen backbones of any kind whose features the student predicts."""
        self.student = student
        self.every: dict[str, int] = {}
        """Of students beside the first, by name: how many images of a pass there are for each one that it sees."""
        self.given: dict[str, ExportInfo] = {}
        """Of students that go on from a backbone, by name, the first one's "": what is known of that."""
        if not masks and hasattr(student["backbone"], "mask_token"):
            student["backbone"].mask_token.requires_grad_(False)  # DDP waits for every gradient, and it would get none
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.teacher.eval()

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The loss of normalized crops of B images."""
        raise NotImplementedError

    @property
    def chance(self) -> Mapping[str, float]:
        """Value of loss terms, by name, in nats, at which the student is no better than chance."""
        return {}

    @property
    def backbone(self) -> Trained:
        """The teacher's backbone: the product of training."""
        return backbone_of(self.teacher)

    def train(self, mode: bool = True) -> "Objective":
        """Put the student in training mode; the teachers never are."""
        super().train(mode)
        for teacher in (self.teacher, self.frozen_teacher, self.gram_teacher, self.feature_teachers):
            if teacher is not None:
                teacher.eval()
        return self

    def add_student(self, name: str, other: "Objective", *, every: int = 1) -> None:
        """Train the student of `other` beside the own one, under names that begin with its own.

        Args:
            every: it sees each image whose number in the pass is a multiple of this.
        """
        for key in other.student:
            self.student[f"{name}{MEMBER}{key}"] = other.student[key]
            self.teacher[f"{name}{MEMBER}{key}"] = other.teacher[key]
        self.every[name] = every
        if "" in other.given:
            self.given[name] = other.given[""]

    def checkpoint_state(self) -> dict[str, Tensor]:
        """The state that a checkpoint keeps: student, teacher and buffers, by name; frozen networks are not in it."""
        frozen = ("frozen_teacher.", "gram_teacher.", "feature_teachers.")
        return {name: value for name, value in self.state_dict().items() if not name.startswith(frozen)}


def members_of(networks: nn.ModuleDict) -> dict[str, nn.ModuleDict]:
    """The networks of each student, or of each student's average, by its name: a `backbone` and heads. The first, which
    most runs have alone, is named "".
    """
    found: dict[str, dict[str, nn.Module]] = {}
    for key, network in networks.items():
        name, _, own = key.rpartition(MEMBER)
        found.setdefault(name, {})[own] = network
    return {name: nn.ModuleDict(own) for name, own in found.items()}


def backbone_of(networks: nn.ModuleDict) -> Trained:
    """The backbone among the networks of a student or teacher."""
    return cast(Trained, networks["backbone"])
