"""Pictures of a table of URLs from a server that takes its time, beside a plain thread pool that asks for each."""

import asyncio
import csv
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.engine.store import Store
from curate.sources.config import Source
from curate.sources.listing import list_source
from curate.sources.reading import read_bytes
from curate.surroundings import surrounded
from curate.tables import CATALOG

PEER = "urllib.request in a thread pool"


def bench_urls(num_images: int, *, kilobytes: int = 100, milliseconds: float = 50, width: int = 64) -> list[Figure]:
    """Pictures a second of reading a table with and without the object cache, of reading it again, and of the peer.

    Args:
        num_images: rows of the table.
        kilobytes: of each picture.
        milliseconds: before the server answers.
        width: connections, all to the one host; threads of the peer.
    """
    with tempfile.TemporaryDirectory() as folder, _served(kilobytes << 10, milliseconds / 1000) as (url, asked):
        table, run = f"{folder}/t.csv", f"{folder}/run"
        with Path(table).open("w", newline="") as file:
            csv.writer(file).writerows([["url"], *([f"{url}/{number}.jpg"] for number in range(num_images))])
        peer = measured(_ask_plainly, url, num_images, width)
        before = asked()
        fetched = measured(_read, table, None, width)
        kept = measured(_read, table, run, width)
        requests = (asked() - before) / (2 * num_images)
        again = measured(_read, table, run, width)
        if asked() - before != 2 * num_images or not fetched.result == kept.result == again.result == peer.result:
            raise RuntimeError("a picture was asked for twice, or did not come")
        loose = _figure("fetched, nothing kept", fetched, num_images, peer)
        cached = _figure("fetched and kept in the object cache", kept, num_images, peer)
        return [
            loose,
            cached,
            _figure("read again from the object cache", again, num_images, peer),
            Figure("requests a picture", requests, "", peer=PEER, peer_value=1.0, better="lower"),
        ]


def _figure(name: str, cost: Measured, num_images: int, peer: Measured) -> Figure:
    note = f"peak of the peer {peer.peak_bytes / 2**20:,.0f} MiB, its CPU {peer.cpu_seconds:.1f} s"
    rate, plain = num_images / cost.seconds, num_images / peer.seconds
    return Figure(
        name,
        rate,
        "pictures/s",
        peer=PEER,
        peer_value=plain,
        cpu_seconds=cost.cpu_seconds,
        peak_bytes=cost.peak_bytes,
        note=note,
    )


def _read(table: str, workdir: str | None, width: int) -> int:
    """Bytes of all pictures of a table."""
    source = Source(name="table", path=table, private_addresses=True)
    found = [{"source": "table", "role": "pool", **f._asdict()} for f in list_source(source)]
    rows = [row | {"image_id": number} for number, row in enumerate(found)]
    catalog = pa.Table.from_pylist([{n: row.get(n) for n in CATALOG.names} for row in rows], schema=CATALOG)
    settings = {"connections": width, "connections_per_host": width}
    with surrounded(workdir=None if workdir is None else Store(workdir), settings=settings):
        return sum(len(read.data or b"") for read in read_bytes(catalog, source))


def _ask_plainly(url: str, num_images: int, width: int) -> int:
    def ask(number: int) -> int:
        with urllib.request.urlopen(f"{url}/{number}.jpg", timeout=10) as answer:
            return len(answer.read())

    with ThreadPoolExecutor(width) as pool:
        return sum(pool.map(ask, range(num_images)))


@contextmanager
def _served(num_bytes: int, seconds: float) -> Iterator[tuple[str, "_Count"]]:
    """A server in a process of its own: its URL, and how often it was asked."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(theirs, num_bytes, seconds), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}", _Count(ours)
    finally:
        process.terminate()
        process.join()


class _Count:
    """How often a server was asked so far."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self) -> int:
        self._pipe.send(None)
        count: int = self._pipe.recv()
        return count


def _serve(pipe: Connection, num_bytes: int, seconds: float) -> None:
    asyncio.run(_serve_forever(pipe, num_bytes, seconds))


async def _serve_forever(pipe: Connection, num_bytes: int, seconds: float) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {num_bytes}\r\n\r\n".encode()
    answer, count = head + os.urandom(num_bytes), 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while asked := await reader.readuntil(b"\r\n\r\n"):
                count += 1
                await asyncio.sleep(seconds)
                writer.write(answer)
                await writer.drain()
                if b"connection: close" in asked.lower():
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def tell() -> None:
        pipe.recv()
        pipe.send(count)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
    pipe.send(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def command(
    num_images: Annotated[int, typer.Option("-n", help="pictures")] = 4000,
    kilobytes: Annotated[int, typer.Option(help="of each picture")] = 100,
    milliseconds: Annotated[float, typer.Option(help="before the server answers")] = 50,
    width: Annotated[int, typer.Option(help="connections to the server, and threads of the peer")] = 64,
    json_: Json = False,
) -> None:
    """Tables of URLs: pictures a second from a slow local server, requests and memory, beside a thread pool."""
    show(bench_urls(num_images, kilobytes=kilobytes, milliseconds=milliseconds, width=width), json_)
