"""Values of strangers, made ready for JSON and Arrow: what cannot be kept is left out, and named by its kind.

What lies beside a picture is as untrusted as the picture. Half an emoji (a caption cut in the middle of a surrogate
pair) is a fine Python string that no encoder takes; JSON nested ten thousand levels deep ends in a RecursionError
wherever it is parsed, walked or written; Python refuses integers of 5,000 digits; cells of a Parquet file claim to be
UTF-8 or dates and are none. Each of these stops a run if it is met anywhere behind this file.

So every value passes here once, and comes out as null, a bool, a finite float, an integer of bounded length, a text
that is Unicode, or lists and dicts of these of bounded depth. A bad value is replaced by null, the others stay, and
its kind goes into a set that the caller gives: the kinds of one image. The bounds are constants of ours and not those
of the interpreter, whose recursion limit counts the frames of the caller: the same bytes must give the same table from
any place. Columns of Arrow are converted as a whole, which is fast, and value by value where that fails or where they
are large; both give the same. How long names and texts, and how large values may be, says `curate.sources.limits`.
"""

import datetime
import decimal
import itertools
import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from curate.sources.limits import MAX_COLUMN_NAME_BYTES, MAX_IMAGE_COLUMNS, MAX_TEXT_BYTES, MAX_VALUE_BYTES
from curate.text import decode_text, encoding_of

MAX_DEPTH = 100
"""Levels of lists and dicts within one value."""
MAX_INTEGER_BITS = 256
"""Bits of an integer: enough for ids and hashes, and within what every parser of JSON takes."""

LEFT_OUT = {
    "invalid_json": "JSON that does not parse",
    "not_unicode": "text that is not Unicode: bytes of another encoding, or half an emoji",
    "too_deep": f"values nested deeper than {MAX_DEPTH} levels",
    "too_long": f"texts of more than {MAX_TEXT_BYTES >> 10} KiB, and nested values of more than "
    f"{MAX_VALUE_BYTES >> 20} MiB",
    "too_many_columns": f"columns beyond the first {MAX_IMAGE_COLUMNS:,} of an image",
    "not_finite": "NaN, infinities, and numbers too large for double precision",
    "long_integer": f"integers of more than {MAX_INTEGER_BITS} bits",
    "time_out_of_range": "dates before the year 1 or after 9999, and times beyond 24 hours",
    "unknown_time_zone": "times in a zone that is not in the time zone database",
    "binary": "bytes within other values",
    "unusable_name": f"names that are empty, longer than {MAX_COLUMN_NAME_BYTES} bytes, not Unicode, or hold control "
    "characters, with their values",
    "duplicate_name": "names given more than once: all of their values but one",
    "secret": "users, passwords, signatures and tokens of URLs, for which *** stands",
    "unknown_type": "values of a type that JSON has no form for",
}
"""Kinds of values that are left out, and what they are."""

Columns = tuple[str, ...] | None
"""Names of the columns to carry; None: all."""

MAX_COLUMN_BYTES = 16 << 20
"""Bytes of a column of some rows above which no value is made before its size is known."""
BYTES_EACH = 8
"""Bytes that each value within another counts, beside those of texts."""

_SHORT = MAX_TEXT_BYTES // 4
_TOO_LONG = 1 << MAX_INTEGER_BITS
_MAX_DIGITS = len(str(-_TOO_LONG))
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_UNITS = {unit: day // 86_400 for unit, day in _DAY.items()}


class _TooDeep(Exception):
    pass


class _TooLong(Exception):
    pass


class _Budget:
    """What is left of the bytes that one value may take: `BYTES_EACH` for each value within it, and those of texts."""

    def __init__(self) -> None:
        self._left = MAX_VALUE_BYTES

    def spend(self, num_bytes: int = BYTES_EACH) -> None:
        self._left -= num_bytes
        if self._left < 0:
            raise _TooLong


def choose_columns(values: Mapping[Any, Any], left_out: set[str], *, columns: Columns = None) -> dict[str, Any] | None:
    """The wanted columns, JSON-ready; None when none is left.

    Args:
        left_out: gains the kinds of what was left out.
    """
    wanted = (name for name in values if columns is None or name in columns)
    usable = (name for name in wanted if is_usable_name(str(name), left_out))
    chosen = {str(name): json_ready(values[name], left_out) for name in itertools.islice(usable, MAX_IMAGE_COLUMNS)}
    if next(usable, None) is not None:
        left_out.add("too_many_columns")
    return chosen or None


def first_columns(values: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    """As many columns as an image may have, of several that were united."""
    if len(values) <= MAX_IMAGE_COLUMNS:
        return values
    left_out.add("too_many_columns")
    return dict(itertools.islice(values.items(), MAX_IMAGE_COLUMNS))


def is_usable_name(name: str, left_out: set[str]) -> bool:
    """Whether a name can be a column's: readers cut it at NUL bytes, or cannot ask for it."""
    usable = bool(name) and not _is_long(name, MAX_COLUMN_NAME_BYTES)
    usable = usable and _is_unicode(name) and not _CONTROL.search(name)
    if not usable:
        left_out.add("unusable_name")
    return usable


def json_ready(value: Any, left_out: set[str]) -> Any:
    """A value as JSON can hold it: times as ISO text, null for what cannot be kept.

    A value that is nested too deep, or too large as a whole, is null; others lose what is bad alone.

    Args:
        left_out: gains the kinds of what was left out.
    """
    try:
        return _ready(value, left_out, MAX_DEPTH, _Budget())
    except _TooDeep:
        return _leave_out("too_deep", left_out)
    except _TooLong:
        return _leave_out("too_long", left_out)


def _ready(value: Any, left_out: set[str], depth: int, budget: _Budget) -> Any:
    budget.spend()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if _is_long(value, MAX_TEXT_BYTES):
            return _leave_out("too_long", left_out)
        budget.spend(len(value))
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
            return {k: _ready(v, left_out, depth - 1, budget) for k, v in pairs if _is_unicode_name(k, left_out)}
        return [_ready(inner, left_out, depth - 1, budget) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _ready(value.tolist(), left_out, depth, budget)
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


def _is_long(text: str, max_bytes: int) -> bool:
    """Whether a text takes more bytes in UTF-8."""
    if len(text) * 4 <= max_bytes:
        return False
    return len(text) > max_bytes or len(text.encode("utf-8", "surrogatepass")) > max_bytes


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
    if _is_plain(column.type) and column.nbytes <= MAX_COLUMN_BYTES:
        try:
            values = column.to_pylist()
        except MemoryError:
            raise
        except Exception:  # one of them is bad: which, the loop below tells
            pass
        else:
            if _is_json_ready(column.type) and not any(isinstance(v, str) and len(v) > _SHORT for v in values):
                return values
            return [json_ready(value, kinds) for value, kinds in zip(values, left_out, strict=True)]
    return [_cell(cell, kinds) for cell, kinds in zip(column, left_out, strict=True)]


def _is_json_ready(dtype: pa.DataType) -> bool:
    """Whether all Python values of the type are JSON-ready: text that was decoded strictly, integers of 64 bits."""
    if pa.types.is_dictionary(dtype):
        return _is_json_ready(dtype.value_type)
    return _is_text(dtype) or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype)


def _is_text(dtype: pa.DataType) -> bool:
    return pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)


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
        return _scalar(cell, left_out, MAX_DEPTH, _Budget())
    except _TooDeep:
        return _leave_out("too_deep", left_out)
    except _TooLong:
        return _leave_out("too_long", left_out)


def _scalar(cell: pa.Scalar, left_out: set[str], depth: int, budget: _Budget) -> Any:
    """A cell value by value, so that no more of it is made than the budget allows; it spends as `_ready` does."""
    if not cell.is_valid:
        budget.spend()
        return None
    dtype = cell.type
    if isinstance(cell, pa.DictionaryScalar | pa.UnionScalar | pa.RunEndEncodedScalar):
        return _scalar(cell.value, left_out, depth, budget)
    if isinstance(cell, pa.ExtensionScalar) and not _is_uuid(dtype):
        return _scalar(cell.value, left_out, depth, budget)
    if pa.types.is_nested(dtype):
        budget.spend()
        if depth == 0:
            raise _TooDeep
        if isinstance(cell, pa.StructScalar):
            return _members(cell, left_out, depth, budget)
        if isinstance(cell, pa.MapScalar):
            return [_pair(pair, left_out, depth - 1, budget) for pair in _entries(cell)]
        return [_scalar(inner, left_out, depth - 1, budget) for inner in cell.values]
    if isinstance(cell, pa.StringScalar | pa.BinaryScalar) and cell.as_buffer().size > MAX_TEXT_BYTES:
        budget.spend()
        return _leave_out("binary" if not _is_text(dtype) else "too_long", left_out)
    try:
        return _ready(_plain_value(cell), left_out, depth, budget)
    except UnicodeDecodeError:
        left_out.add("not_unicode")
    except (MemoryError, _TooLong):
        raise
    except Exception:  # as_py raises nearly anything
        left_out.add(_why_no_value(dtype))
    return None


def _entries(cell: pa.MapScalar) -> Iterator[tuple[pa.Scalar, pa.Scalar]]:
    entries = cell.values
    return zip(entries.field(0), entries.field(1), strict=True)


def _pair(pair: tuple[pa.Scalar, pa.Scalar], left_out: set[str], depth: int, budget: _Budget) -> list[Any]:
    budget.spend()
    if depth == 0:
        raise _TooDeep
    return [_scalar(part, left_out, depth - 1, budget) for part in pair]


def _members(cell: pa.StructScalar, left_out: set[str], depth: int, budget: _Budget) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for place in range(cell.type.num_fields):
        name = cell.type.field(place).name
        if name in members:
            left_out.add("duplicate_name")
        else:
            members[name] = _scalar(cell[place], left_out, depth - 1, budget)
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
