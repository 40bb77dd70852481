"""`curate sweep --score NAME`: how many images each threshold of a score takes, and pictures about each threshold.

A score is there for every image, so that nothing is made for this: its table is read once, part by part. Thresholds are
such that each takes a round share of the images, from the many to the few; the thresholds of now are among them.
"""

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished
from curate.engine.numbers import plural
from curate.engine.show import Block, Curves, Gallery, Heading, Line, Numbers, Picture, Text
from curate.engine.table import Table
from curate.errors import ConfigError, TableError
from curate.report.markup import el
from curate.report.page import SCORE_SWEEPS, document
from curate.report.pictures import Pictures
from curate.report.render import render_blocks
from curate.report.sections import outdated
from curate.report.sweep import Key
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.screen import Screen
from curate.stages.screening.telling import made_by
from curate.tables import POOL, SENSITIVE, is_score

HEAD = ("threshold", "images above", "share", "images below", "share", "")
SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Shares of the images that thresholds leave below them."""
NUM_BINS = 1 << 16
"""Values that are told apart where thresholds are chosen."""
SHOWN = 6
"""Pictures on either side of a threshold."""
DIGITS = 3
"""Digits of a threshold that is chosen."""
NOW = "as it is"


@dataclass(frozen=True)
class Threshold:
    """What a threshold takes."""

    value: float
    above: int
    """Images of the pool with a larger score."""
    below: int
    """Images of the pool with a smaller score."""
    total: int
    """Images of the pool that have a score."""
    now: bool
    """Whether a rule of the run goes by it."""
    nearest_above: tuple[tuple[int, float], ...] = ()
    """Image ids and scores, the nearest first."""
    nearest_below: tuple[tuple[int, float], ...] = ()

    def cells(self) -> tuple[str, ...]:
        """As text."""
        shares = (f"{number / max(1, self.total):.2%}" for number in (self.above, self.below))
        above, below = shares
        return f"{self.value:g}", f"{self.above:,}", above, f"{self.below:,}", below, NOW if self.now else ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {name: getattr(self, name) for name in ("value", "above", "below", "total", "now")}


@dataclass(frozen=True)
class ScoreSweep:
    """All thresholds of a score that were tried, ascending."""

    field: pa.Field
    rows: tuple[Threshold, ...]
    missing: int
    """Images of the pool without this score."""
    command: str
    """What applies one of them."""
    blurred: bool


def sweep_score(run: Finished, name: str, *, command: Callable[[Key], str]) -> ScoreSweep:
    """Try the thresholds of one score.

    Args:
        command: what applies a value of a key of the config.

    Raises:
        TableError: the run has no scores.
        ConfigError: it has no such score, or one that is no number.
    """
    found = run.only(Screen)
    if found is None:
        raise TableError(f"{run.store.root}: has no table of scores; set `screen` in its config and run it")
    stage, table = found
    field = _field(table.schema(), name)
    parts = run.parts.numbers(POOL)
    low, high, total, missing = _range(table, parts, name)
    rules = [rule.bounds for rule in stage.rules(table.schema()) if rule.column == name]
    now = {bound for bounds in rules for bound in (bounds.above, bounds.below) if bound is not None}
    values = np.array(sorted({*_chosen(table, parts, name, low, high), *now} if total else now))
    return ScoreSweep(
        field,
        tuple(_thresholds(table, parts, name, values, now=now, total=total)),
        missing,
        command(Key(f"screen.drop.{name}.above", float(values[-1]) if len(values) else 0.0, now=False)),
        SENSITIVE in field.metadata and not stage.show_sensitive,
    )


def _field(schema: pa.Schema, name: str) -> pa.Field:
    fields = {field.name: field for field in schema if is_score(field)}
    if name not in fields:
        near = difflib.get_close_matches(name, list(fields), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(fields) or 'none'}"
        raise ConfigError(f"--score {name}: no score of this run is called so; {hint}")
    dtype = fields[name].type
    if not (pa.types.is_floating(dtype) or pa.types.is_integer(dtype)):
        raise ConfigError(f"--score {name}: holds {dtype}, which has no thresholds; the report counts its values")
    return fields[name]


class _Scores(NamedTuple):
    """Images of a part that have a score, by rising score."""

    values: np.ndarray
    """(M,) float64"""
    shown_ids: np.ndarray
    """(S,) int64, those that may be seen: none that a list names"""
    shown_values: np.ndarray
    """(S,) float64, their scores"""

    @classmethod
    def read(cls, table: Table, part: int, name: str) -> Self:
        rows = table.read(part, ["image_id", "reject", name])
        rows = rows.filter(rows[name].is_valid())
        values = rows[name].cast(pa.float64()).to_numpy()
        order = np.argsort(values, kind="stable")
        seen = pc.not_equal(rows["reject"], LISTED).fill_null(True).to_numpy()[order]
        return cls(values[order], rows["image_id"].to_numpy()[order][seen], values[order][seen])

    def above(self, value: float) -> list[tuple[int, float]]:
        """The nearest ones with a larger score."""
        return self._pictures(slice(start := int(np.searchsorted(self.shown_values, value, "right")), start + SHOWN))

    def below(self, value: float) -> list[tuple[int, float]]:
        """The nearest ones with a smaller score."""
        stop = int(np.searchsorted(self.shown_values, value, "left"))
        return self._pictures(slice(max(0, stop - SHOWN), stop))

    def _pictures(self, where: slice) -> list[tuple[int, float]]:
        return list(zip(self.shown_ids[where].tolist(), self.shown_values[where].tolist(), strict=True))


def _range(table: Table, parts: list[int], name: str) -> tuple[float, float, int, int]:
    """Smallest and largest score, images that have one, and those that have none."""
    low, high, total, rows = np.inf, -np.inf, 0, 0
    for part in parts:
        column = table.read(part, [name])[name]
        found = pc.min_max(column).as_py()
        rows, total = rows + len(column), total + len(column) - column.null_count
        if found["min"] is not None:
            low, high = min(low, float(found["min"])), max(high, float(found["max"]))
    return low, high, total, rows - total


def _chosen(table: Table, parts: list[int], name: str, low: float, high: float) -> Iterator[float]:
    """Thresholds below which round shares of the images lie, of few digits, by a fine histogram."""
    edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
    counts = sum(np.histogram(_Scores.read(table, part, name).values, edges)[0] for part in parts)
    reached = np.cumsum(counts)
    for share in SHARES:
        yield float(f"{edges[1 + np.searchsorted(reached, share * reached[-1])]:.{DIGITS}g}")


def _thresholds(
    table: Table, parts: list[int], name: str, values: np.ndarray, *, now: set[float], total: int
) -> Iterator[Threshold]:
    """What each of the values (V,) takes, from one reading of the table."""
    above, below = np.zeros(len(values), int), np.zeros(len(values), int)
    over: list[list[tuple[int, float]]] = [[] for _ in values]
    under: list[list[tuple[int, float]]] = [[] for _ in values]
    for part in parts:
        scores = _Scores.read(table, part, name)
        below += np.searchsorted(scores.values, values, "left")
        above += len(scores.values) - np.searchsorted(scores.values, values, "right")
        for place, value in enumerate(values.tolist()):
            nearest = over[place] + scores.above(value), under[place] + scores.below(value)
            over[place] = sorted(nearest[0], key=lambda one: (one[1], one[0]))[:SHOWN]
            under[place] = sorted(nearest[1], key=lambda one: (-one[1], one[0]))[:SHOWN]
    for place, value in enumerate(values.tolist()):
        yield Threshold(
            value,
            int(above[place]),
            int(below[place]),
            total,
            value in now,
            tuple(over[place]),
            tuple(under[place]),
        )


def write_score_sweep(run: Finished, found: ScoreSweep) -> str:
    """Write `report/thresholds/NAME.html`; returns its path."""
    name, pictures = found.field.name, Pictures(run)
    doc = found.field.metadata[b"doc"].decode()
    lead = f"{doc[:1].upper()}{doc[1:].rstrip('.')}. By {made_by(found.field)}."
    missing = f" {plural(found.missing, 'image')} of the pool have no such score, and no rule takes them."
    head = el(
        "header",
        el("h1", f"Thresholds of {name}"),
        el("p", lead + (missing if found.missing else ""), class_="lead"),
        *(el("p", line) for line in outdated(run)),
    )
    section = el("section", render_blocks(list(_blocks(found)), pictures))
    page = document(f"{run.name}: thresholds of {name}", el("body", head, el("main", section)), pictures)
    place = f"{SCORE_SWEEPS}/{re.sub(r'[^A-Za-z0-9]+', '-', name)}.html"
    run.store.write_bytes(place, page.encode())
    return run.store.join(place)


def _blocks(found: ScoreSweep) -> Iterator[Block]:
    at = np.array([row.value for row in found.rows])
    if len(at) > 1:
        above, below = (np.array([getattr(row, side) for row in found.rows], float) for side in ("above", "below"))
        lines = [Line("above", above, "a", at), Line("below", below, "b", at)]
        yield Curves(lines, x_label=found.field.name, y_label="images", from_zero=True)
    yield Numbers(HEAD, tuple(row.cells() for row in found.rows))
    yield Text(f"To apply a row, for example: {found.command}")
    for row in found.rows:
        for words, images in (("above", row.nearest_above), ("below", row.nearest_below)):
            if images:
                yield Heading(f"Nearest to {row.value:g}, {words}")
                shown = tuple(Picture(image, (f"{score:.4g}",)) for image, score in images)
                yield Gallery(shown, blurred=found.blurred)
