"""A stage makes one table, and says everything about it in one place.

Its fields are its whole configuration; its methods are pure. Four kinds, all yielding record batches, none knowing
files or executors:

    Map        `run(part, **tables)`: a part of the inputs to the aligned part of the output.
    SharedMap  a Map of which several may share one reading of their inputs.
    Shuffle    `scatter(part, **tables)` sends rows to buckets, `run(bucket, pieces, **whole)` makes the bucket's part;
               how rows travel between the two is told in `shuffle.py`.
    Fold       `partial(part, **tables)`, `combine(partials, **whole)` makes one state, `run(part, state, **tables)`.

IteratedFold is a Fold of several rounds (Lloyd), each given the state of the round before. Scan is the root of a
pipeline: it lists what lies outside the workdir. A Listing is a Scan by tasks.

A row whose data could not be had by an error that may pass (a busy server) is **open**. The stage says so of the
batch that holds it: `yield mark_open(batch, num, rows=...)`, from `curate.engine.part_writer`; this works wherever rows
of the output are yielded: `Map.run`, `SharedMap.run_together`, `Shuffle.run`, `Fold.run`. `rows` are the places in the
batch; a stage that leaves such rows out (shards hold no image without bytes) gives their number alone, if need be with
an empty batch. The run goes on and tells how many are open; the next run makes those parts again. A pass gets its own
rows back and makes the open ones alone (`SharedMap.run_again`).

Beside making rows, a stage tells what it costs (`cost`), what the report shows of its table (`show`, `flow`, `facts`,
`warn`, `checks`) and what it did to one image (`explain`). Report, plan, card and `curate explain` ask the stages of
the recipe, in order, and know none of them by name.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa

from curate.config import Settings, differences, identity
from curate.engine.cost import Assumptions, Demand, Shape, Shapes
from curate.engine.devices import may_use_gpu
from curate.engine.figures import Figures
from curate.engine.row_reuse import Earlier
from curate.engine.show import Check, FlowStep, Section
from curate.engine.shuffle import Scattered, row_bytes
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.errors import TableError

if TYPE_CHECKING:
    from curate.engine.finished import Finished, ImagePlace

Batches = Iterator[pa.RecordBatch]
ListingT = TypeVar("ListingT", bound="Listing")


@dataclass(frozen=True)
class Input:
    """What a stage reads under one name."""

    schema: pa.Schema
    """Columns that must be there, and of `each` those that are read; a column of type null stands for any type."""
    how: Literal["each", "whole"]
    """each: the part of the same number, as a pa.Table; where many, with all of its columns. whole: the Table, to be
    read part by part."""
    optional: bool = False
    """The recipe may leave it out; the stage then gets None."""
    many: bool = False
    """Several tables of this schema, as a list."""
    beyond_rows: bool = False
    """The stage reads more than rows, such as files that the table's figures name. Equal rows do not tell that
    those are equal too, so it depends on what the table is made of."""
    as_table: bool = False
    """Of `each`: the stage gets the Table, and reads of it the part of its own number alone."""
    added: bool = False
    """Optional, and unknown to earlier versions: where it is left out, fingerprints say nothing of it, so that tables
    that are there stay."""


def each(schema: pa.Schema, *, optional: bool = False, many: bool = False) -> Input:
    """An input of which a task reads the part of its own number."""
    return Input(schema, "each", optional=optional, many=many)


def opened(schema: pa.Schema) -> Input:
    """An input of which a task opens the file of the part of its own number: its bytes count, not its rows alone."""
    return Input(schema, "each", beyond_rows=True, as_table=True)


def whole(
    schema: pa.Schema,
    *,
    optional: bool = False,
    many: bool = False,
    beyond_rows: bool = False,
    added: bool = False,
) -> Input:
    """An input of which a task may read every part; the others are told at `Input`."""
    return Input(schema, "whole", optional=optional or added, many=many, beyond_rows=beyond_rows, added=added)


def as_list(value: Any) -> list[Any]:
    """An input as a list: empty where it is left out."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


class Stage(Settings):
    """Makes one table. Fields marked `Execution` change speed only and never enter a fingerprint."""

    inputs: ClassVar[dict[str, Input]] = {}
    version: ClassVar[int] = 1
    """Raise it when the same input gives other rows."""
    pinned: ClassVar[bool] = False
    """A fitted table: known by its content, so that appended data does not make it stale."""
    parts_like: ClassVar[str | None] = None
    """Name of the input whose parts the output has; `one`: a single part; None: the first input read part by part."""
    pins_are_data: ClassVar[bool] = False
    """Whether other `pins` are data that came in, so that the table is made again without asking."""
    needs_local: ClassVar[str] = ""
    """Why the workdir must be a folder of this machine, and what to do elsewhere; empty: it need not be one."""
    tally: ClassVar[type[Tally] | None] = None
    """What each part adds to the figures, counted while it is written: `summarize` reads no rows."""
    tells_from: ClassVar[tuple[str, ...]] = ()
    """Inputs whose rows `show`, `explain` and their like read: these tables are never cleaned."""
    tells_by_figures: ClassVar[bool] = False
    """Whether these read no rows of its own table, so that it may be cleaned."""
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

    def is_resolved(self) -> bool:
        """Whether no field is left whose `auto` depends on the machine that performs the tasks."""
        return True

    def resolve_on_worker(self) -> Self:
        """Replace these, on a worker: the driver may have no GPU where workers have one, and needs no torch."""
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
        given = (table for name in read for table in as_list(inputs.get(name)))
        return next((len(table.parts()) for table in given), 1)

    def resources(self) -> dict[str, float]:
        """What a task occupies on a worker that offers it: a GPU, for a stage whose field `device` may mean one."""
        return {"GPU": 1.0} if may_use_gpu(getattr(self, "device", "cpu")) else {}

    def run(self, *args: Any, **tables: Any) -> Batches:
        """The rows of one part."""
        raise NotImplementedError

    def before_making(self, table: Table) -> None:
        """Called by the driver before the first part of the table is made or replaced: for what tells of its rows."""

    def summarize(self, table: Table, **inputs: Any) -> Figures:
        """Figures of the complete table, for the report and for later stages; in the driver, from tallies alone."""
        return Figures()

    def rows_in(self, figures: Figures, **inputs: Any) -> int | None:
        """Rows that the stage worked through: those of its first input, unless it says otherwise."""
        given = [table for name in self.inputs for table in [inputs.get(name)] if table is not None]
        if not given:
            return None
        first = given[0] if isinstance(given[0], list) else [given[0]]
        return sum(table.num_rows() for table in first)

    def differs_from(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        """(field, then, now) of the settings by which a table that was made under `config` is not the wanted one."""
        yield from differences(config, identity(self))

    # -- telling about it ------------------------------------------------------------------------------------

    def estimate(self, num_images: int) -> dict[str, Any]:
        """What `auto` fields would be if all `num_images` of the catalog reached this stage; for the plan.

        Raises:
            ConfigError: the stage could not work even then.
        """
        return {}

    def check_size(self, num_images: int, **inputs: Any) -> None:
        """Asked when images are listed and none is read yet, with the schemas of the inputs.

        Raises:
            ConfigError: the stage cannot work, if all `num_images` of the catalog reach it; the message names the
                largest valid value.
        """
        self.estimate(num_images)

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

    leads: ClassVar[bool] = False
    """Whether it says how the inputs are read for every stage of its pass. The rows of the others then depend on it and
    not on each other, so that a task makes its rows and those that are missing alone."""
    stands_alone: ClassVar[bool] = False
    """In a pass with a stage that leads: whether of the stages before it the fingerprint holds that one alone, and
    those after it do not hold it. Such tables come and go without a change of the others."""

    @classmethod
    def run_together(cls, stages: Mapping[str, Self], part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield (table name, rows) for stages of this kind, in order of rows for each table."""
        raise NotImplementedError

    @classmethod
    def contents(cls, part: int, **tables: Any) -> list[str]:
        """What the rows of a part are made from, a digest for each block of `row_reuse.BLOCK_ROWS` rows.

        It leaves out inputs that only choose which rows are made, and must tell apart what gives other rows. By default
        empty: where an input changes, all rows are made again. See `row_reuse.py`.
        """
        return []

    @classmethod
    def run_again(
        cls, stages: Mapping[str, Self], part: int, *, earlier: Earlier, **tables: Any
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        """As `run_together`, where an earlier run left rows that may be taken; by default all are made again.

        Args:
            earlier: which rows these are, and the tables that hold them: those that are to be made. A row that is
                wanted no more must not be taken.
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

    def scatter(self, *args: Any, **tables: Any) -> Iterator[Scattered]:
        """(bucket, rows) of one input part, in any order of buckets; the bucket is one for all rows, or (N,) int."""
        raise NotImplementedError

    def scattered_bytes(self, pieces: pa.Schema, **inputs: Any) -> float:
        """Bytes of all scattered rows in memory, about: tells how many tasks scatter, and in how many levels.

        By default there is a row for each row of the first input that is read part by part. A wrong guess costs time.

        Args:
            pieces: schema of the scattered rows.
        """
        read = [inputs.get(name) for name, spec in self.inputs.items() if spec.how == "each"]
        rows: int = next((table.num_rows() for table in read if table is not None), 0)
        return float(rows * row_bytes(pieces))

    def condense(self, pieces: pa.Table) -> pa.Table:
        """Fewer rows of one bucket from which `run` makes the same part; by default all of them.

        It is given some of the bucket's rows at a time, and what it left of others.
        """
        return pieces

    def look_back(self, before: Table, **inputs: Any) -> Self:
        """Where the stage `reuses`: decide in the driver how to go on from the table as earlier runs left it."""
        return self


class Fold(Stage):
    """Reduces all parts to one state, then makes the output parts from it."""

    parts_like: ClassVar[str | None] = "one"
    state_by_image: ClassVar[bool] = False
    """The output is aligned with the catalog, and the state has the column `image_id`, ascending: it is stored by part,
    and `run` gets the rows of its own images."""

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

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        """One part of the output, from the state, or of it the part's own; by default that is the output."""
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


MAX_GROUPS = 256
"""Partial results at most of a Fold that makes one of several parts."""


def num_groups(num_parts: int) -> int:
    """Partial results where one is made of a group of consecutive parts, so that `combine` reads a bounded number."""
    return min(max(1, num_parts), MAX_GROUPS)


def parts_of_group(group: int, num_parts: int) -> range:
    """The parts that one of `num_groups(num_parts)` partial results is made of."""
    groups = num_groups(num_parts)
    return range(group * num_parts // groups, (group + 1) * num_parts // groups)


def scan_partials(partials: Table, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The partial results of a Fold one by one, in the order of the parts they came from; at least one is there."""
    for part in sorted(partials.committed()):
        yield partials.read(part, columns)


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

    def homes_of(self, rows: pa.Table, told: str | None = None) -> Sequence[str]:
        """The container of each row of a complete part.

        Args:
            told: what listing a group told, where the rows are those of a group: their containers are then named alike
                wherever they lie, as `move` asks for them.
        """
        raise NotImplementedError

    def as_listed(self, known: Table) -> Self:
        """The stage that lists in the order in which a complete table was listed; by default there is one order."""
        return self

    def changed(self, known: Table) -> "Changed[Self]":
        """What brings a complete table of other settings up to these, where `differs_from` finds nothing between."""
        return Changed(None, (), None)

    def move(self, rows: pa.Table, found: "Known", tell: Callable[[str], None]) -> tuple[pa.Schema, Batches]:
        """A part of which all that it lists lies elsewhere by now: its rows with their new places; no other may notice.

        Args:
            found: what lies there.
            tell: takes what `check_moved` has to know of the part.

        Raises:
            StaleTable: something is not there, or not the same.
        """
        raise NotImplementedError

    def check_moved(self, known: Table, moved: Table, told: Mapping[int, str]) -> None:
        """Called by the driver when all parts are moved, before they replace those that are there.

        Args:
            moved: holds the parts as they will be, under their numbers.
            told: of each of them.

        Raises:
            StaleTable: what lies there is not what was listed.
        """

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


class Changed(NamedTuple, Generic[ListingT]):
    """How a complete listing can be brought up to other settings."""

    moved: ListingT | None
    """Lists what lies elsewhere by now; None: nothing does."""
    parts: Sequence[int]
    """Numbers of the parts that list it."""
    added: ListingT | None
    """Lists what the table does not list yet; None: there is nothing."""


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
    """What a listing holds, container by container; the part that was read last is held."""

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
    """All of `scan_partials` in memory: where these are few, or small."""
    return pa.concat_tables(scan_partials(partials, columns))
