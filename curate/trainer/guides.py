"""Guides: columns of the shards that the features of any objective are to tell, or to hide.

A small head reads the student's class token of each global crop, and its cross-entropy with the value of the crop's
image is added to the objective's loss. Features that are to hide a value get the gradient of that loss reversed: the
head learns to read it, and the backbone learns what leaves the head in the dark. The head knows nothing at first, and
its gradient would be noise, so that the reversed gradient grows in the course of the run.

Images without a value do not count. How many others a process has is chance, so the mean is taken over those of all
processes; each contributes its sum, and the mean of the gradients over processes is the gradient of that mean. With
`accumulate` the means of the passes count alike.

Source: gradient reversal and its ramp: Ganin and Lempitsky 2015, arXiv:1409.7495.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.errors import ConfigError
from curate.feed.crops import NUM_GLOBAL_CROPS, Crops
from curate.feed.labels import NO_CLASS, Labels, read_labels
from curate.feed.seeds import Stream
from curate.feed.shards import ShardIndex
from curate.text import shortened, visible_line
from curate.trainer.config import TrainSettings
from curate.trainer.guide_settings import GuideSettings
from curate.trainer.heads import make_mlp
from curate.trainer.objective import ForwardContext, Objective, ObjectiveOutput, backbone_of

SETTING = "objective.guides"
MAX_TOLD = 100
"""Characters of the names of classes that are told."""


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.factor * gradient, None


def reverse_gradient(values: Tensor, factor: float) -> Tensor:
    """`values` as they are, whose gradient is -`factor` times what comes back."""
    return _ReversedGradient.apply(values, factor)


class Guided(nn.Module):
    """An objective and the guides beside it, called as the objective is."""

    def __init__(self, objective: Objective, guides: Sequence[GuideSettings], labels: Mapping[str, Labels]) -> None:
        """The heads are among the student's networks, where `add_guide_heads` has put them."""
        super().__init__()
        self.objective, self._guides = objective, tuple(guides)
        self._codes = {column: torch.from_numpy(found.codes) for column, found in labels.items()}  # on the CPU

    def forward(self, crops: Crops, context: ForwardContext) -> ObjectiveOutput:
        """The objective's output with the guides' losses added, and their figures.

        Raises:
            ConfigError: the objective does not say what its student sees.
            ValueError: the crops do not say which images they show.
        """
        output = self.objective(crops, context)
        if output.seen is None:
            raise ConfigError(
                f"{SETTING}: {type(self.objective).__name__} does not say what its student sees; let it give "
                "ObjectiveOutput.seen, the class tokens of the global crops, or leave the guides out"
            )
        if crops.images is None:
            raise ValueError(f"{SETTING}: the crops do not say which images they show (Crops.images)")
        labels = torch.stack([self._codes[guide.column][crops.images] for guide in self._guides]).long()  # (G, B)
        labels = labels.to(output.seen.device, non_blocking=True).repeat(1, NUM_GLOBAL_CROPS)  # views before images
        world = self.objective.world
        counts = world.sum((labels != NO_CLASS).sum(dim=1).float()).clamp_min(1) / world.size
        loss, figures = output.loss, dict(output.figures)
        for guide, own, count in zip(self._guides, labels, counts, strict=True):
            entropy, accuracy = (total / count for total in self._read(guide, output.seen, own, context))
            loss = loss + guide.weight * entropy
            figures |= {f"{guide.key}_loss": entropy.detach(), f"{guide.key}_accuracy": accuracy}
        return dataclasses.replace(output, loss=loss, figures=figures, seen=None)

    def _read(
        self, guide: GuideSettings, seen: Tensor, labels: Tensor, context: ForwardContext
    ) -> tuple[Tensor, Tensor]:
        """Sum of a head's cross-entropies with `labels` (2B,), nats, and the number of crops that it is right about."""
        if guide.adversarial:
            seen = reverse_gradient(seen, context.reversals[guide.column])
        logits = self.objective.student[guide.key](seen).float()  # (2B, K)
        right = (logits.detach().argmax(dim=1) == labels).sum().float()
        return F.cross_entropy(logits, labels, ignore_index=NO_CLASS, reduction="sum"), right


def read_guides(index: ShardIndex, settings: TrainSettings) -> dict[str, Labels]:
    """The classes of each guide's column, by its name.

    Raises:
        SourceError: a shard lacks a column, or is damaged.
        ConfigError: a column holds no classes.
    """
    skips = settings.feed.on_damaged == "skip"
    return {
        guide.column: read_labels(index, guide.column, setting=SETTING, skip_damaged=skips)
        for guide in settings.objective.guides
    }


def add_guide_heads(
    objective: Objective, guides: Iterable[GuideSettings], labels: Mapping[str, Labels], *, seed: int
) -> None:
    """Put a head for each guide among the networks of the student and, as of all of them, of the teacher. The other
    networks are what they are without guides."""
    dim = backbone_of(objective.student).config.dim
    for number, guide in enumerate(guides):
        words = np.random.SeedSequence([Stream.GUIDES, seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        widths = (dim, *([guide.width] if guide.width else []), len(labels[guide.column].classes))
        head = make_mlp(*widths, generator=generator)
        objective.student[guide.key] = head
        teacher = make_mlp(*widths, generator=generator).requires_grad_(False).eval()
        teacher.load_state_dict(head.state_dict())
        objective.teacher[guide.key] = teacher


def guided(objective: Objective, settings: TrainSettings, labels: Mapping[str, Labels]) -> nn.Module:
    """The objective with the guides of the settings beside it; itself where there are none."""
    guides = settings.objective.guides
    return Guided(objective, guides, labels) if guides else objective


def describe_guides(settings: TrainSettings, labels: Mapping[str, Labels]) -> Iterator[str]:
    """A line for each guide: its column, classes and weight.

    Args:
        labels: by column; empty: the shards were not looked at.
    """
    for guide in settings.objective.guides:
        aim = "hidden by the features" if guide.adversarial else "told by the features"
        ramp = f", over {guide.ramp_of(settings.iterations)} iterations" if guide.adversarial else ""
        found = labels.get(guide.column)
        told = "classes unknown without the shards" if found is None else _told(found)
        yield f"guide {visible_line(guide.column)}, {aim}: {told}; weight {guide.weight:g}{ramp}"


def _told(labels: Labels) -> str:
    names = shortened(", ".join(visible_line(str(name)) for name in labels.classes), MAX_TOLD)
    return f"{len(labels.classes):,} classes ({names}) of {labels.num_labelled:,} of {len(labels.codes):,} images"
