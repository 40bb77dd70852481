"""Products of low precision against float64."""

import numpy as np
import pytest
import torch

from curate.ops.search.products import product_error
from curate.ops.vectors import normalize

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def rounded_error(x: np.ndarray, y: np.ndarray, dtype: torch.dtype) -> float:
    """How far the product of two rounded vectors lies from that of the vectors."""
    a, b = (torch.from_numpy(v).to(dtype)[None] for v in (x, y))
    return abs(float((a @ b.T).float()) - float(x.astype(np.float64) @ y.astype(np.float64)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [3, 64, 1000])
def test_random_unit_vectors_stay_within_the_bound(dtype: torch.dtype, dim: int) -> None:
    x = normalize(np.random.default_rng(0).normal(size=(200, dim)))
    assert max(rounded_error(a, b, dtype) for a, b in zip(x, -x[::-1], strict=True)) <= product_error(dtype, dim)
    assert max(rounded_error(a, a, dtype) for a in x) <= product_error(dtype, dim)


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_rounded_as_far_as_can_be_stay_within_the_bound(dtype: torch.dtype) -> None:
    """All values lie just below the middle of two that the dtype has, so that all are rounded down by half a step."""
    value = (1 + torch.finfo(dtype).eps / 2 * (1 - 2**-10)) / 32
    num = int(1 / value**2)
    for shared in range(num - 60, num):  # equal values in `shared` places, then each vector in places of its own
        x, y = np.zeros((2, 2 * num - shared + 1), np.float32)
        x[:num] = y[:shared] = y[num:-1] = value
        x[-1] = y[-1] = (1 - num * value**2) ** 0.5
        assert rounded_error(x, y, dtype) <= product_error(dtype, len(x))
