"""Reading over a network: how long to wait, how often to try again, and one image in one request.

How a run waits is set once (`sources.network`) and must reach every place that reads, on every worker, without being a
part of any table. So it is no field of a source, whose config travels with the catalog: it is in force within `used`,
which a task enters on its worker (see `curate.engine.tasks`).

A whole image over HTTP is one request. fsspec's own files ask for the length first, twice where that fails, and end in
`FileNotFoundError` whatever happened.

Whose word a URL is decides what may be asked. What the user names himself, such as the path of a source or a workdir,
is opened as it is. While a source is listed or read, a `Reach` is in force: what its lists name are words of strangers,
so that only some protocols are spoken, and no server with a private address is asked, also after a redirect.
"""

import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, NamedTuple, TypeVar

from fsspec.asyn import AsyncFileSystem, sync
from pydantic import Field

from curate import filesystems
from curate.config import Settings
from curate.counting import note
from curate.errors import SourceError, SourceLost
from curate.filesystems import STORES, WEB, Limits, client_timeout, protocol_of, read_range
from curate.retrying import ATTEMPTS, FIRST_WAIT, LONGEST_WAIT, Patience
from curate.sources.addresses import Permit, written_addresses
from curate.sources.reservations import DIRECTIVES, reservation_of_headers
from curate.sources.secrets import Secrets, lacks_secret, strip_secrets

CHUNK_BYTES = 1 << 20
"""Bytes taken from a connection at once; the limits of length and time are looked at in between."""

T = TypeVar("T")
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Network(Settings):
    """How files of web servers and object stores are read; changes no result."""

    connections: Annotated[int, Field(ge=1, le=1024)] = 64
    """Connections of each worker process to web servers, for URLs of tables."""
    connections_per_host: Annotated[int, Field(ge=1, le=1024)] = 4
    """Of these, to one host; k workers open k times as many."""
    connect: Seconds = 10.0
    """Seconds until a connection must stand (HTTP and S3)."""
    stall: Seconds = 30.0
    """Seconds without a byte after which a transfer is given up (HTTP and S3)."""
    picture: Seconds = 300.0
    """Seconds that one image may take in all, attempts and waits included."""
    attempts: Annotated[int, Field(ge=1, le=100)] = ATTEMPTS
    """How often a file is tried before it is left for the next run; what runs out of time is tried twice at most."""
    first_wait: Annotated[float, Field(ge=0, le=3600)] = FIRST_WAIT
    """Seconds that the wait before the second attempt lasts at most; doubled before each further one."""
    longest_wait: Annotated[float, Field(ge=0, le=3600)] = LONGEST_WAIT
    """Seconds of a wait at most; a server that asks for more (`Retry-After`) is given up at once."""

    @property
    def patience(self) -> Patience:
        """For `curate.retrying`, of one image."""
        return Patience(self.attempts, self.first_wait, self.longest_wait, self.picture)

    @contextmanager
    def used(self) -> Iterator[None]:
        """What is read within, in this thread, is read so."""
        before = _used.set(self)
        try:
            yield
        finally:
            _used.reset(before)


_used: ContextVar[Network | None] = ContextVar("network", default=None)


def network() -> Network:
    """The settings in force."""
    return _used.get() or Network()


@dataclass(frozen=True)
class Reach:
    """What the URLs of a source may lead to, and the secrets that are put back into them."""

    permit: Permit
    protocols: frozenset[str] = WEB | STORES
    """Protocols that its lists may name."""
    secrets: Secrets | None = None
    """Of the lines of its list; None: it is none."""
    where: str = ""
    """The list, for messages."""

    def whole(self, url: str) -> str:
        """A URL as it is asked for.

        Raises:
            SourceLost: its protocol is not one that a list may name.
            SourceError: the list changed since it was read.
        """
        if protocol_of(url).lower() not in self.protocols:
            why = (
                f"a list may not name a URL of the protocol {protocol_of(url)!r}; it may be http, https, s3, gs or abfs"
            )
            raise SourceLost(f"{url}: {why}", why)
        if self.secrets is None or not lacks_secret(url):
            return url
        whole = self.secrets.whole(url)
        if whole is None:
            raise SourceError(
                f"{self.where}: has another line now where {url} stood, so its signature cannot be read; restore the "
                "list (signatures may be new, order and names the same), or start anew with --rebuild all"
            )
        return whole

    @contextmanager
    def used(self) -> Iterator[None]:
        """What is opened within, in this thread, is opened so."""
        before = _reach.set(self)
        try:
            yield
        finally:
            _reach.reset(before)

    def around(self, items: Iterable[T]) -> Generator[T]:
        """The items, each made with this reach in force; between them, what was before."""
        left = iter(items)
        try:
            while True:
                with self.used():
                    try:
                        item = next(left)
                    except StopIteration:
                        return
                yield item
        finally:
            if isinstance(left, Generator):
                left.close()

    def within(self, work: Callable[[], T]) -> T:
        """What `work` returns with this reach in force."""
        with self.used():
            return work()


_reach: ContextVar[Reach | None] = ContextVar("reach", default=None)


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        MissingExtra: the library of the protocol is not installed.
        SourceError: a chained URL, one that no list may name, or no package knows the protocol.
        ValueError: the protocol is known, but this is none of its URLs.
    """
    reach, limits, shown = _reach.get(), network(), url
    more: dict[str, Any] = {}
    if reach is not None:
        url = reach.whole(url)
        if protocol_of(url) in WEB and not reach.permit.everything:
            more = {"get_client": _client_of(reach.permit)}
    return filesystems.open_filesystem(
        url, limits=Limits(limits.connect, limits.stall, limits.picture), shown=shown, **more
    )


_by_proxy: ContextVar[bool] = ContextVar("by_proxy", default=False)


@cache
def _client_of(permit: Permit) -> Callable[..., Any]:
    """What makes a client of aiohttp that connects to permitted addresses alone; the same for equal permits."""
    import aiohttp

    async def get_client(**options: Any) -> Any:
        return aiohttp.ClientSession(connector=_connector(permit), **options)

    return get_client


def _connector(permit: Permit) -> Any:
    """Connections that are checked before they are made, and by what they are connected to before they are used.

    The second look is needed: aiohttp looks up no name that it takes for an address, and the system may read it in
    another notation than Python. Each redirect asks here again.
    """
    import aiohttp

    class Resolver(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> Any:
            found = await super().resolve(host, port, family)
            return found if _by_proxy.get() else permit.allowed(host, found, text=lambda where: where["host"])

    class Connector(aiohttp.TCPConnector):
        async def connect(self, req: Any, *args: Any, **kwargs: Any) -> Any:
            host = req.url.raw_host or ""
            permit.allowed(host, written_addresses(host))
            _by_proxy.set(req.proxy is not None)  # the user named the proxy himself
            made = await super().connect(req, *args, **kwargs)
            try:
                if req.proxy is None:
                    peer = made.transport.get_extra_info("peername")
                    permit.allowed(host, [peer[0]] if peer else [])
            except BaseException:
                made.close()
                raise
            return made

    return Connector(resolver=Resolver(), use_dns_cache=False)


def read_remote(url: str, max_bytes: int, *, seconds: float) -> bytes:
    """The bytes of `read_answer` alone."""
    return read_answer(url, max_bytes, seconds=seconds).data


class Answer(NamedTuple):
    """What came of asking for a remote file."""

    data: bytes
    reserved: str | None = None
    """What a web server said against its use, see `curate.sources.reservations`."""


def read_answer(url: str, max_bytes: int, *, seconds: float) -> Answer:
    """The first `max_bytes` + 1 bytes of a remote file, or all; errors come as its library raises them.

    Args:
        seconds: time that it may take.

    Raises:
        TimeoutError: it took longer.
    """
    fs, path = open_filesystem(url)
    if protocol_of(url) in WEB:
        limits = Limits(network().connect, network().stall, seconds)
        answer: Answer = sync(fs.loop, _get, fs, path, max_bytes, client_timeout(limits))
        return answer
    if isinstance(fs, AsyncFileSystem):
        note(opens=1)
        return Answer(read_range(fs, path, 0, max_bytes + 1, timeout=seconds))
    end, parts, left = time.monotonic() + seconds, [], max_bytes + 1
    with fs.open(path, "rb") as file:
        while left and (part := file.read(min(left, CHUNK_BYTES))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() > end:
                raise TimeoutError
    return Answer(b"".join(parts))


async def _get(fs: Any, url: str, max_bytes: int, timeout: Any) -> Answer:
    session = await fs.set_session()
    parts, left = [], max_bytes + 1
    async with session.get(fs.encode_url(url), **(fs.kwargs | {"timeout": timeout})) as answer:
        answer.raise_for_status()
        async for part in answer.content.iter_chunked(CHUNK_BYTES):
            parts.append(part[:left])
            left -= len(parts[-1])
            if not left:
                break
        reserved = _reserved(answer.headers)
    return Answer(b"".join(parts), reserved)


def _reserved(headers: Any) -> str | None:
    robots = ", ".join(headers.getall("X-Robots-Tag", [])).lower()
    words = {word.rpartition(":")[2].strip() for word in robots.split(",")}
    directive = next((word for word in DIRECTIVES if word in words), None)
    policy = headers.get("TDM-Policy")
    return reservation_of_headers(directive, headers.getall("TDM-Reservation", []), policy and strip_secrets(policy))
