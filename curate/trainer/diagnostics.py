"""Figures that show whether a run learns, and the warnings drawn from them."""

import logging
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from curate.errors import TrainingDiverged
from curate.trainer.objective import ObjectiveOutput

logger = logging.getLogger(__name__)

COLLAPSED_STD = 0.05
"""Spread of features below which they are as good as constant; 1 is isotropic."""
NEAR_CHANCE = 0.02
"""Relative distance to chance (ln K) within which a loss says that the student has learned nothing."""


@torch.no_grad()
def batch_figures(output: ObjectiveOutput) -> dict[str, float]:
    """Figures of one batch that show collapse; the last two only where there are prototypes.

    Returns:
        feature_std: spread of the teacher's unit features: 1 isotropic, 0 collapsed.
        teacher_entropy: mean entropy of the targets in nats; 0: one prototype each, ln K: undecided.
        prototypes_used: e to the entropy of the mean target, the number of prototypes in use, 1..min(K, 2B).
    """
    figures = {"feature_std": feature_std(output.features)}
    if output.targets is not None:
        figures["teacher_entropy"] = float(_target_entropy(output.targets).mean())
        figures["prototypes_used"] = math.exp(float(_target_entropy(output.targets.mean(dim=0))))
    return figures


def feature_std(features: Tensor) -> float:
    """Root mean square deviation of unit features (N, D) from their mean: 1 isotropic, 0 all equal."""
    unit = F.normalize(features.float(), dim=-1)
    return float((unit - unit.mean(dim=0)).square().sum(dim=-1).mean().sqrt())


def _target_entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(dim=-1)


def check_finite(losses: dict[str, float], *, step: int, learning_rate: float) -> None:
    """Stop at the first loss that is not a finite number.

    Raises:
        TrainingDiverged: one is not; the error names it, and what usually helps.
    """
    bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if bad:
        values = ", ".join(f"{name} {value}" for name, value in bad.items())
        raise TrainingDiverged(
            f"iteration {step}: loss is not finite ({values}) at learning rate {learning_rate:.2e}; lower "
            "optimizer.base_lr, lengthen optimizer.warmup_iterations or set precision=fp32; the last "
            "checkpoint is intact"
        )


class Watchdog:
    """Warns once for each sign of collapse, after iteration `patience`: before it every run looks collapsed."""

    def __init__(self, *, patience: int) -> None:
        self._patience = patience
        self._warned: set[str] = set()

    def check(self, row: dict[str, float], chance: Mapping[str, float]) -> None:
        """Warn of what one row of the log shows; `chance` is the objective's: each loss when nothing is learned."""
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
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(text, *values)
