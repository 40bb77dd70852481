"""How much of the machine a training step uses: its operations in matrix products beside what plain products attain.

The share is that of model FLOPs utilization (MFU), but against the rate of large products measured on this machine
instead of a data sheet's, which no CPU reaches and which makers of GPUs state for several conditions.
"""

import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from curate.models.device import Precision, autocast

aten = torch.ops.aten
ResultT = TypeVar("ResultT")

SHAPES = {
    "cpu": ((2048, 2048, 2048), (4096, 1536, 384), (4096, 384, 1536)),
    "cuda": ((8192, 8192, 8192), (32768, 4096, 1024), (32768, 1024, 4096)),
}
"""(rows, inner width, columns) of large products: a square one, and a small ViT's and a large one's."""
REPEATS = 3
"""Products of each shape that are timed."""
WHOLE = ("silu_backward", "mish_backward", "_fused_rms_norm")
"""Operators with a kernel and a formula in simpler ones. torch's counter would run the formula, which rounds otherwise,
so that a counted step would not be equal to the same step uncounted, as in a run that goes on after a kill."""


def count_flops(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products that `step()` runs; a multiply-add counts as two.

    Products are those of linears, convolutions and attention. Attention counts as four products backward, whether its
    kernel computes the scores again or not; blocks that activation checkpointing runs a second time count twice.
    """
    with FlopCounterMode(display=False, custom_mapping=_counts()) as counter:
        step()
    return int(counter.get_total_flops())


def _counts() -> dict[Any, Callable[..., int]]:
    """Counts by kernel. Of attention torch has none for the CPU's, and counts five products backward for the others."""
    backward = (
        aten._scaled_dot_product_flash_attention_for_cpu_backward,
        aten._scaled_dot_product_flash_attention_backward,
        aten._scaled_dot_product_efficient_attention_backward,
        aten._scaled_dot_product_cudnn_attention_backward,
    )
    whole = (getattr(aten, name).default for name in WHOLE if hasattr(aten, name))
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_forward,
        **dict.fromkeys(backward, _attention_backward),
        **dict.fromkeys(whole, _nothing),
    }


def _nothing(*args: Any, **kwargs: Any) -> int:
    return 0


def _attention_forward(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * int(sdpa_flop_count(query, key, value))


class Meter:
    """Measures the speed of training between one look and the next."""

    def __init__(self, done: int, *, batch_size: int, device: torch.device, precision: Precision) -> None:
        """Start measuring after `done` iterations; `batch_size` is that of all processes together."""
        self._batch_size, self._flops = batch_size, 0
        self._rate = machine_rate(device, precision)
        self._done, self._time = done, time.perf_counter()

    def count(self, step: Callable[[], ResultT]) -> ResultT:
        """Run one iteration and count its operations; all others are taken to have as many."""
        results: list[ResultT] = []
        self._flops = count_flops(lambda: results.append(step()))
        return results[0]

    def look(self, done: int) -> dict[str, float]:
        """Figures of the iterations since the last look, of which `done` are done in all.

        Returns:
            images_per_second of all processes together, and, once `count` was called, teraflops: this process's
            operations in matrix products a second, in 10^12; matmul_share: these over those that large products would
            make in the same time.
        """
        now = time.perf_counter()
        rate = (done - self._done) / (now - self._time)
        self._done, self._time = done, now
        speed = {"images_per_second": rate * self._batch_size}
        if not self._flops:
            return speed
        done_per_second = rate * self._flops
        return speed | {"teraflops": done_per_second / 1e12, "matmul_share": done_per_second / self._rate}


@lru_cache(maxsize=4)
def machine_rate(device: torch.device, precision: Precision) -> float:
    """`matmul_rate`, measured once a process."""
    return matmul_rate(device, precision)


def matmul_rate(device: torch.device, precision: Precision, *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second of the fastest of some large products.

    Args:
        clock: with `time.process_time` the rate is per CPU second, however many threads share the work.
    """
    return max(_linear_rate(shape, device, precision, clock) for shape in SHAPES[device.type])


def _linear_rate(
    shape: tuple[int, int, int], device: torch.device, precision: Precision, clock: Callable[[], float]
) -> float:
    """Median over `REPEATS` products, after one to warm up."""
    rows, inner, columns = shape
    x, weight = torch.ones(rows, inner, device=device), torch.ones(columns, inner, device=device)
    seconds = []
    with torch.inference_mode(), autocast(device, precision):
        if precision == "bf16":
            x, weight = x.bfloat16(), weight.bfloat16()
        for _ in range(1 + REPEATS):
            _wait(device)
            start = clock()
            torch.nn.functional.linear(x, weight)
            _wait(device)
            seconds.append(clock() - start)
    return 2 * rows * inner * columns / statistics.median(seconds[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
