"""Reading over a network: how long to wait, how often to try again, and one image in one request.

How a run waits is set once (`sources.network`) and must reach every place that reads, on every worker, without being a
part of any table. So it is no field of a source, whose config travels with the catalog: it is in force within `used`,
which a task enters on its worker (see `curate.engine.tasks`).

A whole image over HTTP is one request. fsspec's own files ask for the length first, twice where that fails, and end in
`FileNotFoundError` whatever happened.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from pydantic import Field

from curate.config import Settings
from curate.errors import SourceError
from curate.retrying import ATTEMPTS, FIRST_WAIT, LONGEST_WAIT, Patience, describe_error, find_cause

CHUNK_BYTES = 1 << 20
"""Bytes taken from a connection at once; the limits of length and time are looked at in between."""

_WEB = ("http", "https")
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


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        SourceError: a chained URL, or no package knows the protocol.
        ValueError: the protocol is known, but this is none of its URLs.
    """
    if "::" in url:
        raise SourceError(f"{url}: chained URLs are not supported; give the last one, without `...::`")
    protocol = url.split("://", 1)[0]
    try:
        fsspec.get_filesystem_class(protocol)
        options = _options(protocol)
    except (ImportError, ValueError) as error:
        raise SourceError(f"{url}: {describe_error(error)}; install the fsspec package of that protocol") from error
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


def _options(protocol: str) -> dict[str, Any]:
    """Time-outs as the file system of a protocol takes them; what the user's fsspec config says stays."""
    given, limits = fsspec.config.conf.get(protocol, {}), network()
    if protocol in _WEB:
        return {"client_kwargs": {"timeout": _client_timeout(limits, limits.picture), **given.get("client_kwargs", {})}}
    if protocol in ("s3", "s3a"):
        limited = {"connect_timeout": limits.connect, "read_timeout": limits.stall}
        return {"config_kwargs": limited | given.get("config_kwargs", {})}
    return {}


def _client_timeout(limits: Network, seconds: float) -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(
        total=seconds, connect=limits.connect, sock_connect=limits.connect, sock_read=limits.stall
    )


def read_remote(url: str, max_bytes: int, *, seconds: float) -> bytes:
    """The first `max_bytes` + 1 bytes of a remote file, or all; errors come as its library raises them.

    Args:
        seconds: time that it may take.

    Raises:
        TimeoutError: it took longer.
    """
    fs, path = open_filesystem(url)
    if url.split("://", 1)[0] in _WEB:
        data: bytes = sync(fs.loop, _get, fs, path, max_bytes, _client_timeout(network(), seconds))
        return data
    if isinstance(fs, AsyncFileSystem):
        return _read_at_once(fs, path, max_bytes, seconds)
    end, parts, left = time.monotonic() + seconds, [], max_bytes + 1
    with fs.open(path, "rb") as file:
        while left and (part := file.read(min(left, CHUNK_BYTES))):
            parts.append(part)
            left -= len(part)
            if time.monotonic() > end:
                raise TimeoutError
    return b"".join(parts)


async def _get(fs: Any, url: str, max_bytes: int, timeout: Any) -> bytes:
    session = await fs.set_session()
    parts, left = [], max_bytes + 1
    async with session.get(fs.encode_url(url), **(fs.kwargs | {"timeout": timeout})) as answer:
        answer.raise_for_status()
        async for part in answer.content.iter_chunked(CHUNK_BYTES):
            parts.append(part[:left])
            left -= len(parts[-1])
            if not left:
                break
    return b"".join(parts)


def _read_at_once(fs: Any, path: str, max_bytes: int, seconds: float) -> bytes:
    """By one request for the range; of an empty object a store refuses any."""
    try:
        data: bytes = fs.cat_file(path, start=0, end=max_bytes + 1, timeout=seconds)
    except Exception as error:
        cause = find_cause(error, remote=True)
        if cause is not None and cause.text.startswith("HTTP 416"):
            return b""
        raise
    return data
