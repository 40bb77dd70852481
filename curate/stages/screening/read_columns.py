"""ReadColumns: the sources' own columns of which `where` speaks, out of the JSON in which `images` holds them.

The types of a stranger's columns are known when all parts are read, and a table has one schema; so values are kept as
texts here, and each part counts the kinds of values that it found. `Screen` adds these up, and casts. Lists such as CSV
have texts alone, so it is counted as well which of them read as a number.

JSON is read by Arrow, which takes a tenth of the time that Python does; it wants the type of each column, for which the
first images are asked. Where others do not keep to it, the rows are read again by Python.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic import Field

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.stages.selection.own_columns import PREFIX, ColumnKinds, arrow_types, own_name
from curate.tables import CATALOG, IMAGE_ID, IMAGES, POOL, ROLES, column

CHUNK_ROWS = 8192
"""Images whose JSON is read at once."""
ASKED = 64
"""Images that are asked for the types of a chunk."""
KEPT_NAMES = 200
"""Names of columns that are told where one is not there."""
NUMBER = r"^-?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?$"
"""Texts that read as a number."""


def name_in_source(name: str) -> str:
    """What the source calls a column that `where` calls `name`: without the prefix of names that we have ourselves."""
    plain = name.removeprefix(PREFIX)
    return plain if plain != name and (own_name(plain) == name or plain in IMAGES.names) else name


class ColumnsTally(Tally):
    """What a part found."""

    most: ClassVar[int] = KEPT_NAMES

    kinds: dict[str, dict[str, int]] = Field(default_factory=dict)
    """By column, then kind of values: images, about."""
    seen: tuple[str, ...] = ()
    """Names of columns that images have, of the first ones."""
    valued: dict[str, int] = Field(default_factory=dict)
    """By column: images that have a value."""
    numeric: dict[str, int] = Field(default_factory=dict)
    """The same of those whose text reads as a number."""

    @property
    def numbers(self) -> set[str]:
        """The columns of which every value reads as a number, whatever its type."""
        return {name for name, number in self.valued.items() if 0 < number == self.numeric.get(name, 0)}

    @classmethod
    def types(cls, table: Table) -> dict[str, pa.DataType]:
        """Of a complete table: by column the type that holds all of its values; null where there are none."""
        return cls.types_of(cls.of(table))

    @staticmethod
    def types_of(tally: "ColumnsTally") -> dict[str, pa.DataType]:
        """The same of what some parts found."""
        found = tally.kinds
        kinds = ColumnKinds()
        kinds.add_counted((name, sum(counts.values()), set(counts)) for name, counts in found.items())
        types = arrow_types(kinds.columns())
        return {name: pa.null() if set(counts) == {"none"} else types[name] for name, counts in found.items()}


class ReadColumns(Map):
    """The sources' own columns that rules speak of, as texts."""

    inputs: ClassVar[dict[str, Input]] = {
        "catalog": each(pa.schema([IMAGE_ID, CATALOG.field("role")])),
        "images": each(pa.schema([IMAGE_ID, IMAGES.field("extra")])),
    }
    tally: ClassVar[type[Tally] | None] = ColumnsTally

    names: tuple[str, ...]
    """The columns, as rules call them."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        text = "value in the source, as text; null: the image has none"
        return pa.schema([IMAGE_ID, *(column(name, pa.string(), text, nullable=True) for name in self.names)])

    def run(self, part: int, *, catalog: pa.Table, images: pa.Table) -> Batches:
        schema = self.output_schema()
        in_pool = len(catalog) > 0 and catalog["role"][0].as_py() == ROLES[POOL]
        for start in range(0, len(images), CHUNK_ROWS):
            ids, texts = (images[name].slice(start, CHUNK_ROWS).combine_chunks() for name in ("image_id", "extra"))
            if not in_pool:  # no rule asks
                texts = pa.nulls(len(ids), pa.string())
            found, tally = read_columns(texts, {name: name_in_source(name) for name in self.names})
            yield pa.RecordBatch.from_arrays([ids, *(found[name] for name in self.names)], schema=schema)
            valued = {name: len(texts) - texts.null_count for name, texts in found.items()}
            numeric = {name: _number_of_numbers(texts) for name, texts in found.items()}
            yield tally_batch(tally.model_copy(update={"valued": valued, "numeric": numeric}), schema)

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        images = inputs["images"]
        made = images._replace(row_bytes=ID_BYTES + given.own_bytes / 2, columns=1 + len(self.names), widths={})
        return Demand(rows=images.rows, written=made.num_bytes), made


def _number_of_numbers(texts: pa.Array) -> int:
    return pc.sum(pc.match_substring_regex(texts, NUMBER)).as_py() or 0


def read_columns(texts: pa.StringArray, names: Mapping[str, str]) -> tuple[dict[str, pa.Array], ColumnsTally]:
    """Columns out of JSON objects, as texts, and what kinds of values they hold.

    Args:
        texts: (N,) JSON objects; null: none.
        names: of each column what the objects call it.
    """
    first = [json.loads(text) for text in texts.drop_null().slice(0, ASKED).to_pylist()]
    seen = tuple(dict.fromkeys(own_name(name) for row in first for name in row))[:KEPT_NAMES]
    kinds = ColumnKinds(set(names.values()))
    kinds.add(first)
    guessed = arrow_types(kinds.columns())
    found = _by_arrow(texts, {name: guessed.get(of, pa.string()) for name, of in names.items()}, names)
    if found is None:
        return _by_python(texts, names, seen)
    counted = {name: _counts(column, guessed.get(names[name])) for name, column in found.items()}
    counted = {name: counts for name, counts in counted.items() if counts}
    return {name: column.cast(pa.string()) for name, column in found.items()}, ColumnsTally(kinds=counted, seen=seen)


def _counts(values: pa.Array, guessed: pa.DataType | None) -> dict[str, int]:
    """Images by kind of value; of a column that none of the first images has, empty where no other has it either."""
    number = len(values) - values.null_count
    kind = {"double": "float64"}.get(str(values.type), str(values.type))
    if number:
        return {kind: number}
    return {} if guessed is None else {"none": len(values)}


def _by_arrow(
    texts: pa.StringArray, types: Mapping[str, pa.DataType], names: Mapping[str, str]
) -> dict[str, pa.Array] | None:
    """The columns of these types; None: some value is of another one."""
    wanted = dict(zip(names.values(), types.values(), strict=True))
    lines = "\n".join(text or "{}" for text in texts.to_pylist()).encode()
    how = pa.json.ParseOptions(
        explicit_schema=pa.schema(list(wanted.items())),
        unexpected_field_behavior="ignore",
    )
    try:
        found = pa.json.read_json(io.BytesIO(lines), pa.json.ReadOptions(block_size=len(lines) + 1), how)
    except pa.ArrowException:
        return None
    return {name: found[of].combine_chunks() for name, of in names.items()} if len(found) == len(texts) else None


def _by_python(
    texts: pa.StringArray, names: Mapping[str, str], seen: tuple[str, ...]
) -> tuple[dict[str, pa.Array], ColumnsTally]:
    rows = [json.loads(text) if text else {} for text in texts.to_pylist()]
    kinds = ColumnKinds(set(names.values()))
    kinds.add(rows)
    counted = {name: (number, found) for name, number, found in kinds.counted()}
    tally = ColumnsTally(
        kinds={
            name: dict.fromkeys(sorted(counted[of][1]), counted[of][0]) for name, of in names.items() if of in counted
        },
        seen=seen,
    )
    return {name: pa.array(list(_texts(rows, of)), pa.string()) for name, of in names.items()}, tally


def _texts(rows: Sequence[Mapping[str, Any]], name: str) -> Iterator[str | None]:
    for row in rows:
        value = row.get(name)
        yield value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def typed(texts: pa.ChunkedArray, dtype: pa.DataType) -> pa.Array:
    """A column of texts as its type."""
    column = texts.combine_chunks()
    return pa.nulls(len(column)) if pa.types.is_null(dtype) else column.cast(dtype)
