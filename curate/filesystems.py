"""The file systems of URLs: one place makes those of sources, workdirs, shards and evaluations.

Four things are alike for all of them, and are set here. A listing is asked for anew each time: fsspec keeps listings
for the life of a process, so that a driver would look for the parts of its workers in a folder as it was before them.
A request has time limits, and one that is under way for long says so, since fsspec waits without a word. A library
that is missing is named with the extra that brings it. And what passes a file system is counted (see `counting.py`).

Limits and credentials that the user gives to fsspec (`~/.config/fsspec`, `FSSPEC_S3_ENDPOINT_URL`) or to the library of
the store (`AWS_ENDPOINT_URL`, `AWS_PROFILE`) stay as they are.
"""

import asyncio
import io
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.dircache import DirCache
from fsspec.implementations.local import LocalFileSystem

from curate import counting
from curate.errors import CurateError, MissingExtra, SourceError, WorkdirError
from curate.ranges import RangeFile, Span
from curate.retrying import Cause, describe_error, find_cause, is_refusal

log = logging.getLogger(__name__)

LOCAL = frozenset({"file", "local"})
WEB = frozenset({"http", "https"})
S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"abfs", "abfss", "az"})
STORES = S3 | GCS | AZURE
"""Protocols of object stores that an extra brings; a list may name their objects, since they are read with the user's
own keys at the user's own endpoint."""
_EXTRAS = {
    **dict.fromkeys(S3, ("s3fs", "s3")),
    **dict.fromkeys(GCS, ("gcsfs", "gcs")),
    **dict.fromkeys(AZURE, ("adlfs", "azure")),
    **dict.fromkeys(WEB, ("aiohttp", "http")),
}
"""Protocol to the library that speaks it, and the extra that brings this."""
_CREDENTIALS = {
    **dict.fromkeys(S3, "AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of the machine"),
    **dict.fromkeys(GCS, "GOOGLE_APPLICATION_CREDENTIALS, or the account of the machine"),
    **dict.fromkeys(AZURE, "AZURE_STORAGE_ACCOUNT_NAME with a key, SAS token or client secret"),
}
CONNECTIONS = 32
"""Connections of a process to S3: as many as threads read at once, and some more."""
ATTEMPTS = 5
"""How often the library of S3 tries a request that is answered by 500, 503 or SlowDown."""
STREAM_BYTES = 5 << 20
"""Bytes that a file of S3 reads ahead where it is read in order and no ranges are known, such as a list."""
SAY_SECONDS = 25.0
"""A request that is under way for longer says so, and again after each time as long."""


class Limits(NamedTuple):
    """Seconds that requests may take."""

    connect: float = 10.0
    """Until a connection must stand."""
    stall: float = 30.0
    """Without a byte."""
    in_all: float | None = None
    """A whole request over HTTP; None: no limit but the others."""


def protocol_of(url: str) -> str:
    """The scheme of a URL; `file` of a local path."""
    return url.split("://", 1)[0] if "://" in url else "file"


USUAL = Limits()
PATTERN_SIGNS = "*?["
"""A path with one of them is a pattern only where nothing lies under it as a name."""


def open_filesystem(
    url: str,
    *,
    limits: Limits = USUAL,
    error: type[CurateError] = SourceError,
    shown: str = "",
    **more: Any,
) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Args:
        limits: seconds that requests may take.
        error: raised where no package knows the protocol.
        shown: the URL as messages tell it, where it has secrets.
        more: further options of the file system.

    Raises:
        MissingExtra: the library of the protocol is not installed.
        CurateError: a chained URL, or no package knows the protocol.
        ValueError: the protocol is known, but this is none of its URLs.
    """
    protocol, shown = protocol_of(url), shown or url
    if "://" not in url or protocol in LOCAL:  # fsspec would take `::` in a name for a chain of file systems
        local = CountedLocal()
        return local, local._strip_protocol(url)
    if "::" in url and protocol != "file":
        raise error(f"{shown}: chained URLs are not supported; give the last one, without `...::`")
    try:
        fsspec.get_filesystem_class(protocol)
        options = _options(protocol, limits)
    except ImportError as cause:
        if protocol in _EXTRAS:
            raise MissingExtra(*_EXTRAS[protocol]) from cause
        raise error(f"{shown}: {describe_error(cause)}; install the fsspec package of that protocol") from cause
    except ValueError as cause:
        raise error(f"{shown}: {describe_error(cause)}; install the fsspec package of that protocol") from cause
    fs, path = fsspec.core.url_to_fs(url, **options, **more)
    if isinstance(cache := getattr(fs, "dircache", None), DirCache):
        cache.use_listings_cache = False  # of libraries that take no such option, or take the user's
        cache.clear()
    if isinstance(fs, AsyncFileSystem):
        _watch(fs.loop)
    if protocol in S3:
        _count_s3(fs)
    return fs, path


def open_ranges(filesystem: Any, path: str, *, blocks: Sequence[Span] | None = None) -> Any:
    """A file for reading at any offset: of an object store by ranges, see `ranges.py`; of others as `open` gives it.

    Args:
        blocks: ascending ranges of which all will be read; None: not known. With them, or with none to read, the file
            is looked at now; else with the first read.
    """
    protocols = protocols_of(filesystem)
    if not protocols & STORES:
        counting.note(opens=1)
        return filesystem.open(path, "rb")
    file = RangeFile(filesystem, path, suffixes=bool(protocols & S3), blocks=blocks or ())
    return file if blocks is None else file.begin()


def read_object(filesystem: Any, path: str) -> bytes:
    """All bytes of a file; of S3 without asking for the length first."""
    if not protocols_of(filesystem) & S3:
        data: bytes = filesystem.cat_file(path)
        return data
    counting.note(opens=1)
    return read_range(filesystem, path, 0, None)


def read_range(filesystem: Any, path: str, start: int, stop: int | None, **options: Any) -> bytes:
    """Bytes of a file of an object store in one request; of an empty file a store refuses any."""
    try:
        data: bytes = filesystem.cat_file(path, start=start, end=stop, **options)
    except Exception as error:
        cause = find_cause(error, remote=True)
        if cause is not None and cause.text.startswith("HTTP 416"):
            return b""
        raise
    return data


def protocols_of(filesystem: Any) -> frozenset[str]:
    """The names of the protocol that a file system speaks."""
    named = filesystem.protocol
    return frozenset([named] if isinstance(named, str) else named)


SHARDS = "shards/data"
"""Where the shards of a run lie in its workdir."""


def list_parquet(filesystem: Any, path: str) -> list[str]:
    """Parquet files in order of name: those of a folder, one file, or what a pattern finds; empty: nothing is there."""
    if filesystem.isdir(path):
        inside = filesystem.ls(path, detail=False)
        return sorted(name for name in inside if name.endswith(".parquet") and not _file_name(name).startswith("."))
    if filesystem.exists(path):
        return [path]
    return sorted(filesystem.glob(path)) if any(sign in path for sign in PATTERN_SIGNS) else []


def list_shards(filesystem: Any, path: str) -> list[str]:
    """As `list_parquet`, where `path` may also be a workdir or its folder `shards`."""
    found = list_parquet(filesystem, path)
    inside = ("data", SHARDS) if not found and filesystem.isdir(path) else ()
    folders = (f"{path.rstrip('/')}/{name}" for name in inside)
    return found or next((there for folder in folders if (there := _list_folder(filesystem, folder))), [])


def _list_folder(filesystem: Any, folder: str) -> list[str]:
    return list_parquet(filesystem, folder) if filesystem.isdir(folder) else []


def _file_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _options(protocol: str, limits: Limits) -> dict[str, Any]:
    """Limits as the file system of a protocol takes them; what the user's fsspec config says stays."""
    given = fsspec.config.conf.get(protocol, {})
    if protocol in WEB:
        client = {"timeout": client_timeout(limits), "trace_configs": [_trace()]}
        return {"client_kwargs": client | given.get("client_kwargs", {}), "use_listings_cache": False}
    if protocol in S3:
        limited = {
            "connect_timeout": limits.connect,
            "read_timeout": limits.stall,
            "max_pool_connections": CONNECTIONS,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        }
        block = {"default_block_size": given.get("default_block_size", STREAM_BYTES)}
        return {"config_kwargs": limited | given.get("config_kwargs", {}), "use_listings_cache": False} | block
    if protocol in GCS:
        own = {"requests_timeout": client_timeout(limits)} | given
        session = {"trace_configs": [_trace()]} | given.get("session_kwargs", {})
        limited = {"requests_timeout": own["requests_timeout"], "session_kwargs": session}
        return limited | {"use_listings_cache": False}
    if protocol in AZURE:
        own = {"connection_timeout": limits.connect, "read_timeout": limits.stall} | given
        return {name: own[name] for name in ("connection_timeout", "read_timeout")} | {"use_listings_cache": False}
    return {}


def client_timeout(limits: Limits) -> Any:
    """The limits as aiohttp takes them."""
    import aiohttp

    return aiohttp.ClientTimeout(
        total=limits.in_all, connect=limits.connect, sock_connect=limits.connect, sock_read=limits.stall
    )


# -- counting ----------------------------------------------------------------------------------------------------------


class CountedLocal(LocalFileSystem):
    """The local files, read without a buffer: each read of the caller is one of the system."""

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> Any:
        if mode != "rb":
            return super()._open(path, mode, block_size, **options)
        return counting.CountedFile(path)

    def info(self, path: str | os.DirEntry[str], **options: Any) -> dict[str, Any]:
        """Of a path, which every listing asks for first; of an entry of a folder it is a part of the listing."""
        counting.note(requests=isinstance(path, str))
        found: dict[str, Any] = super().info(path, **options)
        return found

    def exists(self, path: str, **options: Any) -> bool:
        """Whether something is there."""
        counting.note(requests=1)
        return bool(super().exists(path, **options))

    def isdir(self, path: str) -> bool:
        """Whether a folder is there."""
        counting.note(requests=1)
        return bool(super().isdir(path))


def _count_s3(fs: Any) -> None:
    """Count what the client of a file system sends to S3; where it is connected anew, of the new client."""
    if hasattr(fs, "_counted_client"):
        return
    connect, fs._counted_client = fs.set_session, None

    async def set_session(*args: Any, **kwargs: Any) -> Any:
        client = await connect(*args, **kwargs)
        if client is not fs._counted_client:
            fs._counted_client = client
            client.meta.events.register("before-send.s3", _note_sent)
            client.meta.events.register("after-call.s3.GetObject", _note_object)
        return client

    fs.set_session = set_session


def _note_sent(request: Any, **_: Any) -> None:
    """Of each attempt, with the bytes of an object that it carries."""
    headers = request.headers if request.method == "PUT" else {}
    length = headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length") or 0
    counting.note(requests=1, bytes_written=int(length))


def _note_object(parsed: dict[str, Any], **_: Any) -> None:
    counting.note(bytes_read=parsed.get("ContentLength", 0))


@cache
def _trace() -> Any:
    """What aiohttp tells of each request of a client."""
    import aiohttp

    async def sent(*_: Any) -> None:
        counting.note(requests=1)

    async def chunk(_: Any, __: Any, told: Any) -> None:
        counting.note(bytes_written=len(told.chunk))

    async def answered(_: Any, __: Any, told: Any) -> None:
        counting.note(bytes_read=told.response.content_length or 0)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(sent)
    trace.on_request_chunk_sent.append(chunk)
    trace.on_request_end.append(answered)
    return trace


# -- errors ------------------------------------------------------------------------------------------------------------


class Explained:
    """The remote file system of a workdir, or a file of it: what a server refuses is told in one sentence, instead of
    a library's error.

    A file or folder that is not there stays the error that it is: whoever asks knows what it means.
    """

    def __init__(self, inner: Any, root: str, *, held: Callable[[str], bytes | None] = lambda path: None) -> None:
        """Wrap a file system, or a file.

        Args:
            held: the bytes of a file of the file system where they need not be asked for.
        """
        self._inner, self._root, self._held = inner, root, held

    def open(self, path: str, mode: Literal["rb"] = "rb") -> "Explained | io.BytesIO":
        """A file for reading bytes, whose reads are explained as well."""
        held = self._held(path)
        if held is not None:
            return io.BytesIO(held)
        return Explained(self._explained(open_ranges)(self._inner, path), self._root)

    def cat_file(self, path: str) -> bytes:
        """All bytes of a file."""
        held = self._held(path)
        data: bytes = self._explained(read_object)(self._inner, path) if held is None else held
        return data

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return self._held(path) is not None or bool(self._explained(self._inner.exists)(path))

    def __enter__(self) -> "Explained":
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._explained(self._inner.__exit__)(*error)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._explained(found) if callable(found) and not name.startswith("_") else found

    def _explained(self, found: Callable[..., Any]) -> Callable[..., Any]:
        def explained(*args: Any, **kwargs: Any) -> Any:
            try:
                return found(*args, **kwargs)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError, CurateError):
                raise
            except Exception as error:
                cause = find_cause(error, remote=True)
                if cause is None:
                    raise
                raise WorkdirError(explain(self._root, cause)) from error

        return explained


def explain(url: str, cause: Cause) -> str:
    """What was met at a URL, and what to do, in one sentence."""
    met = f"{url}: {cause.text}"
    if is_refusal(cause):
        return f"{met}; {_how_to_be_let_in(url)}; then run the same command again: finished parts are kept"
    return f"{met}, at every attempt; check the connection, then run the same command again: finished parts are kept"


def _how_to_be_let_in(url: str) -> str:
    place = re.match(r"[^:]+://[^/?#]*", url)
    bucket = place[0] if place else url
    where = _CREDENTIALS.get(protocol_of(url), "those of its library")
    return f"check that the credentials ({where}) are valid and may list, read, write and delete in {bucket}"


# -- a word about what takes long --------------------------------------------------------------------------------------

_watched: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
_watching = threading.Lock()


def _watch(loop: asyncio.AbstractEventLoop) -> None:
    """Say so when a request in fsspec's loop is under way for long; one watch for each loop."""
    with _watching:
        if loop not in _watched:
            _watched.add(loop)
            loop.call_soon_threadsafe(_look_at, loop, WeakKeyDictionary())


def _look_at(
    loop: asyncio.AbstractEventLoop, told: "WeakKeyDictionary[asyncio.Task[Any], tuple[float, float]]"
) -> None:
    """Look at all requests of the loop, and again in a while; runs in the loop.

    Args:
        told: for each request when it was first seen, and when it is told of next.
    """
    now = time.monotonic()
    for task in asyncio.all_tasks(loop):
        if getattr(task.get_coro(), "__name__", "") == "_runner":  # what fsspec waits for
            began, due = told.setdefault(task, (now, now + SAY_SECONDS))
            if now >= due:
                told[task] = (began, now + SAY_SECONDS)
                log.warning("an object store or web server has not answered for %d s; still waiting", now - began)
    loop.call_later(SAY_SECONDS / 5, _look_at, loop, told)
