"""Figures that show whether a run learns."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from curate.errors import TrainingDiverged
from curate.trainer.objective import ObjectiveOutput


@torch.no_grad()
def batch_figures(output: ObjectiveOutput) -> dict[str, float]:
    """Figures of one batch that show collapse, the last two only where there are prototypes.

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


class FiniteGuard:
    """Looks at the losses of every iteration on the device, without waiting for it, and remembers the first bad ones.

    What `look` gives keeps the optimizer from changing any weight, from the first loss on that is not finite, until
    `check` asks and the run ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._names: tuple[str, ...] = ()
        self._bad = torch.zeros((), device=device)  # 1 from the first bad iteration on
        self._step = torch.zeros((), device=device, dtype=torch.int64)
        self._losses = torch.zeros(0, device=device)

    def look(self, losses: Mapping[str, Tensor], step: int) -> Tensor:
        """() float32: 1 where a loss of this iteration, or of one before, is not finite."""
        added = [name for name in losses if name not in self._names]
        if added:  # at first all, and what a phase brings
            self._names += tuple(added)
            self._losses = torch.cat([self._losses, self._losses.new_zeros(len(added))])
        absent = torch.zeros_like(self._bad)
        values = torch.stack([losses.get(name, absent).float() for name in self._names])
        self._step = torch.where(self._bad > 0, self._step, step)
        self._losses = torch.where(self._bad > 0, self._losses, values)
        self._bad = torch.maximum(self._bad, 1 - values.isfinite().all().float())
        return self._bad

    def check(self, *, rate: Callable[[int], float]) -> None:
        """Stop if a loss was not a finite number; `rate` is the learning rate of an iteration.

        Raises:
            TrainingDiverged: one was not; the error names it, and what usually helps.
        """
        if not self._bad.item():
            return
        step = int(self._step.item())
        found = dict(zip(self._names, self._losses.tolist(), strict=True))
        values = ", ".join(f"{name} {value}" for name, value in found.items() if not math.isfinite(value))
        raise TrainingDiverged(
            f"iteration {step}: loss is not finite ({values}) at learning rate {rate(step):.2e}; lower "
            "optimizer.base_lr, lengthen optimizer.warmup_iterations or set precision=fp32; the last "
            "checkpoint is intact"
        )
