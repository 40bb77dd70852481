"""An S3 of this machine (moto), behind a proxy that fails requests as a test decides, and counts them.

Faults are drawn by the number of a request, so that the same requests in the same order fail in the same way.
"""

import http.client
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
CODES = {
    403: "AccessDenied",
    500: "InternalError",
    503: "SlowDown",
}
Fault = int | str
"""A status with the error that S3 tells with it; `slow`: half of the body, a while later the rest; `break`: half of
the body and no more; `hang`: no answer."""


@dataclass(frozen=True)
class Request:
    """What the proxy was asked."""

    number: int
    """Of all requests, from 0."""
    method: str
    path: str
    """`/bucket/key`, with the query."""

    @property
    def is_of_bucket(self) -> bool:
        """Whether it asks for a listing, or for the bucket itself."""
        return re.fullmatch(r"/[^/?]+/?(\?.*)?", self.path) is not None


@dataclass
class Store:
    """The S3, and what it saw since `forget`."""

    url: str
    fault: Callable[[Request], Fault | None] = lambda request: None
    """What a request meets; None: what S3 answers."""
    requests: list[Request] = field(default_factory=list)
    faults: Counter[Fault] = field(default_factory=Counter)
    _lock: Any = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Answer everything, and count from 0 again."""
        self.fault = lambda request: None
        with self._lock:
            self.requests.clear()
            self.faults.clear()

    def begin(self, method: str, path: str) -> Fault | None:
        """Note a request; returns the fault that it meets."""
        with self._lock:
            request = Request(len(self.requests), method, path)
            self.requests.append(request)
        found = self.fault(request)
        if found is not None:
            with self._lock:
                self.faults[found] += 1
        return found

    def puts(self) -> Counter[str]:
        """How often each object was written."""
        return Counter(request.path.partition("?")[0] for request in self.requests if request.method == "PUT")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up at will."""


@contextmanager
def object_store(buckets: list[str]) -> Iterator[Store]:
    """An S3 with some empty buckets; environment variables that name it are the caller's."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    behind = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    behind.start()
    address = behind.get_host_and_port()
    for bucket in buckets:
        asked = http.client.HTTPConnection(*address)
        asked.request("PUT", f"/{bucket}")
        asked.getresponse().read()
        asked.close()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            self.behind = http.client.HTTPConnection(*address)

        def finish(self) -> None:
            self.behind.close()
            super().finish()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = store.begin(self.command, self.path)
            if isinstance(fault, int):
                error = ERROR.format(code=CODES[fault]).encode()
                self._send(fault, {"Content-Type": "application/xml"}, b"" if self.command == "HEAD" else error)
            elif fault == "hang":
                time.sleep(30)
            else:
                self.behind.request(self.command, self.path, body or None, dict(self.headers))
                answer = self.behind.getresponse()
                self._send(answer.status, dict(answer.headers), answer.read(), fault)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

        def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None = None) -> None:
            self.send_response_only(status)
            length = headers.pop("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            for name, value in {**headers, "Content-Length": length}.items():
                if name not in ("Connection", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.end_headers()
            half = len(body) // 2 if fault in ("slow", "break") else len(body)
            self.wfile.write(body[:half])
            if fault == "break":
                self.close_connection = True
                return
            if fault == "slow":
                time.sleep(0.05)
                self.wfile.write(body[half:])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    store = Store(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        behind.stop()
