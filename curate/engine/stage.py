"""A stage makes one table, and says everything about it in one place.

Its fields are its whole configuration; its methods are pure. Four kinds, all yielding record batches, none knowing
files or executors:

    Map        `run(part, **tables)`: a part of the inputs to the aligned part of the output.
    SharedMap  a Map of which several may share one reading of their inputs.
    Shuffle    `scatter(part, **tables)` sends rows to buckets, `run(bucket, pieces, **whole)` makes the bucket's part.
    Fold       `partial(part, **tables)`, `combine(partials, **whole)` makes one state, `run(part, state, **tables)`.

IteratedFold is a Fold of several rounds (Lloyd), each given the state of the round before. Scan is the root of a
pipeline: it lists what lies outside the workdir. A Listing is a Scan by tasks.

A row whose data could not be had by an error that may pass (a busy server) is **open**. The stage says so of the
batch that holds it: `yield mark_open(batch, num, rows=...)`, from `curate.engine.part_writer`; this works wherever rows
of the output are yielded: `Map.run`, `SharedMap.run_together`, `Shuffle.run`, `Fold.run`. `rows` are the places in the
batch; a stage that leaves such rows out (shards hold no image without bytes) gives their number alone, if need be with
an empty batch. The run goes on and tells how many are open; the next run makes those parts again. A pass gets its own
rows back and makes the open ones alone (`SharedMap.run_open`).

Beside making rows, a stage tells what it costs (`cost`), what the report shows of its table (`show`, `flow`, `facts`,
`warn`, `checks`) and what it did to one image (`explain`). Report, plan, card and `curate explain` ask the stages of
the recipe, in order, and know none of them by name.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa

from curate.config import Settings
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.devices import uses_gpu
from curate.engine.figures import Figures
from curate.engine.show import Check, FlowStep, Section
from curate.engine.table import Table
from curate.errors import TableError

if TYPE_CHECKING:
    from curate.engine.finished import Finished, ImagePlace

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Input:
    """What a stage reads under one name."""

    schema: pa.Schema
    """Columns that must be there; a column of type null stands for any type."""
    how: Literal["each", "whole"]
    """each: the part of the same number, as a pa.Table. whole: the Table, to be read part by part."""
    optional: bool = False
    """The recipe may leave it out; the stage then gets None."""
    many: bool = False
    """Several tables of this schema, as a list."""


def each(schema: pa.Schema, *, optional: bool = False) -> Input:
    """An input of which a task reads the part of its own number."""
    return Input(schema, "each", optional=optional)


def whole(schema: pa.Schema, *, optional: bool = False, many: bool = False) -> Input:
    """An input of which a task may read every part."""
    return Input(schema, "whole", optional=optional, many=many)


class Stage(Settings):
    """Makes one table. Fields marked `Execution` change speed only and never enter a fingerprint."""

    inputs: ClassVar[dict[str, Input]] = {}
    version: ClassVar[int] = 1
    """Raise it when the same input gives other rows."""
    pinned: ClassVar[bool] = False
    """A fitted table: known by its content, so that appended data does not make it stale."""
    parts_like: ClassVar[str | None] = None
    """Name of the input whose parts the output has; `one`: a single part; None: the first input read part by part."""
    needs_local: ClassVar[str] = ""
    """Why the workdir must be a folder of this machine, and what to do elsewhere; empty: it need not be one."""
    tells_from: ClassVar[tuple[str, ...]] = ()
    """Inputs whose rows `show`, `explain` and their like read: these tables are never cleaned."""
    explained_as: ClassVar[str] = ""
    """Word in front of what `explain` says."""

    # -- making the table ------------------------------------------------------------------------------------

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Schema of the output, from the schemas of the inputs (None: left out; a list where many)."""
        raise NotImplementedError

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        """Replace every `auto` by its value, now that the inputs (Tables) are complete.

        Args:
            previous: resolved fields of an earlier run of the same configuration, if any.

        Raises:
            ConfigError: a value is too large for the data; the message names the largest valid one.
        """
        return self

    def pins(self) -> dict[str, str]:
        """Contents the rows depend on beside fields and inputs, such as the hash of a weight file."""
        return {}

    def num_parts(self, **inputs: Any) -> int:
        """Parts of the output, see `parts_like`."""
        return 1 if self.parts_like == "one" else self._parts_of(self.parts_like, inputs)

    def _parts_of(self, like: str | None, inputs: Mapping[str, Any]) -> int:
        """Parts of one input; None: of the first that is given and read part by part; 1 where there is none."""
        read = [like] if like else [name for name, spec in self.inputs.items() if spec.how == "each"]
        return next((len(inputs[name].parts()) for name in read if inputs.get(name) is not None), 1)

    def resources(self) -> dict[str, float]:
        """What a task occupies on a worker: a GPU, for a stage whose field `device` means one here."""
        return {"GPU": 1.0} if uses_gpu(getattr(self, "device", "cpu")) else {}

    def run(self, *args: Any, **tables: Any) -> Batches:
        """The rows of one part."""
        raise NotImplementedError

    def before_making(self, table: Table) -> None:
        """Called by the driver before the first part of the table is made or replaced: for what tells of its rows."""

    def summarize(self, table: Table, **inputs: Any) -> Figures:
        """Figures of the complete table, for the report and for later stages."""
        return Figures()

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """Rows that the stage worked through: those of its first input, unless it says otherwise."""
        given = [table for name in self.inputs for table in [inputs.get(name)] if table is not None]
        if not given:
            return None
        first = given[0] if isinstance(given[0], list) else [given[0]]
        return sum(table.num_rows() for table in first)

    # -- telling about it ------------------------------------------------------------------------------------

    def estimate(self, num_images: int) -> dict[str, Any]:
        """What `auto` fields would be if all `num_images` of the catalog reached this stage; for the plan."""
        return {}

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """What making the table takes, and the shape of the table, from the shapes of the inputs."""
        return Demand(note="not estimated"), Shape()

    def show(self, table: Table, run: "Finished") -> Iterator[Section]:
        """Sections of the report about the table."""
        yield from ()

    def flow(self, table: Table, run: "Finished", before: FlowStep | None) -> Iterator[FlowStep]:
        """Steps on the way from the pool to the result that the stage makes; `before`: the step before them."""
        yield from ()

    def facts(self, table: Table, run: "Finished", *, digits: int = 12) -> Iterator[tuple[str, str]]:
        """(title, line) of what the table depended on: sources, models, thresholds; hashes by so many digits."""
        yield from ()

    def warn(self, table: Table, run: "Finished") -> Iterator[str]:
        """What a person should look at before trusting the result."""
        yield from ()

    def checks(self, table: Table, run: "Finished") -> Iterator[Check]:
        """What the stage has looked for in the images that passed it."""
        yield from ()

    def gaps(self, table: Table, run: "Finished") -> Iterator[tuple[Check, str]]:
        """What the stage has left open of its own checks, in words that follow `not checked:`."""
        yield from ()

    def why_open(self, table: Table, part: int, rows: Sequence[int]) -> list[str]:
        """Why each of these open rows of a part could not be had, in words that are the same for the same kind."""
        return ["could not be had by a later pass"] * len(rows)

    def headline(self, table: Table, run: "Finished") -> str | None:
        """How many images are left, in words such as `120 selected`; None: the stage does not say."""
        return None

    def explain(self, image: "ImagePlace", table: Table, run: "Finished") -> Iterator[str]:
        """What the stage did to one image and why, in lines; nothing where it has nothing to say."""
        yield from ()


class Map(Stage):
    """Part in, aligned part out."""


class SharedMap(Map):
    """A Map of which several may share one reading of their inputs: those of one `Pipeline.add_pass`.

    A task then makes the part of all their tables at once.
    """

    @classmethod
    def run_together(cls, stages: Mapping[str, Self], part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield (table name, rows) for stages of this kind, in order of rows for each table."""
        raise NotImplementedError

    @classmethod
    def run_open(
        cls,
        stages: Mapping[str, Self],
        part: int,
        *,
        before: Mapping[str, pa.Table],
        open_rows: Sequence[int],
        **tables: Any,
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """As `run_together`, where an earlier run could not have the data of some rows; by default all is made again.

        Args:
            before: the part of each table as that run made it.
            open_rows: rows that are open in all of them, ascending; the others may be taken from `before`.
        """
        yield from cls.run_together(stages, part, **tables)

    def run(self, part: int, **tables: Any) -> Batches:
        """The rows of one part, where the stage has the reading for itself."""
        yield from (batch for _, batch in type(self).run_together({"": self}, part, **tables))


class Shuffle(Stage):
    """Regroups rows: scattered from input parts into buckets, one output part a bucket."""

    reuses: ClassVar[bool] = False
    """Whether `run` also takes `before`: the table as earlier runs left it, of which a part may be absent or made of
    something else. Rows must not depend on what is there, only what it costs to make them."""

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        """Schema of the scattered rows."""
        raise NotImplementedError

    def num_scatter(self, **inputs: Any) -> int:
        """Scatter tasks; by default one for each part of the first input that is read part by part."""
        return self._parts_of(None, inputs)

    def scatter(self, *args: Any, **tables: Any) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(bucket, rows) of one input part, in any order of buckets."""
        raise NotImplementedError

    def look_back(self, before: Table, **inputs: Any) -> Self:
        """Where the stage `reuses`: decide in the driver how to go on from the table as earlier runs left it."""
        return self


class Fold(Stage):
    """Reduces all parts to one state, then makes the output parts from it."""

    parts_like: ClassVar[str | None] = "one"

    def partial_schema(self, **inputs: Any) -> pa.Schema | None:
        """Schema of the partial results; None: `combine` reads the inputs themselves."""
        return None

    def num_partials(self, **inputs: Any) -> int:
        """Partial results; by default one for each part of the first input that is read part by part."""
        return self._parts_of(None, inputs)

    def partial(self, *args: Any, **tables: Any) -> Batches:
        """What one input part contributes."""
        raise NotImplementedError

    def state_schema(self, **inputs: Any) -> pa.Schema:
        """Schema of the state; by default that of the output."""
        return self.output_schema(**inputs)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        """The state, from all partial results and the whole inputs."""
        raise NotImplementedError

    def state_images(self, part: int) -> tuple[int, int] | None:
        """Which images of a state by image_id a part of the output is made of, [low, high); None: all of the state."""
        return None

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        """One part of the output; by default the state is the output."""
        yield from state.to_batches()


class IteratedFold(Fold):
    """A Fold in rounds: `partial` and `combine` also take `state`, that of the round before, None in round 0.

    The state has a column `finished` (bool); its first row says whether this was the last round. Only the newest
    state is kept, and a killed run goes on from it.
    """

    def max_rounds(self) -> int:
        """Rounds at most, >= 1; the state of the last one is taken whatever it says."""
        raise NotImplementedError

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema | None:
        """Schema of the partial results of round `number`."""
        return None


class Scan(Stage):
    """Lists what lies outside the workdir; runs in the driver."""

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """(part number, rows): all parts, or with a `known` complete table only those to append.

        The rows' schema may carry metadata of the part; it is kept.
        """
        raise NotImplementedError


class Listing(Scan):
    """A Scan whose work is done by tasks: the driver finds groups of what is to be listed, and cuts parts by counts.

    See `curate.engine.scanning`. What is listed lies in containers, each a home of some rows; a row tells its home.
    """

    def find_groups(self) -> Iterator[tuple[str, str]]:
        """(what a task is to list, its fingerprint), in order; in the driver, which keeps none of the texts.

        Equal fingerprints tell that listing would find the same rows.
        """
        raise NotImplementedError

    def listed_schema(self) -> pa.Schema:
        """Schema of listed rows."""
        raise NotImplementedError

    def list_group(self, group: str, known: "Known | None", tell: Callable[[str], None]) -> Batches:
        """The rows of a group; with `known`, those alone that the table does not hold.

        Args:
            tell: takes, when all rows are yielded, what `cut` and `fill` have to know of them, counts among it.
        """
        raise NotImplementedError

    def resolve_listed(self, told: Iterable[str], previous: Mapping[str, Any] | None) -> Self:
        """Replace every `auto` by its value, now that all groups are listed.

        Args:
            told: of each group, in order.
            previous: resolved fields of the complete table that is appended to, if there is one.
        """
        return self

    def cut(self, told: Iterable[str], known: Table | None) -> Iterator[list[tuple[int, int, int]]]:
        """What each new part is made of: (group, first row, row behind the last), in order.

        Args:
            told: of each group, in order.
            known: the complete table that is appended to, if there is one.
        """
        raise NotImplementedError

    def fill(self, part: int, pieces: "Sequence[Piece]") -> tuple[pa.Schema, Batches]:
        """The rows of a part, and their schema, whose metadata may tell of the part."""
        raise NotImplementedError

    def homes_of(self, rows: pa.Table) -> Sequence[str]:
        """The container of each row of a complete part."""
        raise NotImplementedError

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """All parts, listed in this process and held in memory."""
        if known is not None:
            raise TableError(f"{known.name}: a listing is appended to by tasks alone")
        told: list[str] = []
        groups = [list(self.list_group(group, None, told.append)) for group, _ in self.find_groups()]
        stage = self.resolve_listed(told, None)
        for part, cut in enumerate(stage.cut(told, None)):
            pieces = [
                Piece(told[group], start, stop, partial(_slice, groups[group], self.listed_schema(), start, stop))
                for group, start, stop in cut
            ]
            schema, batches = stage.fill(part, pieces)
            yield part, pa.Table.from_batches(batches, schema)


def _slice(batches: Sequence[pa.RecordBatch], schema: pa.Schema, start: int, stop: int) -> Batches:
    yield from pa.Table.from_batches(batches, schema).slice(start, stop - start).to_batches()


class Piece(NamedTuple):
    """Rows of a group that go into one part."""

    told: str
    """What listing the group told."""
    start: int
    stop: int
    """Rows of the group, [start, stop)."""
    rows: Callable[[], Batches]
    """Reads them."""


class Known:
    """What a complete listing holds, container by container; the part that was read last is held."""

    def __init__(self, table: Table, places: Table) -> None:
        self._table, self._places = table, places
        self._homes: pa.Table | None = None
        self._part: tuple[int, pa.Table] | None = None

    def rows_of(self, home: str, columns: list[str]) -> Iterator[pa.Table]:
        """The rows of a container, in order; the columns are those of the first call."""
        if self._homes is None:
            self._homes = self._places.read(0)
        digests, wanted = self._homes["home"].to_numpy(), np.uint64(digest_text(home))
        low, high = (int(np.searchsorted(digests, wanted, side)) for side in ("left", "right"))
        for place in self._homes.slice(low, high - low).to_pylist():
            if self._part is None or self._part[0] != place["part"]:
                self._part = place["part"], self._table.read(place["part"], columns)
            yield self._part[1].slice(place["start"], place["stop"] - place["start"])


def digest_text(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def read_partials(partials: Table, columns: list[str] | None = None) -> pa.Table:
    """All partial results of a Fold, in the order of the parts they came from; at least one is there."""
    return pa.concat_tables([partials.read(part, columns) for part in sorted(partials.committed())])
