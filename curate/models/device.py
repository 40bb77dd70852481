"""Where and how precisely models compute.

The kinds of device and precision are part of configs, which light commands read too; so torch is imported by the
functions that ask it, and not by this module.
"""

import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from curate.errors import ConfigError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]

MIN_SPEEDUP = 1.5
"""How much faster than float32 bfloat16 must be on a CPU to be used: below, noise would decide for little gain."""


def resolve_device(choice: str = "auto") -> "torch.device":
    """The device that a config names; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigError: no such device here.
    """
    import torch

    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(choice)
    except RuntimeError as error:
        raise ConfigError(f"device={choice}: no such kind of device; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ConfigError(f"device={choice}: only auto, cpu, cuda and cuda:N are supported")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(f"device={choice}: {count} CUDA devices are usable here; use auto or cpu")
    return device


def prefers_bf16(device: "torch.device") -> bool:
    """Whether matrix products in bfloat16 are worth their lower precision: done by hardware, and measurably faster.

    Instructions alone decide nothing on a CPU: of two processors with AVX512-BF16, one multiplies three times as fast
    as in float32, the other at two thirds of the speed.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    in_hardware = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return in_hardware and _bf16_gain() > MIN_SPEEDUP


@lru_cache(maxsize=1)
def _bf16_gain() -> float:
    """How many times faster this CPU multiplies in bfloat16 than in float32, measured once a process."""
    import torch

    return _product_seconds(torch.float32) / _product_seconds(torch.bfloat16)


def _product_seconds(dtype: "torch.dtype", *, repeats: int = 5) -> float:
    """Seconds of the fastest of some products of the size of a small ViT's, after one to warm up."""
    import torch

    x, weight = torch.ones(2048, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def resolve_precision(choice: PrecisionChoice, device: "torch.device", *, bf16: bool = True) -> Precision:
    """The precision that a config names; `auto` is bf16 where the device is faster with it and the model bears it.

    Args:
        bf16: whether the model bears bfloat16.
    """
    if choice != "auto":
        return choice
    return "bf16" if bf16 and prefers_bf16(device) else "fp32"


def autocast(device: "torch.device", precision: Precision) -> AbstractContextManager[object]:
    """A context in which matrix products and convolutions run in `precision`."""
    import torch

    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
