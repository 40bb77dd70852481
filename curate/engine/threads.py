"""How many threads the numeric libraries use in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

_limits: dict[str, object] = {}
"""The limits in force, kept alive; BLAS and OpenMP pools return to their defaults when these are dropped."""


def set_threads(num_threads: int) -> None:
    """Bound torch, faiss, BLAS and Arrow; only runs with equal numbers of threads give equal bytes.

    The libraries are loaded here: one that came later would start with a thread for each core.
    """
    import faiss
    import pyarrow as pa
    import torch
    from threadpoolctl import threadpool_limits

    if torch.get_num_threads() != num_threads:
        torch.set_num_threads(num_threads)
    faiss.omp_set_num_threads(num_threads)
    pa.set_cpu_count(num_threads)
    if _limits.get("threads") != num_threads:
        _limits.update(threads=num_threads, blas=threadpool_limits(num_threads, user_api="blas"))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS compute in the caller's thread alone while the context is open; for many small matrix products.

    Of a product of a few hundred rows, two threads of OpenBLAS spend six times the CPU seconds of one, nearly all of
    them on waiting for each other, and are later done.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
