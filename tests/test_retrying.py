import contextlib
import email.utils
import errno
import socket
import time
from typing import Any

import pytest

from curate import retrying
from curate.errors import SourceUnavailable
from curate.retrying import Patience, find_cause, is_damage, is_permanent, parse_retry_after, retry


def of_library(
    module: str, name: str = "LibraryError", base: type[Exception] = Exception, **attributes: Any
) -> Exception:
    """An error as a library raises it."""
    error = type(name, (base,), {"__module__": module})(name)
    for key, value in attributes.items():
        setattr(error, key, value)
    return error


def web(status: int, **attributes: Any) -> Exception:
    return of_library("aiohttp.client_exceptions", "ClientResponseError", status=status, **attributes)


def s3(status: int, code: str, **headers: str) -> Exception:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    response = {"Error": {"Code": code}, "ResponseMetadata": metadata}
    return of_library("botocore.exceptions", "ClientError", response=response)


def wrapped(outer: Exception, *inner: Exception) -> Exception:
    """`outer` raised from the first of `inner`, that from the second, ..."""
    link = outer
    for cause in inner:
        link.__cause__ = cause
        link = cause
    return outer


def while_handling(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception:
            raise outer  # noqa: B904
    except Exception as error:
        return error


NOT_FOUND = FileNotFoundError("http://host/a.jpg")

PASSING = [
    (wrapped(FileNotFoundError("http://host/a.jpg"), web(503)), "HTTP 503 Service Unavailable"),
    (while_handling(FileNotFoundError("http://host/a.jpg"), web(502)), "HTTP 502 Bad Gateway"),
    (web(429), "HTTP 429 Too Many Requests"),
    (web(408), "HTTP 408 Request Timeout"),
    (web(425), "HTTP 425 Too Early"),
    (web(599), "HTTP 599"),
    (wrapped(PermissionError("Forbidden"), s3(403, "AccessDenied")), "HTTP 403 Forbidden"),
    (wrapped(PermissionError("expired"), s3(400, "ExpiredToken")), "HTTP 400 ExpiredToken"),
    (wrapped(OSError(errno.EINVAL, "token"), s3(400, "TokenRefreshRequired")), "HTTP 400 TokenRefreshRequired"),
    (wrapped(OSError(errno.EBUSY, "slow"), s3(503, "SlowDown")), "HTTP 503 SlowDown"),
    (of_library("gcsfs.retry", "HttpError", code="401"), "HTTP 401 Unauthorized"),
    (of_library("azure.core.exceptions", "HttpResponseError", status_code=403), "HTTP 403 Forbidden"),
    (PermissionError("no key"), "access denied"),
    (wrapped(FileNotFoundError("u"), OSError("connect"), ConnectionRefusedError(111, "no")), "connection refused"),
    (of_library("aiohttp", "ClientConnectorError", OSError, errno=errno.ECONNREFUSED), "connection refused"),
    (
        wrapped(FileNotFoundError("u"), OSError("dns"), socket.gaierror(-2, "Name or service not known")),
        "name not resolved",
    ),
    (ConnectionResetError(104, "reset"), "connection broken off"),
    (of_library("aiohttp", "ClientPayloadError"), "connection broken off"),
    (wrapped(FileNotFoundError("u"), TimeoutError()), "timed out"),
    (of_library("botocore.exceptions", "ReadTimeoutError"), "timed out"),
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    (of_library("gcsfs", "SomethingNew"), "SomethingNew"),
]
PERMANENT = [
    (NOT_FOUND, "not found"),
    (wrapped(FileNotFoundError("http://host/a.jpg"), web(404)), "HTTP 404 Not Found"),
    (web(410), "HTTP 410 Gone"),
    (web(403), "HTTP 403 Forbidden"),
    (web(401), "HTTP 401 Unauthorized"),
    (web(302), "too many redirects"),
    (wrapped(FileNotFoundError("key"), s3(404, "NoSuchKey")), "HTTP 404 Not Found"),
    (IsADirectoryError(errno.EISDIR, "Is a directory"), "Is a directory"),
    (UnicodeError("label too long"), "not a URL that can be asked for"),
]


@pytest.mark.parametrize(("error", "text"), PASSING, ids=lambda value: value if isinstance(value, str) else "")
def test_what_may_pass_is_told_from_the_cause(error: Exception, text: str) -> None:
    assert find_cause(error, remote=True)[:2] == (False, text)  # type: ignore[index]


@pytest.mark.parametrize(("error", "text"), PERMANENT, ids=lambda value: value if isinstance(value, str) else "")
def test_what_will_not_pass_is_told_from_the_cause(error: Exception, text: str) -> None:
    assert find_cause(error, remote=True)[:2] == (True, text)  # type: ignore[index]


def test_local_files_fail_for_good_in_the_words_of_the_system() -> None:
    for number in (errno.ENOENT, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP):
        assert is_permanent(OSError(number, "x"))
    assert not is_permanent(OSError(errno.EIO, "x"))
    assert not is_permanent(OSError(errno.ESTALE, "x"))
    assert find_cause(OSError(errno.EACCES, "Permission denied")) == (True, "Permission denied", None, False)


def test_texts_hold_nothing_of_the_host_or_the_moment() -> None:
    class Odd(OSError):
        """Says where and when."""

    assert find_cause(Odd("<object at 0x7f12> on host-7 at 12:03"), remote=True) == (False, "Odd", None, False)


def test_chain_that_bites_its_tail_ends() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert find_cause(first, remote=True) is not None


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), (" 120 ", 120), ("soon", None), ("-1", None), ("", None)])
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    found = parse_retry_after(email.utils.formatdate(time.time() + 100, usegmt=True))
    assert found is not None
    assert 98 <= found <= 100
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept; no time passes."""
    slept: list[float] = []
    monkeypatch.setattr(retrying.time, "sleep", slept.append)
    monkeypatch.setattr(retrying, "_given_up", {})
    return slept


def failing(error: Exception, times: int = 99) -> Any:
    """Work that fails so many times; `calls` counts."""

    def work() -> str:
        work.calls += 1  # type: ignore[attr-defined]
        if work.calls <= times:  # type: ignore[attr-defined]
            raise error
        return "done"

    work.calls = 0  # type: ignore[attr-defined]
    return work


def test_program_errors_are_not_tried_again(waits: list[float]) -> None:
    work = failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        retry(work, where="f")
    assert (work.calls, waits) == (1, [])


def test_work_that_keeps_failing_is_given_up_after_waits_drawn_below_growing_bounds(
    waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceUnavailable, match="a.tar: Input/output error, 4 times in a row") as raised:
        retry(failing(OSError(5, "Input/output error")), where="a.tar")
    assert raised.value.why == "Input/output error"
    assert len(waits) == retrying.ATTEMPTS - 1
    assert all(0 <= wait <= retrying.FIRST_WAIT * 2**n for n, wait in enumerate(waits))
    monkeypatch.setattr(retrying._random, "uniform", lambda low, high: high)
    waits.clear()
    with pytest.raises(SourceUnavailable):
        retry(failing(OSError(5, "x")), where="a.tar", patience=Patience(attempts=6, first_wait=1, longest_wait=5))
    assert waits == [1, 2, 4, 5, 5]


def test_waits_differ_between_two_that_fail_alike(waits: list[float]) -> None:
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            retry(failing(OSError(5, "x")), where="a.tar")
    assert waits[:3] != waits[3:]


def test_server_that_says_when_is_obeyed_and_given_up_where_that_is_too_long(waits: list[float]) -> None:
    patience = Patience(first_wait=0.1, longest_wait=60)
    assert retry(failing(web(503, headers={"retry-AFTER": "9"}), 1), where="http://h/a", patience=patience) == "done"
    assert 9 <= waits.pop() <= 9.1
    assert retry(failing(s3(503, "SlowDown", **{"retry-after": "3"}), 1), where="s3://b/a", remote=True) == "done"
    assert 3 <= waits.pop() <= 3.5
    work = failing(web(429, headers={"Retry-After": "3600"}))
    with pytest.raises(SourceUnavailable, match="HTTP 429 Too Many Requests, once"):
        retry(work, where="http://h/a", patience=patience, remote=True)
    assert (work.calls, waits) == (1, [])


def test_what_runs_out_of_time_is_tried_twice(waits: list[float]) -> None:
    work = failing(TimeoutError())
    with pytest.raises(SourceUnavailable, match="timed out, 2 times"):
        retry(work, where="http://h/a", remote=True)
    assert work.calls == 2


def test_no_attempt_begins_when_the_time_for_all_is_over(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying._random, "uniform", lambda low, high: high)
    work = failing(web(503))
    with pytest.raises(SourceUnavailable, match="2 times"):
        retry(work, where="http://h/a", remote=True, patience=Patience(first_wait=10, in_all=15))
    assert waits == [10]


def test_server_at_which_many_were_given_up_in_a_row_is_asked_once_until_one_succeeds(waits: list[float]) -> None:
    def num_calls(url: str, times: int = 99) -> int:
        work = failing(web(503), times)
        with contextlib.suppress(SourceUnavailable):
            retry(work, where=url, remote=True)
        return int(work.calls)

    assert [num_calls(f"http://down/{n}") for n in range(18)] == [4] * 16 + [1, 1]
    assert num_calls("http://other/1") == 4
    assert num_calls("http://down/back", times=0) == 1
    assert num_calls("http://down/19") == 4


def test_damage_is_told_from_a_refusal_that_a_library_wraps_without_a_number() -> None:
    assert is_damage(OSError("Couldn't deserialize thrift"))
    assert not is_damage(wrapped(OSError("Forbidden"), of_library("gcsfs.retry", "HttpError", code=403)))
    assert not is_damage(wrapped(PermissionError("expired"), s3(400, "ExpiredToken")))
    assert not is_damage(OSError(errno.EIO, "Input/output error"))
    assert is_damage(wrapped(FileNotFoundError("key"), s3(404, "NoSuchKey")))
