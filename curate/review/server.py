"""The page of `curate review`, served on this machine alone. See `access.py` for who may ask."""

import asyncio
import json
import logging
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from curate.errors import CurateError, WorkdirError
from curate.review import access
from curate.review.originals import NotShown, Served
from curate.review.session import Session
from curate.surroundings import surrounded
from curate.text import visible_line

ADDRESS = "127.0.0.1"
FILES = {"": "text/html", "review.css": "text/css", "review.js": "text/javascript", "icon.png": "image/png"}
"""Files of the page by address."""
MAX_BODY = 64 << 10
MAX_SHOWN = 512
"""Images whose decisions a request may ask for."""
PICTURE_THREADS = 3
PICTURE_SECONDS = 600
"""A browser need not ask again for a picture so soon."""
T = TypeVar("T")
logger = logging.getLogger(__name__)


class Server:
    """Answers for one run."""

    def __init__(self, session: Session, *, token: str | None = None) -> None:
        self.session, self.token = session, token or access.new_token()
        self.tables = ThreadPoolExecutor(1, "review tables")
        """One thread: requests for pages wait for each other, and decisions keep their order."""
        self.pictures = ThreadPoolExecutor(PICTURE_THREADS, "review pictures")
        routes: list[Any] = [
            (r"/([^/]*)/(|review\.css|review\.js|icon\.png)", _File),
            (r"/([^/]*)/api/(\w+)", _Api),
            (r"/([^/]*)/(thumbnail|picture)/(\d{1,19})", _Picture),
        ]
        self._application = Application(
            routes, default_handler_class=_Nothing, log_function=lambda handler: None, server=self
        )

    def listen(self, port: int = 0) -> int:
        """Listen on this machine; returns the port, a free one where 0 was given. Called within a running loop.

        Raises:
            WorkdirError: the port is taken.
        """
        try:
            sockets = bind_sockets(port, ADDRESS, family=socket.AF_INET)
        except OSError as error:
            raise WorkdirError(f"--port {port}: cannot listen there ({error.strerror}); choose another one") from error
        HTTPServer(self._application, max_body_size=MAX_BODY, max_buffer_size=2 * MAX_BODY).add_sockets(sockets)
        return int(sockets[0].getsockname()[1])

    def address(self, port: int) -> str:
        """What to open in a browser."""
        return f"http://{ADDRESS}:{port}/{self.token}/"


def serve(session: Session, *, port: int, tell: Callable[[str, int], None]) -> None:
    """Serve until the command ends.

    Args:
        port: 0: a free one.
        tell: called with the address and the port once the page can be opened.
    """

    async def until_interrupted() -> None:
        server = Server(session)
        listening = server.listen(port)
        tell(server.address(listening), listening)
        await asyncio.Event().wait()

    with surrounded(workdir=session.workdir, settings={"offline": True}):  # a page sends no requests
        asyncio.run(until_interrupted())


class _Checked(RequestHandler):
    """Answers those alone who know the token, from a page of this server."""

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in access.HEADERS.items():
            self.set_header(name, value)

    @property
    def server(self) -> Server:
        found: Server = self.settings["server"]
        return found

    def prepare(self) -> None:
        host = self.request.host
        if not access.is_own_host(host):
            raise HTTPError(403, reason="Forbidden")
        if not access.is_token(self.path_args[0] if self.path_args else "", self.server.token):
            raise HTTPError(404)
        if self.request.method in ("GET", "HEAD"):
            return
        plain = self.request.headers.get("Content-Type", "").partition(";")[0].strip()
        if not access.is_own_origin(self.request.headers.get("Origin"), host) or plain != "application/json":
            raise HTTPError(403, reason="Forbidden")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A line of plain text, which says nothing of what was asked."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish({403: "not allowed", 404: "nothing here"}.get(status_code, "this request cannot be answered"))

    def log_exception(self, *error: Any) -> None:
        """Faults of ours are told; what strangers ask is not, and no line holds an address with its token."""
        if not isinstance(error[1], HTTPError):
            logger.error("a request of the page failed", exc_info=error[1])

    async def of_tables(self, function: Callable[[], T]) -> T:
        """What a function finds that reads tables."""
        return await asyncio.get_running_loop().run_in_executor(self.server.tables, function)


class _Nothing(_Checked):
    """Every other address."""

    def prepare(self) -> None:
        raise HTTPError(404)


class _File(_Checked):
    """The page, its style and its script."""

    def get(self, token: str, name: str) -> None:
        text = FILES[name].startswith("text/")
        self.set_header("Content-Type", f"{FILES[name]}; charset=utf-8" if text else FILES[name])
        self.finish(resources.files("curate.review").joinpath(name or "page.html").read_bytes())


class _Picture(_Checked):
    """A picture by the number of its image."""

    async def get(self, token: str, size: str, image_id: str) -> None:
        originals = self.server.session.originals
        read: Callable[[int], Served] = originals.thumbnail if size == "thumbnail" else originals.picture
        self.set_header("Content-Security-Policy", access.PICTURE_POLICY)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.server.pictures, read, int(image_id))
        except NotShown as error:
            self.set_status(404)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(str(error))
            return
        self.set_header("Content-Type", found.content_type)
        self.set_header("Cache-Control", f"private, max-age={PICTURE_SECONDS}")
        self.finish(found.data)


class _Api(_Checked):
    """What the page asks for, and what it decides, as JSON."""

    async def get(self, token: str, name: str) -> None:
        session = self.server.session
        if name == "run":
            await self._answer(session.summary)
        elif name == "page":
            queue, number, text = self._queue(), self._number("page"), self.get_query_argument("filter", "")
            await self._answer(lambda: session.page(queue, number, text))
        elif name == "members":
            queue, number, start = self._queue(), self._number("item"), self._number("start")
            await self._answer(lambda: session.members(queue, number, start))
        elif name == "decisions":
            await self._answer(session.decisions)
        else:
            raise HTTPError(404)

    async def post(self, token: str, name: str) -> None:
        session = self.server.session
        try:
            given = json.loads(self.request.body)
            shown = [int(one) for one in given.get("shown", [])][:MAX_SHOWN]
            if name == "decide":
                other = given.get("other")
                image, other = int(given["image"]), None if other is None else int(other)
                await self._answer(lambda: session.decide(str(given["decision"]), image, other))
            elif name == "part":
                queue, number = str(given["queue"]), int(given["item"])
                if queue not in session.queues.all:
                    raise HTTPError(404)
                await self._answer(lambda: session.part(queue, number))
            elif name == "undo":
                await self._answer(lambda: session.undo(shown))
            elif name == "forget":
                one, two = map(str, given["about"])
                await self._answer(lambda: session.forget((one, two), shown))
            else:
                raise HTTPError(404)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise HTTPError(400) from error

    async def _answer(self, function: Callable[[], Any]) -> None:
        self.set_header("Content-Type", "application/json; charset=utf-8")
        try:
            self.finish(json.dumps(await self.of_tables(function)))
        except CurateError as error:  # tables that another run replaces, decisions that a person wrote
            self.set_status(409)
            self.finish(json.dumps({"error": visible_line(str(error))}))

    def _queue(self) -> str:
        name = self.get_query_argument("queue", "")
        if name not in self.server.session.queues.all:
            raise HTTPError(404)
        return name

    def _number(self, name: str) -> int:
        text = self.get_query_argument(name, "0")
        if not re.fullmatch(r"\d{1,15}", text):
            raise HTTPError(400)
        return int(text)
