"""Matrix products that propose pairs: the fastest dtype of a device, and how far its products may be off."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-9}
"""Largest relative error of one value rounded to the dtype."""


@cache
def product_dtype(device: str) -> torch.dtype:
    """float16 on a GPU, bfloat16 on a CPU with matrix tiles, else float32.

    A CPU that has bfloat16 only in its vector units multiplies it at half the rate of float32 in practice (136 against
    58 GFLOP/s a core on an AVX512-BF16 machine, 2,000 x 1,000 x 256).
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def margin(dtype: torch.dtype, dim: int) -> float:
    """How far a product of unit vectors of `dim` values may lie from the exact one.

    Both factors and the result are rounded to the dtype, sums are float32; |x| . |y| <= 1 bounds each error.
    """
    return 4 * ROUNDING[str(dtype).removeprefix("torch.")] + dim * ROUNDING["float32"]
