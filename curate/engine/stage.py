"""A stage makes one table; its fields are its whole configuration; its methods are pure.

Three kinds, all yielding record batches, none knowing files or executors:
    Map      `run(part, **tables)`: a part of the inputs to the aligned part of the output.
    Shuffle  `scatter(part, **tables)` sends rows to buckets, `run(bucket, pieces, **whole)` makes bucket's part.
    Fold     `partial(part, **tables)`, `combine(partials, **whole)` makes one state, `run(part, state, **tables)`.
IteratedFold is a Fold of several rounds (Lloyd), each given the state of the round before.
Scan is the root of a pipeline: it lists what lies outside (see `stages/images/catalog.py`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa

from curate.config import Settings
from curate.engine.store import Table

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
    return Input(schema, "each", optional=optional)


def whole(schema: pa.Schema, *, optional: bool = False, many: bool = False) -> Input:
    return Input(schema, "whole", optional=optional, many=many)


class Stage(Settings):
    """Makes one table. Fields marked `Execution` change speed only and never enter a fingerprint."""

    inputs: ClassVar[dict[str, Input]] = {}
    version: ClassVar[int] = 1
    """Bump when the same input gives other rows."""
    pinned: ClassVar[bool] = False
    """Fitted tables: known by their content, so that appended data does not make them stale."""

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

    def estimate(self, num_images: int) -> dict[str, Any]:
        """What `auto` fields would be if all `num_images` of the catalog reached this stage; for the plan."""
        return {}

    def pins(self) -> dict[str, str]:
        """Contents the rows depend on beside fields and inputs, such as the hash of a weight file."""
        return {}

    def num_parts(self, **inputs: Any) -> int:
        """Parts of the output; by default those of the first `each` input."""
        for name, spec in self.inputs.items():
            if spec.how == "each" and inputs.get(name) is not None:
                return len(inputs[name].parts())
        return 1

    def resources(self) -> dict[str, float]:
        """What a task occupies on a worker, such as {"GPU": 1} where there is one."""
        return {}

    def run(self, *args: Any, **tables: Any) -> Batches:
        """The rows of one part."""
        raise NotImplementedError

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        """JSON-ready figures of the finished table, for the report and for later stages."""
        return {}


class Map(Stage):
    """Part in, aligned part out."""


class Shuffle(Stage):
    """Regroups rows: scattered from input parts into buckets, one output part a bucket."""

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        """Schema of the scattered rows."""
        raise NotImplementedError

    def num_scatter(self, **inputs: Any) -> int:
        """Scatter tasks; by default one for each part of the first `each` input."""
        return Stage.num_parts(self, **inputs)

    def scatter(self, *args: Any, **tables: Any) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(bucket, rows) of one input part, in any order of buckets."""
        raise NotImplementedError


class Fold(Stage):
    """Reduces all parts to one state, then makes the output parts from it."""

    def partial_schema(self, **inputs: Any) -> pa.Schema | None:
        """Schema of the partial results; None: `combine` reads the inputs themselves."""
        return None

    def num_partials(self, **inputs: Any) -> int:
        return Stage.num_parts(self, **inputs)

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

    The state has a column `finished` (bool); its first row says whether this was the last round. Only the
    newest state is kept, and a killed run goes on from it.
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


RunTogether = Callable[..., Iterator[tuple[str, pa.RecordBatch]]]
"""`f(stages, part, **tables)` yields (table name, rows): several Map stages over one reading of their input."""
