"""Warnings of collapse, drawn from the rows of a log.

A training that has collapsed goes on with a loss that looks well, and what shows it is found in three places.

Targets. What they say of an image is the entropy of their mean less the mean of their entropies: the mutual information
of image and prototype. It is near 0 where all images get one prototype, and where all get all of them alike. Centering
prevents the first and invites the second, Sinkhorn-Knopp prevents both only as long as features differ.

Features. Sinkhorn-Knopp makes of features that are all but equal targets that are well spread, by their noise, so the
spread of the features is looked at by itself.

The student. Its loss stays at ln K, that of a guess, or above: it learns nothing.

Each of these is passed through by trainings that are well: a backbone whose LayerScale is 1e-5 begins with equal
features, many recipes are undecided at first, and every loss crosses ln K on its way down. So a warning needs that a
figure was bad in every row of a stretch, that it does not recover in it, and that the warm-up is over. What has been
lost since the beginning is told after a short stretch, what has never been there after a long one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from curate.trainer.config import TrainConfig
from curate.trainer.journal import Row
from curate.trainer.objectives.settings import PrototypeSettings

COLLAPSED_STD = 0.05
"""Spread of features below which they are as good as constant; 1 is isotropic."""
SPREAD = 0.2
"""Spread that features once had if its loss is to be called a collapse after a short stretch."""
INFORMED = 0.02
"""Share of the most that targets could say of an image, below which they say nothing."""
NEAR_CHANCE = 0.02
"""Relative distance below chance (ln K) within which a loss is that of a guess."""
RECOVERY = 1.2
"""Growth within a stretch by which a figure recovers."""
SHORT, LONG, LONGEST = 0.04, 0.2, 0.5
"""Lengths of the stretches, as shares of the run's iterations; the longest is for losses, which stay at ln K for a
while in many trainings that are well."""
ROWS = 5
"""Rows of the log that a stretch has at least."""


class Warned(NamedTuple):
    """A warning: its name in the log, and its text for people."""

    name: str
    text: str


class Watchdog:
    """Warns once for each kind of collapse; it depends on the rows of the log alone, so that a resumed run warns as one
    that was never stopped."""

    def __init__(self, config: TrainConfig, chance: Callable[[], Mapping[str, float]], *, rows: Sequence[Row]) -> None:
        """Go on after `rows`.

        Args:
            chance: the objective's: each loss where nothing is learned.
        """
        self._config, self._chance, self._rows = config, chance, list(rows)
        self._warned = {name for row in rows for name in row if name.startswith(PREFIX)}

    def check(self, row: Row) -> list[Warned]:
        """What one more row of the log shows."""
        self._rows.append(row)
        new: list[Warned] = []
        for look in (self._features, self._targets, self._guesses):
            found = [one for one in look() if one.name not in self._warned]
            self._warned |= {one.name for one in found}
            new += found
        return new

    def _stretch(self, share: float) -> list[Row]:
        """The last rows, of a share of the run; none where it reaches back into the warm-up."""
        length = max(share * self._config.iterations, (ROWS - 1) * self._config.log_every)
        last = self._rows[-1]["step"]
        rows = [row for row in self._rows if row["step"] >= last - length]
        return rows if len(rows) >= ROWS and last - length > self._quiet else []

    @property
    def _quiet(self) -> float:
        """Iterations in which nothing is told: the warm-up, and the frozen prototypes and backbone."""
        optimizer, iterations = self._config.optimizer, self._config.iterations
        warmup = iterations // 10 if optimizer.warmup_iterations == "auto" else optimizer.warmup_iterations
        return max(warmup, optimizer.freeze_backbone_iterations)

    def _features(self) -> list[Warned]:
        had = max(row["feature_std"] for row in self._rows) > SPREAD
        rows = self._stretch(SHORT if had else LONG)
        if not _stays([row["feature_std"] for row in rows], below=COLLAPSED_STD):
            return []
        advice = [_koleo(self._config), LOWER_RATE, "more varied images"]
        spread = rows[-1]["feature_std"]
        return [Warned("warned_features", f"features have collapsed (spread {spread:.3f} of 1); {_helps(advice)}")]

    def _targets(self) -> list[Warned]:
        settings = self._config.objective
        if not isinstance(settings, PrototypeSettings) or "teacher_entropy" not in self._rows[-1]:
            return []
        one = self._rows[-1]["prototypes_used"] < ONE
        rows = self._stretch(SHORT if one else LONG)
        if not _stays([informed(row) for row in rows], below=INFORMED):
            return []
        if one:
            advice = [_centering(self._config), LOWER_RATE, "a higher objective.teacher_temperature"]
            return [Warned("warned_one_prototype", f"all images get one prototype; {_helps(advice)}")]
        low = settings.teacher_temperature[1]
        advice = [f"a lower objective.teacher_temperature than {low:g}", "fewer objective.prototypes", LONGER]
        undecided = "the teacher gives all images the same targets, spread over all prototypes"
        return [Warned("warned_undecided", f"{undecided}; {_helps(advice)}")]

    def _guesses(self) -> list[Warned]:
        found: list[Warned] = []
        if "warned_undecided" in self._warned:  # which says why
            return found
        for name, value in self._chance().items():
            rows = [row for row in self._stretch(LONGEST) if f"loss_{name}" in row]
            losses = [row[f"loss_{name}"] for row in rows]
            guesses = losses and min(losses) > (1 - NEAR_CHANCE) * value
            if not guesses or _falls(losses, by=NEAR_CHANCE * value / 10):
                continue
            advice = ["a higher optimizer.base_lr", "fewer objective.prototypes", LONGER]
            told = f"the loss {name} {losses[-1]:.3f} does not fall below {value:.3f} (ln K), that of a guess"
            found.append(Warned(f"warned_{name}", f"{told}: the student learns nothing; {_helps(advice)}"))
        return found


PREFIX = "warned_"
"""Begin of the names of warnings in the log."""
ONE = 1.1
"""Prototypes in use below which all images have the same one."""
LOWER_RATE = "a lower optimizer.base_lr"
LONGER = "more iterations"


def informed(row: Row) -> float:
    """How much the targets say of an image, as a share of the most that they could with as many prototypes in use;
    of an objective without prototypes 1.

    Returns:
        Mutual information of image and prototype over the entropy of the mean target, 0 where that is 0.
    """
    if "teacher_entropy" not in row:
        return 1.0
    mean = math.log(max(row["prototypes_used"], 1.0))
    if row["prototypes_used"] < ONE:
        return 0.0
    return max(0.0, mean - row["teacher_entropy"]) / mean


def _stays(values: Sequence[float], *, below: float) -> bool:
    """Whether all values of a stretch are below a limit and they do not grow in it."""
    if not values or max(values) >= below:
        return False
    half = len(values) // 2
    return fmean(values[half:]) <= RECOVERY * fmean(values[:half]) + 1e-12


def _falls(values: Sequence[float], *, by: float) -> bool:
    half = len(values) // 2
    return fmean(values[:half]) - fmean(values[half:]) > by


def _koleo(config: TrainConfig) -> str:
    return "a weight of KoLeo, objective.koleo_weight=0.1," if config.objective.koleo_weight == 0 else "a larger batch"


def _centering(config: TrainConfig) -> str:
    """The cure of one prototype for all images that fits the objective."""
    if getattr(config.objective, "centering", None) == "softmax":
        return "objective.centering=sinkhorn"
    if hasattr(config.objective, "center_momentum"):
        return "a lower objective.center_momentum"
    return _koleo(config)


def _helps(advice: Sequence[str]) -> str:
    return f"{', '.join(advice[:-1])} or {advice[-1]} may help"
