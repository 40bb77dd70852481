import atexit
import os

from curate.feed.worker_processes import WorkerContext


def work_and_abort_at_the_end() -> None:
    atexit.register(os.abort)


def fail() -> None:
    raise OSError("no space left")


def test_what_comes_after_the_work_ends_no_worker() -> None:
    process = WorkerContext().Process(target=work_and_abort_at_the_end)
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_worker_that_fails_says_so() -> None:
    process = WorkerContext().Process(target=fail)
    process.start()
    process.join()
    assert process.exitcode == 1
