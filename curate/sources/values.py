"""Values of strangers, made ready for JSON and Arrow: what cannot be kept is left out, and named by its kind.

What lies beside a picture is as untrusted as the picture. Half an emoji (a caption cut in the middle of a surrogate
pair) is a fine Python string that no encoder takes; JSON nested ten thousand levels deep ends in a RecursionError
wherever it is parsed, walked or written; Python refuses integers of 5,000 digits; cells of a Parquet file claim to be
UTF-8 or dates and are none. Each of these stops a run if it is met anywhere behind this file.

So every value passes here once, and comes out as null, a bool, a finite float, an integer of bounded length, a text
that is Unicode, or lists and dicts of these of bounded depth. A bad value is replaced by null, the others stay, and
its kind goes into a set that the caller gives: the kinds of one image. The bounds are constants of ours and not those
of the interpreter, whose recursion limit counts the frames of the caller: the same bytes must give the same table from
any place. Columns of Arrow are converted as a whole, which is fast, and value by value where that fails.
"""

import datetime
import decimal
import json
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from curate.text import decode_text, encoding_of

MAX_DEPTH = 100
"""Levels of lists and dicts within one value."""
MAX_INTEGER_BITS = 256
"""Bits of an integer: enough for ids and hashes, and within what every parser of JSON takes."""

LEFT_OUT = {
    "invalid_json": "JSON that does not parse",
    "not_unicode": "text that is not Unicode: bytes of another encoding, or half an emoji",
    "too_deep": f"values nested deeper than {MAX_DEPTH} levels",
    "not_finite": "NaN, infinities, and numbers too large for double precision",
    "long_integer": f"integers of more than {MAX_INTEGER_BITS} bits",
    "time_out_of_range": "dates before the year 1 or after 9999, and times beyond 24 hours",
    "unknown_time_zone": "times in a zone that is not in the time zone database",
    "binary": "bytes within other values",
    "unusable_name": "names that are empty, not Unicode, or hold control characters, with their values",
    "duplicate_name": "names given more than once: all of their values but one",
    "secret": "users, passwords, signatures and tokens of URLs, for which *** stands",
    "unknown_type": "values of a type that JSON has no form for",
}
"""Kinds of values that are left out, and what they are."""

Columns = tuple[str, ...] | None
"""Names of the columns to carry; None: all."""

_TOO_LONG = 1 << MAX_INTEGER_BITS
_MAX_DIGITS = len(str(-_TOO_LONG))
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_UNITS = {unit: day // 86_400 for unit, day in _DAY.items()}


class _TooDeep(Exception):
    pass


def choose_columns(values: Mapping[Any, Any], left_out: set[str], *, columns: Columns = None) -> dict[str, Any] | None:
    """The wanted columns, JSON-ready; None when none is left.

    Args:
        left_out: gains the kinds of what was left out.
    """
    chosen = {
        str(name): json_ready(value, left_out)
        for name, value in values.items()
        if (columns is None or name in columns) and is_usable_name(str(name), left_out)
    }
    return chosen or None


def is_usable_name(name: str, left_out: set[str]) -> bool:
    """Whether a name can be a column's: readers cut it at NUL bytes, or cannot ask for it."""
    usable = bool(name) and _is_unicode(name) and not _CONTROL.search(name)
    if not usable:
        left_out.add("unusable_name")
    return usable


def json_ready(value: Any, left_out: set[str]) -> Any:
    """A value as JSON can hold it: times as ISO text, null for what cannot be kept.

    A value that is nested too deep is null as a whole; others lose what is bad alone.

    Args:
        left_out: gains the kinds of what was left out.
    """
    try:
        return _ready(value, left_out, MAX_DEPTH)
    except _TooDeep:
        return _leave_out("too_deep", left_out)


def _ready(value: Any, left_out: set[str], depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value) if _is_unicode(value) else _leave_out("not_unicode", left_out)
    if isinstance(value, int):
        return int(value) if value.bit_length() <= MAX_INTEGER_BITS else _leave_out("long_integer", left_out)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _leave_out("not_finite", left_out)
    if isinstance(value, dict | list | tuple):
        if depth == 0:
            raise _TooDeep
        if isinstance(value, dict):
            pairs = [(str(name), inner) for name, inner in value.items()]
            return {k: _ready(v, left_out, depth - 1) for k, v in pairs if _is_unicode_name(k, left_out)}
        return [_ready(inner, left_out, depth - 1) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _ready(value.tolist(), left_out, depth)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return _iso_duration(value // datetime.timedelta(microseconds=1), "us")
    if isinstance(value, decimal.Decimal):
        return str(value) if value.is_finite() else _leave_out("not_finite", left_out)
    if isinstance(value, uuid.UUID):
        return str(value)
    return _leave_out("binary" if isinstance(value, bytes | bytearray | memoryview) else "unknown_type", left_out)


def _leave_out(kind: str, left_out: set[str]) -> Any:
    """Null, in the place of a value of that kind."""
    left_out.add(kind)
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_unicode_name(name: str, left_out: set[str]) -> bool:
    usable = _is_unicode(name)
    if not usable:
        left_out.add("unusable_name")
    return usable


# -- text ----------------------------------------------------------------------------------------------------


def parse_text(data: bytes, left_out: set[str]) -> str | None:
    """The text of a file, blanks around it taken off; None: it is none."""
    try:
        return decode_text(data).strip()
    except UnicodeDecodeError:
        left_out.add("not_unicode")
        return None


def parse_label(data: bytes, left_out: set[str]) -> int | str | None:
    """A label file: a number of a class, or its name."""
    text = parse_text(data, left_out)
    if text is None or not (text.isascii() and text.isdigit()):
        return text
    return _parse_integer(text)


def parse_json(data: bytes, left_out: set[str]) -> Any:
    """What JSON in bytes says, in any encoding that JSON may have; None: nothing.

    Values that are nested too deep are null. The others are as parsed: `json_ready` or `choose_columns` must follow.
    """

    def unite(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        united = dict(pairs)
        if len(united) < len(pairs):
            left_out.add("duplicate_name")
        return united

    try:
        text = _cut_deep(_decode_json(data), left_out)
        return json.loads(text, object_pairs_hook=unite, parse_int=_parse_integer)
    except (ValueError, RecursionError):
        left_out.add("invalid_json")
        return None


def _decode_json(data: bytes) -> str:
    """JSON as text; bytes that are no UTF-8 become lone surrogates, so that only the values that hold them are lost."""
    if encoding_of(data)[1]:
        return decode_text(data, errors="surrogateescape" if data.startswith(b"\xef") else "surrogatepass")
    encoding = json.detect_encoding(data)
    return data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass")


def _parse_integer(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else _TOO_LONG


def _cut_deep(text: str, left_out: set[str]) -> str:
    """JSON in which a member of the outermost object that is nested too deep is null, as is the whole otherwise."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return text
    keep: list[str] = []
    done, begin, depth, deepest = 0, 0, 0, 0
    base = int(text.lstrip()[:1] == "{")  # the depth at which what may be cut begins and ends
    for token in _TOKEN.finditer(text):
        kind = token.group()[0]
        if kind in "[{":
            if depth == base:
                begin, deepest = token.start(), 0
            depth += 1
            deepest = max(deepest, depth - base)
        elif kind in "]}":
            depth -= 1
            if depth == base:
                if deepest > MAX_DEPTH:
                    keep += [text[done:begin], "null"]
                    done = token.end()
                    left_out.add("too_deep")
                deepest = 0
    if deepest > MAX_DEPTH:  # never closed: it does not parse, but must not be tried
        keep.append(text[done:begin])
        done = len(text)
    return "".join([*keep, text[done:]])


# -- Arrow ---------------------------------------------------------------------------------------------------


def column_values(column: pa.Array, left_out: Iterable[set[str]]) -> list[Any]:
    """The JSON-ready values of a column.

    Args:
        left_out: a set for each row, which gains the kinds of what was left out of it.
    """
    if _is_plain(column.type):
        try:
            values = column.to_pylist()
        except MemoryError:
            raise
        except Exception:  # one of them is bad: which, the loop below tells
            pass
        else:
            if _is_json_ready(column.type):
                return values
            return [json_ready(value, kinds) for value, kinds in zip(values, left_out, strict=True)]
    return [_cell(cell, kinds) for cell, kinds in zip(column, left_out, strict=True)]


def _is_json_ready(dtype: pa.DataType) -> bool:
    """Whether all Python values of the type are JSON-ready: text that was decoded strictly, integers of 64 bits."""
    if pa.types.is_dictionary(dtype):
        return _is_json_ready(dtype.value_type)
    is_text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
    return is_text or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype)


def _is_uuid(dtype: pa.DataType) -> bool:
    return isinstance(dtype, pa.BaseExtensionType) and dtype.extension_name == "arrow.uuid"


def _is_plain(dtype: pa.DataType, depth: int = MAX_DEPTH) -> bool:
    """Whether Arrow makes right Python values of all that the type can hold, or raises.

    It takes times of day modulo 24 hours, and values in ns become pandas' where that is installed.
    """
    if depth == 0:
        return False
    if pa.types.is_dictionary(dtype) or pa.types.is_run_end_encoded(dtype):
        return _is_plain(dtype.value_type, depth - 1)
    if pa.types.is_nested(dtype):
        return all(_is_plain(dtype.field(place).type, depth - 1) for place in range(dtype.num_fields))
    if pa.types.is_timestamp(dtype):
        return dtype.unit != "ns"
    return not (pa.types.is_time(dtype) or pa.types.is_duration(dtype) or isinstance(dtype, pa.BaseExtensionType))


def _cell(cell: pa.Scalar, left_out: set[str]) -> Any:
    try:
        return _scalar(cell, left_out, MAX_DEPTH)
    except _TooDeep:
        return _leave_out("too_deep", left_out)


def _scalar(cell: pa.Scalar, left_out: set[str], depth: int) -> Any:
    if not cell.is_valid:
        return None
    dtype = cell.type
    if isinstance(cell, pa.DictionaryScalar | pa.UnionScalar | pa.RunEndEncodedScalar):
        return _scalar(cell.value, left_out, depth)
    if isinstance(cell, pa.ExtensionScalar) and not _is_uuid(dtype):
        return _scalar(cell.value, left_out, depth)
    if pa.types.is_nested(dtype):
        if depth == 0:
            raise _TooDeep
        if isinstance(cell, pa.StructScalar):
            return _members(cell, left_out, depth)
        if isinstance(cell, pa.MapScalar):
            entries = cell.values
            pairs = zip(entries.field(0), entries.field(1), strict=True)
            return [[_scalar(part, left_out, depth - 1) for part in pair] for pair in pairs]
        return [_scalar(inner, left_out, depth - 1) for inner in cell.values]
    try:
        return _ready(_plain_value(cell), left_out, depth)
    except UnicodeDecodeError:
        left_out.add("not_unicode")
    except MemoryError:
        raise
    except Exception:  # as_py raises nearly anything
        left_out.add(_why_no_value(dtype))
    return None


def _members(cell: pa.StructScalar, left_out: set[str], depth: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for place in range(cell.type.num_fields):
        name = cell.type.field(place).name
        if name in members:
            left_out.add("duplicate_name")
        else:
            members[name] = _scalar(cell[place], left_out, depth - 1)
    return members


def _plain_value(cell: pa.Scalar) -> Any:
    dtype = cell.type
    if pa.types.is_duration(dtype):
        return _iso_duration(cell.value, dtype.unit)
    if pa.types.is_time(dtype):
        if not 0 <= cell.value < _DAY[dtype.unit]:
            raise OverflowError
        return _with_nanoseconds(cell.value, pa.time64("us")) if dtype.unit == "ns" else cell.as_py()
    if pa.types.is_timestamp(dtype) and dtype.unit == "ns":
        return _with_nanoseconds(cell.value, pa.timestamp("us", dtype.tz))
    return cell.as_py()


def _with_nanoseconds(value: int, dtype: pa.DataType) -> str:
    """ISO text of a time in ns, with the nine digits where it needs them."""
    microseconds, rest = divmod(value, 1000)
    time = pa.scalar(microseconds, dtype).as_py()
    if not rest:
        return str(time.isoformat())
    text, digits = time.isoformat(timespec="microseconds"), f"{rest:03}"
    after = text.index(".") + 7
    return f"{text[:after]}{digits}{text[after:]}"


def _iso_duration(value: int, unit: str) -> str:
    """A span of time in seconds, as ISO 8601 writes it: `PT90.5S`."""
    seconds, rest = divmod(abs(value), _UNITS[unit])
    fraction = f".{rest:0{len(str(_UNITS[unit])) - 1}}".rstrip("0") if rest else ""
    return f"{'-' if value < 0 else ''}PT{seconds}{fraction}S"


def _why_no_value(dtype: pa.DataType) -> str:
    if not pa.types.is_temporal(dtype):
        return "unknown_type"
    try:
        pa.scalar(0, dtype).as_py()
    except Exception:
        return "unknown_time_zone"
    return "time_out_of_range"
