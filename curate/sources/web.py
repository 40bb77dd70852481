"""Pictures from the web, politely: few connections to each host, honest about who asks, and not where a server forbids.

The difficulty is that pictures are wanted in the order of rows while servers answer in any order, at any speed, or
never. Jobs therefore stand in one queue, in order, and a bounded number of threads takes from it the first job whose
host has a connection free; a job that has to wait (for its host, or before another attempt) keeps no thread. What came
early is held until its turn, and a limit on the bytes held makes the connections wait: all but the oldest, since what
everyone waits for must never wait itself.

Nothing that a server says is trusted: lengths, redirects, headers and times are bounded, and its Content-Type is
ignored, since the content decides what a picture is. What may pass is tried again after a while, and a server that asks
for a pause gets it; a host that cannot be reached many times in a row is left alone until the next run.
"""

import contextlib
import heapq
import http.client
import itertools
import random
import re
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from curate import __version__
from curate.counting import note
from curate.retrying import ATTEMPTS, FIRST_WAIT
from curate.sources.addresses import PUBLIC, Permit, PrivateAddress
from curate.sources.connections import (
    BLOCK_BYTES,
    BROKEN_OFF,
    Connections,
    NotReached,
    Wire,
    basic_login,
    place_of,
    words_of,
)
from curate.sources.read import Read, too_large, unreadable
from curate.sources.reservations import DIRECTIVES, reservation_of_headers
from curate.sources.secrets import strip_secrets

SOFTWARE = "curate-vision"
"""How the program calls itself to servers."""
DISALLOWED = ("noai", "noimageai", "noindex", "noimageindex")
"""Directives of `X-Robots-Tag` that keep a picture out, as img2dataset has them."""
CONNECTIONS = 64
"""Open connections of a process in all."""
CONNECTIONS_PER_HOST = 4
"""Of these, to one host."""
MAX_REDIRECTS = 10
AHEAD = 2048
"""Pictures that are asked for before the first of them is taken."""
BYTES_AHEAD = 256 << 20
"""Bytes held for pictures that are not taken yet; one picture more may be on its way."""
HOPELESS = 16
"""Failed attempts in a row to reach a host after which its other pictures are left for another run."""

_PASSING_STATUS = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives that have a colon of their own, so that what stands before it names no program."""
_WEB_URL = re.compile(r"https?://[^\s/?#]+([/?#][^\x00-\x1f\x7f]*)?", re.IGNORECASE)
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Manner:
    """How servers are asked."""

    connections: int = CONNECTIONS
    connections_per_host: int = CONNECTIONS_PER_HOST
    user_agent_token: str | None = None
    """Name, page or mail address of whoever asks, told to servers."""
    disallowed: tuple[str, ...] = DISALLOWED
    """Directives of `X-Robots-Tag` that keep a picture out."""
    permit: Permit = PUBLIC
    """Which private addresses may be asked."""
    connect: float = 10.0
    """Seconds until a connection must stand."""
    stall: float = 30.0
    """Seconds without a byte after which an answer is given up."""
    picture: float = 300.0
    """Seconds for one picture, all attempts and redirects together, waits between them left out."""
    attempts: int = ATTEMPTS
    """How often a URL is tried; what runs out of time is tried twice at most."""
    first_wait: float = FIRST_WAIT
    """Seconds that the wait before the second attempt lasts at most; doubled before each further one."""
    longest_wait: float = 60.0
    """Seconds of a wait at most; a server that asks for more is given up at once."""

    def user_agent(self) -> str:
        """What servers are told: the software, its version, and the token."""
        return f"{SOFTWARE}/{__version__}" + (f" ({self.user_agent_token})" if self.user_agent_token else "")

    def directive_against(self, headers: Iterable[str]) -> str | None:
        """The directive of some `X-Robots-Tag` headers that keeps a picture out; None: none does."""
        names = {SOFTWARE, (self.user_agent_token or SOFTWARE).lower()}
        disallowed = {word.lower() for word in self.disallowed}
        for header in headers:
            addressed = True
            for part in header.lower().split(","):
                name, colon, directive = part.partition(":")
                if colon and name.strip() not in _WITH_VALUE:
                    addressed = name.strip() in names
                else:
                    directive = part
                directive = directive.strip()
                meant = {"noindex", "none"} if directive == "none" else {directive}  # `none` says noindex, nofollow
                if addressed and meant & disallowed:
                    return directive
        return None


def is_web_url(text: str) -> bool:
    """Whether the text is an http or https URL with a host, and without control characters."""
    if not _WEB_URL.fullmatch(text):
        return False
    try:
        text.encode()  # no lone surrogates
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def fetch_all(urls: Iterable[str], *, max_bytes: int, manner: Manner) -> Generator[Read]:
    """The pictures at some URLs, in their order, while many are on their way.

    A URL that stands twice among those on their way is asked for once. `urls` is gone through by the thread that takes
    the pictures. What cannot be had is `unreadable` where the server says so, `unavailable` where it may pass.

    Args:
        max_bytes: a longer picture is not read to its end.
    """
    left = iter(urls)
    jobs: deque[_Job] = deque()
    by_url: dict[str, _Job] = {}
    client = _Client(manner, max_bytes)
    try:
        while True:
            while len(jobs) < AHEAD and (client.has_room() or not jobs) and (url := next(left, None)) is not None:
                if url not in by_url:
                    by_url[url] = client.submit(url)
                by_url[url].takers += 1
                jobs.append(by_url[url])
            if not jobs:
                return
            job = jobs.popleft()
            read = client.wait_for(job)
            if job.takers == 0:
                del by_url[job.asked]
            yield read
    finally:
        client.close()


@dataclass(eq=False)
class _Job:
    """A picture on its way."""

    order: int
    asked: str
    """The URL as it was given."""
    url: str
    """The one to ask next: another one after a redirect."""
    host: str
    takers: int = 0
    redirects: int = 0
    failures: int = 0
    spent: float = 0.0
    """Seconds of all attempts so far."""
    received: int = 0
    """Bytes held for it."""
    read: Read | None = None
    error: BaseException | None = None

    def __lt__(self, other: "_Job") -> bool:
        return self.order < other.order


@dataclass
class _Host:
    """What is known of a host."""

    active: int = 0
    parked: list[_Job] = field(default_factory=list)
    """A heap of jobs that wait for one of its connections."""
    held_until: float = 0.0
    """Before this time it is asked nothing: it said so."""
    unreached: int = 0
    """Attempts in a row that did not reach it."""
    why: str = ""
    """What the last one met."""


class _Passing(NamedTuple):
    """An attempt that failed by what may pass."""

    why: str
    wait: float | None = None
    """Seconds that the server asks for."""
    reached: bool = True
    attempts: int = 100
    """After so many of these, another one would not help within this run."""


class _Moved(NamedTuple):
    """An answer that names another URL."""

    url: str


class _Client:
    """The queue, its threads and the connections; used by one thread, which takes the pictures in order."""

    def __init__(self, manner: Manner, max_bytes: int) -> None:
        self._manner, self._max_bytes = manner, max_bytes
        self._lock = threading.RLock()
        # One lock, and whoever waits for it to change in one way: to wake every thread each time costs more than HTTP.
        self._work_there, self._done, self._room = (threading.Condition(self._lock) for _ in range(3))
        self._ready: list[_Job] = []
        self._later: list[tuple[float, _Job]] = []
        self._running: dict[_Job, Wire | None] = {}
        self._hosts: dict[str, _Host] = {}
        self._held = 0
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closing = False
        self._connections = Connections(
            manner.connections,
            per_host=manner.connections_per_host,
            connect=manner.connect,
            stall=manner.stall,
            permit=manner.permit,
        )

    # -- for the thread that takes the pictures --------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether more pictures may be asked for, by the bytes that are held."""
        return self._held < BYTES_AHEAD

    def submit(self, url: str) -> _Job:
        job = _Job(next(self._numbers), url, url, _host_of(url))
        with self._lock:
            heapq.heappush(self._ready, job)
            if self._idle == 0 and len(self._threads) < self._manner.connections:
                self._threads.append(threading.Thread(target=self._work, daemon=True, name="fetch"))
                self._threads[-1].start()
            self._work_there.notify()
        return job

    def wait_for(self, job: _Job) -> Read:
        """What came of a job, for one of its takers."""
        with self._lock:
            self._done.wait_for(lambda: job.read is not None or job.error is not None)
            job.takers -= 1
            if job.takers == 0:
                self._held -= job.received
                self._room.notify_all()
        if job.error is not None:
            job.error.add_note(f"while fetching {strip_secrets(job.asked)}")
            raise job.error
        assert job.read is not None
        return job.read

    def close(self) -> None:
        """Break off what is on its way; threads end by themselves."""
        with self._lock:
            self._closing = True
            for wire in self._running.values():
                if wire is not None:
                    wire.break_off()
            self._work_there.notify_all()
            self._room.notify_all()
        self._connections.close()

    # -- for the threads ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._take()) is not None:
            start = time.monotonic()
            outcome: Read | _Moved | _Passing | BaseException
            try:
                outcome = self._attempt(job, start + self._manner.picture - job.spent)
            except BaseException as error:  # the thread that waits for the picture raises it
                outcome = error
            with self._lock:
                job.spent += time.monotonic() - start
                self._settle(job, outcome)
                self._room.notify_all()  # another one may be the oldest now

    def _take(self) -> _Job | None:
        """The first job that may begin now, waiting for one; None: at the end."""
        with self._lock:
            self._idle += 1
            try:
                while not self._closing:
                    now = time.monotonic()
                    while self._later and self._later[0][0] <= now:
                        heapq.heappush(self._ready, heapq.heappop(self._later)[1])
                    while self._ready:
                        job = heapq.heappop(self._ready)
                        if self._begins(job, now):
                            return job
                    self._work_there.wait(self._later[0][0] - now if self._later else None)
                return None
            finally:
                self._idle -= 1

    def _begins(self, job: _Job, now: float) -> bool:
        """Whether a job starts; if not, it waits where it will be found again, or is done."""
        host = self._hosts.setdefault(job.host, _Host())
        if host.unreached >= HOPELESS:
            self._finish(job, _unavailable(host.why))
        elif host.held_until > now:
            heapq.heappush(self._later, (host.held_until, job))
        elif host.active >= self._manner.connections_per_host:
            heapq.heappush(host.parked, job)
        else:
            host.active += 1
            self._running[job] = None
            return True
        return False

    def _settle(self, job: _Job, outcome: "Read | _Moved | _Passing | BaseException") -> None:
        """Free the connection of a job and decide how it goes on."""
        del self._running[job]
        name, host = job.host, self._hosts[job.host]
        host.active -= 1
        if isinstance(outcome, _Passing) and not outcome.reached:
            host.unreached, host.why = host.unreached + 1, outcome.why
        else:
            host.unreached = 0
        for _ in range(len(host.parked) if host.unreached >= HOPELESS else min(1, len(host.parked))):
            heapq.heappush(self._ready, heapq.heappop(host.parked))
            self._work_there.notify()
        if isinstance(outcome, Read):
            self._finish(job, outcome)
        elif isinstance(outcome, _Moved):
            job.url, job.host, job.redirects = outcome.url, _host_of(outcome.url), job.redirects + 1
            heapq.heappush(self._ready, job)
            self._work_there.notify()
        elif isinstance(outcome, _Passing):
            self._try_again(job, host, outcome)
        else:
            job.error = outcome
            self._done.notify_all()
        if not (host.active or host.parked or host.unreached) and host.held_until <= time.monotonic():
            del self._hosts[name]

    def _try_again(self, job: _Job, host: _Host, failed: _Passing) -> None:
        job.failures += 1
        manner = self._manner
        bound = min(manner.longest_wait, manner.first_wait * 2 ** (job.failures - 1))
        wait = (failed.wait or 0.0) + random.uniform(0, bound)
        if failed.wait is not None:
            host.held_until = max(host.held_until, time.monotonic() + min(failed.wait, manner.longest_wait))
        allowed = min(failed.attempts, manner.attempts)
        over = job.spent >= manner.picture or (failed.wait or 0.0) > manner.longest_wait
        if over or job.failures >= allowed:
            self._finish(job, _unavailable(failed.why))
        else:
            heapq.heappush(self._later, (time.monotonic() + wait, job))
            self._work_there.notify()

    def _finish(self, job: _Job, read: Read) -> None:
        kept = len(read.data) if read.data is not None else 0
        self._held += kept - job.received
        job.received, job.read = kept, read
        self._done.notify_all()

    # -- one attempt -------------------------------------------------------------------------------------------

    def _attempt(self, job: _Job, deadline: float) -> Read | _Moved | _Passing:
        """Ask once. Errors of the network and of servers are no errors of the program."""
        try:
            parts = urlsplit(job.url)
            return self._ask(job, parts, deadline)
        except ssl.SSLCertVerificationError as error:
            return _Passing(f"its certificate does not verify ({error.verify_message})", attempts=1)
        except PrivateAddress as error:
            return unreadable(error.why)
        except NotReached as error:
            return _Passing(str(error), reached=False)
        except TimeoutError:
            return _Passing("timed out", attempts=2)
        except (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError):
            return _Passing(BROKEN_OFF)
        except http.client.HTTPException as error:
            return _Passing(f"an answer that is no HTTP ({type(error).__name__})")
        except OSError as error:
            return _Passing(words_of(error))
        except (UnicodeError, ValueError) as error:
            return unreadable(f"no valid URL ({type(error).__name__})")

    def _ask(self, job: _Job, parts: SplitResult, deadline: float) -> Read | _Moved | _Passing:
        place = place_of(parts)
        connection = self._connections.take(place)
        while True:
            fresh = connection is None
            connection = connection or self._connections.open(place)
            try:
                answer = self._request(job, connection, parts, deadline)
                break
            except (http.client.RemoteDisconnected, ConnectionError):
                self._connections.close_one(place, connection)
                if fresh:
                    raise
                connection = None  # it was kept, and the server has closed it since: no failure
            except BaseException:
                self._connections.close_one(place, connection)
                raise
        reusable = False
        try:
            outcome = self._judge(job, answer)
            reusable = _at_its_end(answer)
            return outcome
        finally:
            with self._lock:
                self._running[job] = None
            (self._connections.keep if reusable else self._connections.close_one)(place, connection)

    def _request(
        self, job: _Job, connection: http.client.HTTPConnection, parts: SplitResult, deadline: float
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            self._connections.connect(connection)
        wire = connection.sock
        assert isinstance(wire, Wire)
        wire.deadline = deadline
        with self._lock:
            self._running[job] = wire
            if self._closing:
                raise ConnectionError("closing")
        headers = {
            "User-Agent": self._manner.user_agent(),
            "Accept": "image/*, */*;q=0.5",
            "Accept-Encoding": "identity",
        }
        if parts.username is not None:
            headers["Authorization"] = basic_login(parts)
        note(opens=1, requests=1)
        connection.request("GET", self._connections.target(parts), headers=headers)
        return connection.getresponse()

    def _judge(self, job: _Job, answer: http.client.HTTPResponse) -> Read | _Moved | _Passing:
        status = answer.status
        if status in _REDIRECTS and answer.headers.get("Location"):
            _drain(answer)
            return _moved(job, answer.headers["Location"])
        if status in _PASSING_STATUS or status >= 500:
            _drain(answer)
            return _Passing(_status_text(status), wait=_retry_after(answer.headers.get("Retry-After")))
        if status not in (200, 203):
            _drain(answer)
            return unreadable(_status_text(status))
        robots = answer.headers.get_all("X-Robots-Tag", [])
        directive = self._manner.directive_against(robots)
        reserved = self._reserved(answer, robots)
        if directive is not None:
            return unreadable(f"the server forbids it: X-Robots-Tag: {directive}")._replace(reserved=reserved)
        if answer.length is not None and answer.length > self._max_bytes:
            return too_large(answer.length, self._max_bytes)
        found = self._body(job, answer)
        return found._replace(reserved=reserved) if isinstance(found, Read) else found

    def _reserved(self, answer: http.client.HTTPResponse, robots: Sequence[str]) -> str | None:
        """What the server says against training on the picture."""
        about_training = replace(self._manner, disallowed=DIRECTIVES).directive_against(robots)
        tdm, policy = answer.headers.get_all("TDM-Reservation", []), answer.headers.get("TDM-Policy")
        return reservation_of_headers(about_training, tdm, policy and strip_secrets(policy))

    def _body(self, job: _Job, answer: http.client.HTTPResponse) -> Read | _Passing:
        """The bytes of an answer, as far as they are allowed."""
        expected, blocks, length = answer.length, list[bytes](), 0
        unpack = _unpacker(answer.headers.get("Content-Encoding", ""))
        wire = self._running[job]
        try:
            while block := answer.read(BLOCK_BYTES):
                expected = None if expected is None else expected - len(block)
                block = block if unpack is None else unpack.decompress(block, self._max_bytes + 1)
                length += len(block)
                if length > self._max_bytes or (unpack is not None and unpack.unconsumed_tail):
                    return too_large(None, self._max_bytes)
                blocks.append(block)
                self._hold(job, len(block), wire)
        except zlib.error:
            return unreadable("its Content-Encoding does not decode")
        finally:
            with self._lock:
                self._held -= job.received
                job.received = 0
        if expected:
            return _Passing(BROKEN_OFF)
        return Read(b"".join(blocks))

    def _hold(self, job: _Job, num_bytes: int, wire: "Wire | None") -> None:
        """Count bytes as held, and wait while there are too many; the oldest job on its way never waits."""
        with self._lock:
            job.received += num_bytes
            self._held += num_bytes
            if self._held < BYTES_AHEAD:
                return
            start = time.monotonic()
            self._room.wait_for(lambda: self._closing or self._held < BYTES_AHEAD or min(self._running) is job)
            waited = time.monotonic() - start
            job.spent -= waited
            if wire is not None:
                wire.deadline += waited


def _unavailable(why: str) -> Read:
    """An image that a passing error kept away: no verdict, the next run asks again."""
    return Read(error=why, reject="unavailable")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _moved(job: _Job, location: str) -> Read | _Moved:
    if job.redirects >= MAX_REDIRECTS:
        return unreadable(f"more than {MAX_REDIRECTS} redirects")
    # Servers send bytes of UTF-8, which http.client reads as Latin-1.
    url = urljoin(job.url, location.encode("latin-1", "replace").decode("utf-8", "replace").strip().replace(" ", "%20"))
    url = url.split("#", 1)[0]
    if not is_web_url(url):
        return unreadable(f"redirects to {shorten(strip_secrets(url))!r}, which is no http(s) URL")
    return _Moved(url)


def shorten(text: str) -> str:
    """The beginning of a foreign text, for messages."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _status_text(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After`: a number, or a date."""
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _unpacker(encoding: str) -> Any:
    """For servers that pack an answer though they were asked not to; None: it is not packed."""
    return zlib.decompressobj(47) if encoding.strip().lower() in ("gzip", "x-gzip", "deflate") else None


def _drain(answer: http.client.HTTPResponse) -> None:
    """Read a short answer to its end, so that its connection can be used again."""
    if answer.length is not None and answer.length <= BLOCK_BYTES:
        answer.read()


def _at_its_end(answer: http.client.HTTPResponse) -> bool:
    """Whether all of an answer was read and the server keeps the connection."""
    return answer.isclosed() and not answer.will_close
