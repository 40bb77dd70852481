"""How much memory a training takes on one process, estimated from its networks without making their weights.

Weights, gradients and moments are counted, and the weights of frozen teachers by what the headers of their files say.
What the backward pass needs is a product: tokens of a pass, width, blocks,
and bytes that were measured as what autograd keeps (a ViT-S of 2 and of 4 blocks, 224 px). Buffers of kernels and what
allocators lose are not in it: a GPU needs some 10 to 20 % more.
"""

from dataclasses import dataclass

import torch
from torch import nn

from curate.feed.crops import NUM_GLOBAL_CROPS
from curate.feed.sizes import Sides
from curate.models.device import Precision
from curate.models.nets.config import ViTConfig
from curate.models.nets.trained import Trained
from curate.trainer.config import ModelSettings, TrainConfig
from curate.trainer.effective import Effective
from curate.trainer.initial import distilled_export
from curate.trainer.objective import Objective, backbone_of, members_of
from curate.trainer.objectives.settings import PrototypeSettings
from curate.trainer.parallel import World
from curate.trainer.sinkhorn import HELD
from curate.trainer.start import given_heads, outline_frozen_teacher, with_given_heads

KEPT = {"fp32": 50, "bf16": 38}
"""Bytes that autograd keeps of a token, for each channel and block."""
CHECKPOINTED = 4
"""The same where blocks are computed again: their input."""
FLOAT = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one process, and the tokens behind them."""

    parameters: int
    """Number of the student's weights."""
    states: int
    """Weights of student, its average and a Gram teacher, gradients, moments of the optimizer."""
    frozen: int
    """Weights of frozen teachers: those whose targets or features are distilled."""
    activations: int
    """What the backward pass of one forward pass keeps; 0 where it is unknown, as for timm's models."""
    scores: int
    """Scores of the teacher's rows over the prototypes, and their targets."""
    tokens: int
    """Tokens of the student in an iteration, of all processes; 0 where they are unknown."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.states + self.frozen + self.activations + self.scores


def estimate_memory(
    config: TrainConfig, effective: Effective, *, sides: Sides, precision: Precision, processes: int = 1
) -> Memory:
    """The memory of a process that trains with crops of these sides.

    Args:
        sides: of the crops of a batch; with `gram_size` there is a Gram teacher.
        processes: that share the batch, and with FSDP the states.
    """
    objective = weightless_objective(config, effective)
    own, shared = (_count(networks) for networks in (objective.student, objective.frozen_teacher))
    whole = _count(objective.feature_teachers)  # never spread over processes
    backbone = backbone_of(objective.student)
    students = [
        (backbone_of(networks), objective.every.get(name, 1))
        for name, networks in members_of(objective.student).items()
    ]
    gram = _count(backbone) if sides.gram_size is not None else 0
    states = FLOAT * (_count(objective) - shared - whole + gram + 3 * own)  # gradients and two moments
    spread = processes if config.parallel == "fsdp" else 1
    images = max(1, config.images_per_pass // processes)
    tokens = tokens_of_an_image(backbone, sides, num_local=config.crops.num_local)
    return Memory(
        parameters=own,
        states=states // spread,
        frozen=FLOAT * (shared // spread + whole),
        activations=sum(images // every * tokens * _kept_of_a_token(config, one, precision) for one, every in students),
        scores=_scores(config, effective, images, tokens),
        tokens=config.batch_size * tokens,
    )


def weightless_objective(config: TrainConfig, effective: Effective) -> Objective:
    """The objective with all of its tensors' shapes, and no memory for them."""
    generator, distilled = torch.Generator(), distilled_export(config)
    with torch.device("meta"):
        objective = _build(config, config.model, effective, generator)
        for name, student in config.students.items():
            every = 1 if student.every == "cost" else student.every
            objective.add_student(name, _build(config, student.model, effective, generator), every=every)
    if distilled is not None:
        objective.frozen_teacher = outline_frozen_teacher(distilled)
    return objective


def _build(config: TrainConfig, model: ModelSettings, effective: Effective, generator: torch.Generator) -> Objective:
    backbone = model.build(config.crops.global_size, generator=generator)
    settings = with_given_heads(config.objective, given_heads(config))
    return settings.build(backbone, prototypes=effective.prototypes, world=World(), generator=generator)


def tokens_of_an_image(backbone: Trained, sides: Sides, *, num_local: int) -> int:
    """Tokens of all crops of an image in the student; 0 for timm's models."""
    if not isinstance(backbone.config, ViTConfig):
        return 0
    patch, more = backbone.config.patch_size, 1 + backbone.config.num_registers
    groups = ((NUM_GLOBAL_CROPS, sides.global_size), (num_local, sides.local_size))
    return sum(number * ((side // patch) ** 2 + more) for number, side in groups)


def _kept_of_a_token(config: TrainConfig, backbone: Trained, precision: Precision) -> int:
    """Bytes of a token that the backward pass needs."""
    network = backbone.config
    if not isinstance(network, ViTConfig):
        return 0
    if config.activation_checkpointing:
        return network.dim * (CHECKPOINTED * network.depth + KEPT[precision])  # inputs, and the block under way
    return round(KEPT[precision] * network.dim * network.depth * (1 - network.drop_path_rate))


def _count(network: nn.Module | None) -> int:
    return 0 if network is None else sum(parameter.numel() for parameter in network.parameters())


def _scores(config: TrainConfig, effective: Effective, images: int, tokens: int) -> int:
    """Of the cls tokens of global crops, and of as many patches as are masked on average, whose scores are computed
    again where they are many."""
    objective = config.objective
    if not isinstance(objective, PrototypeSettings):
        return 0
    masked = getattr(objective, "masked_share", 0.0) * sum(getattr(objective, "mask_ratio", (0.0, 0.0))) / 2
    of_a_row = 2 * FLOAT * effective.prototypes
    of_patches = min(of_a_row * masked * images * tokens, 2 * HELD["cuda"])
    return int(of_a_row * images * NUM_GLOBAL_CROPS + of_patches)
