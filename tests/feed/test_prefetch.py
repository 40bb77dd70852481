import itertools
import threading

import pytest
import torch

from curate.feed.prefetch import prefetch_map


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(num_threads):
    results = prefetch_map(lambda i: i * i, itertools.count(), num_threads=num_threads)
    assert list(itertools.islice(results, 20)) == [i * i for i in range(20)]
    results.close()


def test_threads_keep_to_one_core_and_leave_the_others_alone():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = prefetch_map(
            lambda _: (threading.get_ident(), torch.get_num_threads()), itertools.count(), num_threads=1
        )
        thread, num_threads = next(results)
        results.close()
        assert (thread != threading.get_ident(), num_threads) == (True, 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_of_the_work_is_raised_where_its_result_would_come():
    results = prefetch_map(lambda i: 1 // (2 - i), itertools.count(), num_threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
