"""FindColumns: which of the sources' own columns the selected images have, of which types, and their bytes in all.

Before the first shard is written its schema must be known, and the number of shards: what all selected images hold
together. Parts are looked at in groups, side by side, and what they found is put together in order, so that the result
is that of one look at all images. Names of columns come from strangers and may be too many to count at once; then the
images are looked at a second time, for the columns that the first look found to be the most frequent.
"""

from typing import Any, ClassVar, NamedTuple, Self

import pyarrow as pa

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.demands import folded, grouped
from curate.engine.image_ids import row_of
from curate.engine.stage import Batches, Input, IteratedFold, num_groups, parts_of_group, scan_partials, whole
from curate.engine.table import Table
from curate.sources.class_names import Names
from curate.stages.images.catalog import classes_of
from curate.stages.selection.class_columns import ClassColumns
from curate.stages.selection.own_columns import ColumnKind, ColumnKinds, named_rows, own_name
from curate.tables import CATALOG, IMAGES, OWN_COLUMNS, SELECTION

PARTIAL = pa.schema(
    [
        pa.field("num_bytes", pa.int64()),
        pa.field("name", pa.string()),
        pa.field("count", pa.int64()),
        pa.field("kinds", pa.list_(pa.string())),
        pa.field("classes", pa.list_(pa.string())),
        pa.field("refused", pa.bool_()),
        pa.field("dropped", pa.bool_()),
    ]
)
"""What a group adds: a row with its bytes, and whether names were dropped; then a row for each column."""
STATE = pa.schema([pa.field("finished", pa.bool_()), *OWN_COLUMNS])
NAMED, NAMED_BYTES = 10, 40
"""Own columns that sources have, about, and bytes that tell of one."""


class OwnColumns(NamedTuple):
    """What `FindColumns` found."""

    num_bytes: int
    """Encoded bytes of all selected images."""
    kinds: dict[str, ColumnKind]
    """The type of each column that shards have, in alphabetical order."""
    classes: dict[str, Names]
    """Names of the classes of each column whose sources declare them alike."""
    mixed: tuple[str, ...]
    """Columns that hold classes in some source, but not the same ones in all."""
    num_left_out: int
    """Columns beyond those of the shards, as far as they were counted."""
    left_out: str
    """One of them."""
    uncounted: bool
    """Whether there are more than were counted."""

    @classmethod
    def of(cls, table: Table) -> Self:
        """From the table: a row in all, and one for each column."""
        first, *rows = table.read_all().to_pylist()
        return cls(
            first["num_bytes"],
            {row["name"]: row["kind"] for row in rows if row["kind"] is not None},
            {row["name"]: tuple(row["classes"]) for row in rows if row["classes"] is not None},
            tuple(row["name"] for row in rows if row["mixed"]),
            first["num_left_out"],
            first["left_out"] or "",
            first["uncounted"],
        )


class _Found(NamedTuple):
    """What was seen of some images."""

    num_bytes: int
    kinds: ColumnKinds
    classes: ClassColumns


class FindColumns(IteratedFold):
    """The own columns of the selected images: names, types, classes; and how many bytes the images have."""

    inputs: ClassVar[dict[str, Input]] = {
        "selection": whole(SELECTION),
        "catalog": whole(CATALOG),
        "images": whole(IMAGES),
    }

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return OWN_COLUMNS

    def max_rounds(self) -> int:
        return 2

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        return PARTIAL

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return STATE

    def num_partials(self, **inputs: Any) -> int:
        return num_groups(len(inputs["selection"].parts()))

    def partial(
        self, group: int, *, state: pa.Table | None, selection: Table, catalog: Table, images: Table
    ) -> Batches:
        found = _Found(0, ColumnKinds(None if state is None else _names(state)), ClassColumns())
        for part in parts_of_group(group, len(selection.parts())):
            rows = row_of(selection.read(part, ["image_id"])["image_id"].to_numpy())
            chosen = images.read(part, ["num_bytes", "extra"]).take(rows)
            extra = named_rows(chosen["extra"].drop_null().to_pylist())
            declared = {own_name(name): names for name, names in classes_of(catalog.read(part, ["image_id"])).items()}
            found.kinds.add(extra)
            known = declared.keys() | found.kinds.names()  # also those that another group may declare
            found.classes.add(declared, [{name: row[name] for name in row.keys() & known} for row in extra])
            found = found._replace(num_bytes=found.num_bytes + int(chosen["num_bytes"].to_numpy().sum()))
        yield _partial_rows(found)

    def combine(self, partials: Table | None, *, state: pa.Table | None = None, **tables: Any) -> Batches:
        assert partials is not None
        total = _Found(0, ColumnKinds(None if state is None else _names(state)), ClassColumns())
        for rows in scan_partials(partials):
            total = _merged(total, rows.to_pylist())
        left_out = total.kinds.left_out()
        first = {
            "num_left_out": len(left_out),
            "left_out": next(iter(left_out), None),
            "uncounted": total.kinds.dropped,
        }
        if state is not None:  # the first look has told
            first = state.select(list(first)).slice(0, 1).to_pylist()[0]
        yield _state_rows(total, first, finished=state is not None or not total.kinds.dropped)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield from state.select(OWN_COLUMNS.names).cast(OWN_COLUMNS).to_batches()

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        chosen: Shape = inputs["selection"]
        groups, made = grouped(chosen), Shape(pool=NAMED, row_bytes=NAMED_BYTES, columns=9)
        images, catalog = inputs["images"], inputs["catalog"]
        read = [chosen.scanned(share=ID_BYTES / chosen.row_bytes)]
        read += [images.scanned(share=images.share(("num_bytes", "extra")))]
        read += [catalog.scanned(share=ID_BYTES / catalog.row_bytes)]
        found = made._replace(pool=groups * NAMED, parts=groups)
        return Demand.phases([Demand(rows=chosen.rows), *read, folded(found, made, made)]), made


def _names(state: pa.Table) -> frozenset[str]:
    """The columns that the first look found to be the most frequent."""
    return frozenset(state.filter(state["kind"].is_valid())["name"].to_pylist())


def _partial_rows(found: _Found) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = [{"num_bytes": found.num_bytes, "dropped": found.kinds.dropped}]
    rows += [{"name": name, "count": n, "kinds": sorted(kinds)} for name, n, kinds in found.kinds.counted()]
    counted = found.kinds.names()
    rows += [
        {"name": name, "classes": names, "refused": refused}
        for name, names, refused in found.classes.seen()
        if names is not None or name in counted
    ]
    return pa.RecordBatch.from_pylist(rows, schema=PARTIAL)


def _merged(total: _Found, rows: list[dict[str, Any]]) -> _Found:
    """`total`, to which the rows of a group were added."""
    first, *columns = rows
    total.kinds.dropped |= first["dropped"]
    total.kinds.add_counted((r["name"], r["count"], set(r["kinds"])) for r in columns if r["count"] is not None)
    total.classes.add_seen(
        (r["name"], None if r["classes"] is None else tuple(r["classes"]), r["refused"])
        for r in columns
        if r["refused"] is not None
    )
    return total._replace(num_bytes=total.num_bytes + first["num_bytes"])


def _state_rows(total: _Found, first: dict[str, Any], *, finished: bool) -> pa.RecordBatch:
    kinds, classes, mixed = total.kinds.columns(), total.classes.columns(), set(total.classes.mixed())
    rows: list[dict[str, Any]] = [{"num_bytes": total.num_bytes, "mixed": False} | first]
    rows += [
        {"name": name, "kind": kinds.get(name), "classes": classes.get(name), "mixed": name in mixed}
        for name in sorted(kinds.keys() | classes.keys() | mixed)
    ]
    return pa.RecordBatch.from_pylist([{"finished": finished, **row} for row in rows], schema=STATE)
