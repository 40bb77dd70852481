"""Settings of the phases of one run. Importing this costs no torch."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from curate.config import Settings

Finite = Annotated[float, Field(allow_inf_nan=False)]
STEP = re.compile(r"step (\d+)")


class ScheduleSettings(Settings):
    """How a value goes through a phase: to `value`, which then stays, and at last to `end`. A plain number: that value
    throughout."""

    value: Finite | None = None
    """The value that the phase leads to and keeps; null: the one at which it begins."""
    ramp: int = Field(default=0, ge=0)
    """Number of iterations from the value at which the phase begins to `value`; 0: at once."""
    shape: Literal["linear", "cosine"] = "linear"
    """Whether that way is a line or half a cosine."""
    end: Finite | None = None
    """The value at the end of the phase, to which half a cosine leads; null: it stays constant."""
    cooldown: int | None = Field(default=None, ge=1)
    """Number of last iterations of the phase in which it goes to `end`; null: all after the ramp."""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, values: Any) -> Any:
        plain = isinstance(values, int | float) and not isinstance(values, bool)
        return {"value": values} if plain else values

    @model_validator(mode="after")
    def _fits_together(self) -> "ScheduleSettings":
        if self.cooldown is not None and self.end is None:
            raise ValueError(f"cooldown {self.cooldown} leads to no value; set end too")
        if self.ramp and self.value is None:
            raise ValueError(f"ramp {self.ramp} leads to no value; set value too")
        return self


class WeightSchedules(Settings):
    """Factors on the objective's own weights, 1 unless a phase changes them."""

    dino: ScheduleSettings | None = None
    """Factor on the DINO loss between crops: 1 to 0.5 when DINOv3's Gram phase begins. null: as before the phase."""
    local: ScheduleSettings | None = None
    """Factor on its pairs of a local and a global crop: 0.5 after a million iterations of DINOv3."""
    ibot: ScheduleSettings | None = None
    """Factor on the iBOT loss of masked patches."""
    koleo: ScheduleSettings | None = None
    """Factor on KoLeo."""


class GramSettings(Settings):
    """Gram anchoring: the similarities between the patches of an image are held near those of an earlier teacher.

    Source: arXiv:2508.10104, section 4.
    """

    teacher: str | Annotated[int, Field(ge=0)] | None = None
    """Backbone whose similarities anchor the student's: `step N`, or the number N alone, the run's own teacher (EMA)
    after N iterations, which is kept from there on; or a file of weights, as `init_from` takes them. null: that of the
    Gram phase just before."""
    weight: ScheduleSettings = ScheduleSettings(value=2.0)
    """Weight of the loss: in DINOv3 0 to 2 by a cosine of 1000 iterations, 1.5 at high resolution."""
    upscale: float = Field(default=2.0, ge=1.0, le=8.0)
    """Side of the Gram teacher's crops over that of the student's global crops; 1.5 at high resolution in DINOv3."""
    refresh: int = Field(default=0, ge=0)
    """Iterations after which the run's teacher of that moment (EMA) takes the Gram teacher's place: 10000 in DINOv3;
    0: never."""
    max_refreshes: int = Field(default=3, ge=1)
    """Most such replacements in the phase."""

    @property
    def teacher_step(self) -> int | None:
        """Iterations after which the run's own teacher is taken; None: a file's, or that of the phase before."""
        if isinstance(self.teacher, int):
            return self.teacher
        found = STEP.fullmatch(self.teacher or "")
        return None if found is None else int(found[1])

    @property
    def teacher_file(self) -> str | None:
        """The file of weights; None: the teacher comes from this run."""
        return self.teacher if isinstance(self.teacher, str) and self.teacher_step is None else None


class CropSizes(Settings):
    """Sides of the crops of a batch, in pixels."""

    global_size: int = Field(ge=1)
    """Side of a global crop."""
    local_size: int = Field(ge=1)
    """Side of a local crop."""
    gram_size: int | None = Field(default=None, ge=1)
    """Side of the Gram teacher's crops; null: `gram.upscale` times the global crop's."""
    probability: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    """How often these sizes are drawn, beside the others' probabilities; their sum need not be 1."""


class PhaseSettings(Settings):
    """A stretch of the run; what it names changes in it and stays so until a later phase names it."""

    until: int | None = Field(default=None, ge=1)
    """Iteration at which the phase ends and the next begins; null: `iterations` after its beginning, in the last phase
    the end of the run."""
    iterations: int | None = Field(default=None, ge=1)
    """Length of the phase, in place of `until`."""
    base_lr: ScheduleSettings | None = None
    """Learning rate at batch size `lr_batch`, which grows with the batch as `optimizer.base_lr` does. null: as before
    the phase; in the first, warm-up and schedule of the optimizer."""
    weight_decay: ScheduleSettings | None = None
    """Weight decay."""
    teacher_momentum: ScheduleSettings | None = None
    """Momentum of the teacher's moving average (EMA)."""
    teacher_temperature: ScheduleSettings | None = None
    """Temperature of the teacher's targets."""
    weights: WeightSchedules = WeightSchedules()
    """Factors on the weights of the losses."""
    gram: GramSettings | None = None
    """Gram anchoring in this phase; null: none."""
    sizes: tuple[CropSizes, ...] = ()
    """Sides of the crops: one of these for each batch, drawn by probability from the seed and the iteration. Empty: as
    before the phase."""

    @model_validator(mode="after")
    def _one_end(self) -> "PhaseSettings":
        if self.until is not None and self.iterations is not None:
            raise ValueError(f"both until {self.until} and iterations {self.iterations} say where it ends; give one")
        return self
