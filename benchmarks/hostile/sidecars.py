"""What lies beside pictures and describes them: whatever it holds, the pictures stay."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.hostile.archives import SECRET
from benchmarks.hostile.case import NUM_GOOD, Case, put_good, rng_of, run

Put = Callable[[Path], object]


def cases(seed: int) -> Iterator[Case]:
    """Good pictures in a folder, with such files beside them."""
    for name, put in {**_texts(seed), **_jsons(), **_metadata(seed), **_links()}.items():
        # A Parquet file that describes nothing may also be one of images, so a run may ask which to read.
        exits = frozenset({0, 1}) if name.startswith("metadata.parquet") else frozenset({0})
        make = partial(_beside, put, seed)
        yield Case(name, make, exits=exits, said=("metadata.parquet",), good=NUM_GOOD, secret=SECRET)


def _beside(put: Put, seed: int, folder: Path) -> list[list[str]]:
    put_good(folder / "pool", seed)
    put(folder / "pool")
    return [run(folder, folder / "pool")]


def _file(name: str, data: bytes) -> Put:
    return lambda pool: (pool / name).write_bytes(data)


def _texts(seed: int) -> dict[str, Put]:
    texts = {
        "of 3 MB": b"caption " * (3 << 17),
        "of 20 MB": b"caption " * (20 << 17),
        "of zeros": bytes(10_000),
        "of garbage": rng_of(seed, "caption").bytes(10_000),
        "of half an emoji": b"\xed\xa0\xbd",
        "in UTF-16": "caption".encode("utf-16"),
        "with control characters": b"\x1b[2J\x1b]0;owned\x07\x9b",
        "with markup": b"<script>hostile</script><img src=x onerror=hostile()>",
        "with 100,000 accents": "e\u0301".encode() * 100_000,
        "that is empty": b"",
    }
    found = {f"caption {name}": _file("good-0.txt", text) for name, text in texts.items()}
    labels = {"of 1 MB": b"9" * (1 << 20), "of 10^400": b"1" + b"0" * 400, "NaN": b"nan", "of garbage": b"\xff\0"}
    found |= {f"label {name}": _file("good-0.cls", text) for name, text in labels.items()}
    return found


def _keys(number: int, start: int = 0) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % n for n in range(start, start + number)) + b"}"


def _jsons() -> dict[str, Put]:
    texts = {
        "10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "of a million brackets": b"[" * 10**6,
        "of 200,000 keys": _keys(200_000),
        "with a key of 1 MB": b'{"' + b"k" * (1 << 20) + b'": 1}',
        "with an empty key": b'{"": 1, " ": 2, "\\u0000": 3}',
        "with keys twice": b'{"a": 1, "a": [2], "A": 3}',
        "with an integer of 100,000 digits": b'{"a": ' + b"9" * 100_000 + b"}",
        "with 1e400 and NaN": b'{"a": 1e400, "b": NaN, "c": -Infinity}',
        "with half an emoji": b'{"a": "\\ud83d", "\\ud83d": 1}',
        "with our names": b'{"image_id": 1, "sha256": "x", "reject": "x", "key": "x", "extra": {}, "image": "x"}',
        "with control characters": b'{"\\u001b[2J": "\\u001b[2J\\u009b"}',
        "with markup": b'{"<script>hostile": "<script>hostile"}',
        "that is a list": b"[1, 2]",
        "that is a text": b'"caption"',
        "of other types": b'{"caption": {"a": [1, {"b": null}]}, "label": [[]], "url": {}}',
        "with a list of 500,000 numbers": b'{"a": [' + b"1," * 499_999 + b"1]}",
        "in UTF-16": '{"a": 1}'.encode("utf-16"),
        "cut": b'{"a": "b',
        "of 2 MB of blanks": b" " * (2 << 20) + b"{}",
        "with code": b'{"__class__": "os", "__reduce__": ["os.system", "touch hostile"]}',
    }
    found = {f"JSON {name}": _file("good-0.json", text) for name, text in texts.items()}
    found["JSON of 60,000 other keys for each picture"] = _each(lambda n: _keys(60_000, 60_000 * n))
    return found


def _each(text: Callable[[int], bytes]) -> Put:
    def put(pool: Path) -> None:
        for number in range(NUM_GOOD):
            (pool / f"good-{number}.json").write_bytes(text(number))

    return put


def _metadata(seed: int) -> dict[str, Put]:
    head, row = b"file_name,caption\n", b"good-0.jpg,a\n"
    columns = b"file_name," + b",".join(b"c%d" % n for n in range(240_000))
    tables = {
        "csv of 240,000 columns": columns + b"\ngood-0.jpg," + b"," * 239_999 + b"\n",
        "csv of 5,000 columns with values": b"file_name,"
        + b",".join(b"c%d" % n for n in range(5_000))
        + b"\ngood-0.jpg,"
        + b",".join([b"v"] * 5_000)
        + b"\n",
        "csv that names other files": head + b"../../../../etc/passwd,a\n/etc/passwd,b\nC:\\x,c\n" + row,
        "csv with zeros": head + b"\0\0,\0\n" + row,
        "csv with a quotation mark that is never closed": head + b'"good-0.jpg,a\n' + row * 1000,
        "csv with a line of 4 MB": head + b"x" * (4 << 20) + b"\n" + row,
        "csv with a cell of 4 MB": head + b"good-0.jpg," + b"x" * (4 << 20) + b"\n",
        "csv with a mark of its order": b"\xef\xbb\xbf" + head + row,
        "csv in UTF-16": (head + row).decode().encode("utf-16"),
        "csv in UTF-16 that ends in the middle": (head + row).decode().encode("utf-16")[:-1],
        "csv with columns twice": b"file_name,a,a,file_name\ngood-0.jpg,1,2,good-1.jpg\n",
        "csv of its first line": head,
        "csv of nothing": b"",
        "csv of garbage": rng_of(seed, "csv").bytes(100_000),
        "csv of 200,000 rows": head + b"other.jpg,x\n" * 200_000 + row,
        "csv with rows of the same name": head + row * 50_000,
        "csv with our names": b"file_name,image_id,sha256,reject,key,extra\ngood-0.jpg,1,x,x,x,x\n",
        "csv with control characters": b"file_name,\x1b[2J\ngood-0.jpg,\x1b[2J\n",
        "csv with carriage returns": b"file_name,caption\rgood-0.jpg,a\r",
        "jsonl 10,000 deep": b'{"file_name": "good-0.jpg", "a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n",
        "jsonl of 100,000 keys": b'{"file_name": "good-0.jpg", ' + _keys(100_000)[1:] + b"\n",
        "jsonl with a line of 4 MB": b'{"file_name": "good-0.jpg", "a": "' + b"x" * (4 << 20) + b'"}\n',
        "jsonl with NaN": b'{"file_name": "good-0.jpg", "a": NaN}\n',
        "jsonl of lists": b"[]\n1\nnull\n" * 1000,
        "jsonl of other types": b'{"file_name": ["good-0.jpg"]}\n{"file_name": 7}\n',
        "jsonl of garbage": rng_of(seed, "jsonl").bytes(100_000),
        "parquet of garbage": b"PAR1" + rng_of(seed, "parquet").bytes(10_000) + b"PAR1",
    }
    return {f"metadata.{name}": _file(f"metadata.{name.split()[0]}", data) for name, data in tables.items()}


def _links() -> dict[str, Put]:
    def link(name: str, target: str) -> Put:
        return lambda pool: (pool / name).symlink_to(target)

    def pipe(name: str) -> Put:
        return lambda pool: os.mkfifo(pool / name)

    return {
        "caption that is a link out": link("good-0.txt", "/etc/passwd"),
        "JSON that is a link to /dev/zero": link("good-0.json", "/dev/zero"),
        "caption that is a pipe": pipe("good-0.txt"),
        "metadata.csv that is a pipe": pipe("metadata.csv"),
        "metadata.parquet that is a link out": link("metadata.parquet", "/etc/passwd"),
        "caption that is a folder": lambda pool: (pool / "good-0.txt").mkdir(),
        "metadata.csv that is a folder": lambda pool: (pool / "metadata.csv").mkdir(),
    }
