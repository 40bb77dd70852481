"""Matrix products that propose pairs: the fastest dtype of a device, and how far its products may be off."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@cache
def proposal_dtype(device: str) -> torch.dtype:
    """float16 on a GPU, bfloat16 on a CPU with matrix tiles (AMX), else float32.

    A CPU that has bfloat16 only in its vector units multiplies it at half the rate of float32 in practice (58
    GFLOP/s a core against 136 on an AVX512-BF16 machine, 2,000 x 1,000 x 256).
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32


def product_error(dtype: torch.dtype, dim: int) -> float:
    """How far a product of two unit vectors of `dim` values, rounded to the dtype, may lie from the exact one.

    Both factors and the result are rounded to the dtype, each by at most half an epsilon of its value, and
    |x| . |y| <= 1 bounds what that makes of the sum; the fourth half leaves room for what is of second order. The sum
    itself is of float32, `dim` times.
    """
    import torch

    return 4 * torch.finfo(dtype).eps / 2 + dim * torch.finfo(torch.float32).eps / 2
