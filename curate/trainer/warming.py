"""Fresh heads on a backbone that knows something: it stands still until they have settled, then it warms up.

The rule looks at the loss and at nothing that people must choose. The run is cut into windows of a hundredth of its
iterations, 5 at least, and the heads have settled after two windows in a row whose mean loss was less than 1 % below
that of the window before; at the latest after a fifth of the run. The backbone's learning rate then rises from 0 over
as many iterations as the heads took. What the rule has seen lies in the checkpoint, so that a resumed run decides as
one that was never stopped.
"""

import torch
from torch import Tensor

from curate.trainer.config import TrainConfig

WINDOWS, LEAST = 100, 5
"""Windows of a run, and the least iterations of one."""
SETTLED = 0.01
"""Relative fall of the mean loss below which a window counts as calm."""
CALM = 2
"""Calm windows in a row after which the heads have settled."""
MOST = 0.2
"""Share of the run after which the backbone learns in any case."""
STATE = "warm_up.seen"
"""Name of what the rule has seen in a checkpoint."""


class HeadsWarmUp:
    """Factor on the backbone's learning rate while fresh heads warm up, and after."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._lay_out(config.iterations)
        # Sum of the losses of this window, mean of the one before, calm windows, iteration of the release or 0, and the
        # iterations of the run as it began: a run that is made longer goes on by the same windows.
        self._seen = torch.tensor([0.0, torch.inf, 0.0, 0.0, config.iterations], device=device)
        self._released = 0

    def _lay_out(self, iterations: int) -> None:
        self._iterations, self._window = iterations, max(LEAST, iterations // WINDOWS)

    def factor(self, step: int) -> float:
        """0 while the heads warm up, then a line to 1."""
        return min(1.0, (step - self._released) / self._released) if self._released else 0.0

    def look(self, loss: Tensor, step: int) -> None:
        """Take in the loss of iteration `step`; at the end of a window the device is waited for."""
        if self._released:
            return
        self._seen[0] += loss
        if (step + 1) % self._window == 0:
            self._judge(step + 1)

    def _judge(self, done: int) -> None:
        total, before, calm, *_ = self._seen.tolist()
        mean = total / self._window
        calm = calm + 1 if mean > before * (1 - SETTLED) else 0
        if calm >= CALM or done >= MOST * self._iterations:
            self._released = done
        self._seen[:4] = torch.tensor([0.0, mean, calm, self._released])

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds; `resume` is called once it is filled."""
        return {STATE: self._seen}

    def resume(self) -> None:
        """Go on from what a checkpoint has filled in."""
        *_, released, iterations = self._seen.tolist()
        self._released = int(released)
        self._lay_out(int(iterations))
