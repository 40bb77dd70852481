"""Results made ahead of their use, by threads that keep to one core each."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def prefetch_map(
    function: Callable[[ItemT], ResultT], items: Iterator[ItemT], *, num_threads: int
) -> Generator[ResultT, None, None]:
    """`map(function, items)` of endless items, in order, with `num_threads` + 1 results under way.

    With 0 threads each result is made when it is asked for. An error is raised where its result would come.
    """
    if num_threads == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="prefetch", initializer=_use_one_core)
    waiting: deque[Future[ResultT]] = deque(pool.submit(function, next(items)) for _ in range(num_threads + 1))
    try:
        while True:
            result = waiting.popleft().result()
            waiting.append(pool.submit(function, next(items)))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _use_one_core() -> None:
    """Keep torch's operators in this thread, and this thread alone, from starting threads of their own."""
    torch.get_num_threads()  # torch sets the number itself at a thread's first use
    threadpool_limits(1, user_api="openmp")
