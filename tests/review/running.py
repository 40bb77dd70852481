"""The server in a thread of the test."""

import asyncio
import json
import threading
from http.client import HTTPConnection
from typing import Any, NamedTuple

from curate.review.server import Server
from curate.review.session import Session


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Running:
    """A server in a thread."""

    def __init__(self, session: Session) -> None:
        self.server = Server(session)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def listen() -> int:
            return self.server.listen()

        self.port = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)
        self.address = self.server.address(self.port)

    def ask(
        self, path: str, *, method: str = "GET", token: str | None = None, body: Any = None, **headers: str
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Host": f"127.0.0.1:{self.port}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        where = f"/{self.server.token if token is None else token}/{path}"
        connection.request(method, where, body=data, headers=given)
        found = connection.getresponse()
        return Answer(found.status, dict(found.getheaders()), found.read())

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        own = {"Origin": f"http://127.0.0.1:{self.port}", "Content_Type": "application/json"}
        return self.ask(path, method="POST", body=body, **own | headers)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
