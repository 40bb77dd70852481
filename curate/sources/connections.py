"""Connections to web servers: kept open while they are needed, never too many, and none that waits for ever.

They are those of Python's `http.client`, which is always there. Its time-out bounds one `recv`, so that a server that
sends a byte now and then could hold a thread for ever; so each socket is wrapped in one that knows when its picture
must be there.

A connection goes to an address that is permitted, and a name is looked up once for it: what is checked is what is
connected to. Through a proxy of the environment, names are looked up by the proxy, and what it reaches is a matter of
its own rules; a name that leads to a private address here is refused all the same.
"""

import base64
import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.request
from collections import Counter, OrderedDict
from functools import partial
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from curate.counting import note
from curate.retrying import describe_error
from curate.sources.addresses import ANYTHING, PUBLIC, Permit

BLOCK_BYTES = 64 << 10
"""Bytes taken from a connection at once."""

BROKEN_OFF = "connection broken off"
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE = _PATH_SAFE + "?[]|"

Place = tuple[str, str, int]
"""Scheme, host and port."""


def place_of(parts: SplitResult) -> Place:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: the host cannot be written as a name of the Internet.
    """
    host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() else parts.hostname
    return parts.scheme.lower(), host or "", parts.port or (443 if parts.scheme.lower() == "https" else 80)


def words_of(error: OSError) -> str:
    """An error of the network, in the same words at each time."""
    if isinstance(error, socket.gaierror):
        return "name not resolved"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return BROKEN_OFF
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS").replace("_", " ").lower()
    return describe_error(error) if error.strerror else type(error).__name__


class NotReached(Exception):
    """No connection to a host could be made."""


class Wire:
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
        """The stream that `http.client` reads: it keeps the socket open until it is closed itself."""
        return io.BufferedReader(_Timed(self, self._sock.makefile("rb", buffering=0)), BLOCK_BYTES)

    def close(self) -> None:
        self._sock.close()

    def break_off(self) -> None:
        """End a read that another thread waits in."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _Timed(io.RawIOBase):
    """The raw stream of a `Wire`."""

    def __init__(self, wire: Wire, raw: io.RawIOBase) -> None:
        self._wire, self._raw = wire, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._wire.set_time()
        got = self._raw.readinto(buffer)
        note(bytes_read=got or 0)
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()


class Connections:
    """The connections of a process, in use or kept open by servers: together never more than allowed."""

    def __init__(self, limit: int, *, per_host: int, connect: float, stall: float, permit: Permit = PUBLIC) -> None:
        """None yet.

        Args:
            limit: connections at most.
            per_host: of these, to one host, whatever its ports.
            connect: seconds until one must stand.
            stall: seconds that one may be silent.
            permit: which private addresses may be connected to.
        """
        self._permit = permit
        self._limit, self._per_host, self._connect, self._stall = limit, per_host, connect, stall
        self._lock = threading.Lock()
        self._kept: OrderedDict[http.client.HTTPConnection, Place] = OrderedDict()
        """The one that has rested longest first."""
        self._in_use = Counter[str]()
        """By host."""
        self._closed = False
        self._proxies = urllib.request.getproxies()
        self._tls: ssl.SSLContext | None = None

    def take(self, place: Place) -> http.client.HTTPConnection | None:
        """A kept connection to a place; None: there is none."""
        with self._lock:
            found = next((kept for kept, where in reversed(self._kept.items()) if where == place), None)
            if found is not None:
                del self._kept[found]
                self._in_use[place[1]] += 1
            return found

    def keep(self, place: Place, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next picture of its place."""
        with self._lock:
            self._given_back(place)
            if self._closed:
                connection.close()
            else:
                self._kept[connection] = place

    def close_one(self, place: Place, connection: http.client.HTTPConnection) -> None:
        """Close a connection that was in use."""
        connection.close()
        with self._lock:
            self._given_back(place)

    def _given_back(self, place: Place) -> None:
        self._in_use[place[1]] -= 1
        self._in_use += Counter()  # without hosts that have none

    def close(self) -> None:
        """Close the kept ones, and each that is in use when it is given back."""
        with self._lock:
            self._closed = True
            while self._kept:
                self._kept.popitem()[0].close()

    def open(self, place: Place) -> http.client.HTTPConnection:
        """A new one, not connected yet; kept ones make room for it, where its host or all have too many."""
        scheme, host, port = place
        proxy = None if urllib.request.proxy_bypass(host) else self._proxies.get(scheme)
        via = urlsplit(proxy if proxy and "//" in proxy else f"//{proxy}") if proxy else None
        if via:
            self._check_name(host)
        with self._lock:
            self._in_use[host] += 1
            ports = [kept for kept, where in self._kept.items() if where[1] == host]
            too_many = max(0, len(ports) + self._in_use[host] - self._per_host)
            for kept in ports[:too_many]:
                del self._kept[kept]
                kept.close()
            while self._kept and len(self._kept) + self._in_use.total() > self._limit:
                self._kept.popitem(last=False)[0].close()
            if scheme == "https" and self._tls is None:
                self._tls = ssl.create_default_context()
        first = (via.hostname or "", via.port or 80) if via else (host, port)
        made: http.client.HTTPConnection
        if scheme == "https":
            made = http.client.HTTPSConnection(*first, timeout=self._connect, context=self._tls)
            if via:
                made.set_tunnel(host, port, headers=_proxy_headers(via))
        else:
            made = http.client.HTTPConnection(*first, timeout=self._connect)
        permit = ANYTHING if via else self._permit  # the user named the proxy himself
        made._create_connection = partial(_create_connection, permit)  # type: ignore[attr-defined]
        return made

    def _check_name(self, host: str) -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return  # a name that the proxy alone knows
        self._permit.allowed(host, found, text=_address_of)

    def connect(self, connection: http.client.HTTPConnection) -> None:
        """Connect, and bound every later read.

        Raises:
            NotReached: no connection could be made.
            PrivateAddress: the host has private addresses alone, which are not allowed.
            SSLCertVerificationError: the server is not who it says it is.
        """
        try:
            connection.connect()
        except ssl.SSLCertVerificationError:
            raise
        except OSError as error:
            raise NotReached(words_of(error)) from error
        assert connection.sock is not None
        connection.sock = Wire(connection.sock, self._stall)

    def target(self, parts: SplitResult) -> str:
        """What a request asks for, in ASCII: the path and query, or through a proxy of http the whole URL."""
        path = quote(parts.path, safe=_PATH_SAFE) or "/"
        path += f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
        scheme, host, port = place_of(parts)
        if scheme == "http" and self._proxies.get("http") and not urllib.request.proxy_bypass(host):
            return f"http://{host}:{port}{path}"
        return path


def _proxy_headers(via: SplitResult) -> dict[str, str]:
    return {} if via.username is None else {"Proxy-Authorization": basic_login(via)}


def basic_login(parts: SplitResult) -> str:
    """The user and password of a URL, as a header of HTTP tells them."""
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def _address_of(found: Any) -> str:
    """The address in what `getaddrinfo` found."""
    return str(found[4][0])


def _create_connection(
    permit: Permit, address: tuple[str, int], timeout: float, source_address: object = None
) -> socket.socket:
    """Connect to the first permitted address of a host that answers, within one time-out for all of them."""
    deadline = time.monotonic() + timeout
    failed: OSError = OSError("the host has no address")
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, where in permit.allowed(address[0], found, text=_address_of):
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
