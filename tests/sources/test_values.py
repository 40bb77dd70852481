import datetime
import decimal
import json
import sys
import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curate.sources.sidecars import merge_sidecars
from curate.sources.values import MAX_DEPTH, MAX_INTEGER_BITS, choose_columns, column_values, json_ready

HALF_EMOJI = "\ud83d"


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


def merged(**sidecars: bytes) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    return merge_sidecars({f".{suffix}": data for suffix, data in sidecars.items()}, columns=None, where="x")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (r'"a nice day \ud83d"', "not_unicode"),
        (r'["fine", "\udc00"]', "not_unicode"),
        (nested(MAX_DEPTH + 1), "too_deep"),
        (nested(600), "too_deep"),
        (nested(100_000), "too_deep"),
        ('{"a":' * 600 + "1" + "}" * 600, "too_deep"),
        ("9" * 5000, "long_integer"),
        ("-" + "9" * 5000, "long_integer"),
        (str(1 << MAX_INTEGER_BITS), "long_integer"),
        ("NaN", "not_finite"),
        ("-Infinity", "not_finite"),
        ("1e400", "not_finite"),
        (r'{"\ud83d": 1}', "unusable_name"),
        ('{"a": 1, "a": 2}', "duplicate_name"),
    ],
)
def test_bad_value_of_json_is_left_out_alone(bad: str, kind: str) -> None:
    extra, left_out = merged(json=f'{{"caption": "größe", "bad": {bad}, "n": 5}}'.encode())
    assert left_out == (kind,)
    assert extra is not None
    assert (extra["caption"], extra["n"]) == ("größe", 5)
    kept = {"duplicate_name": {"a": 2}, "unusable_name": {}}
    assert extra["bad"] == kept.get(kind, ["fine", None] if bad.startswith('["fine"') else None)
    assert json.loads(json.dumps(extra, ensure_ascii=False).encode()) == extra


def test_bytes_that_are_no_utf8_spoil_one_value_of_json() -> None:
    extra, left_out = merged(json=b'{"caption": "gr\xf6\xdfe", "url": "u"}')
    assert (extra, left_out) == ({"caption": None, "url": "u"}, ("not_unicode",))


def test_emoji_of_two_halves_and_values_at_the_bounds_stay() -> None:
    fits = (1 << MAX_INTEGER_BITS) - 1
    text = f'{{"e": "\\ud83d\\ude00", "n": {fits}, "m": {-fits}, "d": {nested(MAX_DEPTH)}, "s": "[[{{\\"" }}'
    extra, left_out = merged(json=text.encode())
    assert extra is not None
    assert left_out == ()
    assert (extra["e"], extra["n"], extra["m"], extra["s"]) == ("😀", fits, -fits, '[[{"')
    assert json.dumps(extra["d"]) == nested(MAX_DEPTH)


def test_kinds_do_not_depend_on_the_stack_of_the_caller() -> None:
    data = f'{{"a": {nested(MAX_DEPTH)}, "b": {nested(900)}}}'.encode()

    def called_from(depth: int) -> Any:
        return merged(json=data) if depth == 0 else called_from(depth - 1)

    assert called_from(sys.getrecursionlimit() // 3) == called_from(0)
    assert called_from(0)[1] == ("too_deep",)


@pytest.mark.parametrize(
    "data",
    [b"", b"{broken", b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1} {}', b"\xff\xfe{\0", b"]" * 300, b'"' * 301],
)
def test_json_that_does_not_parse_is_left_out_and_the_caption_stays(data: bytes) -> None:
    assert merged(json=data, txt=b"a cat") == ({"caption": "a cat"}, ("invalid_json",))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_json_of_any_encoding_is_read(encoding: str) -> None:
    assert merged(json='{"größe": "😀"}'.encode(encoding)) == ({"größe": "😀"}, ())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_captions_and_labels_of_any_marked_encoding_are_read(encoding: str) -> None:
    assert merged(txt="größe\r\n".encode(encoding), cls="7\r\n".encode(encoding)) == (
        {"caption": "größe", "label": 7},
        (),
    )


def test_caption_that_is_no_text_and_label_of_5000_digits_are_left_out() -> None:
    assert merged(txt=b"gr\xf6\xdfe", cls=b"1" * 5000) == (
        {"caption": None, "label": None},
        ("long_integer", "not_unicode"),
    )
    assert merged(cls=b"dog") == ({"label": "dog"}, ())
    assert merged(txt=b"a\0b") == ({"caption": "a\0b"}, ()), "NUL is a character"


def test_names_that_no_reader_can_ask_for_are_left_out() -> None:
    left_out: set[str] = set()
    values = {"": 1, "a\0b": 2, HALF_EMOJI: 3, "Größe": 4, "caption\r": 5, "Caption": 6, "caption": 7}
    assert choose_columns(values, left_out) == {"Größe": 4, "Caption": 6, "caption": 7}
    assert left_out == {"unusable_name"}


def test_columns_that_are_not_wanted_are_not_looked_at() -> None:
    bad = b'{"caption": "a", "bad": NaN}'
    assert merge_sidecars({".json": bad, ".txt": b"\xff"}, columns=("caption",), where="x") == ({"caption": "a"}, ())
    assert merge_sidecars({".txt": b"\xff", ".cls": b"1"}, columns=("label",), where="x") == ({"label": 1}, ())


def test_values_of_python_become_json() -> None:
    when = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC)
    values = [
        when,
        when.date(),
        when.time(),
        decimal.Decimal("1.50"),
        uuid.UUID(int=5),
        datetime.timedelta(days=-1, seconds=9),
    ]
    left_out: set[str] = set()
    assert json_ready([*values, b"x", object(), decimal.Decimal("NaN")], left_out) == [
        "2020-01-02T03:04:05.000006+00:00",
        "2020-01-02",
        "03:04:05.000006",
        "1.50",
        "00000000-0000-0000-0000-000000000005",
        "-PT86391S",
        None,
        None,
        None,
    ]
    assert left_out == {"binary", "unknown_type", "not_finite"}


def raw(values: list[int], dtype: pa.DataType) -> pa.Array:
    """Integers as they lie in a file, which nothing has checked."""
    width = pa.int64() if dtype.bit_width == 64 else pa.int32()
    return pa.array(values, width).view(dtype)


def text_of(*cells: bytes) -> pa.Array:
    """A column of text whatever its bytes are."""
    return pa.Array.from_buffers(pa.string(), len(cells), pa.array(cells, pa.binary()).buffers())


DUPLICATE = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], names=["a", "a"])
NS = 1_600_000_000_123_456_789


@pytest.mark.parametrize(
    ("column", "expected", "kinds"),
    [
        (text_of(b"fine", b"\xff\xfe"), ["fine", None], {"not_unicode"}),
        (text_of(b"fine", b"\xed\xa0\xbd"), ["fine", None], {"not_unicode"}),
        (text_of(b"fine", b"\xff").dictionary_encode(), ["fine", None], {"not_unicode"}),
        (raw([0, 2**30], pa.date32()), ["1970-01-01", None], {"time_out_of_range"}),
        (raw([0, 2**60], pa.date64()), ["1970-01-01", None], {"time_out_of_range"}),
        (raw([0, 2**62], pa.timestamp("s")), ["1970-01-01T00:00:00", None], {"time_out_of_range"}),
        (raw([0, -(2**62)], pa.timestamp("us", "UTC")), ["1970-01-01T00:00:00+00:00", None], {"time_out_of_range"}),
        (raw([0, 1], pa.timestamp("us", "Mars/Olympus")), [None, None], {"unknown_time_zone"}),
        (raw([0, 1], pa.timestamp("us", "\0")), [None, None], {"unknown_time_zone"}),
        (raw([3600, 2**30], pa.time32("s")), ["01:00:00", None], {"time_out_of_range"}),
        (raw([-1, 86_399_999_999_999], pa.time64("ns")), [None, "23:59:59.999999999"], {"time_out_of_range"}),
        (raw([NS, 0], pa.timestamp("ns")), ["2020-09-13T12:26:40.123456789", "1970-01-01T00:00:00"], set()),
        (raw([NS, 0], pa.timestamp("ns", "+05:30"))[:1], ["2020-09-13T17:56:40.123456789+05:30"], set()),
        (raw([2**62, -1500], pa.duration("ms")), ["PT4611686018427387.904S", "-PT1.5S"], set()),
        (DUPLICATE, [{"a": 1}, {"a": 2}], {"duplicate_name"}),
        (pa.array([1.5, float("nan")]), [1.5, None], {"not_finite"}),
        (pa.array(np.array([1.5, np.inf], np.float16)), [1.5, None], {"not_finite"}),
        (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None], set()),
        (pa.array([decimal.Decimal("1.50"), None]), ["1.50", None], set()),
        (pa.array([[("a", 1), ("a", 2)], None], pa.map_(pa.string(), pa.int8())), [[["a", 1], ["a", 2]], None], set()),
        (pa.array([{"b": b"x", "t": "y"}, None]), [{"b": None, "t": "y"}, None], {"binary"}),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), [[1, 2, 3]], set()),
        (pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([5])]), [5], set()),
        (pa.RunEndEncodedArray.from_arrays([2], ["x"]), ["x", "x"], set()),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [[1, 2], None], set()),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_bad_cell_of_a_column_is_left_out_alone(column: pa.Array, expected: list[Any], kinds: set[str]) -> None:
    left_out: list[set[str]] = [set() for _ in column]
    assert column_values(column, left_out) == expected
    assert set().union(*left_out) == kinds
    if kinds - {"duplicate_name", "binary", "unknown_time_zone"}:
        assert [bool(found) for found in left_out] == [value is None for value in expected]


def test_bad_member_of_a_nested_cell_is_left_out_alone() -> None:
    inner = pa.StructArray.from_arrays([text_of(b"a", b"\xff", b"c"), pa.array([1, 2, 3])], names=["t", "n"])
    lists = pa.ListArray.from_arrays([0, 2, 3], inner)
    left_out: list[set[str]] = [set(), set()]
    assert column_values(lists, left_out) == [[{"t": "a", "n": 1}, {"t": None, "n": 2}], [{"t": "c", "n": 3}]]
    assert left_out == [{"not_unicode"}, set()]


def test_cells_nested_too_deep_are_left_out() -> None:
    column = pa.array([7])
    for _ in range(MAX_DEPTH + 1):
        column = pa.ListArray.from_arrays([0, 1], column)
    left_out: list[set[str]] = [set()]
    assert column_values(column, left_out) == [None]
    assert left_out == [{"too_deep"}]
    assert json.dumps(column_values(column.flatten(), left_out)[0]) == nested(MAX_DEPTH).replace("1", "7")
