"""Work done ahead of its use, by threads that keep to one core each."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_ahead(
    work: Callable[[ItemT], ResultT], items: Iterator[ItemT], num_threads: int
) -> Generator[ResultT, None, None]:
    """`work` of endless `items`, in order; `num_threads` + 1 results are under way. 0: made when asked for."""
    if num_threads == 0:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="ahead", initializer=_use_one_core)
    waiting: deque[Future[ResultT]] = deque(pool.submit(work, next(items)) for _ in range(num_threads + 1))
    try:
        while True:
            result = waiting.popleft().result()
            waiting.append(pool.submit(work, next(items)))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _use_one_core() -> None:
    """Keep torch's operators in this thread, and this thread alone, from starting threads of their own."""
    torch.get_num_threads()  # torch sets the number itself at a thread's first use
    threadpool_limits(1, user_api="openmp")
