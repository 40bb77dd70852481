"""Pictures from the web, politely: few connections to each host, honest about who asks, and not where a server forbids.

The difficulty is that pictures are wanted in the order of rows while servers answer in any order, at any speed, or
never. Jobs therefore stand in one queue, in order, and a bounded number of threads takes from it the first job whose
host has a connection free; a job that has to wait (for its host, or before another attempt) keeps no thread. What came
early is held until its turn, and a limit on the bytes held makes the connections wait: all but the oldest, since what
everyone waits for must never wait itself.

The client is Python's own `http.client`, which is always there. Its time-out bounds one `recv`, so that a server that
sends a byte now and then could hold a thread for ever; so each socket is wrapped in one that knows when its picture
must be there. Nothing that a server says is trusted: lengths, redirects and headers are bounded, and its Content-Type
is ignored, since the content decides what a picture is.
"""

import base64
import contextlib
import heapq
import http.client
import io
import itertools
import random
import re
import socket
import ssl
import threading
import time
import urllib.request
import zlib
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from curate import __version__
from curate.retrying import ATTEMPTS, FIRST_WAIT, describe_error
from curate.sources.read import Read, too_large, unreadable

SOFTWARE = "curate-vision"
"""How the program calls itself to servers."""
DISALLOWED = ("noai", "noimageai", "noindex", "noimageindex")
"""Directives of `X-Robots-Tag` that keep a picture out, as img2dataset has them."""
CONNECTIONS = 64
"""Open connections of a process in all."""
CONNECTIONS_PER_HOST = 4
"""Of these, to one host."""
CONNECT_SECONDS = 10.0
"""Time for a connection to be made."""
STALL_SECONDS = 30.0
"""Time without a byte after which an answer is given up."""
WHOLE_SECONDS = 300.0
"""Time for a whole picture, all attempts and redirects together, waits between them left out."""
MAX_REDIRECTS = 10
MAX_HOLD_SECONDS = 120.0
"""A server that asks for a longer pause is not waited for."""
AHEAD = 2048
"""Pictures that are asked for before the first of them is taken."""
BYTES_AHEAD = 256 << 20
"""Bytes held for pictures that are not taken yet; one picture more may be on its way."""
BLOCK_BYTES = 64 << 10
HOPELESS = 16
"""Failed attempts in a row to reach a host after which its other pictures are left for another run."""

_PASSING_STATUS = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives that have a colon of their own, so that what stands before it names no program."""
_WEB_URL = re.compile(r"https?://[^\s/?#]+([/?#][^\x00-\x1f\x7f]*)?", re.IGNORECASE)
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?[]|"
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
    connect_seconds: float = CONNECT_SECONDS
    stall_seconds: float = STALL_SECONDS
    whole_seconds: float = WHOLE_SECONDS

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


def permitted_addresses(found: list[Any]) -> list[Any]:
    """Of what `getaddrinfo` found for a host, the addresses that may be connected to: all of them.

    The one place through which every connection goes; whoever fetches for strangers refuses private addresses here.
    """
    return found


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
    again: bool = True
    """Whether another attempt may help within this run."""


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
        self._running: dict[_Job, _Wire | None] = {}
        self._hosts: dict[str, _Host] = {}
        self._held = 0
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._closing = False
        self._connections = _Connections(manner)

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
            job.error.add_note(f"while fetching {job.asked}")
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
                outcome = self._attempt(job, start + self._manner.whole_seconds - job.spent)
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
        wait = FIRST_WAIT * 2 ** (job.failures - 1) * random.uniform(0.5, 1.0)
        if failed.wait is not None:
            wait = max(wait, failed.wait)
            host.held_until = max(host.held_until, time.monotonic() + min(failed.wait, MAX_HOLD_SECONDS))
        over = job.spent >= self._manner.whole_seconds or wait > MAX_HOLD_SECONDS
        if over or not failed.again or job.failures >= ATTEMPTS:
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
            return _Passing(f"its certificate does not verify ({error.verify_message})", again=False)
        except _NotReached as error:
            return _Passing(str(error), reached=False)
        except TimeoutError:
            return _Passing("timed out")
        except http.client.HTTPException as error:
            return _Passing(f"a broken answer ({type(error).__name__})")
        except OSError as error:
            return _Passing(_words_of(error))
        except (UnicodeError, ValueError) as error:
            return unreadable(f"no valid URL ({type(error).__name__})")

    def _ask(self, job: _Job, parts: SplitResult, deadline: float) -> Read | _Moved | _Passing:
        place = _place_of(parts)
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
            _connect(connection, self._manner)
        wire = connection.sock
        assert isinstance(wire, _Wire)
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
        directive = self._manner.directive_against(answer.headers.get_all("X-Robots-Tag", []))
        if directive is not None:
            return unreadable(f"the server forbids it: X-Robots-Tag: {directive}")
        if answer.length is not None and answer.length > self._max_bytes:
            return too_large(answer.length, self._max_bytes)
        return self._body(job, answer)

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
            return _Passing(f"broke off: {expected} bytes are missing")
        return Read(b"".join(blocks))

    def _hold(self, job: _Job, num_bytes: int, wire: "_Wire | None") -> None:
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


def _words_of(error: OSError) -> str:
    """An error of the network, in the same words at each time."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS").replace("_", " ").lower()
    return describe_error(error) if error.strerror else type(error).__name__


def _unavailable(why: str) -> Read:
    """An image that a passing error kept away: no verdict, the next run asks again."""
    return Read(error=why, reject="unavailable")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _place_of(parts: SplitResult) -> tuple[str, str, int]:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: the host cannot be written as a name of the Internet.
    """
    host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() else parts.hostname
    return parts.scheme.lower(), host or "", parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _moved(job: _Job, location: str) -> Read | _Moved:
    if job.redirects >= MAX_REDIRECTS:
        return unreadable(f"more than {MAX_REDIRECTS} redirects")
    # Servers send bytes of UTF-8, which http.client reads as Latin-1.
    url = urljoin(job.url, location.encode("latin-1", "replace").decode("utf-8", "replace").strip().replace(" ", "%20"))
    url = url.split("#", 1)[0]
    if not is_web_url(url):
        return unreadable(f"redirects to {shorten(url)!r}, which is no http(s) URL")
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


# -- connections -------------------------------------------------------------------------------------------------------


class _NotReached(Exception):
    """No connection to a host could be made."""


class _Wire:
    """A socket whose reads end when the picture must be there, however slowly bytes drip in."""

    def __init__(self, sock: socket.socket, stall_seconds: float) -> None:
        self._sock, self._stall = sock, stall_seconds
        self.deadline = float("inf")

    def set_time(self) -> None:
        """Allow the next operation what is left.

        Raises:
            TimeoutError: nothing is.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(self._stall, left))

    def sendall(self, data: bytes) -> None:
        self.set_time()
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The stream that `http.client` reads; it keeps the socket open until it is closed itself."""
        return io.BufferedReader(_Timed(self, self._sock.makefile("rb", buffering=0)), BLOCK_BYTES)

    def close(self) -> None:
        self._sock.close()

    def break_off(self) -> None:
        """End a read that another thread waits in."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _Timed(io.RawIOBase):
    """The raw stream of a `_Wire`."""

    def __init__(self, wire: _Wire, raw: io.RawIOBase) -> None:
        self._wire, self._raw = wire, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._wire.set_time()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connections:
    """The connections of a process, in use or kept open by servers: together never more than the manner allows."""

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._lock = threading.Lock()
        self._kept: OrderedDict[http.client.HTTPConnection, tuple[str, str, int]] = OrderedDict()
        """The one that has rested longest first."""
        self._in_use = 0
        self._closed = False
        self._proxies = urllib.request.getproxies()
        self._tls: ssl.SSLContext | None = None

    def take(self, place: tuple[str, str, int]) -> http.client.HTTPConnection | None:
        """A kept connection to a place; None: there is none."""
        with self._lock:
            found = next((kept for kept, where in reversed(self._kept.items()) if where == place), None)
            if found is not None:
                del self._kept[found]
                self._in_use += 1
            return found

    def keep(self, place: tuple[str, str, int], connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next picture of its place."""
        with self._lock:
            self._in_use -= 1
            if self._closed:
                connection.close()
            else:
                self._kept[connection] = place

    def close_one(self, place: tuple[str, str, int], connection: http.client.HTTPConnection) -> None:
        """Close a connection that was in use."""
        connection.close()
        with self._lock:
            self._in_use -= 1

    def close(self) -> None:
        """Close the kept ones, and each that is in use when it is given back."""
        with self._lock:
            self._closed = True
            while self._kept:
                self._kept.popitem()[0].close()

    def open(self, place: tuple[str, str, int]) -> http.client.HTTPConnection:
        """A new one, not connected yet; kept ones make room for it, those to another port of its host first."""
        scheme, host, port = place
        with self._lock:
            self._in_use += 1
            for kept in [kept for kept, where in self._kept.items() if where[1] == host]:
                del self._kept[kept]
                kept.close()
            while self._kept and len(self._kept) + self._in_use > self._manner.connections:
                self._kept.popitem(last=False)[0].close()
            if scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
        proxy = None if urllib.request.proxy_bypass(host) else self._proxies.get(scheme)
        via = urlsplit(proxy if proxy and "//" in proxy else f"//{proxy}") if proxy else None
        first = (via.hostname or "", via.port or 80) if via else (host, port)
        made: http.client.HTTPConnection
        if scheme == "https":
            made = http.client.HTTPSConnection(*first, timeout=self._manner.connect_seconds, context=self._tls)
            if via:
                made.set_tunnel(host, port, headers=_proxy_headers(via))
        else:
            made = http.client.HTTPConnection(*first, timeout=self._manner.connect_seconds)
        made._create_connection = _create_connection  # type: ignore[attr-defined]
        return made

    def target(self, parts: SplitResult) -> str:
        """What a request asks for, in ASCII: the path and query, or through a proxy of http the whole URL."""
        path = quote(parts.path, safe=_PATH_SAFE) or "/"
        path += f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
        scheme, host, port = _place_of(parts)
        if scheme == "http" and self._proxies.get("http") and not urllib.request.proxy_bypass(host):
            return f"http://{host}:{port}{path}"
        return path


def _proxy_headers(via: SplitResult) -> dict[str, str]:
    if via.username is None:
        return {}
    login = f"{unquote(via.username)}:{unquote(via.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _connect(connection: http.client.HTTPConnection, manner: Manner) -> None:
    """Connect, and bound every later read.

    Raises:
        _NotReached: no connection could be made.
        SSLCertVerificationError: the server is not who it says it is.
    """
    try:
        connection.connect()
    except ssl.SSLCertVerificationError:
        raise
    except socket.gaierror as error:
        raise _NotReached("the name of its host is not known") from error
    except TimeoutError as error:
        raise _NotReached(f"no connection within {manner.connect_seconds:g} s") from error
    except OSError as error:
        raise _NotReached(f"no connection ({_words_of(error)})") from error
    assert connection.sock is not None
    connection.sock = _Wire(connection.sock, manner.stall_seconds)


def _create_connection(address: tuple[str, int], timeout: float, source_address: object = None) -> socket.socket:
    """Connect to the first address of a host that answers, within one time-out for all of them."""
    deadline = time.monotonic() + timeout
    failed: OSError = OSError("the host has no permitted address")
    for family, kind, protocol, _, where in permitted_addresses(socket.getaddrinfo(*address, type=socket.SOCK_STREAM)):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError from failed
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left)
            sock.connect(where)
            return sock
        except OSError as error:
            sock.close()
            failed = error
    raise failed
