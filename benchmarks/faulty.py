"""A web server and an object store that fail as planned: busy, gone, refusing, breaking off, hanging, redirecting."""

import asyncio
import io
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, ClassVar

import fsspec
import numpy as np
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile
from PIL import Image, ImageDraw

STORE = "faulty"
"""Protocol of the object store."""


class FaultyServer:
    """Serves `pages` by their paths on 127.0.0.1; while a page has faults left, each request takes one of them.

    A fault is a status such as `503`, `429 7` (with `Retry-After: 7`), `break` (half of the bytes, then the end),
    `hang` (no byte until the server closes) or `loop` (a redirect to itself). A fault that ends in `*` stays.
    """

    def __init__(self, pages: Mapping[str, bytes], faults: MutableMapping[str, list[str]] | None = None) -> None:
        self.pages, self.faults = pages, {} if faults is None else faults
        self.requests: Counter[str] = Counter()
        """Requests by path."""
        self.closing = threading.Event()

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """The address, while it is served."""
        self.closing.clear()
        server = _Quiet(("127.0.0.1", port), type("Handler", (_Handler,), {"faulty": self}))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()

    def next_fault(self, path: str) -> str:
        """What this request gets; empty: the page."""
        self.requests[path] += 1
        return _take(self.faults, path)


def _take(faults: MutableMapping[str, list[str]], path: str) -> str:
    left = faults.get(path)
    if not left:
        return ""
    return left[0].removesuffix("*") if left[0].endswith("*") else left.pop(0)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        fault = self.faulty.next_fault(self.path)
        if fault == "hang":
            self.faulty.closing.wait()
            self.close_connection = True
        elif fault == "loop":
            self._answer(302, b"", {"Location": self.path})
        elif fault[:1].isdigit():
            status, _, seconds = fault.partition(" ")
            self._answer(int(status), b"not now", {"Retry-After": seconds} if seconds else {})
        elif self.path not in self.faulty.pages:
            self._answer(404, b"no such page")
        else:
            self._send(self.faulty.pages[self.path], broken=fault == "break")

    def _send(self, data: bytes, *, broken: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, data, broken=broken)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        about = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self._answer(206, data[first : last + 1], about, broken=broken)

    def _answer(
        self, status: int, data: bytes, headers: Mapping[str, str] = MappingProxyType({}), *, broken: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if broken else data)
        self.close_connection = broken

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class StoreError(Exception):
    """As botocore raises: what the service answered lies in `response`."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}


CODES = {
    "403": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "503": (503, "SlowDown"),
    "404": (404, "NoSuchKey"),
}


class FaultyStore(AsyncFileSystem):  # type: ignore[misc]
    """An object store `faulty://bucket/key` whose errors come as s3fs hands them on; faults as of `FaultyServer`."""

    protocol = STORE
    objects: ClassVar[dict[str, bytes]] = {}
    """`bucket/key` to bytes."""
    faults: ClassVar[dict[str, list[str]]] = {}
    requests: ClassVar[Counter[str]] = Counter()

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.requests[path] += 1
        await self._fail(path)
        return self.objects[path][start:end]

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if path in self.objects:
            return {"name": path, "type": "file", "size": len(self.objects[path])}
        if any(name.startswith(f"{path}/") for name in self.objects):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        path = self._strip_protocol(path)
        await self._fail(f"{path}/", listed=True)
        below = {name.removeprefix(f"{path}/").split("/")[0] for name in self.objects if name.startswith(f"{path}/")}
        found = [await self._info(f"{path}/{name}") for name in sorted(below)] or [await self._info(path)]
        return found if detail else [one["name"] for one in found]

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> "_StoredFile":
        return _StoredFile(self, path, mode, size=self.info(path)["size"])

    async def _fail(self, path: str, *, listed: bool = False) -> None:
        fault = _take(self.faults, path)
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "refused":
            raise ConnectionRefusedError(111, "Connection refused")
        status, code = CODES.get(fault) or ((0, "") if listed or path in self.objects else (404, "NoSuchKey"))
        if status:
            kinds = {403: PermissionError, 400: PermissionError, 404: FileNotFoundError}
            raise kinds.get(status, OSError)(code) from StoreError(status, code)


class _StoredFile(AbstractBufferedFile):  # type: ignore[misc]
    """An object, read by ranges."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return data


def register_store() -> type[FaultyStore]:
    """The object store, empty, known to fsspec."""
    fsspec.register_implementation(STORE, FaultyStore, clobber=True)
    for known in (FaultyStore.objects, FaultyStore.faults, FaultyStore.requests):
        known.clear()  # type: ignore[attr-defined]
    return FaultyStore


def draw_picture(rng: np.random.Generator, *, width: int = 160, height: int = 120) -> bytes:
    """A JPEG of shapes on a gradient; pictures that follow each other are not alike."""
    low, high = rng.uniform(0, 255, (2, 3))
    ramp = np.linspace(0, 1, width if rng.random() < 0.5 else height)
    slope = ramp[None, :, None] if len(ramp) == width else ramp[:, None, None]
    ground = np.broadcast_to(low + (high - low) * slope, (height, width, 3))
    picture = Image.fromarray(np.clip(ground + rng.normal(0, 4, ground.shape), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(14):
        x, y, w, h = rng.uniform(-20, width), rng.uniform(-20, height), *rng.uniform(8, 70, 2)
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape((x, y, x + w, y + h), fill=tuple(int(value) for value in rng.integers(0, 256, 3)))
    file = io.BytesIO()
    picture.save(file, "JPEG")
    return file.getvalue()
