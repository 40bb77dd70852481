"""Screen: all scores of an image side by side, and the rule that rejects it.

Scores are made once, by the stages of this room; rules are cheap. So this stage is the only one that a rule changes,
and what follows from verdicts. A rejected image is treated as one that a person dropped: it still takes part in the
search for copies, so that nothing before is made again when rules change, but it never stays, and no later pass opens
it.

Rules speak of images of the pool. Lists speak of curated ones too, since what is listed must not be in a result at all;
held-out images are compared with and never screened.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.engine.figures import Figures
from curate.engine.image_ids import Parts
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.errors import TableError
from curate.stages.images.image_tally import value_counts
from curate.stages.images.pictures import accepted_mask
from curate.stages.screening.read_origin import OPTED_OUT
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.rules import Drop, ListRule, Rule, list_copies, resolve_bounds
from curate.tables import CATALOG, CURATED, IMAGE_ID, IMAGES, POOL, ROLES, is_score, screened_schema


class ScreenTally(Tally):
    """What a part adds to the figures."""

    columns: ClassVar[tuple[str, ...]] = ("reject", "rule")

    reasons: dict[str, int] = Field(default_factory=dict)
    """Rejected images by reason."""
    rules: dict[str, int] = Field(default_factory=dict)
    """The same by rule."""

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        mine = rows.filter(rows["reject"].is_valid())
        return cls(reasons=value_counts(mine["reject"]), rules=value_counts(mine["rule"]))


class ScreenFigures(Figures):
    """What the rules reject."""

    rejected: dict[str, dict[str, int]]
    """By role, then by reason: images."""
    rules: dict[str, int]
    """Images by rule."""


class Screen(Map):
    """Scores of every image side by side, and what the rules reject."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": each(pa.schema([IMAGE_ID, CATALOG.field("role")])),
        "images": each(pa.schema([IMAGE_ID, IMAGES.field("reject")])),
        "scores": each(pa.schema([IMAGE_ID]), optional=True, many=True),
    }
    parts_like: ClassVar[str | None] = "catalog"
    tally: ClassVar[type[Tally] | None] = ScreenTally
    explained_as: ClassVar[str] = "screened"

    lists: tuple[ListRule, ...] = ()
    """What is done with the images of each list."""
    drop: dict[str, Drop] = Field(default_factory=dict)
    """By score: which images go."""
    opt_outs: bool = False
    """Whether images go whose owners reserve the use for training."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        schema = screened_schema(_score_fields(inputs["scores"] or []))
        self.rules(schema)
        return schema

    def rules(self, schema: pa.Schema) -> list[Rule]:
        """The rules on columns of scores, in order.

        Raises:
            ConfigError: there is no such score, or the rule does not suit it.
        """
        fields = {field.name: field for field in schema if is_score(field)}
        found = []
        for name, given in self.drop.items():
            if name not in fields:
                near = difflib.get_close_matches(name, list(fields), n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(fields) or 'none'}"
                raise self.field_error(f"drop.{name}", f": no score of this run is called so; {hint}")
            bounds = resolve_bounds(given, fields[name])
            if isinstance(bounds, str):
                raise self.field_error(f"drop.{name}", bounds)
            found.append(Rule(name, bounds))
        return found

    def run(self, part: int, *, catalog: pa.Table, images: pa.Table, scores: list[pa.Table] | None) -> Batches:
        schema = screened_schema(_score_fields([table.schema for table in scores or []]))
        columns = _columns(scores or [], catalog["image_id"].combine_chunks())
        role = ROLES.index(catalog["role"][0].as_py()) if len(catalog) else POOL
        found = Rejects(len(catalog), accepted_mask(images) & (role in (POOL, CURATED)))
        if LISTED in columns:
            found.by_list(columns[LISTED], list_copies(self.lists))
        if self.opt_outs and OPTED_OUT in columns:
            found.by_text(OPTED_OUT, columns[OPTED_OUT])
        for rule in self.rules(schema) if role == POOL else []:
            found.by_score(rule, columns[rule.column])
        yield from pa.table([catalog["image_id"], *columns.values(), *found.columns()], schema=schema).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> ScreenFigures:
        parts, tallies = Parts.of(inputs["catalog"]), ScreenTally.by_part(table)
        by_role = {
            role: ScreenTally.sum(tallies[part] for part in parts.numbers(number)).reasons
            for number, role in enumerate(ROLES)
        }
        return ScreenFigures(
            rejected={role: reasons for role, reasons in by_role.items() if reasons},
            rules=ScreenTally.sum(tallies).rules,
        )


class Rejects:
    """What the rules say of the images of a part: of each the first one that rejects it."""

    def __init__(self, num_images: int, wanted: np.ndarray) -> None:
        """Nothing is rejected yet.

        Args:
            wanted: (N,) bool, images of which rules speak at all.
        """
        self._free = wanted.copy()
        self._rule = np.full(num_images, -1, np.int32)
        self._value = np.full(num_images, np.nan)
        self._copies = np.zeros(num_images, bool)
        self._reasons: list[tuple[str, str]] = []
        self._rows: list[np.ndarray] = []
        self._details: list[pa.Array] = []
        self._wanted = wanted

    def add(
        self, mask: np.ndarray, *, reason: str, rule: str, value: np.ndarray, detail: pa.Array, copies: bool
    ) -> None:
        """A rule that rejects the images of `mask` (N,) bool.

        Args:
            value: (N,) float64, NaN where it is no number.
            detail: (N,) what was found.
            copies: whether it takes copies too.
        """
        mask = mask & self._wanted
        self._copies |= mask & copies
        rows = np.flatnonzero(mask & self._free)
        if len(rows) == 0:
            return
        self._free[rows] = False
        self._rule[rows] = len(self._reasons)
        self._value[rows] = value[rows]
        self._reasons.append((reason, rule))
        self._rows.append(rows)
        self._details.append(detail.take(pa.array(rows)).cast(pa.string()))

    def by_score(self, rule: Rule, score: pa.ChunkedArray) -> None:
        """A rule on a column of scores."""
        mask = rule.bounds.broken(score)
        value = score.cast(pa.float64()).fill_null(np.nan).to_numpy()
        detail = pa.array(np.full(len(score), rule.text))
        self.add(mask, reason=rule.column, rule=rule.text, value=value, detail=detail, copies=rule.bounds.with_copies)

    def by_text(self, name: str, found: pa.ChunkedArray) -> None:
        """The images of which a column of text says anything, which is then the detail."""
        nothing = np.full(len(found), np.nan)
        mask = found.is_valid().to_numpy()
        self.add(mask, reason=name, rule=name, value=nothing, detail=found.combine_chunks(), copies=False)

    def by_list(self, listed: pa.ChunkedArray, copies: Mapping[str, bool]) -> None:
        """The images that lists name."""
        names = listed.to_numpy(zero_copy_only=False)
        nothing = np.full(len(names), np.nan)
        for name in dict.fromkeys(listed.drop_null().to_pylist()):
            detail = pa.array(np.full(len(names), f"on the list {name}"))
            self.add(
                names == name, reason=LISTED, rule=name, value=nothing, detail=detail, copies=copies.get(name, True)
            )

    def columns(self) -> list[pa.Array]:
        """reject, rule, value, detail and with_copies."""
        rejected = self._rule >= 0
        number = pa.array(self._rule, mask=~rejected)
        reason, rule = (pa.array([one[i] for one in self._reasons], pa.string()).take(number) for i in (0, 1))
        place = np.zeros(len(self._rule), np.int64)
        rows = np.concatenate([np.empty(0, np.int64), *self._rows])
        place[rows] = np.arange(len(rows))
        details = pa.concat_arrays([pa.array([], pa.string()), *self._details])
        value = pa.array(self._value, mask=np.isnan(self._value))
        detail = details.take(pa.array(place, mask=~rejected))
        return [reason, rule, value, detail, pa.array(self._copies, mask=~rejected)]


def _score_fields(schemas: Sequence[pa.Schema]) -> list[pa.Field]:
    """Columns of scores of some tables, in order.

    Raises:
        TableError: two have the same name.
    """
    fields = [field for schema in schemas for field in schema if is_score(field)]
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"scores: two columns are called {twice}; give the head, list or examples another name")
    return fields


def _columns(tables: Sequence[pa.Table], ids: pa.Array) -> dict[str, pa.ChunkedArray]:
    """Scores by name.

    Raises:
        TableError: a table holds other images than the catalog.
    """
    for table in tables:
        if not table["image_id"].combine_chunks().equals(ids):
            raise TableError(f"scores: a table of scores holds {len(table)} images, not the {len(ids)} of the catalog")
    return {field.name: table[field.name] for table in tables for field in table.schema if is_score(field)}
