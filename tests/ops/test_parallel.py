"""Blocks in threads: each is computed once, by one BLAS thread, and BLAS has its threads back afterwards."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from curate.ops.blocks import blocks
from curate.ops.parallel import in_threads


def blas_threads() -> set[int]:
    """Of NumPy's library, by which blocks are computed; that of faiss has a limit for each thread."""
    found = [one for one in threadpool_info() if one["user_api"] == "blas"]
    return {one["num_threads"] for one in found if "numpy" in one["filepath"]} or {one["num_threads"] for one in found}


@pytest.mark.parametrize("num_threads", [1, 2])
def test_every_block_is_computed_once_with_one_blas_thread(num_threads: int) -> None:
    counts, seen = np.zeros(10, int), []

    def work(rows: slice) -> None:
        counts[rows] += 1
        seen.append(blas_threads())

    with threadpool_limits(num_threads, user_api="blas"):
        in_threads(work, blocks(10, 3))
        assert blas_threads() == {num_threads}
    assert counts.tolist() == [1] * 10
    assert seen == [{1}] * 4


def test_an_error_of_a_block_reaches_the_caller() -> None:
    def work(rows: slice) -> None:
        raise ValueError(f"block {rows.start}")

    with threadpool_limits(2, user_api="blas"), pytest.raises(ValueError, match="block 0"):
        in_threads(work, blocks(4, 2))
