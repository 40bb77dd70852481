"""Rows whose data could not be had: the part is whole, counts as open, and the next run makes it again."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest

from curate.config import Execution
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.part_writer import mark_open
from curate.engine.pipeline import Pipeline
from curate.engine.plan import plan_run
from curate.engine.row_reuse import Earlier
from curate.engine.stage import Batches, Input, Scan, SharedMap, Shuffle, each
from curate.engine.store import Store
from curate.engine.table import Table

NUMBERS = pa.schema([pa.field("n", pa.int64())], metadata={"of": "numbers"})
NUM_PARTS, BATCH, NUM_BATCHES = 3, 4, 5
asked: list[int] = []


def batch(values: Sequence[int | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, pa.int64())], schema=NUMBERS)


class Count(Scan):
    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        for part in range(NUM_PARTS):
            yield part, pa.Table.from_batches([batch(range(part * 20, part * 20 + 20))])


class Fetch(SharedMap):
    """Squares from outside; the numbers in `away` cannot be had."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}
    away: Annotated[tuple[int, ...], Execution()] = ()
    sign: int = 1

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    @classmethod
    def run_together(cls, stages: Mapping[str, Self], part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        yield from cls._fetch(stages, tables["numbers"]["n"].to_pylist(), range(BATCH * NUM_BATCHES), None)

    @classmethod
    def run_again(
        cls, stages: Mapping[str, Self], part: int, *, earlier: Earlier, **tables: Any
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        before = {name: rows.read(len(earlier.known)) for name, rows in earlier.tables.items()}
        wanted = np.flatnonzero(~earlier.known).tolist()
        yield from cls._fetch(stages, tables["numbers"]["n"].to_pylist(), wanted, before)

    @classmethod
    def _fetch(
        cls,
        stages: Mapping[str, Self],
        numbers: list[int],
        wanted: Sequence[int],
        before: Mapping[str, pa.Table] | None,
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        (first, *_) = stages.values()
        asked.extend(numbers[row] for row in wanted)
        for start in range(0, len(numbers), BATCH):
            rows = range(start, start + BATCH)
            away = [row - start for row in rows if row in wanted and numbers[row] in first.away]
            for name, stage in stages.items():
                values = [
                    (None if numbers[row] in first.away else stage.sign * numbers[row] ** 2)
                    if row in wanted or before is None
                    else before[name]["n"][row].as_py()
                    for row in rows
                ]
                yield name, mark_open(batch(values), len(away), rows=away)


class Known(Shuffle):
    """The numbers that are there, by parity; how many are not is told without a row of theirs."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def num_parts(self, **inputs: Any) -> int:
        return 2

    def scatter(self, part: int, *, numbers: pa.Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        for n in numbers["n"].to_pylist():
            yield (n or 0) % 2, batch([n])

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        there = [n for n in pieces["n"].to_pylist() if n is not None]
        yield batch(there)
        yield mark_open(batch([]), len(pieces) - len(there))


def pipeline(root: Path, away: Sequence[int] = ()) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    numbers = p.add("numbers", Count())
    squares, _ = p.add_pass({"squares": Fetch(away=tuple(away)), "minus": Fetch(sign=-1)}, numbers=numbers)
    p.add("known", Known(), numbers=squares)
    return p


def make(root: Path, away: Sequence[int] = (), flags: Flags = Flags()) -> list[str]:  # noqa: B008
    asked.clear()
    return pipeline(root, away).run(InProcess(1), flags)


def parts(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("part-*.parquet"))}


def num_open(root: Path) -> dict[str, int]:
    return {name: Store(root).table(name).num_open() for name in ("squares", "minus", "known")}


@pytest.mark.parametrize("away", [(3,), (0, 19, 20, 21, 22, 59), tuple(range(60))])
def test_next_run_asks_for_what_is_open_alone_and_ends_with_the_bytes_of_a_run_that_never_failed(
    tmp_path: Path, away: tuple[int, ...]
) -> None:
    make(tmp_path / "never")
    make(tmp_path / "run", away)
    assert num_open(tmp_path / "run") == {"squares": len(away), "minus": len(away), "known": len(away)}
    assert make(tmp_path / "run") == ["squares", "minus", "known"]
    assert sorted(asked) == sorted(away)
    assert num_open(tmp_path / "run") == dict.fromkeys(("squares", "minus", "known"), 0)
    assert parts(tmp_path / "run") == parts(tmp_path / "never")
    assert make(tmp_path / "run") == []
    assert asked == []


def test_what_stays_open_leaves_the_tables_behind_as_they_are_and_what_comes_updates_them(tmp_path: Path) -> None:
    make(tmp_path, (3, 30, 31))
    before = parts(tmp_path)
    make(tmp_path, (3, 30, 31))
    assert (sorted(asked), parts(tmp_path)) == ([3, 30, 31], before)
    make(tmp_path, (3,))
    assert sorted(asked) == [3, 30, 31]
    assert num_open(tmp_path) == {"squares": 1, "minus": 1, "known": 1}
    changed = {name for name, data in parts(tmp_path).items() if before[name] != data}
    assert "squares/part-00001.parquet" in changed
    assert "squares/part-00000.parquet" not in changed


def test_plan_says_what_is_open(tmp_path: Path) -> None:
    make(tmp_path, (3, 30))
    plan = {step.table: step for step in plan_run(pipeline(tmp_path), Flags(), num_images=60)}
    assert (plan["squares"].state, plan["squares"].open, plan["squares"].todo) == ("update", 2, 2)
    assert "2 rows are open" in plan["squares"].note


def test_open_rows_are_told_by_the_footer(tmp_path: Path) -> None:
    make(tmp_path, (23, 30))
    table = Store(tmp_path).table("squares")
    assert [table.open_rows(part) for part in range(NUM_PARTS)] == [[], [3, 10], []]
    assert [part.open for part in table.parts()] == [0, 2, 0]


def test_rebuild_makes_the_rows_anew_that_are_not_open_too(tmp_path: Path) -> None:
    make(tmp_path, (3,))
    make(tmp_path, flags=Flags(rebuild=frozenset({"all"})))
    assert len(asked) == 60
