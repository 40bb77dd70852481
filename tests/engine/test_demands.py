"""What laws say of files and of the engine, beside what the file systems count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.counting import Counts, metered
from curate.engine.cost import Assumptions, Demand, Shape
from curate.engine.demands import Sent, around, folded, shuffled
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.shuffle import Scattered, partition
from curate.engine.stage import Batches, Fold, Input, Map, Scan, Shuffle, Stage, each, read_partials
from curate.engine.store import Store
from curate.engine.table import Table

WIDE = pa.schema([pa.field("number", pa.int64(), nullable=False), pa.field("noise", pa.binary(64), nullable=False)])
NARROW = pa.schema([WIDE.field("number")])
PARTS = 12


def wide(part: int, rows: int) -> pa.RecordBatch:
    noise = np.random.default_rng(part).bytes(64 * rows)
    column = pa.Array.from_buffers(pa.binary(64), rows, [None, pa.py_buffer(noise)])
    return pa.RecordBatch.from_arrays([pa.array(np.arange(rows)), column], schema=WIDE)


class Listed(Scan):
    rows: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return WIDE

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        for part in range(PARTS):
            yield part, pa.Table.from_batches([wide(part, self.rows)])


class Copied(Map):
    inputs: ClassVar[dict[str, Input]] = {"wide": each(WIDE)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return WIDE

    def run(self, part: int, *, wide: pa.Table) -> Batches:
        yield from wide.to_batches()


class Numbers(Map):
    """Declares one column of those that its input has."""

    inputs: ClassVar[dict[str, Input]] = {"wide": each(NARROW)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NARROW

    def run(self, part: int, *, wide: pa.Table) -> Batches:
        assert wide.column_names == ["number"]
        yield from wide.to_batches()


class Summed(Fold):
    inputs: ClassVar[dict[str, Input]] = {"wide": each(WIDE)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NARROW

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return NARROW

    def partial(self, part: int, *, wide: pa.Table) -> Batches:
        yield pa.RecordBatch.from_arrays([pa.array([len(wide)])], schema=NARROW)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        total = sum(read_partials(partials)["number"].to_pylist())
        yield pa.RecordBatch.from_arrays([pa.array([total])], schema=NARROW)


class Dealt(Shuffle):
    """Deals rows to buckets at random."""

    inputs: ClassVar[dict[str, Input]] = {"wide": each(WIDE)}
    buckets: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return WIDE

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return WIDE

    def num_parts(self, **inputs: Any) -> int:
        return self.buckets

    def scatter(self, part: int, *, wide: pa.Table) -> Iterator[Scattered]:
        yield from partition(wide, np.random.default_rng(part).integers(0, self.buckets, len(wide)))

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        yield from pieces.to_batches()


def test_parts_are_fetched_by_as_many_reads_as_the_law_says(tmp_path: Path) -> None:
    for rows in (300, 5000):  # a part that its end holds, and one of 320 kB
        table = Store(tmp_path).table(f"t{rows}")
        for part in range(PARTS):
            table.commit(part, WIDE, [wide(part, rows)])
        shape = Shape(pool=rows * PARTS, row_bytes=65.2, parts=PARTS, columns=2)
        with metered() as meter:
            for part in range(PARTS):
                table.read(part)
            found = meter.counts()
        law = Demand.sum([shape.opened(), shape.fetched()])
        assert found.requests == law.requests
        assert found.bytes_read == pytest.approx(law.read, rel=0.05)
        assert law == shape.scanned()
        with metered() as meter:
            table.footers(range(PARTS))
            assert meter.counts().requests == shape.opened().requests


def test_a_task_reads_the_columns_that_its_stage_declares(tmp_path: Path) -> None:
    read = {stage: counted(tmp_path / type(stage).__name__, stage).bytes_read for stage in (Copied(), Numbers())}
    wide_bytes = 5000 * PARTS * 65
    copied, numbers = read.values()
    assert copied > wide_bytes
    assert numbers < 64 * 1024 * PARTS * 3 + 5000 * PARTS * 2 < wide_bytes


@pytest.mark.parametrize("stage", [Copied(), Summed()])
def test_what_the_engine_does_around_a_stage_is_what_its_law_says(tmp_path: Path, stage: Stage) -> None:
    listed = Shape(pool=5000 * PARTS, row_bytes=65.2, parts=PARTS, columns=2)
    made = listed if isinstance(stage, Map) else Shape(pool=1, row_bytes=8, columns=1)
    own = Demand() if isinstance(stage, Map) else folded(made._replace(parts=PARTS), made, made)
    law = Demand.phases([own, around([stage], {"wide": [listed]}, [made], own)])
    found = counted(tmp_path, stage)
    assert found.requests == pytest.approx(law.requests, rel=0.1)
    assert found.bytes_read == pytest.approx(law.read, rel=0.1)


@pytest.mark.parametrize(("buckets", "task_memory", "levels"), [(8, 1 << 30, 1), (8, 1 << 20, 1), (400, 1 << 20, 2)])
def test_rows_on_their_way_cost_what_the_law_says(tmp_path: Path, buckets: int, task_memory: int, levels: int) -> None:
    listed = Shape(pool=5000 * PARTS, row_bytes=65.2, parts=PARTS, columns=2)
    stage, made = Dealt(buckets=buckets), listed._replace(parts=buckets)
    sent = Sent(listed.rows, PARTS, buckets, row_bytes=72, raw=True)
    way = shuffled(sent, Assumptions(images=1, task_memory=task_memory))
    law = Demand.phases([way, around([stage], {"wide": [listed]}, [made], way)])
    found = counted(tmp_path, stage, task_memory=task_memory)
    assert way.scratch == pytest.approx(levels * 72 * listed.rows, rel=0.35)
    assert found.bytes_written - made.num_bytes == pytest.approx(way.scratch, rel=0.25)
    assert found.requests == pytest.approx(law.requests, rel=0.25)
    assert found.bytes_read == pytest.approx(law.read, rel=0.25)


def counted(root: Path, stage: Stage, *, task_memory: int = 1 << 30) -> Counts:
    """What a stage over a wide table costs."""
    p = Pipeline(Store(root), seed=0, task_memory=task_memory)
    p.add("made", stage, wide=p.add("wide", Listed(rows=5000)))
    p.run(InProcess(1), Flags())
    return p.store.table("made").complete_manifest().counts()
