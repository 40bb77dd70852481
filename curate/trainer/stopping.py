"""SIGTERM, by which Slurm, Kubernetes and torchrun announce that a process must go."""

import signal
import threading
from types import FrameType
from typing import Any

import torch

from curate import interrupt
from curate.trainer.parallel import World


class StopSignal:
    """Notes a SIGTERM instead of ending the process, so that the iteration under way can end and a checkpoint be
    written."""

    def __init__(self) -> None:
        self._received = False
        self._before: Any = None
        self._leaving = interrupt.leaving(signal.SIGTERM)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._leaving.__enter__()
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._leaving.__exit__(None, None, None)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True

    def received(self, world: World) -> bool:
        """Whether any rank has received one; all ranks must ask together."""
        return bool(world.max(torch.tensor(float(self._received))) > 0)
