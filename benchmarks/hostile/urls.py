"""Tables of URLs and lists: of servers that misbehave, of addresses that must not be asked, and damaged themselves."""

import gzip
import io
import json
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile.archives import SECRET
from benchmarks.hostile.case import ANY, DAMAGED, GONE, GOOD, NUM_GOOD, Case, put_good, rng_of, run
from benchmarks.hostile.server import WEB, Hosts, web_pages
from curate.sources.config import Source

EITHER = frozenset({0, 1})
QUICK = (
    "sources.network.attempts=2",
    "sources.network.first_wait=0.01",
    "sources.network.longest_wait=0.5",
    "sources.network.connect=2",
    "sources.network.stall=2",
    "sources.network.picture=4",
    "sources.network.connections_per_host=32",
    "inspect.limits.max_bytes=4000000",
)
"""Waits that suit a server on this machine."""
SAID = "hostile-s3cret"
"""A password and a signature in URLs."""


def server_cases(seed: int, hosts: Hosts) -> Iterator[Case]:
    """What a server may do wrong, all in one run: what one does must not cost the others."""
    named = sorted(path for path in web_pages(seed, lambda: "") if not path.startswith("/good"))
    good = [f"/good-{number}.jpg" for number in range(NUM_GOOD)]
    verdicts = {f"t.csv#{row}": _verdicts(path) for row, path in enumerate(named)}
    verdicts |= {f"t.csv#{row}": GOOD for row in range(len(named), len(named) + len(good))}
    text = "\n".join(["url", *(hosts.web.url + path for path in [*named, *good]), ""])
    make = partial(_table, "t.csv", text.encode())
    yield Case(
        "a server that does all of it",
        make,
        verdicts=verdicts,
        untouched=lambda: not hosts.asked(),
        inputs=len(named),
        secret=SECRET,
    )
    for path in ("/good-0.jpg", "/body-without-end", "/redirect-to-a-private-one", "/gzip-bomb"):
        url = hosts.web.url + path
        make = partial(_source, url)
        yield Case(f"{path[1:]} as the source", make, exits=EITHER, good=None, untouched=lambda: not hosts.asked())


_TAKEN = {
    "/chunked": GOOD,
    "/gzip": GOOD,
    "/redirect-to-a-good-one": GOOD,
    "/no-length": GOOD,
    "/longer-than-it-says": ANY,
    "/status-206": ANY | GONE,
    "/http-0.9": ANY | GONE,
    "/10000-headers": ANY | GONE,
    "/header-of-1-MB": ANY | GONE,
    "/trailers-without-end": ANY | GONE,
    "/length-negative": ANY | GONE,
    "/length-of-garbage": ANY | GONE,
    "/length-of-10-30": GONE | {"too_large"},
    "/length-twice": ANY | GONE,
    "/encoding-unknown": ANY | GONE,
    "/gzip-of-garbage": ANY | GONE,
    "/body-without-end": GONE | {"too_large"},
    "/body-of-a-terabyte": GONE | {"too_large"},
    "/chunks-without-end": GONE | {"too_large"},
    "/chunk-of-2-70": GONE | {"too_large"},
    "/gzip-cut": GONE | DAMAGED,
    "/gzip-bomb": GONE | {"too_large"},
    "/gzip-bomb-twice": GONE | {"too_large", "not_an_image"},
    "/html": frozenset({"not_an_image"}),
    "/empty": frozenset({"empty"}),
    "/status-204": GONE | {"empty"},
}


def _verdicts(path: str) -> frozenset[str]:
    if path.startswith("/status-5") or path in ("/status-408", "/status-425", "/status-429"):
        return frozenset({"unavailable"})
    if path in ("/status-404", "/status-410", "/status-403", "/status-401"):
        return frozenset({"unreadable"})
    return _TAKEN.get(path, GONE)


def _table(name: str, data: bytes, folder: Path) -> list[list[str]]:
    (folder / name).write_bytes(data)
    return [run(folder, _allowed(folder / name, private=(WEB,)), *QUICK)]


def _source(url: str, folder: Path) -> list[list[str]]:
    return [run(folder, _allowed(url), *QUICK)]


def _allowed(path: Path | str, private: tuple[str, ...] = ()) -> str:
    """A source whose URLs may lead to private addresses, as its setting has it."""
    known = "private_addresses" in Source.model_fields
    allowed = f", private_addresses: [{', '.join(private)}]" if known and private else ""
    return f"{{name: pool, path: '{path}'{allowed}}}"


# -- addresses that must not be asked ----------------------------------------


def address_cases(seed: int, hosts: Hosts) -> Iterator[Case]:
    """Rows of a table, and lines of a list, that lead where a stranger must not lead."""
    addresses = _addresses(hosts)
    rows = [hosts.web.url + f"/good-{number}.jpg" for number in range(NUM_GOOD)]
    for name, url in addresses.items():
        good = {f"t.jsonl#{row}": GOOD for row in range(NUM_GOOD)}
        verdicts = {**good, f"t.jsonl#{NUM_GOOD}": GONE}
        data = "".join(f'{{"url": {json.dumps(one)}}}\n' for one in [*rows, url]).encode()
        make = partial(_table, "t.jsonl", data)
        yield Case(f"{name} in a table", make, verdicts=verdicts, untouched=lambda: not hosts.asked(), secret=SAID)
    for name, url in addresses.items():
        if "\n" in url or "\0" in url:
            continue
        make = partial(_list, f"{url}\n".encode(errors="surrogateescape"), seed)
        yield Case(
            f"{name} in a list",
            make,
            exits=EITHER,
            good=NUM_GOOD,
            accepted=NUM_GOOD,
            untouched=lambda: not hosts.asked(),
            secret=SAID,
        )
    signed = (
        f"{hosts.web.url}/good-0.jpg?X-Amz-Signature={SAID}&X-Amz-Credential={SAID}&X-Goog-Signature={SAID}&sig={SAID}"
    )
    make = partial(_table, "t.csv", f"url\n{signed}\n".encode())
    yield Case("a signed URL in a table", make, verdicts={"t.csv#0": GOOD}, secret=SAID)


def _addresses(hosts: Hosts) -> dict[str, str]:
    port = hosts.guarded.port
    number = int.from_bytes(socket.inet_aton(hosts.guarded.host), "big")
    places = {
        "a private address": hosts.guarded.host,
        "one as a number": str(number),
        "one in hexadecimal": hex(number),
        "one in octal": "0177.0.0.02",
        "a short one": "127.2",
        "one within IPv6": f"[::ffff:{hosts.guarded.host}]",
        "one within IPv6 in hexadecimal": "[::ffff:7f00:2]",
        "one by NAT64": "[64:ff9b::7f00:2]",
        "one with full-width digits": "\uff11\uff12\uff17.0.0.2",
    }
    found = {name: f"http://{place}:{port}/secret.jpg" for name, place in places.items()}
    found |= {
        "one with a password": f"http://user:{SAID}@{hosts.guarded.host}:{port}/secret.jpg",
        "one behind an allowed name": f"http://{WEB}@{hosts.guarded.host}:{port}/secret.jpg",
        "the metadata of a cloud": "http://169.254.169.254/latest/meta-data/",
        "loopback of IPv6": f"http://[::1]:{port}/secret.jpg",
        "no address": "http:///secret.jpg",
        "no closing bracket": "http://[::1/secret.jpg",
        "a port of 99999": "http://127.0.0.2:99999/secret.jpg",
        "a line end in a URL": f"http://127.0.0.2:{port}/a\r\nX-A: b",
        "a zero in a URL": f"http://127.0.0.2:{port}/a\0b",
        "a URL of 100 kB": f"http://127.0.0.2:{port}/" + "a" * 100_000,
        "a file by URL": "file:///etc/passwd",
        "a file of a host": "file://127.0.0.2/etc/passwd",
        "a zip on the web": f"zip://secret.jpg::http://127.0.0.2:{port}/a.zip",
        "a cache of a URL": f"simplecache::http://127.0.0.2:{port}/secret.jpg",
        "memory": "memory://secret.jpg",
        "gopher": f"gopher://127.0.0.2:{port}/secret.jpg",
        "ftp": f"ftp://127.0.0.2:{port}/secret.jpg",
        "data": "data:image/png;base64,AAAA",
        "a script": "javascript:alert(1)",
        "a bucket with a password": f"s3://key:{SAID}@bucket/secret.jpg",
        "an unknown protocol": "hostile://secret.jpg",
        "an escape sequence": "http://127.0.0.2/\x1b[2J\x1b]0;owned\x07",
    }
    return found


# -- lists ----------------------------------------


def list_cases(seed: int) -> Iterator[Case]:
    """Lists whose lines lead to what is no picture, or that are no lists."""
    for name, (line, rest) in _lines().items():
        make = partial(_list, line, seed)
        yield Case(name, make, exits=EITHER, good=NUM_GOOD, accepted=NUM_GOOD, rest=rest, secret=SECRET)
    for name, data in _whole_lists(seed).items():
        yield Case(name, partial(_only, data, seed), exits=EITHER, said=("list.txt",), good=None, secret=SECRET)
    special: dict[str, Callable[[str], object]] = {
        "a pipe": os.mkfifo,
        "a link to /dev/zero": partial(os.symlink, "/dev/zero"),
    }
    for name, make_special in special.items():
        yield Case(f"{name} for a list", partial(_no_list, make_special), exits=frozenset({1}), said=("list.txt",))


def _lines() -> dict[str, tuple[bytes, frozenset[str]]]:
    rest = ANY | GONE
    found = {
        "/dev/zero": b"/dev/zero",
        "/dev/stdin": b"/dev/stdin",
        "/dev/tty": b"/dev/tty",
        "/proc/self/mem": b"/proc/self/mem",
        "/proc/kmsg": b"/proc/kmsg",
        "a file of the system": b"/etc/passwd",
        "a file by URL": b"file:///etc/passwd",
        "a file by URL of this host": b"file://localhost/etc/passwd",
        "a file by another URL": b"local:///etc/passwd",
        "a file by steps up": b"../" * 40 + b"etc/passwd",
        "a pipe": b"pipe",
        "a pipe by URL": b"file://{here}/pipe",
        "a device by URL": b"file:///dev/zero",
        "a line of 1 MB": b"a" * (1 << 20),
        "a line of 300 kB of slashes": b"/" * 300_000,
        "zeros": b"a\0b\0",
        "bytes of no UTF-8": b"\xff\xfe\xfd",
        "escape sequences": b"\x1b[2J\x1b]0;owned\x07",
        "a home": b"~/.ssh/id_rsa",
        "a variable": b"$HOME/x.jpg",
        "a pattern": b"/etc/*",
        "braces": b"/etc/{passwd,group}",
        "the list itself": b"list.txt",
        "a share": b"\\\\host\\share\\x.jpg",
        "a drive": b"C:\\x.jpg",
        "5,000 lines of nothing": b"\n".join(b"%d.jpg" % n for n in range(5_000)),
        "a million empty lines": b"\n" * 1_000_000,
        "lines of all ends": b"a.jpg\r\nb.jpg\rc.jpg\x0b\x0cd.jpg",
        "a folder of the system": b"/proc/self/fdinfo",
        "a file name of 300 letters": b"n" * 300 + b".jpg",
    }
    return {name: (line, rest) for name, line in found.items()}


def _whole_lists(seed: int) -> dict[str, bytes]:
    names = "".join(f"pool/good-{number}.jpg\n" for number in range(NUM_GOOD))
    return {
        "in UTF-16": names.encode("utf-16"),
        "in UTF-16 without a mark": names.encode("utf-16-le"),
        "in UTF-32": names.encode("utf-32"),
        "in UTF-16 that ends in the middle": names.encode("utf-16")[:-1],
        "with a mark of its order": b"\xef\xbb\xbf" + names.encode(),
        "empty": b"",
        "of zeros": bytes(1 << 20),
        "of garbage": rng_of(seed, "list").bytes(1 << 16),
        "of HTML": b"<!DOCTYPE html><body>" + names.encode(),
        "of JSON": b'["a.jpg"]',
        "of a picture": b"\xff\xd8\xff\xe0" + bytes(100),
        "compressed": gzip.compress(names.encode()),
    }


def _list(line: bytes, seed: int, folder: Path) -> list[list[str]]:
    put_good(folder / "pool", seed)
    os.mkfifo(folder / "pipe")
    good = b"".join(b"pool/good-%d.jpg\n" % number for number in range(NUM_GOOD))
    (folder / "list.txt").write_bytes(good + line.replace(b"{here}", os.fsencode(folder)) + b"\n")
    return [run(folder, folder / "list.txt", *QUICK)]


def _only(data: bytes, seed: int, folder: Path) -> list[list[str]]:
    put_good(folder / "pool", seed)
    (folder / "list.txt").write_bytes(data)
    return [run(folder, folder / "list.txt")]


def _no_list(make: Callable[[str], object], folder: Path) -> list[list[str]]:
    make(str(folder / "list.txt"))
    return [run(folder, folder / "list.txt")]


# -- tables of URLs that are damaged ----------------------------------------


def table_cases(seed: int, hosts: Hosts) -> Iterator[Case]:
    """Two good rows before what is wrong and two behind it."""
    urls = [hosts.web.url + f"/good-{number}.jpg" for number in range(NUM_GOOD)]
    for name, (suffix, data, accepted) in _text_tables(urls, seed).items():
        file = f"t{suffix}"
        exits = EITHER if accepted is None else frozenset({0})
        yield Case(name, partial(_table, file, data), exits=exits, said=(file,), good=None, accepted=accepted)
    for name, table in _url_tables(urls).items():
        data = _parquet(table)
        yield Case(name, partial(_table, "t.parquet", data), exits=EITHER, said=("t.parquet",), good=None)


def _text_tables(urls: list[str], seed: int) -> dict[str, tuple[str, bytes, int | None]]:
    first, last = (("\n".join(half) + "\n").encode() for half in (urls[:2], urls[2:]))
    objects = [b'{"url": "%s"}\n' % url.encode() for url in urls]
    before, behind = b"".join(objects[:2]), b"".join(objects[2:])

    def csv(middle: bytes, head: bytes = b"url,caption\n") -> bytes:
        return head + first + middle + last

    many = b",".join(b"c%d" % n for n in range(240_000))
    found: dict[str, tuple[str, bytes, int | None]] = {
        "csv with zeros": (".csv", csv(b"\0\0\0,\0\n"), 4),
        "csv with a quotation mark that is never closed": (".csv", csv(b'"http://x,a\n'), 4),
        "csv with 5,000 of them": (".csv", csv(b'"http://x,a\n' * 5_000), 4),
        "csv with a line of 4 MB": (".csv", csv(b"x" * (4 << 20) + b"\n"), 4),
        "csv with a cell of 200 kB": (".csv", csv(b"http://[x," + b"c" * 200_000 + b"\n"), 4),
        "csv with a cell of many lines": (".csv", csv(b'http://[x,"' + b"\n" * 100_000 + b'"\n'), 4),
        "csv with a row of 100,000 cells": (".csv", csv(b"http://[x" + b"," * 100_000 + b"\n"), 4),
        "csv with bytes of no UTF-8": (".csv", csv(b"\xff\xfe,\x80\n"), 4),
        "csv with a mark of its order": (".csv", b"\xef\xbb\xbf" + csv(b""), 4),
        "csv in UTF-16": (".csv", csv(b"").decode().encode("utf-16"), None),
        "csv of 240,000 columns": (".csv", csv(b"", b"url," + many + b"\n"), None),
        "csv with columns twice": (".csv", csv(b"", b"url,a,a,url\n"), 4),
        "csv with control characters": (".csv", csv(b"http://[x,\x1b[2J\x9b\n", b"url,\x1b[2J\n"), 4),
        "csv with markup": (".csv", csv(b"http://[x,<script>hostile</script>\n", b"url,<script>hostile\n"), 4),
        "csv without a column of URLs": (".csv", csv(b"", b"a,b\n"), None),
        "csv of its first line": (".csv", b"url\n", None),
        "csv of nothing": (".csv", b"", None),
        "csv of garbage": (".csv", rng_of(seed, "csv").bytes(100_000), None),
        "csv of 3,000 rows without a URL": (".csv", csv(b"no URL,x\n" * 3_000), 4),
        "csv of a million empty lines": (".csv", csv(b"\n" * 1_000_000), 4),
        "csv that is compressed": (".csv", gzip.compress(csv(b"")), None),
        "csv with carriage returns": (".csv", csv(b"").replace(b"\n", b"\r"), None),
        "tsv with quotation marks": (".tsv", csv(b'"a"b"\tc\n', b"url\tcaption\n"), 4),
        "jsonl 10,000 deep": (".jsonl", before + b'{"a": ' * 10_000 + b"}" * 10_000 + b"\n" + behind, 4),
        "jsonl of lists": (".jsonl", before + b"[]\n1\nnull\n" + behind, 4),
        "jsonl with NaN": (".jsonl", before + b'{"url": NaN}\n' + behind, 4),
        "jsonl with keys twice": (".jsonl", before + b'{"url": 1, "url": [2]}\n' + behind, 4),
        "jsonl with a line of 4 MB": (".jsonl", before + b'{"url": "' + b"x" * (4 << 20) + b'"}\n' + behind, 4),
        "jsonl of 100,000 keys": (
            ".jsonl",
            before + b"{" + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}\n" + behind,
            4,
        ),
        "jsonl of garbage": (
            ".jsonl",
            before + rng_of(seed, "jsonl").bytes(10_000).replace(b"\n", b"") + b"\n" + behind,
            4,
        ),
        "jsonl with zeros": (".jsonl", before + bytes(1000) + b"\n" + behind, 4),
        "jsonl in UTF-16": (".jsonl", (before + behind).decode().encode("utf-16"), None),
        "jsonl cut": (".jsonl", before + behind + b'{"url": "htt', 4),
        "jsonl with half an emoji": (".jsonl", before + b'{"url": "http://x/\\ud83d"}\n' + behind, 4),
    }
    return found


def _url_tables(urls: list[str]) -> dict[str, pa.Table]:
    texts = pa.array(urls)
    invalid = pa.array([b"\xff\xfe"] * 4, pa.binary())
    return {
        "parquet of numbers for URLs": pa.table({"url": [1, 2]}),
        "parquet of lists of URLs": pa.table({"url": [urls]}),
        "parquet of nulls for URLs": pa.table({"url": pa.array([None, None], pa.string())}),
        "parquet of URLs of no UTF-8": pa.table({"url": pa.Array.from_buffers(pa.string(), 4, invalid.buffers())}),
        "parquet of URLs twice": pa.Table.from_arrays([texts, texts], ["url", "url"]),
        "parquet of URLs in a dictionary": pa.table({"url": texts.dictionary_encode()}),
        "parquet of URLs with texts of 5 MB": pa.table({"url": texts, "caption": ["c" * (5 << 20)] * 4}),
        "parquet of URLs with 5,000 columns": pa.table({"url": texts, **{f"c{n}": [n] * 4 for n in range(5_000)}}),
    }


def _parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()
