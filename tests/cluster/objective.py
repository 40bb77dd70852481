"""A small objective that goes on after a few iterations only when a file is there; see `Gated.gate`."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from curate.trainer.objective import Objective, ObjectiveOutput
from curate.trainer.objectives.settings import ObjectiveSettings

GATED_ITERATION = 3


class GatedSettings(ObjectiveSettings):
    gate: str

    def build(self, backbone, *, prototypes, world, generator):
        return Gated(nn.ModuleDict({"backbone": backbone}), self.gate, world=world)


class Gated(Objective):
    """The student's features of one view of an image approach the teacher's of the other."""

    def __init__(self, student, gate, *, world):
        super().__init__(student, world=world)
        self.gate, self.calls = Path(gate), 0

    def forward(self, crops, context):
        self.calls += 1
        if self.calls == GATED_ITERATION:
            self.gate.with_suffix(f".waits-{self.world.rank}").touch()
            while not self.gate.exists():
                time.sleep(0.02)
        with torch.no_grad():
            features = self.teacher["backbone"](crops.global_crops)
        (seen,) = self.student["backbone"].forward_crops([crops.global_crops], generator=context.generator)
        loss = F.mse_loss(seen.cls.float(), features.float().roll(crops.num_images, dims=0))
        return ObjectiveOutput(loss, {"regression": loss}, features)
