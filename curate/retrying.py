"""Trying again after errors that may pass, and telling them from those that will not.

The difficulty is that libraries hide what happened. fsspec turns a busy server, a refused connection and a name that
was not resolved into `FileNotFoundError`, S3 answers 403 to a token that expired, and its own library makes EINVAL of
400. Taken at its word, each of these would condemn an image that is there. So the whole chain of an error is read, from
the outermost to the first cause, for an HTTP status, an error code of an object store, or a kind of broken connection;
only an error without any of these is what it says.

Some answers are ambiguous. 401 and 403 of an object store may be a token that expired or a clock that is wrong: they
may pass. A plain web server refuses for good; a signed URL that expired has to be replaced in its list anyway.

Waits are drawn at random between 0 and a bound that doubles (full jitter), so that many workers do not come back at
once. A server that says when to come back (`Retry-After`) is obeyed, or given up where that is too long. A server at
which many reads in a row were given up is then asked once for each, until one succeeds: an outage must not cost each of
a million images all waits.
"""

import errno
import http
import logging
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar

from curate.errors import SourceError, SourceUnavailable, foreign_text

ATTEMPTS = 4
"""How often work is tried in all."""
FIRST_WAIT = 0.5
"""Seconds that the wait before the second attempt lasts at most; doubled before each further one."""
LONGEST_WAIT = 60.0
"""Seconds of a wait at most; a server that asks for more is given up at once."""
TIMED_OUT_ATTEMPTS = 2
"""How often work is tried that runs out of time: each attempt may take minutes."""
ROW_OF_FAILURES = 16
"""Reads given up in a row after which their server is asked only once for each."""

_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PERMANENT_ERRNO = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENODEV, errno.ENXIO})
_PASSING_STATUS = frozenset({408, 425, 429})
_PASSING_CODES = frozenset(
    {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeout", "RequestTimeTooSkewed", "SlowDown"}
    | {"InternalError", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests"}
)
"""Error codes of S3 that pass whatever their status; that of an expired token is 400."""
_WEB = frozenset({"aiohttp", "urllib", "urllib3", "requests", "httpx"})
"""Libraries whose errors are those of a plain web server."""
_BROKEN_OFF = frozenset(
    {"ServerDisconnectedError", "ClientPayloadError", "ContentLengthError", "ClientOSError", "IncompleteRead"}
    | {"IncompleteReadError", "ResponseStreamingError", "ConnectionClosedError", "HTTPClientError"}
)
_TIMED_OUT = frozenset({"ReadTimeoutError", "ConnectTimeoutError", "ConnectionTimeoutError", "ServerTimeoutError"})
_CONNECTION = ((ConnectionRefusedError, "connection refused"), (ConnectionError, "connection broken off"))

ResultT = TypeVar("ResultT")
log = logging.getLogger(__name__)


class Cause(NamedTuple):
    """What is behind an error."""

    permanent: bool
    """Whether the same attempt would fail again."""
    text: str
    """In words that are the same whenever and wherever it happens."""
    retry_after: float | None = None
    """Seconds after which the server asks to come back; None: it does not say."""
    timed_out: bool = False
    """Whether the time for it was over."""


class Patience(NamedTuple):
    """How often to try again, and how long to wait."""

    attempts: int = ATTEMPTS
    first_wait: float = FIRST_WAIT
    longest_wait: float = LONGEST_WAIT
    in_all: float | None = None
    """Seconds after which no further attempt begins; None: no limit."""


def find_cause(error: BaseException, *, remote: bool = False) -> Cause | None:
    """What is behind an error, from the whole chain of errors that it wraps; None: it is an error of a program.

    Args:
        remote: the file is of an object store or web server: without a status, its refusal to let us in may pass, and
            errors that are no OSError may pass too (libraries of object stores have their own).
    """
    chain = list(_chain(error))
    if any(type(link).__module__ == "aiohttp.http_exceptions" for link in chain):
        return Cause(False, "connection broken off")  # its parser's words for half an answer: `code` 400
    for link in chain:
        status, code = _status(link), _code(link)
        if status is not None or code in _PASSING_CODES:
            return _of_answer(link, status, code, _retry_after(chain))
    names = {base.__name__ for link in chain for base in type(link).__mro__}
    if "TooManyRedirects" in names:
        return Cause(True, "too many redirects")
    if names & {"RedirectClientError", "NonHttpUrlClientError"}:
        return Cause(True, "redirects to what is no http(s) URL")
    if "ParamValidationError" in names:  # of S3: no bucket and no key can be called so
        return Cause(True, "not a URL that can be asked for")
    if any(isinstance(link, socket.gaierror) for link in chain):
        return Cause(False, "name not resolved")
    if any(isinstance(link, TimeoutError) for link in chain) or names & _TIMED_OUT:
        return Cause(False, "timed out", timed_out=True)
    for kind, text in _CONNECTION:
        if any(isinstance(link, kind) or _number(link) in _numbers(kind) for link in chain):
            return Cause(False, text)
    if names & _BROKEN_OFF:
        return Cause(False, "connection broken off")
    return _of_plain(error, remote)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it, the outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _status(link: BaseException) -> int | None:
    """The HTTP status that an error carries, wherever its library keeps it."""
    response = getattr(link, "response", None)
    if isinstance(response, Mapping):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        names = ("status", "status_code", "code")
        places = (
            ((link, name) for name in names) if response is None else ((o, n) for o in (link, response) for n in names)
        )
        found = next((value for owner, name in places if _is_status(value := getattr(owner, name, None))), None)
    return int(found) if _is_status(found) else None


def _is_status(value: object) -> bool:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and 300 <= value < 600


def _code(link: BaseException) -> str:
    """The error code of an object store."""
    response = getattr(link, "response", None)
    found = response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
    return found if isinstance(found, str) else ""


def _of_answer(link: BaseException, status: int | None, code: str, retry_after: float | None) -> Cause:
    if code in _PASSING_CODES:
        return Cause(False, code if status is None else f"HTTP {status} {code}", retry_after)
    assert status is not None
    text = f"HTTP {status} {http.HTTPStatus(status).phrase}" if status in _STATUSES else f"HTTP {status}"
    if status < 400:
        return Cause(True, "too many redirects")
    refused = status in (401, 403) and type(link).__module__.split(".")[0] not in _WEB
    passing = status in _PASSING_STATUS or status >= 500 or refused
    return Cause(not passing, text, retry_after)


_STATUSES = frozenset(int(status) for status in http.HTTPStatus)


def _retry_after(chain: list[BaseException]) -> float | None:
    """Seconds, from the header of that name: a number, or a date."""
    for link in chain:
        response = getattr(link, "response", None)
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, Mapping) else {}
        headers = metadata.get("HTTPHeaders") or getattr(link, "headers", None) or getattr(response, "headers", None)
        if not isinstance(headers, Mapping):
            continue
        text = next((str(value) for name, value in headers.items() if str(name).lower() == "retry-after"), None)
        if text is not None:
            return parse_retry_after(text)
    return None


def parse_retry_after(text: str) -> float | None:
    """Seconds from now that a header `Retry-After` asks for; None: it says nothing that can be read."""
    if re.fullmatch(r"\s*\d{1,9}\s*", text, re.ASCII):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _number(link: BaseException) -> int | None:
    return link.errno if isinstance(link, OSError) else None


def _numbers(kind: type[Exception]) -> frozenset[int]:
    refused = frozenset({errno.ECONNREFUSED})
    broken = frozenset({errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENETUNREACH, errno.EHOSTUNREACH})
    return refused if kind is ConnectionRefusedError else broken


def _of_plain(error: BaseException, remote: bool) -> Cause | None:
    """Of an error that hides nothing."""
    if type(error).__module__ == "tarfile" or isinstance(error, NotImplementedError | ImportError | MemoryError):
        return None  # what was read is no archive, or cannot be read here
    if isinstance(error, ValueError) and remote:
        return Cause(True, "not a URL that can be asked for")
    if remote and type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
        return Cause(True, "no credentials were found")
    if isinstance(error, PermissionError) and remote:
        return Cause(False, "access denied")
    if isinstance(error, OSError):
        permanent = isinstance(error, _PERMANENT) or error.errno in _PERMANENT_ERRNO
        if remote:
            return Cause(permanent, "not found" if isinstance(error, FileNotFoundError) else _text(error))
        return Cause(permanent, describe_error(error))
    return Cause(False, _text(error)) if remote else None


def _text(error: BaseException) -> str:
    """An error without its own words: those of a library may hold addresses, times and names of hosts."""
    number = _number(error)
    return os.strerror(number) if number is not None and number in errno.errorcode else type(error).__name__


def is_permanent(error: Exception, *, remote: bool = False) -> bool:
    """Whether the same attempt would fail again: not there, not allowed, not a file, or refused (HTTP 4xx)."""
    cause = find_cause(error, remote=remote)
    return cause is not None and cause.permanent


def is_damage(error: Exception) -> bool:
    """Whether Arrow met wrong bytes or a lost file, rather than a disk or a connection that may recover.

    Arrow's own errors of reading are plain `OSError` without a number.
    """
    if isinstance(error, OSError):
        return is_permanent(error) or (type(error) is OSError and error.errno is None and error.__cause__ is None)
    return True


def retry(
    work: Callable[[], ResultT], *, where: str, remote: bool = False, patience: Patience | None = None
) -> ResultT:
    """Do `work`; where it fails by an error that may pass, do it again after growing waits.

    Args:
        where: what is read, for the message; of a URL its server is remembered.
        remote: other errors than OSError may pass too (libraries of object stores have their own).
        patience: how often, and how long to wait; None: the defaults of this module.

    Raises:
        SourceUnavailable: it failed at every attempt.
        Exception: an error that will not pass, as it came.
    """
    tries = Tries(where, remote=remote, patience=patience)
    while True:
        try:
            result = work()
        except SourceError:
            raise
        except Exception as error:
            tries.failed(error)
        else:
            tries.succeeded()
            return result


class Tries:
    """The attempts at one piece of work, for work that is no plain call; the others use `retry`."""

    def __init__(self, where: str, *, remote: bool = False, patience: Patience | None = None) -> None:
        self.where, self.remote, self.patience = where, remote, patience or Patience()
        self._server = _server_of(where)
        self._begun, self._failures = time.monotonic(), 0

    def failed(self, error: Exception) -> None:
        """Wait for the next attempt.

        Raises:
            SourceUnavailable: that was the last one.
            Exception: `error`, which will not pass.
        """
        own = next((link for link in _chain(error) if isinstance(link, SourceError)), None)
        if own is not None:  # such as a refused address, which fsspec takes for a file that is not there
            raise own
        cause = find_cause(error, remote=self.remote)
        if cause is None or cause.permanent:
            raise error
        self._failures += 1
        wait = self._wait(cause)
        if wait is None:
            _given_up[self._server] = _given_up.get(self._server, 0) + 1
            raise gave_up(self.where, cause, self._failures) from error
        log.warning("%s: %s; attempt %d of %d", self.where, cause.text, self._failures, self.patience.attempts)
        time.sleep(wait)

    def succeeded(self) -> None:
        """The work is done, or a piece of it: later failures count anew."""
        self._failures = 0
        _given_up.pop(self._server, None)

    def _wait(self, cause: Cause) -> float | None:
        """Seconds before the next attempt; None: there is none."""
        allowed = min(self.patience.attempts, TIMED_OUT_ATTEMPTS) if cause.timed_out else self.patience.attempts
        if self._failures >= allowed or (self._server and _given_up.get(self._server, 0) >= ROW_OF_FAILURES):
            return None
        asked = cause.retry_after or 0.0
        if asked > self.patience.longest_wait:
            return None
        bound = min(self.patience.longest_wait, self.patience.first_wait * 2 ** (self._failures - 1))
        wait = asked + _random.uniform(0, bound)
        if self.patience.in_all is not None and time.monotonic() - self._begun + wait > self.patience.in_all:
            return None
        return wait


_random = random.SystemRandom()
"""Of its own, so that no seed of a run moves; what it draws never enters a table."""
_given_up: dict[str, int] = {}
"""Reads given up in a row, by server; of this process."""


def _server_of(where: str) -> str:
    """`scheme://server` of a URL; empty for a local path, which has none."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", where)
    return found[0] if found else ""


def gave_up(where: str, cause: Cause, attempts: int) -> SourceUnavailable:
    """The error of a read that failed at every attempt."""
    times = "once" if attempts == 1 else f"{attempts} times in a row"
    check = "the disk or the connection"
    if is_refusal(cause):
        server = _server_of(where)
        check = f"that the credentials for {server or where} are valid and may read and list there"
    return SourceUnavailable(
        f"{where}: {cause.text}, {times}; check {check}, then run the same command again: finished parts are kept",
        cause.text,
    )


def is_refusal(cause: Cause) -> bool:
    """Whether a server did not let us in, or no longer."""
    return cause.text.startswith(("HTTP 401", "HTTP 403", "access denied", "no credentials")) or cause.text.endswith(
        "Token"
    )


def describe_error(error: BaseException) -> str:
    """An error in one line that is equal in every run: in the words of the operating system where it has some."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {foreign_text(error)}".rstrip(": ")
