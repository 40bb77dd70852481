"""The Gram teacher of a run: a frozen backbone that comes, is replaced and goes as the phases say.

It is made at the moment from which on a phase refers to it, which may be long before that phase: with `teacher: step
200000` the run's own teacher is kept from there on. So it lies in every checkpoint in between, and a run that is killed
anywhere goes on without looking for the weights of the past. Only one is held at a time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from curate.models.nets.trained import Trained
from curate.trainer.adapting import adapt
from curate.trainer.config import TrainConfig
from curate.trainer.given_backbone import load_weights
from curate.trainer.objective import Objective, backbone_of
from curate.trainer.phases import Timeline
from curate.trainer.sharding import local_tensor

STATE = "gram_teacher."
"""Prefix of its tensors in a checkpoint."""


class GramTeacher:
    """Puts the Gram teacher of each iteration into an objective."""

    def __init__(
        self, objective: Objective, timeline: Timeline, config: TrainConfig, *, place: Callable[[Trained], None]
    ) -> None:
        """`place` brings a backbone to its device, or spreads it over the ranks, as those of the objective."""
        self._objective, self._timeline, self._config, self._place = objective, timeline, config, place

    def prepare(self, step: int) -> None:
        """Make, replace or drop it as iteration `step` begins.

        Raises:
            WeightsError: the file of a Gram teacher is missing, damaged or another model's.
        """
        event = self._timeline.gram_event(step)
        if event is None:
            return
        if event.source == "none":
            self._objective.gram_teacher = None
        elif event.source == "file":
            self._objective.gram_teacher = self._fresh(event.file)
        else:
            if self._objective.gram_teacher is None:
                self._objective.gram_teacher = self._fresh()
            copy_weights(backbone_of(self._objective.teacher), self._objective.gram_teacher)

    def expect(self, step: int) -> None:
        """Have one, with weights that a checkpoint is about to fill, if there is one after `step` iterations."""
        self._objective.gram_teacher = self._fresh() if self._timeline.has_gram_teacher(step) else None

    def state(self) -> dict[str, Tensor]:
        """Its tensors by their names in a checkpoint; none where there is no Gram teacher."""
        teacher = self._objective.gram_teacher
        return {} if teacher is None else {STATE + name: value for name, value in teacher.state_dict().items()}

    def _fresh(self, file: str | None = None) -> Trained:
        """A frozen backbone in its place, with the weights of a file or with none that count."""
        config = self._config
        backbone = config.model.build(config.crops.global_size, generator=torch.Generator().manual_seed(0))
        if file is not None:
            load_weights(backbone, file)
        adapt(backbone, config, generator=torch.Generator())  # of one make with the teacher that is copied
        self._place(backbone.requires_grad_(False).eval())
        return backbone


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the weights of a network of the same make, each rank its own shards."""
    found = source.state_dict()
    for name, value in target.state_dict().items():
        local_tensor(value).copy_(local_tensor(found[name]))
