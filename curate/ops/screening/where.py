"""Conditions on columns, written as in SQL: `punsafe < 0.2 and license in ('cc0', 'by') and width >= 256`.

The language: comparisons (= <> != < <= > >=) of a column with a constant or another column, `in`, `like` (% any
letters, _ one), `is null`, each with `not`; columns of true and false by their name alone; `and`, `or`, `not` and
parentheses. Keywords are read in any case. Texts stand in single quotes, a quote within them twice; names with other
letters than those of an identifier in double quotes.

Python's own parser reads it. Its grammar has the same operators in the same order of precedence, so that only words
differ: a scanner writes each token anew in Python's words (columns and constants by number, so that nothing of the text
but operators gets there), `ast` makes the tree, and of its nodes the few that are listed here are taken. Nothing is
evaluated as Python. A parser of SQL in full would be a dependency for what takes a hundred lines.
"""

import ast
import math
import re
from bisect import bisect_right

from curate.errors import foreign_text
from curate.ops.screening.conditions import (
    All,
    Among,
    Any_,
    Clause,
    Column,
    Comparison,
    Condition,
    Constant,
    IsNull,
    Like,
    Not,
    Operand,
    Truth,
    Where,
    WhereError,
)

MAX_LENGTH = 20_000
"""Characters of a text at most."""
MAX_DEPTH = 100
"""Conditions within each other at most: each costs a call when the tree is checked and evaluated."""

_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?!\w)
    |(?P<name>[^\W\d]\w*)
    |(?P<quoted>"(?:[^"]|"")*")
    |(?P<text>'(?:[^']|'')*')
    |(?P<sign><=|>=|<>|!=|==|[=<>(),+-])""",
    re.VERBOSE,
)
_WORDS = {"and": "and", "or": "or", "not": "not", "in": "in", "is": "is", "null": "None", "like": "@"}
_SIGNS = {"=": "==", "<>": "!="}
_NOT_LIKE = "//"


def parse_where(text: str) -> Where:
    """Read a condition.

    Raises:
        WhereError: it is none; the message says where it stops making sense.
    """
    if len(text) > MAX_LENGTH:
        raise WhereError(f"{len(text):,} characters, {MAX_LENGTH:,} are possible")
    tokens = _scan(text)
    if not tokens.starts:
        raise WhereError("holds no condition; write one such as width >= 256, or null")
    try:
        tree = ast.parse(tokens.python, mode="eval").body
    except SyntaxError as error:
        place = error.offset - 1 if error.offset else len(tokens.python)  # 0: where the text ends
        raise WhereError(f"cannot be read {tokens.near(place)}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise WhereError(f"cannot be read: {foreign_text(error)}") from None
    reader = _Reader(tokens)
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    return Where(tuple(Clause(reader.condition(part), tokens.text_of(part)) for part in parts))


class _Tokens:
    """The text in Python's words, and where each word comes from."""

    def __init__(self, text: str) -> None:
        self._text, self.python, self.values = text, "", list[Operand]()
        self.starts: list[int] = []  # of each word within `python`
        self._spans: list[tuple[int, int]] = []  # of each token within the text

    def add(self, word: str, start: int, stop: int) -> None:
        self.starts.append(len(self.python))
        self._spans.append((start, stop))
        self.python += f"{word} "

    def add_value(self, value: Operand, start: int, stop: int) -> None:
        """A column or constant: a name in Python that tells its number."""
        self.add(f"_{len(self.values)}", start, stop)
        self.values.append(value)

    def replace_last(self, word: str, stop: int) -> None:
        """The last token and the one that ends at `stop` are one word."""
        begin = self._spans.pop()[0]
        self.python = self.python[: self.starts.pop()]
        self.add(word, begin, stop)

    def _number(self, offset: int) -> int:
        return max(0, bisect_right(self.starts, offset) - 1)

    def near(self, offset: int) -> str:
        """Where in the text a place of `python` is."""
        start, stop = self._spans[self._number(offset)]
        if offset >= len(self.python.rstrip()):
            return f"at its end, after {self._text[start:stop]}"
        return f"at character {start + 1}, near {self._text[start:stop]}"

    def text_of(self, node: ast.expr) -> str:
        """The text that a node was read from, with parentheses around it left out."""
        first, last = self._number(node.col_offset), self._number((node.end_col_offset or 1) - 1)
        return self._text[self._spans[first][0] : self._spans[last][1]]


def _scan(text: str) -> _Tokens:
    tokens, place, last = _Tokens(text), 0, ""
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise WhereError(f"cannot be read at character {place + 1}, near {text[place : place + 20]}")
        kind, word, start, place = found.lastgroup, found[0], place, found.end()
        lower = word.lower()
        if kind == "space":
            continue
        if kind == "name" and lower == "like" and last == "not":
            tokens.replace_last(_NOT_LIKE, place)
        elif kind == "name" and lower in _WORDS:
            tokens.add(_WORDS[lower], start, place)
        elif kind == "name" and lower in ("true", "false"):
            tokens.add_value(Constant(lower == "true"), start, place)
        elif kind in ("name", "quoted"):
            tokens.add_value(Column(word if kind == "name" else word[1:-1].replace('""', '"')), start, place)
        elif kind == "text":
            tokens.add_value(Constant(word[1:-1].replace("''", "'")), start, place)
        elif kind == "number":
            tokens.add_value(Constant(_number(word)), start, place)
        else:
            tokens.add(_SIGNS.get(word, word), start, place)
        last = lower
    return tokens


def _number(word: str) -> float:
    if not word.isdigit():
        value = float(word)
        if math.isinf(value):
            raise WhereError(f"{word} is too large for a number")
        return value
    if len(word) > 19 or int(word) >= 1 << 63:
        raise WhereError(f"{word} is too large for a whole number")
    return int(word)


class _Reader:
    """Conditions from the nodes of Python's tree; every node that is not named here is an error."""

    def __init__(self, tokens: _Tokens) -> None:
        self._tokens = tokens

    def condition(self, node: ast.expr, depth: int = 0) -> Condition:
        if depth > MAX_DEPTH:
            raise self._error(node, f"lies within more than {MAX_DEPTH} other conditions")
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return All(tuple(self.condition(value, depth + 1) for value in values))
            case ast.BoolOp(op=ast.Or(), values=values):
                return Any_(tuple(self.condition(value, depth + 1) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Not(self.condition(operand, depth + 1))
            case ast.BinOp(op=ast.MatMult(), left=left, right=right):
                return self._like(left, right)
            case ast.BinOp(op=ast.FloorDiv(), left=left, right=right):
                return Not(self._like(left, right))
            case ast.Compare(left=left, ops=[sign], comparators=[right]):
                return self._comparison(left, sign, right)
            case ast.Compare():
                raise self._error(node, "compares more than two; join two comparisons by and")
            case ast.Name() if isinstance(value := self._operand(node), Column):
                return Truth(value)
        raise self._error(node, "is no condition")

    def _comparison(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> Condition:
        if isinstance(sign, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._error(right, "stands after is, where null or not null must")
            is_null = IsNull(self._column(left))
            return Not(is_null) if isinstance(sign, ast.IsNot) else is_null
        if isinstance(sign, ast.In | ast.NotIn):
            among = Among(self._column(left), self._constants(right))
            return Not(among) if isinstance(sign, ast.NotIn) else among
        found = Comparison(type(sign), self._operand(left), self._operand(right))
        if isinstance(found.left, Constant) and isinstance(found.right, Constant):
            raise self._error(left, "is compared with another constant, and with no column")
        return found

    def _like(self, left: ast.expr, right: ast.expr) -> Condition:
        pattern = self._operand(right)
        if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
            raise self._error(right, "stands after like, where a text in single quotes must")
        return Like(self._column(left), pattern.value)

    def _constants(self, node: ast.expr) -> tuple[Constant, ...]:
        given = node.elts if isinstance(node, ast.Tuple) else [node]
        found = tuple(value for one in given if isinstance(value := self._operand(one), Constant))
        if not found or len(found) < len(given):
            raise self._error(node, "stands after in, where constants in parentheses must")
        return found

    def _column(self, node: ast.expr) -> Column:
        value = self._operand(node)
        if not isinstance(value, Column):
            raise self._error(node, "is no column")
        return value

    def _operand(self, node: ast.expr) -> Operand:
        match node:
            case ast.Name(id=name):
                return self._tokens.values[int(name[1:])]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=ast.Name() as operand):
                value = self._operand(operand)
                if isinstance(value, Constant) and value.kind == "number":
                    return Constant(-value.value if isinstance(sign, ast.USub) else value.value)  # type: ignore[operator]
            case ast.Constant(value=None):
                raise self._error(node, "is never equal to anything; write is null")
        raise self._error(node, "is neither a column nor a constant")

    def _error(self, node: ast.expr, text: str) -> WhereError:
        found = self._tokens.text_of(node)
        return WhereError(f"{found or '()'} {text} ({self._tokens.near(node.col_offset)})")
