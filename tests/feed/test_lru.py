import copy
import threading

import pytest

from curate.feed.lru import LruCache


def test_a_value_is_made_once_by_all_who_want_it_together():
    cache, made, start = LruCache(2), [], threading.Barrier(4)

    def make(key):
        made.append(key)
        return key * 2

    found = []

    def get():
        start.wait()
        found.append(cache.get(3, make))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, made) == ([6] * 4, [3])


def test_making_one_value_does_not_hold_up_another():
    cache, release = LruCache(2), threading.Event()
    slow = threading.Thread(target=lambda: cache.get("slow", lambda _: release.wait(10)))
    slow.start()
    assert cache.get("quick", str.upper) == "QUICK"
    assert slow.is_alive()
    release.set()
    slow.join()


def test_the_longest_unused_goes_first():
    cache, made = LruCache(2), []
    for key in (1, 2, 1, 3, 1, 2):
        cache.get(key, made.append)
    assert made == [1, 2, 3, 2]


def test_an_error_is_raised_and_not_kept():
    cache = LruCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get(0, lambda key: 1 // key)
    assert cache.get(0, lambda key: key + 1) == 1


def test_what_is_dropped_is_made_again_and_a_copy_starts_empty():
    cache, made = LruCache(2), []
    cache.get(1, made.append)
    cache.drop(1)
    cache.drop(2)
    cache.get(1, made.append)
    copy.copy(cache).get(1, made.append)  # as pickle makes it for a worker process
    assert made == [1, 1, 1]
