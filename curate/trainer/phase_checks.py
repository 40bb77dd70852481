"""Where the phases of a run lie, and whether they go together. Importing this costs no torch."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.config import without_folder
from curate.trainer.objectives.settings import PrototypeSettings
from curate.trainer.phase_settings import GramSettings, PhaseSettings, ScheduleSettings

if TYPE_CHECKING:
    from curate.trainer.config import TrainSettings

SCHEDULED = ("base_lr", "weight_decay", "teacher_momentum", "teacher_temperature")
"""Fields of a phase that are schedules of one value."""
LIMITS = {"teacher_momentum": (0.0, 1.0), "base_lr": (0.0, None), "weight_decay": (0.0, None)}
"""Smallest and largest value; None: no limit."""


class Phase(NamedTuple):
    """A phase and the iterations `start` to `end` - 1 that it covers."""

    start: int
    end: int
    settings: PhaseSettings


def lay_out(phases: Sequence[PhaseSettings], *, iterations: int) -> tuple[Phase, ...]:
    """The phases with their iterations; the last one that names no end goes to `iterations`.

    Raises:
        ValueError: one ends before it begins, or they do not end at `iterations`.
    """
    found, start = [], 0
    for number, settings in enumerate(phases):
        end = _end_of(settings, start)
        if end is None and number < len(phases) - 1:
            raise ValueError(f"phases.{number} names no end, and another follows; give until or iterations")
        end = iterations if end is None else end
        if end <= start:
            raise ValueError(f"phases.{number} ends at iteration {end} and begins at {start}; let it end later")
        found.append(Phase(start, end, settings))
        start = end
    if found and start != iterations:
        raise ValueError(f"the phases end at iteration {start}, the run at {iterations}; set iterations={start}")
    return tuple(found)


def end_of_phases(phases: Sequence[Any]) -> int | None:
    """The iteration at which given phases, settings or what is to become them, end; None: they do not say it."""
    end: int | None = 0
    for phase in phases:
        given = phase if isinstance(phase, dict) else phase.model_dump() if isinstance(phase, PhaseSettings) else {}
        until, length = given.get("until"), given.get("iterations")
        end = until if isinstance(until, int) else end + length if end is not None and isinstance(length, int) else None
    return end


def schedules_of(phase: PhaseSettings) -> Iterator[tuple[str, ScheduleSettings]]:
    """Every schedule that a phase names, by its key within the phase."""
    named = [(name, getattr(phase, name)) for name in SCHEDULED]
    named += [(f"weights.{name}", getattr(phase.weights, name)) for name in type(phase.weights).model_fields]
    named += [("gram.weight", phase.gram.weight)] if phase.gram else []
    yield from ((name, given) for name, given in named if given is not None)


def check_phases(settings: "TrainSettings") -> None:
    """Compare the phases with one another and with the rest of the training's settings.

    Raises:
        ValueError: they do not go together.
    """
    phases = lay_out(settings.phases, iterations=settings.iterations)
    for number, phase in enumerate(phases):
        for name, given in schedules_of(phase.settings):
            _check_read(name, f"phases.{number}.{name}", settings)
            _check_schedule(given, f"phases.{number}.{name}", phase.end - phase.start)
        _check_sizes(phase.settings, settings, number)
    _check_gram_teachers(phases)


def _end_of(settings: PhaseSettings, start: int) -> int | None:
    return settings.until if settings.iterations is None else start + settings.iterations


def _check_read(name: str, key: str, settings: "TrainSettings") -> None:
    """The objective reads what a phase schedules: nothing is asked for that would change nothing."""
    objective, kind = settings.objective, without_folder(settings.objective.kind)
    group, _, weight = name.rpartition(".")
    if group == "gram" and "gram" not in objective.weighed:
        raise ValueError(
            f"{key.removesuffix('.weight')}: objective={kind} reads no patches for Gram anchoring; dinov2 and dinov3 do"
        )
    if group == "weights" and weight not in objective.weighed:
        read = ", ".join(sorted(objective.weighed - {"gram"})) or "none"
        raise ValueError(f"{key}: objective={kind} has no such loss; those that phases may weigh: {read}")
    if name == "teacher_temperature" and not isinstance(objective, PrototypeSettings):
        raise ValueError(f"{key}: objective={kind} has no prototypes, and so no such temperature; leave it out")


def _check_schedule(given: ScheduleSettings, key: str, length: int) -> None:
    needed = given.ramp + (given.cooldown or 0)
    if needed > length or (given.end is not None and given.cooldown is None and given.ramp >= length):
        raise ValueError(f"{key}: ramp and cooldown take {needed} iterations, the phase has {length}")
    low, high = LIMITS.get(key.rpartition(".")[2], (0.0, None))
    for value in (given.value, given.end):
        if value is not None and (value < low or (high is not None and value > high)):
            raise ValueError(
                f"{key} is {value}; needed: {low:g} or more{'' if high is None else f', {high:g} at most'}"
            )


def _check_sizes(phase: PhaseSettings, settings: "TrainSettings", number: int) -> None:
    patch = 1 if settings.model.tower is not None else settings.model.side
    if phase.gram is not None and not phase.sizes:
        side = round(settings.crops.global_size * phase.gram.upscale)
        if side % patch:
            raise ValueError(
                f"phases.{number}.gram.upscale {phase.gram.upscale}: the Gram teacher's crops of {side} pixels are no "
                f"multiple of patch_size {patch}"
            )
    for sizes in phase.sizes:
        for name in ("global_size", "local_size", "gram_size"):
            side = getattr(sizes, name)
            if side is not None and side % patch:
                raise ValueError(f"phases.{number}.sizes: {name} {side} is not a multiple of patch_size {patch}")
        if sizes.gram_size is not None and phase.gram is None:
            raise ValueError(f"phases.{number}.sizes names a gram_size, but the phase has no gram; leave it out")
        if sizes.gram_size is not None and sizes.gram_size < sizes.global_size:
            raise ValueError(f"phases.{number}.sizes: gram_size {sizes.gram_size} is below {sizes.global_size}")


def _check_gram_teachers(phases: Sequence[Phase]) -> None:
    """There is one Gram teacher at a time: that of a later phase is not taken while an earlier one uses its own."""
    before: GramSettings | None = None
    for number, phase in enumerate(phases):
        gram = phase.settings.gram
        if gram is None:
            before = None
            continue
        if gram.teacher is None and before is None:
            raise ValueError(f"phases.{number}.gram names no teacher, and the phase before has none; set gram.teacher")
        step = gram.teacher_step
        if step is not None:
            busy = max((p.end for p in phases[:number] if p.settings.gram), default=0)
            if not busy <= step <= phase.start:
                raise ValueError(
                    f"phases.{number}.gram.teacher is the run's own after {step} iterations; it must be one of "
                    f"{busy} to {phase.start}, before the phase and after the last one with a Gram teacher"
                )
        before = gram
