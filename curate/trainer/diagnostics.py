"""Figures that show whether a run learns, and the warnings drawn from them."""

import logging
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from curate.errors import TrainingDiverged
from curate.trainer.objective import Outcome

logger = logging.getLogger(__name__)

COLLAPSED_STD = 0.05
"""Feature spread below which features are as good as constant; 1 is isotropic."""
NEAR_CHANCE = 0.02
"""Share of ln K within which a loss says that the student has learned nothing."""


@torch.no_grad()
def watch(outcome: Outcome) -> dict[str, float]:
    """Figures of one batch.

    Returns:
        feature_std: of the teacher's unit features, times sqrt(D): 1 isotropic, 0 collapsed.
        teacher_entropy: nats, mean over images; 0: one prototype each, ln K: undecided.
        prototypes_used: e to the entropy of the mean target: prototypes in use, 1..min(K, 2B).
        The last two only where there are prototypes.
    """
    figures = {"feature_std": feature_std(outcome.features)}
    if outcome.targets is not None:
        figures["teacher_entropy"] = float(_entropy(outcome.targets).mean())
        figures["prototypes_used"] = math.exp(float(_entropy(outcome.targets.mean(dim=0))))
    return figures


def feature_std(features: Tensor) -> float:
    """Root mean square deviation of unit features (N, D) from their mean: 1 isotropic, 0 all equal."""
    unit = F.normalize(features.float(), dim=-1)
    return float((unit - unit.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)


def check_finite(parts: dict[str, float], *, step: int, learning_rate: float) -> None:
    """Stop at the first loss that is no number.

    Raises:
        TrainingDiverged: names the losses, and what usually helps.
    """
    bad = {name: value for name, value in parts.items() if not math.isfinite(value)}
    if bad:
        told = ", ".join(f"{name} {value}" for name, value in bad.items())
        raise TrainingDiverged(
            f"iteration {step}: loss is not finite ({told}) at learning rate {learning_rate:.2e}; lower "
            "optimizer.base_lr, lengthen optimizer.warmup_iterations or set precision=fp32; the last "
            "checkpoint is intact"
        )


class Watchdog:
    """Warns once for each sign of collapse, from iteration `patience` on: at first every run looks like one."""

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._told: set[str] = set()

    def look(self, row: dict[str, float], chance: Mapping[str, float]) -> None:
        """Judge one row of the log; `chance` as in `Objective`: what each loss is when nothing is learned."""
        if row["step"] <= self._patience:
            return
        if row["feature_std"] < COLLAPSED_STD:
            self._warn(
                "collapse",
                "iteration %d: features have collapsed (spread %.3f of 1); more varied images, "
                "objective.koleo_weight or a lower optimizer.base_lr help",
                int(row["step"]),
                row["feature_std"],
            )
        for name, value in chance.items():
            loss = row[f"loss_{name}"]
            if abs(loss - value) < NEAR_CHANCE * value:
                self._warn(
                    name,
                    "iteration %d: the loss %s %.3f is about %.3f (ln K), as if chosen by chance: the student has "
                    "learned nothing yet; a higher optimizer.base_lr, fewer objective.prototypes or more iterations "
                    "help",
                    int(row["step"]),
                    name,
                    loss,
                    value,
                )

    def _warn(self, kind: str, text: str, *values: object) -> None:
        if kind not in self._told:
            self._told.add(kind)
            logger.warning(text, *values)
