"""What the rules say of the images of a part: of each image the first rule that rejects it."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ops.screening.conditions import Columns, Where, kind_of, values_in_words
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.rules import Rule

WHERE = "where"
"""Reason of an image of which the condition `where` does not hold."""
SHOWN_DIGITS = 4
"""Decimals of a score in words."""


class Rejects:
    """Rules are applied one after the other; the columns of the table follow from what they reject."""

    def __init__(self, wanted: np.ndarray) -> None:
        """Nothing is rejected yet.

        Args:
            wanted: (N,) bool, images of which rules speak at all.
        """
        self._wanted, self._free = wanted, wanted.copy()
        self._rule = np.full(len(wanted), -1, np.int32)
        self._value = np.full(len(wanted), np.nan)
        self._copies = np.zeros(len(wanted), bool)
        self._reasons: list[tuple[str, str]] = []
        self._rows: list[np.ndarray] = []
        self._details: list[pa.Array] = []

    def take(self, mask: np.ndarray, *, with_copies: bool) -> np.ndarray:
        """(M,) int64: of the images of `mask` (N,) bool those that no earlier rule rejects, which `add` then tells of.

        Args:
            with_copies: whether the rule takes copies of all of them too.
        """
        broken = mask & self._wanted
        self._copies |= broken & with_copies
        rows = np.flatnonzero(broken & self._free)
        self._free[rows] = False
        return rows

    def add(
        self, rows: np.ndarray, *, reason: str, rule: str, detail: pa.Array | str, value: np.ndarray | None = None
    ) -> None:
        """A rule rejects these images, which `take` gave.

        Args:
            detail: what was found, of each of them (M,) or of all.
            value: (M,) float64, the score of each; None: it is no number.
        """
        if len(rows) == 0:
            return
        self._rule[rows] = len(self._reasons)
        self._reasons.append((reason, rule))
        if value is not None:
            self._value[rows] = value
        self._rows.append(rows)
        self._details.append(pa.repeat(detail, len(rows)) if isinstance(detail, str) else detail)

    def by_list(self, listed: pa.ChunkedArray, copies: Mapping[str, bool]) -> None:
        """The images that lists name; `copies`: by name of a list whether their copies go too."""
        names = listed.to_numpy()
        for name in listed.drop_null().unique().to_pylist():
            rows = self.take(names == name, with_copies=copies.get(name, True))
            self.add(rows, reason=LISTED, rule=name, detail=f"on the list {name}")

    def by_text(self, name: str, found: pa.ChunkedArray) -> None:
        """The images of which a column of text says anything, which is then the detail."""
        rows = self.take(found.is_valid().to_numpy(), with_copies=False)
        self.add(rows, reason=name, rule=name, detail=found.take(pa.array(rows)).combine_chunks())

    def by_where(self, where: Where, columns: Columns) -> None:
        """The images of which a condition does not hold: false in some clause, or else null."""
        found = where.evaluate(columns)
        for told in (lambda held: pc.invert(held).fill_null(False), pc.is_null):
            for clause, held in zip(where.clauses, found, strict=True):
                rows = self.take(told(held).to_numpy(zero_copy_only=False), with_copies=False)
                values = {name: columns[name].take(pa.array(rows)) for name in clause.names}
                wanted = pa.scalar(f", wanted is {clause.text}")
                detail = pc.binary_join_element_wise(values_in_words(clause.names, values), wanted, "")
                value = next(iter(values.values())) if len(values) == 1 else None
                score = None if value is None or kind_of(value.type) != "number" else _numbers(value)
                self.add(rows, reason=WHERE, rule=clause.text, value=score, detail=detail)

    def by_score(self, rule: Rule, score: pa.ChunkedArray) -> None:
        """A rule on a column of scores."""
        rows = self.take(rule.bounds.broken(score), with_copies=rule.bounds.with_copies)
        found = score.take(pa.array(rows)).combine_chunks()
        if rule.flag:
            self.add(rows, reason=rule.column, rule=rule.text, detail=rule.text)
            return
        value = _numbers(found)
        shown = pc.round(pa.array(value), ndigits=SHOWN_DIGITS).cast(pa.string())
        detail = pc.binary_join_element_wise(f"{rule.column} is ", shown, f", {rule.bounds.text} is rejected", "")
        self.add(rows, reason=rule.column, rule=rule.text, value=value, detail=detail)

    def columns(self) -> list[pa.Array]:
        """reject, rule, value, detail and with_copies."""
        rejected = self._rule >= 0
        number = pa.array(self._rule, mask=~rejected)
        reason, rule = (pa.array([one[i] for one in self._reasons], pa.string()).take(number) for i in (0, 1))
        place, rows = np.zeros(len(self._rule), np.int64), np.concatenate([np.empty(0, np.int64), *self._rows])
        place[rows] = np.arange(len(rows))
        details = pa.concat_arrays([pa.array([], pa.string()), *self._details])
        detail = details.take(pa.array(place, mask=~rejected))
        value = pa.array(self._value, mask=np.isnan(self._value))
        return [reason, rule, value, detail, pa.array(self._copies, mask=~rejected)]


def _numbers(values: pa.Array) -> np.ndarray:
    """(N,) float64, NaN for null."""
    found: np.ndarray = values.cast(pa.float64()).fill_null(np.nan).to_numpy()
    return found
