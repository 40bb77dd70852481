"""Conditions on columns as a tree: checked against the types of the columns, and evaluated on Arrow's arrays.

Nulls are SQL's: a comparison with null is null, `and` and `or` are those of three-valued logic, and `is null` tells.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

SHOWN_VALUE = 80
"""Characters of a value that is told."""

Kind = Literal["number", "text", "bool", "null"]
Columns: TypeAlias = Mapping[str, pa.Array]
"""By name, all of one length."""

_COMPARE: dict[type[ast.cmpop], Callable[..., pa.Array]] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}


class WhereError(ValueError):
    """The text is no condition, or does not suit the columns."""


def kind_of(dtype: pa.DataType) -> Kind | None:
    """What values of a type are to a condition; None: nothing that it can take."""
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return "text"
    if pa.types.is_null(dtype):
        return "null"
    return "bool" if pa.types.is_boolean(dtype) else None


# -- the tree ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """The values of a column."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A number, a text, true or false."""

    value: float | str | bool

    @property
    def kind(self) -> Kind:
        """What it is."""
        return "bool" if isinstance(self.value, bool) else "text" if isinstance(self.value, str) else "number"


Operand: TypeAlias = Column | Constant


@dataclass(frozen=True)
class Comparison:
    """Two operands, at least one of them a column."""

    sign: type[ast.cmpop]
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Among:
    """Whether a column is one of some constants."""

    column: Column
    values: tuple[Constant, ...]


@dataclass(frozen=True)
class Like:
    """Whether a text has a form."""

    column: Column
    pattern: str


@dataclass(frozen=True)
class IsNull:
    """Whether a column is null."""

    column: Column


@dataclass(frozen=True)
class Truth:
    """A column of true and false."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The opposite."""

    of: "Condition"


@dataclass(frozen=True)
class All:
    """All of some conditions."""

    of: tuple["Condition", ...]


@dataclass(frozen=True)
class Any_:
    """Any of some conditions."""

    of: tuple["Condition", ...]


Condition: TypeAlias = Comparison | Among | Like | IsNull | Truth | Not | All | Any_


class Clause(NamedTuple):
    """One of the conditions that must all hold, with its text."""

    condition: Condition
    text: str

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it speaks of, in order."""
        return tuple(dict.fromkeys(_names(self.condition)))


@dataclass(frozen=True)
class Where:
    """A condition that was read."""

    clauses: tuple[Clause, ...]
    """Conditions that must all hold, in order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it speaks of, in order."""
        return tuple(dict.fromkeys(name for clause in self.clauses for name in clause.names))

    def beside_numbers(self, types: Mapping[str, pa.DataType]) -> set[str]:
        """The columns that are compared with a number, a constant or a column of `types`, in whatever clause."""
        found = set()
        for clause in self.clauses:
            for operands in _compared(clause.condition):
                if any(_number_in(one, types) for one in operands):
                    found |= {one.name for one in operands if isinstance(one, Column)}
        return found

    def check(self, types: Mapping[str, pa.DataType], *, sought: str = "") -> None:
        """Check names and types.

        Args:
            types: of the columns that there are.
            sought: what is said of where a column was looked for.

        Raises:
            WhereError: there is no such column, or its type does not suit what it is compared with.
        """
        for name in self.names:
            if name not in types:
                near = difflib.get_close_matches(name, list(types), n=3)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise WhereError(f"no column is called {name}; {hint}{sought}".rstrip("; "))
        for clause in self.clauses:
            try:
                _check(clause.condition, types)
            except WhereError as error:
                raise WhereError(f"{clause.text}: {error}") from None

    def evaluate(self, columns: Columns) -> list[pa.BooleanArray]:
        """(N,) of each clause: true, false or null; the columns must have been checked."""
        return [_evaluate(clause.condition, columns) for clause in self.clauses]


def holds(clauses: Iterable[pa.BooleanArray]) -> pa.BooleanArray:
    """(N,) whether all clauses hold, by three-valued logic."""
    found = None
    for clause in clauses:
        found = clause if found is None else pc.and_kleene(found, clause)
    return found


# -- types ---------------------------------------------------------------------------------------------------


def _names(condition: Condition) -> Iterable[str]:
    match condition:
        case All(of) | Any_(of):
            for one in of:
                yield from _names(one)
        case Not(one):
            yield from _names(one)
        case Comparison(_, left, right):
            yield from (one.name for one in (left, right) if isinstance(one, Column))
        case Among(column, _) | Like(column, _) | IsNull(column) | Truth(column):
            yield column.name


def _compared(condition: Condition) -> Iterable[tuple[Operand, ...]]:
    """The operands of each comparison."""
    match condition:
        case All(of) | Any_(of):
            for one in of:
                yield from _compared(one)
        case Not(one):
            yield from _compared(one)
        case Comparison(_, left, right):
            yield left, right
        case Among(column, values):
            yield column, *values


def _number_in(operand: Operand, types: Mapping[str, pa.DataType]) -> bool:
    if isinstance(operand, Constant):
        return operand.kind == "number"
    return operand.name in types and kind_of(types[operand.name]) == "number"


def _check(condition: Condition, types: Mapping[str, pa.DataType]) -> None:
    match condition:
        case All(of) | Any_(of):
            for one in of:
                _check(one, types)
        case Not(one):
            _check(one, types)
        case Comparison(_, left, right):
            _check_kinds([left, right], types)
        case Among(column, values):
            _check_kinds([column, *values], types)
        case Like(column, pattern):
            _check_kinds([column, Constant(pattern)], types)
        case Truth(column):
            if _kind(column, types) not in ("bool", "null"):
                raise WhereError(f"{_told(column, types)} alone is no condition, since it is not true or false")


def _check_kinds(operands: list[Operand], types: Mapping[str, pa.DataType]) -> None:
    first: dict[Kind, str] = {}
    for one in operands:
        kind, told = _kind(one, types), _told(one, types)
        if kind is None:
            raise WhereError(f"{told}, which no condition takes")
        if kind != "null":
            first.setdefault(kind, told)
    if len(first) > 1:
        raise WhereError("; ".join(f"{told} is {_SPOKEN[kind]}" for kind, told in first.items()))


_SPOKEN = {"number": "a number", "text": "text", "bool": "true or false"}


def _kind(operand: Operand, types: Mapping[str, pa.DataType]) -> Kind | None:
    return operand.kind if isinstance(operand, Constant) else kind_of(types[operand.name])


def _told(operand: Operand, types: Mapping[str, pa.DataType]) -> str:
    if isinstance(operand, Column):
        known = kind_of(types[operand.name]) is not None
        return operand.name if known else f"{operand.name} holds {types[operand.name]}"
    return f"'{operand.value}'" if isinstance(operand.value, str) else str(operand.value).lower()


# -- values --------------------------------------------------------------------------------------------------


def _evaluate(condition: Condition, columns: Columns) -> pa.BooleanArray:
    match condition:
        case All(of):
            return holds(_evaluate(one, columns) for one in of)
        case Any_(of):
            found = _evaluate(of[0], columns)
            for one in of[1:]:
                found = pc.or_kleene(found, _evaluate(one, columns))
            return found
        case Not(one):
            return pc.invert(_evaluate(one, columns))
        case Comparison():
            return _compare(condition, columns)
        case Among(column, values):
            return _among(columns[column.name], [one.value for one in values])
        case Like(column, pattern):
            escaped = pattern.replace("\\", "\\\\")  # Arrow takes a backslash for an escape, SQL does not
            return pc.match_like(columns[column.name].cast(pa.string()), escaped)
        case IsNull(column):
            return pc.is_null(columns[column.name])
        case Truth(column):
            return columns[column.name].cast(pa.bool_())
    raise AssertionError(condition)


def _compare(found: Comparison, columns: Columns) -> pa.BooleanArray:
    types = [columns[one.name].type for one in (found.left, found.right) if isinstance(one, Column)]
    left, right = (
        columns[one.name] if isinstance(one, Column) else _scalar(one.value, types[0])
        for one in (found.left, found.right)
    )
    compared: pa.BooleanArray = _COMPARE[found.sign](*_of_one_type(left, right))
    return compared


def _of_one_type(left: Any, right: Any) -> tuple[Any, Any]:
    """Nulls of no type get that of the other side."""
    if pa.types.is_null(left.type):
        left = left.cast(right.type)
    if pa.types.is_null(right.type):
        right = right.cast(left.type)
    return left, right


def _scalar(value: float | str | bool, dtype: pa.DataType) -> pa.Scalar:
    """A constant in the precision of the column: a score of 0.2 in half of the bits is equal to 0.2."""
    if pa.types.is_floating(dtype) and not isinstance(value, str):
        return pa.scalar(float(value), dtype)
    return pa.scalar(value)


def _among(column: pa.Array, values: list[Any]) -> pa.BooleanArray:
    """Null where the column is; Arrow's own says false."""
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.bool_())
    if pa.types.is_integer(column.type):
        column = column.cast(pa.int64() if all(isinstance(value, int) for value in values) else pa.float64())
    found = pc.is_in(column, value_set=pa.array(values).cast(column.type))
    return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))


def values_in_words(names: Iterable[str], columns: Columns) -> pa.StringArray:
    """(N,) such as `width is 200, license is null`."""
    pieces: list[Any] = []
    for name in names:
        shown = pc.utf8_slice_codeunits(columns[name].cast(pa.string()), 0, SHOWN_VALUE)
        pieces += [pa.scalar(f"{', ' if pieces else ''}{name} is "), pc.fill_null(shown, "null")]
    joined: pa.StringArray = pc.binary_join_element_wise(*pieces, pa.scalar(""), pa.scalar(""))
    return joined
