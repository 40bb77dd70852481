"""SIGTERM, by which Slurm, Kubernetes and torchrun announce that a process must go, and Ctrl-C: both save first.

Who sends a SIGTERM kills the process a while later: torchrun after 30 seconds, or as many as
`TORCH_ELASTIC_SHUTDOWN_TIMEOUT` says from torch 2.12 on, Kubernetes after `terminationGracePeriodSeconds`, Docker after
10 seconds unless `-t` says more, Slurm after `KillWait`. torchrun itself then ends with status 1, whatever that of its
processes. So the signal interrupts what can be done again, an evaluation, and otherwise the iteration under way ends
and its checkpoint is written. A second Ctrl-C ends the process at once.
"""

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch

from curate import interrupt
from curate.errors import TrainingInterrupted
from curate.trainer.parallel import World

Result = TypeVar("Result")
logger = logging.getLogger(__name__)

NOTED = (signal.SIGTERM, signal.SIGINT)
"""Signals after which a checkpoint is written."""


class StopRequested(BaseException):
    """A signal came while something was done that can be done again."""


class StopSignal:
    """Notes a signal instead of ending the process, so that the iteration under way can end and a checkpoint be
    written."""

    def __init__(self) -> None:
        self._signum, self._may_raise = 0, False
        self._held = ExitStack()

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for one in NOTED:
                before: Any = signal.getsignal(one)
                if before in (signal.SIG_IGN, None):  # as `nohup` and shells leave it to those in the background
                    continue
                self._held.enter_context(interrupt.leaving(one))
                signal.signal(one, self._note)
                self._held.callback(signal.signal, one, before)
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._signum and number == signal.SIGINT:
            self._held.close()
            signal.raise_signal(number)
        if not self._signum:
            self._signum = number
            again = "; Ctrl-C again ends it at once" if number == signal.SIGINT else ""
            logger.info("%s: stopping, a checkpoint is written first%s", signal.Signals(number).name, again)
        if self._may_raise:
            self._may_raise = False
            raise StopRequested

    def run(self, work: Callable[[], Result]) -> Result | None:
        """What `work` gives, which can be done again; None where a signal has come, which ends it at once."""
        try:
            self._may_raise = True
            try:
                return None if self._signum else work()
            finally:
                self._may_raise = False
        except StopRequested:
            return None

    def received(self, world: World) -> int:
        """The signal that any rank has received, 0 if none has; all ranks must ask together."""
        if world.size == 1:
            return self._signum
        return int(world.max(torch.tensor(self._signum)).item())


def end_by(signum: int, text: str) -> NoReturn:
    """End the training by the signal that stopped it, once its checkpoint is written.

    Raises:
        KeyboardInterrupt: it was a Ctrl-C.
        TrainingInterrupted: it was another one; the error says `text`.
    """
    if signum == signal.SIGINT and threading.current_thread() is threading.main_thread():
        signal.raise_signal(signum)
    raise TrainingInterrupted(text)
