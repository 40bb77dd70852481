"""What the settings and phases of a run amount to in each iteration: pure functions of its number.

A run goes through phases without any state of its own: schedules, losses' weights, sizes of crops and Gram teachers
follow from the iteration alone, so a run that was killed anywhere, in a phase, between two or at a refresh, goes on as
if it had not been. `Timeline.past` says what the iterations before a given one depend on: a resumed run may have other
phases to come, or more iterations, where that is equal.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

from curate.feed.sizes import Sides, SizePlan
from curate.trainer.config import TrainSettings
from curate.trainer.effective import Effective
from curate.trainer.objective import LossWeights
from curate.trainer.objectives.settings import PrototypeSettings
from curate.trainer.phase_checks import Phase, lay_out, schedules_of
from curate.trainer.phase_settings import PhaseSettings, ScheduleSettings
from curate.trainer.schedules import (
    Piece,
    Schedule,
    begun,
    changed_from,
    constant,
    linear_then_constant,
    value_at,
    warmup_constant,
    warmup_cosine,
)

WEIGHT = "weights."
"""Prefix of the schedules that are factors on the losses' weights."""
GRAM_WEIGHT = WEIGHT + "gram"
REVERSAL = "reversal."
"""Prefix of the schedules of adversarial guides, by their columns."""


class GramEvent(NamedTuple):
    """What happens to the Gram teacher as an iteration begins."""

    step: int
    source: Literal["run", "file", "none"]
    """Whether the run's own teacher (EMA) takes its place, or the weights of a file; none: it goes."""
    file: str = ""


class Timeline:
    """Schedules, losses' weights, Gram teachers and sizes of crops of a run, by iteration."""

    def __init__(self, settings: TrainSettings, effective: Effective, *, seed: int = 0) -> None:
        self._settings, self._effective, self._seed = settings, effective, seed
        self.phases = lay_out(settings.phases, iterations=settings.iterations)

    @cached_property
    def schedules(self) -> dict[str, Schedule]:
        """Every schedule by its name; learning rates as they are applied, not at batch `lr_batch`."""
        found = self._of_the_run()
        for phase in self.phases:
            named = dict(schedules_of(phase.settings))
            if phase.settings.gram is None and value_at(found[GRAM_WEIGHT], phase.start) > 0:
                found[GRAM_WEIGHT] = changed_from(found[GRAM_WEIGHT], (constant(0.0, phase.start),))
            for key, given in named.items():
                name = GRAM_WEIGHT if key == "gram.weight" else key
                scale = self._effective.lr_scale if key == "base_lr" else 1.0
                fresh = key == "base_lr" and phase.start == 0  # a ramp from the start is a warm-up
                before = 0.0 if fresh else value_at(found[name], phase.start)
                pieces = phase_pieces(given, phase, before=before, scale=scale)
                found[name] = changed_from(found[name], pieces)
        return found

    def _of_the_run(self) -> dict[str, Schedule]:
        """The schedules as they are without phases."""
        settings, effective, steps = self._settings, self._effective, self._settings.iterations
        optimizer, momentum = settings.optimizer, effective.teacher_momentum
        rate, warmup, (first, last) = effective.learning_rate, effective.warmup_iterations, optimizer.weight_decay
        rise = effective.teacher_temperature_iterations
        constant_rate = optimizer.schedule == "constant"
        temperature: Schedule = (constant(0.0),)
        if isinstance(settings.objective, PrototypeSettings):
            low, high = settings.objective.teacher_temperature
            temperature = linear_then_constant(low, high, num_steps=rise)
        return {
            "base_lr": warmup_constant(rate, warmup=warmup)
            if constant_rate
            else warmup_cosine(rate, optimizer.final_lr, num_steps=steps, warmup=warmup),
            "weight_decay": (constant(first),) if constant_rate else warmup_cosine(first, last, num_steps=steps),
            "teacher_momentum": (constant(momentum),)
            if settings.ema.end == "constant"
            else warmup_cosine(momentum, settings.ema.end, num_steps=steps),
            "teacher_temperature": temperature,
            "backbone": self._unfreezing(),
            **{WEIGHT + name: (constant(value),) for name, value in LossWeights()._asdict().items()},
            **{
                REVERSAL + guide.column: (Piece(0, guide.ramp_of(steps), 0.0, 1.0, "logistic"),)
                for guide in settings.objective.guides
                if guide.adversarial
            },
        }

    def _unfreezing(self) -> Schedule:
        """Factor on the backbone's learning rate: it stands still, then warms up, then learns as the heads do."""
        optimizer = self._settings.optimizer
        frozen, rise = optimizer.freeze_backbone_iterations, optimizer.backbone_warmup_iterations
        return (
            *((constant(0.0),) if frozen else ()),
            Piece(frozen, frozen + rise, 0.0, 1.0) if rise else constant(1.0, frozen),
        )

    def at(self, name: str, step: int) -> float:
        """The value of a schedule in iteration `step`, counted from 0."""
        return value_at(self.schedules[name], step)

    def weights(self, step: int) -> LossWeights:
        """The factors on the losses' weights in iteration `step`."""
        return LossWeights(**{name: self.at(WEIGHT + name, step) for name in LossWeights._fields})

    def reversals(self, step: int) -> dict[str, float]:
        """The factor on the reversed gradient of each adversarial guide in iteration `step`, by its column."""
        names = [name for name in self.schedules if name.startswith(REVERSAL)]
        return {name.removeprefix(REVERSAL): self.at(name, step) for name in names}

    @cached_property
    def gram_events(self) -> tuple[GramEvent, ...]:
        """Every change of the Gram teacher, in order."""
        events: list[GramEvent] = []
        for number, phase in enumerate(self.phases):
            gram = phase.settings.gram
            if gram is None:
                continue
            if gram.teacher_step is not None:
                events.append(GramEvent(gram.teacher_step, "run"))
            elif gram.teacher_file is not None:
                events.append(GramEvent(phase.start, "file", gram.teacher_file))
            refreshed = range(phase.start + gram.refresh, phase.end, gram.refresh) if gram.refresh else ()
            events += [GramEvent(step, "run") for step in list(refreshed)[: gram.max_refreshes]]
            following = self.phases[number + 1].settings.gram if number + 1 < len(self.phases) else gram
            if following is None:
                events.append(GramEvent(phase.end, "none"))
        return tuple(events)

    def gram_event(self, step: int) -> GramEvent | None:
        """What happens to the Gram teacher as iteration `step` begins."""
        return next((event for event in reversed(self.gram_events) if event.step == step), None)

    def has_gram_teacher(self, step: int) -> bool:
        """Whether there is a Gram teacher before iteration `step` begins."""
        before = [event for event in self.gram_events if event.step < step]
        return bool(before) and before[-1].source != "none"

    @cached_property
    def sizes(self) -> SizePlan:
        """The sides of the crops of each batch."""
        crops = self._settings.crops
        sides: tuple[Sides, ...] = (Sides(crops.global_size, crops.local_size),)
        starts = [] if self.phases else [0]
        choices = [] if self.phases else [sides]
        for phase in self.phases:
            if phase.settings.sizes:
                sides = tuple(
                    Sides(one.global_size, one.local_size, one.gram_size, one.probability)
                    for one in phase.settings.sizes
                )
            starts.append(phase.start)
            choices.append(tuple(self._with_gram(one, phase.settings) for one in sides))
        return SizePlan(tuple(starts), tuple(choices), self._seed)

    @staticmethod
    def _with_gram(sides: Sides, phase: PhaseSettings) -> Sides:
        if phase.gram is None:
            return sides._replace(gram_size=None)
        return sides._replace(gram_size=sides.gram_size or round(sides.global_size * phase.gram.upscale))

    def past(self, step: int) -> dict[str, Any]:
        """JSON-ready values by name on which the iterations before `step` depend."""
        plan = self.sizes
        shown = [
            (start, list(map(list, sides)))
            for start, sides in zip(plan.starts, plan.choices, strict=True)
            if start < step
        ]
        return {
            **{name: [list(piece) for piece in begun(schedule, step)] for name, schedule in self.schedules.items()},
            "gram": [list(event) for event in self.gram_events if event.step < step],
            "sizes": [one for i, one in enumerate(shown) if i == 0 or one[1] != shown[i - 1][1]],
            "freeze_last_layer": min(step, self._effective.freeze_last_layer_iterations),
        }


def phase_pieces(given: ScheduleSettings, phase: Phase, *, before: float, scale: float = 1.0) -> tuple[Piece, ...]:
    """The pieces of a schedule that a phase names.

    Args:
        before: the value at which the phase begins.
        scale: factor on the values that are given.
    """
    start, end = phase.start, phase.end
    held = before if given.value is None else given.value * scale
    settled = start + given.ramp
    cooled = end if given.end is None else settled if given.cooldown is None else end - given.cooldown
    pieces = [Piece(start, settled, before, held, given.shape)] if given.ramp else []
    if cooled > settled:
        pieces.append(constant(held, settled))
    if given.end is not None:
        pieces.append(Piece(cooled, end, held, given.end * scale, "cosine"))
    return tuple(pieces)


def phase_at(phases: Sequence[Phase], step: int) -> int:
    """Number of the phase of iteration `step`, from 0; 0 too where there are none."""
    return max(sum(phase.start <= step for phase in phases) - 1, 0)
