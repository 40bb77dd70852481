"""What the rules say of the images of a part: of each image the first rule that rejects it."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from curate.stages.screening.rejected import LISTED
from curate.stages.screening.rules import Rule


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

    def by_score(self, rule: Rule, score: pa.ChunkedArray) -> None:
        """A rule on a column of scores."""
        rows = self.take(rule.bounds.broken(score), with_copies=rule.bounds.with_copies)
        value = score.take(pa.array(rows)).cast(pa.float64()).to_numpy()
        detail = rule.text if pa.types.is_boolean(score.type) else f"{rule.text} is not wanted"
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
