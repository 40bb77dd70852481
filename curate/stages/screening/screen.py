"""Screen: all scores of an image side by side, and the rule that rejects it.

Scores are made once, by the stages of this room; rules are cheap. So this stage is the only one that a rule changes,
and what follows from verdicts. A rejected image is treated as one that a person dropped: it still takes part in the
search for copies, so that nothing before is made again when rules change, but it never stays, and no later pass opens
it.

Rules speak of images of the pool. Lists speak of curated ones too, since what is listed must not be in a result at all;
held-out images are compared with and never screened.

The rules, of which the first that rejects an image is recorded: lists, then bounds of scores in the order of the
config, then the parts of `where`. A score that was not measured breaks no bound; an image of which `where` is null is
rejected, as a query in SQL leaves it out.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.config import Execution
from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.figures import Figures
from curate.engine.finished import Finished, ImagePlace
from curate.engine.image_ids import Parts
from curate.engine.show import Check, FlowStep, Section
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.errors import TableError
from curate.ops.screening.conditions import Where, WhereError
from curate.ops.screening.where import parse_where
from curate.stages.images.image_tally import value_counts
from curate.stages.images.pictures import accepted_mask
from curate.stages.screening import telling
from curate.stages.screening.read_columns import ColumnsTally, typed
from curate.stages.screening.read_origin import OPTED_OUT
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.rejects import Rejects
from curate.stages.screening.rules import Drop, ListRule, Rule, list_copies, resolve_bounds
from curate.tables import CATALOG, CURATED, IMAGE_ID, IMAGES, POOL, ROLES, SENSITIVE, is_score, screened_schema

NAMED = ("source", "key", "uri")
MEASURED = ("num_bytes", "width", "height", "format", "pdq_quality", "luma_std", "smoothness")
FACTS = {
    IMAGE_ID.name: IMAGE_ID.type,
    **{name: CATALOG.field(name).type for name in NAMED},
    **{name: IMAGES.field(name).type for name in MEASURED},
}
"""What `where` may ask of an image beside scores and the columns of its source."""
SCORE_BYTES = 4
"""Bytes of a score."""


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
    """By role, then by reason: images, the most frequent reason first."""
    rules: dict[str, int]
    """Images by rule, the most frequent first."""


class Screen(Map):
    """Scores of every image side by side, and what the rules reject."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": each(pa.schema([IMAGE_ID, CATALOG.field("role")])),
        "images": each(pa.schema([IMAGE_ID, IMAGES.field("reject")])),
        "scores": each(pa.schema([IMAGE_ID]), optional=True, many=True),
        "named": each(pa.schema([CATALOG.field(name) for name in NAMED]), optional=True),
        "measured": each(pa.schema([IMAGES.field(name) for name in MEASURED]), optional=True),
        "columns": each(pa.schema([IMAGE_ID]), optional=True, many=True),
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
    where: str | None = None
    """What an image must be; null: anything."""
    column_types: dict[str, Literal["bool", "int64", "double", "string", "null"]] | None = None
    """Types of the sources' own columns of which `where` speaks; null: as the images have them."""
    show_sensitive: Annotated[bool, Execution()] = False
    """Whether the report shows what sensitive scores find as it is."""

    # -- rules -----------------------------------------------------------------------------------------------

    def output_schema(self, **inputs: Any) -> pa.Schema:
        schema = screened_schema(_score_fields(inputs["scores"] or []))
        self.rules(schema)
        if self.where is not None:
            known = FACTS | {field.name: field.type for field in schema if is_score(field)}
            own = {name: pa.null() for name in self.parsed.names if name not in known}  # not known before it is read
            self._check(own | known)
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
            found.append(Rule(name, bounds, flag=pa.types.is_boolean(fields[name].type)))
        return found

    @property
    def parsed(self) -> Where:
        """The condition `where`.

        Raises:
            ConfigError: it is none.
        """
        try:
            return parse_where(self.where or "")
        except WhereError as error:
            raise self.field_error("where", f": {error}") from None

    def _check(self, types: Mapping[str, pa.DataType], sought: str = "") -> None:
        try:
            self.parsed.check(types, sought=sought)
        except WhereError as error:
            raise self.field_error("where", f": {error}") from None

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        """Check `where` against the sources' own columns, now that these are read."""
        if not inputs["columns"]:
            return self
        (table,) = inputs["columns"]
        own, seen = ColumnsTally.types(table), ColumnsTally.of(table).seen
        scores = (field for one in inputs["scores"] or () for field in one.schema() if is_score(field))
        known = FACTS | {field.name: field.type for field in scores}
        sought = "it is neither a fact, nor a score of this run, nor a column of its sources"
        self._check(dict.fromkeys(seen, pa.null()) | own | known, sought=sought)
        return self.model_copy(update={"column_types": {name: str(dtype) for name, dtype in own.items()}})

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of which `where` speaks."""
        return () if self.where is None else self.parsed.names

    @staticmethod
    def sensitive(schema: pa.Schema) -> set[str]:
        """The scores whose pictures are shown blurred."""
        return {field.name for field in schema if is_score(field) and SENSITIVE in field.metadata}

    # -- rows ------------------------------------------------------------------------------------------------

    def run(
        self,
        part: int,
        *,
        catalog: pa.Table,
        images: pa.Table,
        scores: list[pa.Table] | None,
        named: pa.Table | None,
        measured: pa.Table | None,
        columns: list[pa.Table] | None,
    ) -> Batches:
        schema = screened_schema(_score_fields([table.schema for table in scores or []]))
        ids = catalog["image_id"].combine_chunks()
        found = _aligned(scores or [], ids)
        role = ROLES.index(catalog["role"][0].as_py()) if len(catalog) else POOL
        rejects = Rejects(accepted_mask(images) & (role in (POOL, CURATED)))
        if LISTED in found:
            rejects.by_list(found[LISTED], list_copies(self.lists))
        if self.opt_outs and OPTED_OUT in found:
            rejects.by_text(OPTED_OUT, found[OPTED_OUT])
        if role == POOL:
            for rule in self.rules(schema):
                rejects.by_score(rule, found[rule.column])
            if self.where is not None:
                asked = {IMAGE_ID.name: ids} | _own(columns or [], self.column_types or {}) | dict(found)
                asked |= {name: column for table in (named, measured) for name, column in _columns(table)}
                rejects.by_where(self.parsed, {name: _one(asked[name]) for name in self.names})
        yield from pa.table([ids, *found.values(), *rejects.columns()], schema=schema).to_batches()

    def summarize(self, table: Table, **inputs: Any) -> ScreenFigures:
        parts, tallies = Parts.of(inputs["catalog"]), ScreenTally.by_part(table)
        by_role = {
            role: ScreenTally.sum(tallies[part] for part in parts.numbers(number)).reasons
            for number, role in enumerate(ROLES)
        }
        return ScreenFigures(
            rejected={role: _ordered(reasons) for role, reasons in by_role.items() if reasons},
            rules=_ordered(ScreenTally.sum(tallies).rules),
        )

    # -- telling about it ------------------------------------------------------------------------------------

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        listed, scores = inputs["catalog"], inputs.get("scores") or []
        num_scores = sum(shape.columns - 1 for shape in scores)
        made = listed._replace(row_bytes=ID_BYTES + SCORE_BYTES * num_scores, columns=6 + num_scores, widths={})
        return Demand(rows=listed.rows * (2 + num_scores), written=made.num_bytes), made

    def flow(self, table: Table, run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
        yield from telling.flow(ScreenFigures.of(table).rejected, run, before)

    def facts(self, table: Table, run: Finished, *, digits: int = 12) -> Iterator[tuple[str, str]]:
        yield from telling.facts(table, self._counts(table), self.rules(table.schema()), digits=digits)

    def warn(self, table: Table, run: Finished) -> Iterator[str]:
        yield from telling.warn(table, ScreenFigures.of(table).rejected, run)

    def checks(self, table: Table, run: Finished) -> Iterator[Check]:
        yield from telling.checks(table.schema(), self.rules(table.schema()), self.names)

    def gaps(self, table: Table, run: Finished) -> Iterator[tuple[Check, str]]:
        elsewhere = {check for one, made in run.tables if one is not self for check in one.checks(made, run)}
        for check, text in telling.gaps(table.schema(), self.rules(table.schema()), self.names):
            if check not in elsewhere:  # faces that are blurred need no rule
                yield check, text

    def show(self, table: Table, run: Finished) -> Iterator[Section]:
        rules = self.rules(table.schema())
        yield from telling.show(table, run, self._counts(table), rules, blurred=not self.show_sensitive)

    def _counts(self, table: Table) -> dict[str, int]:
        """Images by rule; the clauses of `where` that reject none count too."""
        clauses = () if self.where is None else self.parsed.clauses
        counts = ScreenFigures.of(table).rules
        return counts | {clause.text: 0 for clause in clauses if clause.text not in counts}

    def explain(self, image: ImagePlace, table: Table, run: Finished) -> Iterator[str]:
        for row in run.rows_of(image, table):
            yield from telling.explain(row, table.schema())


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def _score_fields(schemas: Sequence[pa.Schema]) -> list[pa.Field]:
    """Columns of scores of some tables, in order.

    Raises:
        TableError: two have the same name, or that of another column of the table.
    """
    fields = [field for schema in schemas for field in schema if is_score(field)]
    names = [field.name for field in fields]
    taken = set(screened_schema([]).names) | FACTS.keys()
    twice = next((name for name in names if names.count(name) > 1 or name in taken), None)
    if twice is not None:
        raise TableError(f"scores: {twice} names more than one column; give the head, list or examples another name")
    return fields


def _aligned(tables: Sequence[pa.Table], ids: pa.Array) -> dict[str, pa.ChunkedArray]:
    """Scores by name.

    Raises:
        TableError: a table holds other images than the catalog.
    """
    for table in tables:
        if not np.array_equal(table["image_id"].to_numpy(), ids.to_numpy()):
            raise TableError(f"scores: a table of scores holds {len(table)} images, not the {len(ids)} of the catalog")
    return {field.name: table[field.name] for table in tables for field in table.schema if is_score(field)}


def _own(tables: Sequence[pa.Table], types: Mapping[str, str]) -> dict[str, pa.Array]:
    """Columns of the sources, by the types that all images agree on; those that no image has are null."""
    given = [(name, table[name]) for table in tables for name in table.column_names[1:]]
    return {name: typed(texts, pa.type_for_alias(types.get(name, "null"))) for name, texts in given}


def _columns(table: pa.Table | None) -> list[tuple[str, pa.ChunkedArray]]:
    return [] if table is None else list(zip(table.column_names, table.columns, strict=True))


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
