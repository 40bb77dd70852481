import copy
import threading

import pytest

from curate.feed.recent import Recent


def test_a_value_is_made_once_by_all_who_want_it_together():
    recent, made, start = Recent(2), [], threading.Barrier(4)

    def make(key):
        made.append(key)
        return key * 2

    found = []

    def get():
        start.wait()
        found.append(recent.get(3, make))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, made) == ([6] * 4, [3])


def test_making_one_value_does_not_hold_up_another():
    recent, release = Recent(2), threading.Event()
    slow = threading.Thread(target=lambda: recent.get("slow", lambda _: release.wait(10)))
    slow.start()
    assert recent.get("quick", str.upper) == "QUICK"
    assert slow.is_alive()
    release.set()
    slow.join()


def test_the_longest_unused_goes_first():
    recent, made = Recent(2), []
    for key in (1, 2, 1, 3, 1, 2):
        recent.get(key, made.append)
    assert made == [1, 2, 3, 2]


def test_an_error_is_raised_and_not_kept():
    recent = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get(0, lambda key: 1 // key)
    assert recent.get(0, lambda key: key + 1) == 1


def test_what_is_dropped_is_made_again_and_a_copy_starts_empty():
    recent, made = Recent(2), []
    recent.get(1, made.append)
    recent.drop(1)
    recent.drop(2)
    recent.get(1, made.append)
    copy.copy(recent).get(1, made.append)  # as pickle makes it for a worker process
    assert made == [1, 1, 1]
