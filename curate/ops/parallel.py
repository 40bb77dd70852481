"""Blocks of rows side by side, a thread each, instead of several threads within each matrix product.

OpenBLAS shares out every product and waits in a busy loop until all of its threads are done. Of the many products of a
few hundred rows that k-means makes, that waiting takes more processor time than the products, and on a machine with
other work more wall-clock time too. A block that one thread computes alone also gives the same bits whatever the number
of threads.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

_ONE_AT_A_TIME = Lock()
"""The number of threads of BLAS is one of the process: who lowers it must be who raises it again."""


def in_threads(work: Callable[[slice], None], blocks: Iterable[slice]) -> None:
    """Call `work` with each block, as many of them at once as BLAS may use threads; BLAS itself then uses one.

    Args:
        work: computes one block and writes it where no other block writes; must not call `in_threads` itself.
    """
    blas = _blas()
    with _ONE_AT_A_TIME:
        num_threads = max((library["num_threads"] for library in blas.info()), default=1)
        given = list(blocks)
        with blas.limit(limits=1):
            if min(num_threads, len(given)) <= 1:
                for block in given:
                    work(block)
                return
            with ThreadPoolExecutor(num_threads) as pool:
                list(pool.map(work, given))


@cache
def _blas() -> Any:
    """The BLAS libraries of this process, found once: looking for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
