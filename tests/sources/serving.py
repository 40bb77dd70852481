"""A small web server whose every answer a test decides, and which remembers how it was asked."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What a path is answered with."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    """Before it answers."""
    raw: bytes | None = None
    """Sent instead of all of the above, before the connection is closed."""


@dataclass
class Served:
    """A server, and what it saw."""

    url: str
    answers: dict[str, Answer | Callable[[int], Answer]]
    """By path; a function is given how often the path was asked for before."""
    requests: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    """Connections that were opened."""
    most_at_once: int = 0
    """Requests in the making at the same time."""
    _at_once: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def begin(self, path: str, headers: Mapping[str, str]) -> Answer:
        with self._lock:
            before = self.requests[path]
            self.requests[path] += 1
            self.headers.append(dict(headers))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        answer = self.answers.get(path, Answer(b"gone", 404))
        return answer if isinstance(answer, Answer) else answer(before)

    def end(self) -> None:
        with self._lock:
            self._at_once -= 1

    def connected(self) -> None:
        with self._lock:
            self.connections += 1


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up at will."""


@contextmanager
def serving(
    answers: Mapping[str, bytes | Answer | Callable[[int], Answer]], *, seconds: float = 0.0
) -> Iterator[Served]:
    """A server on this machine; bytes stand for the answer that has them as its body, after `seconds`."""
    made = {p: Answer(a, seconds=seconds) if isinstance(a, bytes) else a for p, a in answers.items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            served.connected()

        def do_GET(self) -> None:
            answer = served.begin(self.path, dict(self.headers.items()))
            try:
                time.sleep(answer.seconds)
                if answer.raw is not None:
                    self.close_connection = True
                    self.wfile.write(answer.raw)
                    return
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            finally:
                served.end()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_address[1]}", made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
