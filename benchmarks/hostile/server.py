"""Web servers that misbehave, and one that must never be asked."""

import contextlib
import gzip
import itertools
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from benchmarks.hostile.case import good_pictures

WEB, GUARDED = "127.0.0.1", "127.0.0.2"
"""Addresses of this machine: one that the runs allow, and one that they do not."""
CHUNK = 64 << 10
Pieces = Iterable[bytes]


@dataclass
class Server:
    """Answers requests for paths with the bytes that `pages` give, as they stand, and closes the connection."""

    host: str
    pages: dict[str, Callable[[], Pieces]]
    default: Callable[[], Pieces] | None = None
    """For any other path; None: 404."""
    requests: Counter[str] = field(default_factory=Counter)
    port: int = 0

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Its address, while it listens."""
        with socket.create_server((self.host, 0), backlog=128) as listening:
            self.port = listening.getsockname()[1]
            closing = threading.Event()
            listening.settimeout(0.2)
            thread = threading.Thread(target=self._accept, args=(listening, closing), daemon=True)
            thread.start()
            try:
                yield self.url
            finally:
                closing.set()
                thread.join()

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    def _accept(self, listening: socket.socket, closing: threading.Event) -> None:
        while not closing.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                connection, _ = listening.accept()
                threading.Thread(target=self._answer, args=(connection, closing), daemon=True).start()

    def _answer(self, connection: socket.socket, closing: threading.Event) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            asked = b""
            while b"\r\n\r\n" not in asked and (more := connection.recv(4096)):
                asked += more
            path = asked.split(b" ")[1].decode("latin-1") if asked.count(b" ") > 1 else ""
            self.requests[path] += 1
            page = self.pages.get(path.split("?")[0], self.default or (lambda: answer(b"gone", status="404 Gone")))
            for piece in page():
                if closing.is_set():
                    return
                if piece == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if piece == PAUSE:
                    time.sleep(0.2)
                else:
                    connection.sendall(piece)


RESET, PAUSE = b"<reset>", b"<pause>"
"""Pieces that stand for what is no byte: the connection is reset, or nothing comes for a while."""


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | str | None = None) -> list[bytes]:
    """A whole answer; `length` is what it says of itself, the empty text: nothing."""
    said = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers, *([f"Content-Length: {said}"] if said != "" else [])]
    return ["\r\n".join([*lines, "", ""]).encode("latin-1"), body]


def redirect(to: str) -> list[bytes]:
    """To another address."""
    return answer(b"", f"Location: {to}", status="302 Found")


def _for_ever(piece: bytes, pause: bytes = b"") -> Iterator[bytes]:
    return itertools.cycle([piece, pause] if pause else [piece])


def _chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> list[bytes]:
    head = answer(b"", "Transfer-Encoding: chunked", length="")[0]
    return [head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), end]


def web_pages(seed: int, guarded: Callable[[], str]) -> dict[str, Callable[[], Pieces]]:
    """Good pictures as `/good-0.jpg`, and everything that a server can do wrong by its name."""
    good = {f"/{name}": data for name, data in good_pictures(seed)}
    data = good["/good-0.jpg"]
    half = data[: len(data) // 2]
    pages: dict[str, Callable[[], Pieces]] = {path: lambda body=body: answer(body) for path, body in good.items()}  # type: ignore[misc]
    for status in (204, 206, 304, 400, 401, 403, 404, 408, 410, 418, 425, 429, 451, 500, 502, 503, 504, 999):
        pages[f"/status-{status}"] = lambda status=status: answer(b"no", status=f"{status} No")  # type: ignore[misc]
    return (
        pages
        | _encoded(data)
        | _redirects(guarded)
        | {
            "/retry-after-a-year": lambda: answer(b"no", "Retry-After: 31536000", status="503 Busy"),
            "/retry-after-garbage": lambda: answer(b"no", "Retry-After: \x1b[2J", status="429 Busy"),
            "/trickle": lambda: itertools.chain(answer(b"", length=10**6), _for_ever(b"\xff", PAUSE)),
            "/silence": lambda: itertools.chain(answer(b"", length=10**6), _for_ever(PAUSE)),
            "/no-answer": lambda: _for_ever(PAUSE),
            "/headers-without-end": lambda: itertools.chain(
                [b"HTTP/1.1 200 OK\r\n"], _for_ever(b"X-A: " + b"b" * 900 + b"\r\n")
            ),
            "/header-of-1-MB": lambda: answer(data, "X-A: " + "b" * (1 << 20)),
            "/10000-headers": lambda: answer(data, *["X-A: b"] * 10_000),
            "/continue-without-end": lambda: _for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
            "/body-without-end": lambda: itertools.chain(answer(b"", length=""), _for_ever(bytes(CHUNK))),
            "/body-of-a-terabyte": lambda: itertools.chain(answer(b"", length=10**12), _for_ever(bytes(CHUNK))),
            "/chunks-without-end": lambda: itertools.chain(
                _chunked(end=b""), _for_ever(b"10000\r\n" + bytes(CHUNK) + b"\r\n")
            ),
            "/chunk-of-2-70": lambda: [*_chunked(end=b""), b"%x\r\n" % 2**70, bytes(CHUNK)],
            "/chunk-of-garbage": lambda: [*_chunked(half, end=b""), b"zz\r\n" + half],
            "/chunk-of-negative-length": lambda: [*_chunked(half, end=b""), b"-5\r\n" + half],
            "/chunks-cut": lambda: _chunked(half, end=b""),
            "/chunked": lambda: _chunked(half, data[len(half) :]),
            "/trailers-without-end": lambda: itertools.chain(
                _chunked(data, end=b"0\r\n"), _for_ever(b"X-A: " + b"b" * 900 + b"\r\n")
            ),
            "/longer-than-it-says": lambda: answer(data + bytes(5000), length=len(data)),
            "/shorter-than-it-says": lambda: answer(data, length=len(data) + 5000),
            "/length-negative": lambda: answer(data, length=-5),
            "/length-of-garbage": lambda: answer(data, length="many"),
            "/length-of-10-30": lambda: answer(data, length=10**30),
            "/length-twice": lambda: answer(data, "Content-Length: 3"),
            "/no-length": lambda: answer(data, length=""),
            "/reset": lambda: [*answer(half, length=len(data)), RESET],
            "/reset-at-once": lambda: [RESET],
            "/closed-at-once": lambda: [],
            "/status-of-garbage": lambda: [b"HTTP/1.1 abc \x1b[2J\r\n\r\n" + data],
            "/status-that-clears-the-screen": lambda: answer(b"", status="404 \x1b[2J\x9b2J"),
            "/no-http": lambda: [b"SSH-2.0-hostile\r\n" + data],
            "/http-0.9": lambda: [data],
            "/html": lambda: answer(b"<!DOCTYPE html><script>hostile</script>", "Content-Type: image/jpeg"),
            "/empty": lambda: answer(b""),
            "/robots": lambda: answer(data, "X-Robots-Tag: noai"),
        }
    )


def _encoded(data: bytes) -> dict[str, Callable[[], Pieces]]:
    return {
        "/gzip": lambda: answer(gzip.compress(data), "Content-Encoding: gzip"),
        "/gzip-bomb": lambda: answer(gzip.compress(bytes(64 << 20), 9), "Content-Encoding: gzip"),
        "/gzip-bomb-twice": lambda: answer(
            gzip.compress(gzip.compress(bytes(64 << 20), 9), 9), "Content-Encoding: gzip, gzip"
        ),
        "/gzip-of-garbage": lambda: answer(data, "Content-Encoding: gzip"),
        "/gzip-cut": lambda: answer(gzip.compress(data)[:-500], "Content-Encoding: gzip"),
        "/encoding-unknown": lambda: answer(data, "Content-Encoding: hostile"),
    }


def _redirects(guarded: Callable[[], str]) -> dict[str, Callable[[], Pieces]]:
    return {
        "/redirect-without-address": lambda: answer(b"", status="302 Found"),
        "/redirect-loop": lambda: redirect("/redirect-loop"),
        "/redirect-chain": lambda: redirect("/redirect-chain?" + "a" * int(time.monotonic() * 1000 % 997)),
        "/redirect-to-a-good-one": lambda: redirect("/good-0.jpg"),
        "/redirect-to-a-private-one": lambda: redirect(guarded() + "/secret.jpg"),
        "/redirect-by-way-of-one": lambda: redirect("/redirect-to-a-private-one"),
        "/redirect-to-the-metadata": lambda: redirect("http://169.254.169.254/latest/meta-data/"),
        "/redirect-to-a-file": lambda: redirect("file:///etc/passwd"),
        "/redirect-to-gopher": lambda: redirect("gopher://127.0.0.2/x"),
        "/redirect-to-data": lambda: redirect("data:image/png;base64,AAAA"),
        "/redirect-to-garbage": lambda: redirect("http://[::1/\x1b[2J"),
        "/redirect-with-a-password": lambda: redirect(f"http://u:p@{guarded().removeprefix('http://')}/secret.jpg"),
    }


@dataclass(frozen=True)
class Hosts:
    """The servers of the runs."""

    web: Server
    guarded: Server
    """Has a private address that no run allows: a request is a fault."""

    def asked(self) -> bool:
        """Whether the guarded one was asked since it was asked for last."""
        found = self.guarded.requests.total()
        self.guarded.requests.clear()
        return found > 0


@contextlib.contextmanager
def serving(seed: int) -> Iterator[Hosts]:
    """Both servers."""
    secret = next(data for _, data in good_pictures(seed + 1))
    guarded = Server(GUARDED, {}, lambda: answer(secret))
    web = Server(WEB, web_pages(seed, lambda: guarded.url))
    with guarded.serve(), web.serve():
        yield Hosts(web, guarded)
