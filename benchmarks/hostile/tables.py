"""Parquet files of images: damaged, of odd types, with columns and values that nothing honest holds."""

import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile.case import GONE, NUM_GOOD, Case, good_pictures, rng_of, run

EITHER, FAILS = frozenset({0, 1}), frozenset({1})
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FILE = "t.parquet"


def cases(seed: int) -> Iterator[Case]:
    """Each as the table of a folder, its good pictures with names as those of a dataset."""
    whole = parquet(good_table(seed))
    for name, data in _damaged(whole, seed).items():
        yield Case(name, partial(_table, data), exits=EITHER, said=(FILE,), good=None)
    for name, column in _image_columns(seed).items():
        yield Case(name, partial(_images, column), exits=EITHER, said=(FILE,), good=None)
    for name, columns in _own_columns().items():
        exits = EITHER if name.endswith("50 deep") else frozenset({0})  # Arrow reads no deeper
        yield Case(name, partial(_with_columns, columns, seed), exits=exits, said=(FILE,), good=NUM_GOOD)
    for name, row in _rows().items():
        verdicts = GONE | {"not_an_image", "empty", "too_large"}
        yield Case(
            name,
            partial(_with_row, row, seed),
            exits=EITHER,
            said=(FILE,),
            good=NUM_GOOD,
            accepted=NUM_GOOD,
            rest=verdicts,
        )
    for name, metadata in _metadata().items():
        yield Case(name, partial(_with_metadata, metadata, seed), exits=EITHER, said=(FILE,), good=NUM_GOOD)


def parquet(table: pa.Table, **how: Any) -> bytes:
    """The file of a table."""
    file = io.BytesIO()
    pq.write_table(table, file, **how)
    return file.getvalue()


def good_table(seed: int, number: int = NUM_GOOD) -> pa.Table:
    """A table of good pictures."""
    cells = [{"bytes": data, "path": name} for name, data in good_pictures(seed, number)]
    return pa.table({"image": pa.array(cells, IMAGE)})


def _table(data: bytes, folder: Path) -> list[list[str]]:
    (folder / "pool").mkdir()
    (folder / "pool" / FILE).write_bytes(data)
    return [run(folder, folder / "pool")]


def _written(table: pa.Table, folder: Path) -> list[list[str]]:
    return _table(parquet(table), folder)


# -- files that are damaged ----------------------------------------


def _damaged(whole: bytes, seed: int) -> dict[str, bytes]:
    length = int.from_bytes(whole[-8:-4], "little")
    footer = len(whole) - 8 - length
    found = {
        "cut at a half": whole[: len(whole) // 2],
        "cut in the footer": whole[:-20],
        "without the last byte": whole[:-1],
        "magic alone": b"PAR1",
        "magic twice": b"PAR1PAR1",
        "empty": b"",
        "text": b"no table\n" * 100,
        "footer of 2^31 bytes": whole[:-8] + struct.pack("<I", 2**31) + b"PAR1",
        "footer of no bytes": whole[:-8] + struct.pack("<I", 0) + b"PAR1",
        "footer of the whole file": whole[:-8] + struct.pack("<I", len(whole) - 8) + b"PAR1",
        "footer of zeros": whole[:footer] + bytes(length) + whole[-8:],
        "footer of 0xff": whole[:footer] + b"\xff" * length + whole[-8:],
        "encrypted": whole[:-4] + b"PARE",
        "twice": whole + whole,
        "4 MB of zeros in front": whole[:4] + bytes(4 << 20) + whole[4:],
    }
    rng = rng_of(seed, "footers")
    for number in range(12):
        at = int(rng.integers(footer, len(whole) - 8))
        found[f"byte {number} of the footer flipped"] = _flipped(whole, at, rng)
    for number in range(6):
        at = int(rng.integers(4, footer))
        found[f"byte {number} of the pages flipped"] = _flipped(whole, at, rng)
    return found


def _flipped(data: bytes, at: int, rng: np.random.Generator) -> bytes:
    return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]


# -- columns of images ----------------------------------------


def _image_columns(seed: int) -> dict[str, Callable[[], pa.Table]]:
    data = [data for _, data in good_pictures(seed)]

    def of(values: list[Any], dtype: pa.DataType) -> Callable[[], pa.Table]:
        return lambda: pa.table({"image": pa.array(values, dtype)})

    return {
        "images of text": of(["a.jpg"] * 4, pa.string()),
        "images of numbers": of([1, 2], pa.int64()),
        "images of nulls": of([None, None], pa.null()),
        "images in lists": of([data[:2], data[2:]], pa.list_(pa.binary())),
        "images in lists of structs": of([[{"bytes": data[0], "path": None}]], pa.list_(IMAGE)),
        "struct without bytes": of([{"path": "/etc/passwd"}], pa.struct([("path", pa.string())])),
        "struct whose bytes are text": of([{"bytes": "x"}], pa.struct([("bytes", pa.string())])),
        "struct whose path is a number": of(
            [{"bytes": data[0], "path": 7}], pa.struct([("bytes", pa.binary()), ("path", pa.int64())])
        ),
        "struct in a struct": of(
            [{"bytes": {"bytes": data[0]}}], pa.struct([("bytes", pa.struct([("bytes", pa.binary())]))])
        ),
        "bytes of a fixed length": of([d[:100] for d in data], pa.binary(100)),
        "bytes in a dictionary": lambda: pa.table({"image": pa.array(data, pa.binary()).dictionary_encode()}),
        "large bytes": of(data, pa.large_binary()),
        "bytes in a map": of([[("bytes", data[0])]], pa.map_(pa.string(), pa.binary())),
        "no columns": lambda: pa.table({}),
        "no rows": of([], IMAGE),
        "two columns of images": lambda: pa.table({"a": pa.array(data, pa.binary()), "b": pa.array(data, pa.binary())}),
        "5,000 columns of images": lambda: pa.table({f"c{n}": pa.array([b"x"], pa.binary()) for n in range(5_000)}),
        "the column twice": lambda: pa.Table.from_arrays([pa.array(data, pa.binary())] * 2, ["image", "image"]),
    }


def _images(make: Callable[[], pa.Table], folder: Path) -> list[list[str]]:
    return _written(make(), folder)


# -- other columns ----------------------------------------


OURS = ("image_id", "source", "role", "uri", "key", "sha256", "reject", "detail", "extra", "width", "pdq", "left_out")
"""Names of columns that tables of ours have."""


def _own_columns() -> dict[str, Callable[[int], Mapping[str, pa.Array]]]:
    """From the number of rows to columns beside the pictures."""

    def nested(depth: int, rows: int) -> Mapping[str, pa.Array]:
        dtype: pa.DataType = pa.int64()
        made: Any = 1
        for _ in range(depth):
            dtype, made = pa.list_(dtype), [made]
        return {"deep": pa.array([made] * rows, dtype)}

    def structs(rows: int) -> Mapping[str, pa.Array]:
        kind: pa.DataType = pa.int64()
        cell: Any = 1
        for depth in range(50):
            kind, cell = pa.struct([(f"s{depth}", kind)]), {f"s{depth}": cell}
        return {"deep": pa.array([cell] * rows, kind)}

    def invalid(rows: int) -> Mapping[str, pa.Array]:
        cells = pa.array([b"\xff\xfe \xed\xa0\x80"] * rows, pa.binary())
        return {"caption": pa.Array.from_buffers(pa.string(), rows, cells.buffers()), "\x1b[2J": pa.array([1] * rows)}

    def texts(length: int) -> Callable[[int], Mapping[str, pa.Array]]:
        return lambda rows: {"caption": pa.array(["c" * length] * rows)}

    def repeated(value: Any, dtype: pa.DataType) -> Callable[[int], Mapping[str, pa.Array]]:
        return lambda rows: {"own": pa.array([value] * rows, dtype)}

    return {
        "text cells of 5 MB": texts(5 << 20),
        "a text cell of 20 MB": lambda rows: {"caption": pa.array(["c" * (20 << 20)] + [""] * (rows - 1))},
        "5,000 columns": lambda rows: {f"c{n}": pa.array([n] * rows) for n in range(5_000)},
        "a column name of 1 MB": lambda rows: {"n" * (1 << 20): pa.array([1] * rows)},
        "an empty column name": lambda rows: {"": pa.array([1] * rows)},
        "column names of markup": lambda rows: {"<script>hostile": pa.array(["<script>hostile"] * rows)},
        "a column name of no UTF-8": invalid,
        "lists 30 deep": partial(nested, 30),
        "lists 50 deep": partial(nested, 50),
        "structs 50 deep": structs,
        "lists of a million numbers": repeated(list(range(1 << 18)), pa.list_(pa.int64())),
        "columns with our names": lambda rows: {name: pa.array(["hostile"] * rows) for name in OURS},
        "NaN and infinities": repeated(float("nan"), pa.float64()),
        "half floats": repeated(np.float16(1), pa.float16()),
        "decimals of 76 digits": repeated(10**75, pa.decimal256(76)),
        "times out of range": repeated(2**62, pa.timestamp("us")),
        "times in a zone that is none": lambda rows: {"t": pa.array([0] * rows, pa.timestamp("us", tz="UTC"))},
        "dates out of range": repeated(2**30, pa.date32()),
        "durations": repeated(2**62, pa.duration("s")),
        "maps with keys that repeat": repeated([("k", 1), ("k", 2)], pa.map_(pa.string(), pa.int64())),
        "text in a dictionary": lambda rows: {"d": pa.array(["a"] * rows).dictionary_encode()},
        "booleans and nulls": lambda rows: {"b": pa.array([None] * rows, pa.bool_()), "n": pa.nulls(rows)},
    }


def _with_columns(make: Callable[[int], Mapping[str, pa.Array]], seed: int, folder: Path) -> list[list[str]]:
    table = good_table(seed)
    for name, column in make(len(table)).items():
        table = table.append_column(name, column)
    return _written(table, folder)


# -- rows ----------------------------------------


def _rows() -> dict[str, dict[str, Any] | None]:
    return {
        "null image": None,
        "null bytes": {"bytes": None, "path": None},
        "path that leads to a file": {"bytes": None, "path": "/etc/passwd"},
        "path that leads out": {"bytes": None, "path": "../../../../etc/passwd"},
        "path that is a URL": {"bytes": None, "path": "http://169.254.169.254/latest/meta-data"},
        "no bytes": {"bytes": b"", "path": "x.jpg"},
        "a path of 1 MB": {"bytes": b"x", "path": "p" * (1 << 20)},
        "a path with a zero and a line end": {"bytes": b"x", "path": "a\0b\n\x1b[2J.jpg"},
        "a path of slashes": {"bytes": b"x", "path": "/" * 4096},
        "96 MB of zeros in a row": {"bytes": bytes(96 << 20), "path": "x.jpg"},
        "300 MB of zeros in a row": {"bytes": bytes(300 << 20), "path": "x.jpg"},
    }


def _with_row(row: dict[str, Any] | None, seed: int, folder: Path) -> list[list[str]]:
    table = pa.concat_tables([good_table(seed), pa.table({"image": pa.array([row], IMAGE)})])
    return _table(parquet(table, compression="zstd", use_dictionary=False), folder)


# -- metadata ----------------------------------------


def _metadata() -> dict[str, dict[bytes, bytes]]:
    names = {"info": {"features": {"own": {"_type": "ClassLabel", "names": ["\x1b[2J"] * 9}}}}
    many = {"info": {"features": {"own": {"_type": "ClassLabel", "names": [f"n{n}" for n in range(100_000)]}}}}
    wrong = {"info": {"features": {"own": {"_type": "ClassLabel", "names": 7}, "image": 9}}}
    return {
        "features of garbage": {b"huggingface": b"\xff\xfe\0"},
        "features 10,000 deep": {b"huggingface": b"[" * 10_000 + b"]" * 10_000},
        "features of 4 MB": {b"huggingface": b'"' + b"x" * (4 << 20) + b'"'},
        "features of other types": {b"huggingface": json.dumps(wrong).encode()},
        "class names with control characters": {b"huggingface": json.dumps(names).encode()},
        "100,000 class names": {b"huggingface": json.dumps(many).encode()},
        "metadata of pandas that is none": {b"pandas": b"{" * 100},
        "metadata of ours": {b"curate.stage": b"hostile", b"curate": b"{}", b"doc": b"\0"},
    }


def _with_metadata(metadata: dict[bytes, bytes], seed: int, folder: Path) -> list[list[str]]:
    table = good_table(seed).append_column("own", pa.array([0] * NUM_GOOD))
    return _written(table.replace_schema_metadata(metadata), folder)
