import itertools

import pytest

from curate import retrying
from curate.errors import SourceError


def test_refusal_by_a_web_server_is_permanent_and_overload_is_not() -> None:
    class Refused(Exception):
        def __init__(self, status: int) -> None:
            self.status = status

    assert retrying.is_permanent(Refused(403))
    assert not retrying.is_permanent(Refused(429))
    assert not retrying.is_permanent(Refused(503))


def test_program_errors_are_not_tried_again() -> None:
    calls: list[int] = []
    with pytest.raises(ZeroDivisionError):
        retrying.retry(lambda: calls.append(1) or 1 // 0, where="f")
    assert calls == [1]


def test_work_that_keeps_failing_is_given_up_after_growing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retrying.time, "sleep", waits.append)

    def fail() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(SourceError, match="a.tar: Input/output error, 4 times in a row"):
        retrying.retry(fail, where="a.tar")
    assert len(waits) == retrying.ATTEMPTS - 1
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(waits))
