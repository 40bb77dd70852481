"""Hostile data drawn by their structure: whatever a source holds, its rows come, or an error names it."""

import io
import json
import string
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from curate.sources.containers import find_listed
from curate.sources.sidecars import merge_sidecars
from curate.sources.values import LEFT_OUT, choose_columns
from tests.fuzz.properties import (
    check_list,
    check_parquet,
    check_picture,
    check_read,
    check_sidecars,
    check_source,
    check_tar,
)


def bounded(examples: int) -> settings:
    """So many examples, the same ones each time; a failing one is shown as found: shrinking could take minutes."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


ANY_TEXT = st.text(st.characters(), max_size=8)  # halves of surrogate pairs among them
GOOD_NAME = st.text(string.ascii_letters, min_size=1, max_size=5)
GOOD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(GOOD_NAME, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
"""Values that JSON holds."""
BAD = st.one_of(
    st.sampled_from([float("nan"), float("inf"), 1 << 300, -(1 << 9000), "\ud83d", ["a", "\udfff"], b"x", object()]),
    st.sampled_from([101, 600, 900]).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)
"""Values that it does not."""


@bounded(300)
@given(st.dictionaries(GOOD_NAME, GOOD, max_size=4), st.dictionaries(ANY_TEXT, BAD | GOOD, max_size=3))
def test_good_values_survive_any_others(good: dict[str, Any], others: dict[str, Any]) -> None:
    left_out: set[str] = set()
    chosen = choose_columns({**others, **good}, left_out) or {}
    assert left_out <= LEFT_OUT.keys()
    assert {name: chosen[name] for name in good} == good
    assert json.loads(json.dumps(chosen, ensure_ascii=False, allow_nan=False).encode()) == chosen


TOKENS = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\ud83d", b"\\u0000", b"1e999", b"NaN", b"null", b'"a":']
LONG_TOKENS = [b"[" * 150, b"]" * 150, b"9" * 5000, b'{"a":' * 99]
BROKEN_TEXT = [b"\xff", b"\xfe", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80"]
SNIPPETS = st.sampled_from([*TOKENS, *LONG_TOKENS, *BROKEN_TEXT])


@bounded(400)
@given(st.lists(SNIPPETS | st.binary(max_size=6), max_size=14).map(b"".join))
def test_any_bytes_beside_an_image_give_values_or_kinds(data: bytes) -> None:
    check_sidecars(data)


@bounded(150)
@given(st.dictionaries(GOOD_NAME, GOOD, max_size=4), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_json_of_good_values_is_what_was_written(values: dict[str, Any], encoding: str) -> None:
    data = json.dumps(values, ensure_ascii=False).encode(encoding)
    assert merge_sidecars({".json": data}, columns=None, where="x") == (values or None, ())


NAMES = st.text(st.characters(exclude_characters="\0\n\r/\\.", exclude_categories=["Cs"]), min_size=1, max_size=12)


@bounded(150)
@given(
    st.lists(NAMES.filter(lambda name: name.strip() == name and len(name.encode()) < 200), min_size=1, max_size=8),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_list_names_what_was_written(folder: Path, names: list[str], encoding: str, end: str) -> None:
    path = folder / "names.txt"
    path.write_bytes(("first.jpg" + end + end.join(names)).encode(encoding))
    assert [file.key for file in find_listed(str(path), skipped=Counter())] == ["first.jpg", *names]


@bounded(200)
@given(st.lists(SNIPPETS | st.sampled_from([b"a.jpg", b"\n", b"\r", b"a\0"]) | st.binary(max_size=6)).map(b"".join))
def test_any_bytes_are_a_list_or_are_refused_by_name(folder: Path, data: bytes) -> None:
    check_list(folder / "list.txt", data)


def archive(kind: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, data in (("a.jpg", b"x" * 600), ("a.json", b'{"n": 1}'), ("ü" * 120 + ".png", b"y"), ("b.txt", b"z")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()[:8192]


ARCHIVES = [archive(kind) for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
FIELDS = [(0, 100), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155), (483, 12)]
"""(start, length) within a header: name, size, time, type, link, magic, prefix, real size of a sparse file."""
VALUES = st.one_of(
    st.sampled_from(
        [
            b"\xff" * 12,
            b"\xff" * 10 + b"\xfe\0",
            b"\x80" + b"\x7f" * 11,
            b"\x80" + b"\0" * 10 + b"\x09",
            b"77777777777\0",
            b"-1\0",
        ]
    )
    | st.sampled_from([b"../a.jpg\0", b"/etc/passwd\0", b"\xff.jpg\0", b"a.jpg\0", b"\0", b"L", b"K", b"x", b"g", b"S"])
    | st.sampled_from([b"1", b"2", b"3", b"5", b"6", b"7", b"V", b"M", b"30 size=-5000\n", b"22 path=\xff\xff/../a\n"]),
    st.binary(min_size=1, max_size=12),
)


@bounded(1500)
@given(
    st.sampled_from(ARCHIVES),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4),
    st.integers(0, 8192) | st.just(8192),
)
def test_archive_with_any_headers_gives_rows_or_is_refused_by_name(
    folder: Path, data: bytes, changes: list[tuple[int, tuple[int, int], bytes]], length: int
) -> None:
    for block, (start, size), value in changes:
        at = block * tarfile.BLOCKSIZE + start
        data = data[:at] + value[:size] + data[at + len(value[:size]) :]
    check_tar(folder / "a.tar", data[:length])


def integers_as(dtype: pa.DataType) -> st.SearchStrategy[pa.Array]:
    """Any bits as a type: what a file claims of them, nothing has checked."""
    bits = dtype.bit_width
    whole = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return st.lists(whole, min_size=4, max_size=4).map(lambda v: pa.array(v, f"int{bits}").view(dtype))


def as_text(cells: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(cells), pa.array(cells, pa.binary()).buffers())


ZONES = ["UTC", "+05:30", "+99:99", "Mars/Olympus", "Europe/Berlin", "\0", ""]
TEXTS = st.lists(
    st.binary(max_size=6) | ANY_TEXT.map(lambda t: t.encode("utf-8", "surrogatepass")), min_size=4, max_size=4
)
PLAIN = st.one_of(
    TEXTS.map(as_text),
    TEXTS.map(lambda cells: as_text(cells).dictionary_encode()),
    st.sampled_from([pa.date32(), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.float32(), pa.float64()])
    .flatmap(integers_as),
    st.sampled_from(["ms", "us", "ns"]).flatmap(lambda unit: integers_as(pa.duration(unit))),
    st.tuples(st.sampled_from(["ms", "us", "ns"]), st.sampled_from([None, *ZONES]))
    .flatmap(lambda drawn: integers_as(pa.timestamp(*drawn))),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.uint64())),
    st.lists(st.none() | st.decimals(-9, 9, places=3), min_size=4, max_size=4)
    .map(lambda v: pa.array(v, pa.decimal128(9, 3))),
    st.just(pa.array([[("a", 1)], None, [], [("b", None)]], pa.map_(pa.string(), pa.int8()))),
)  # fmt: skip
"""Columns of four rows."""
COLUMNS = st.recursive(
    PLAIN,
    lambda inner: (
        inner.map(lambda column: pa.ListArray.from_arrays([0, 1, 2, 3, len(column)], column))
        | st.tuples(inner, inner).map(lambda pair: pa.StructArray.from_arrays(list(pair), names=["a", "b"]))
    ),
    max_leaves=3,
)
COLUMN_NAMES = st.sampled_from(["", "t", "t", "T", "image.path", "a.b", "a\0b", "größe", "bytes", "path"])


@bounded(250)
@given(st.lists(st.tuples(COLUMN_NAMES, COLUMNS), max_size=4), TEXTS, st.booleans())
def test_parquet_of_any_schema_and_values_keeps_every_row_and_its_good_text(
    folder: Path, columns: list[tuple[str, pa.Array]], paths: list[bytes], with_schema: bool
) -> None:
    data = pa.array([b"0", None, b"2", b"3"])
    images = pa.StructArray.from_arrays([data, as_text(paths)], names=["bytes", "path"])
    good = pa.array(["one", "two", None, "größe"])
    arrays = [images, good, *(column for _, column in columns)]
    table = pa.Table.from_arrays(arrays, names=["image", "good", *(name for name, _ in columns)])
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=with_schema)
    reads = check_parquet(folder / "a.parquet", file.getvalue())
    assert reads is not None
    assert [read.data for read in reads] == data.to_pylist()
    assert [read.extra and read.extra["good"] for read in reads] == good.to_pylist()


def small_parquet(images: pa.Array) -> bytes:
    file = io.BytesIO()
    columns = {"image": images, "t": ["a", "größe", None], "n": [1.5, 2.0, None], "l": [[1], [], None]}
    pq.write_table(pa.table(columns), file, compression="none")
    return file.getvalue()


STRUCTS = small_parquet(pa.array([{"bytes": b"x" * 30, "path": "a.jpg"}, None, {"bytes": b"y", "path": None}]))
PLAIN_BYTES = small_parquet(pa.array([b"x" * 30, None, b"y"]))


@pytest.mark.parametrize("flip", [0x01, 0x02, 0x80, 0xFF])
@pytest.mark.parametrize("good", [STRUCTS, PLAIN_BYTES], ids=["structs", "bytes"])
def test_parquet_with_any_byte_flipped_gives_rows_or_is_refused_by_name(folder: Path, good: bytes, flip: int) -> None:
    for place in range(4, len(good)):
        data = bytearray(good)
        data[place] ^= flip
        check_parquet(folder / "b.parquet", bytes(data))


@bounded(60)
@given(st.binary(max_size=40), st.sampled_from([".json", ".txt", ".cls"]))
def test_folder_with_any_file_beside_an_image_gives_its_row(folder: Path, data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as made:
        root = Path(made)
        (root / "a.jpg").write_bytes(b"x")
        (root / f"a{suffix}").write_bytes(data)
        reads = check_source(root)
        assert reads is not None
        for read in reads:
            check_read(read)
        assert b"x" in [read.data for read in reads]


@bounded(150)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP", b"BM", b"II*\0", b"P6 ", b""]),
    st.binary(max_size=60),
)
def test_any_bytes_are_a_picture_or_are_rejected(magic: bytes, data: bytes) -> None:
    check_picture(magic + data)
