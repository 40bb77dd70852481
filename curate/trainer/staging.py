"""Copies of the training's state in host memory, from which a checkpoint is written while training goes on.

From a GPU the copy takes a second for some ten gigabytes, and nothing but the last act of an iteration, the update of
student, teacher and moments, changes most of what is copied: forward and backward passes only read it. So tensors that
are said to be `late` are copied by a thread, into pinned memory and by a stream of its own, while the next iteration
computes its gradients; the update waits for the copy. All others are copied before `copy` returns.

On a CPU everything is copied at once. A copy beside the computation would take its time from the same cores and the
same memory, and it must be there before the next update all the same.
"""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, wait
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

State = Mapping[str, Tensor]
Copied = Callable[[], dict[str, Any]]
"""Gives the copies, once they are made."""


class Staging:
    """Copies tensors into host memory, one state at a time: the next one may take the place of the last."""

    def __init__(self, *, beside: bool) -> None:
        """`beside`: whether late tensors are copied beside the computation; where a GPU is at hand, into pinned memory,
        which is kept."""
        pinned = torch.cuda.is_available()
        self._stager = DefaultStager(StagingOptions(pinned, False, True, pinned)) if beside else None
        self._under_way: Future[Any] | None = None

    def copy(self, state: State, late: Collection[str]) -> Copied:
        """Begin to copy `state`.

        Args:
            late: names of the tensors that do not change before `wait`.
        """
        stager = self._stager
        now = state if stager is None else {name: value for name, value in state.items() if name not in late}
        copied = _copy_at_once(now)
        if stager is None:
            return lambda: copied
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # the stream of the copy does not wait for what computes the tensors
        under_way: Any = stager.stage({name: value for name, value in state.items() if name in late})
        self._under_way = under_way
        return lambda: copied | under_way.result()

    def wait(self) -> None:
        """Wait until late tensors may change; a copy that failed is told by what `copy` has returned."""
        if self._under_way is not None:
            wait([self._under_way])
            self._under_way = None

    def close(self) -> None:
        """Wait, and let go of the memory of the copies."""
        self.wait()
        if self._stager is not None:
            self._stager.close()


def _copy_at_once(state: State) -> dict[str, Any]:
    stager = DefaultStager(StagingOptions(False, False, False, False))
    copied: Any = stager.stage(dict(state))
    stager.close()
    return copied
