"""What parts count for figures: kept with the part, added up without a look at the rows, also after a kill."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from curate.engine.executors import InProcess
from curate.engine.figures import Figures
from curate.engine.freshness import Flags
from curate.engine.part_writer import PartWriter
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Fold, Input, Map, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tallies import Tally, tally_batch
from curate.errors import TableError
from curate.tables import CATALOG
from tests.stages.planted import PlantedCatalog, given_table

NUMBERS = pa.schema([pa.field("image_id", pa.int64()), pa.field("number", pa.int64())])


class NumberTally(Tally):
    """Numbers of a part."""

    columns: ClassVar[tuple[str, ...]] = ("number",)

    total: int = 0
    by_remainder: dict[str, int] = Field(default_factory=dict)
    first: tuple[int, ...] = ()

    @classmethod
    def count(cls, rows: pa.Table) -> Self:
        numbers = rows["number"].to_pylist()
        counts = Counter(str(number % 3) for number in numbers)
        return cls(total=sum(numbers), by_remainder=dict(counts), first=tuple(numbers[: cls.most]))


class NumberFigures(Figures):
    """The sum of all."""

    total: int
    by_remainder: dict[str, int]
    first: tuple[int, ...]


class Numbers(Map):
    """Numbers the images."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    tally: ClassVar[type[Tally] | None] = NumberTally
    fails: ClassVar[set[int]] = set()

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        if part in self.fails:
            raise RuntimeError("killed")
        ids = catalog["image_id"].combine_chunks()
        columns = [ids, pa.array(np.arange(len(ids)) * (part + 1))]
        yield pa.RecordBatch.from_arrays(columns, schema=NUMBERS)

    def summarize(self, table: Table, **inputs: Any) -> NumberFigures:
        return NumberFigures(**NumberTally.of(table).model_dump())


class HighTally(Tally):
    """What the process that combines has counted."""

    looked_at: int = 0


class HighFigures(Figures):
    """The same."""

    looked_at: int
    in_parts: tuple[int, ...]


class High(Fold):
    """The images whose number is above the mean."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": whole(NUMBERS), "catalog": whole(CATALOG)}
    parts_like: ClassVar[str | None] = "catalog"
    state_by_image: ClassVar[bool] = True
    tally: ClassVar[type[Tally] | None] = HighTally

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        rows = tables["numbers"].read_all().combine_chunks()
        number = rows["number"].to_numpy()
        high = rows.filter(pa.array((number > number.mean()) & (rows["image_id"].to_numpy() >> 32 != 1)))
        yield from high.to_batches(max_chunksize=7)
        yield tally_batch(HighTally(looked_at=len(rows)), NUMBERS)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        assert set((state["image_id"].to_numpy() >> 32).tolist()) <= {part}
        yield from state.to_batches()

    def summarize(self, table: Table, **inputs: Any) -> HighFigures:
        in_parts = tuple(part.looked_at for part in HighTally.by_part(table))
        return HighFigures(looked_at=sum(in_parts), in_parts=in_parts)


def declared(root: Path) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(rows=20))
    numbers = p.add("numbers", Numbers(), catalog=catalog)
    p.add("high", High(), numbers=numbers, catalog=catalog)
    return p


def run(p: Pipeline) -> list[str]:
    return p.run(InProcess(1), Flags())


def files_of(root: Path) -> dict[str, str]:
    found = sorted(root.glob("[nh]*/part-*.parquet"))
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_figures_are_sums_over_parts_without_a_look_at_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p, summarize = declared(tmp_path), Numbers.summarize

    def blind(stage: Numbers, table: Table, **inputs: Any) -> NumberFigures:
        with monkeypatch.context() as patched:
            patched.setattr(Table, "open", lambda *_: pytest.fail("rows were read"))
            return summarize(stage, table, **inputs)

    monkeypatch.setattr(Numbers, "summarize", blind)
    run(p)
    numbers = [row * (part + 1) for part in range(4) for row in range(20)]
    found = NumberFigures.of(p.store.table("numbers"))
    assert found.total == sum(numbers)
    assert found.by_remainder == Counter(str(number % 3) for number in numbers)
    assert found.first == tuple(numbers[: Tally.most])


def test_a_resumed_run_has_the_counts_of_parts_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Numbers, "fails", {2})
        with pytest.raises(RuntimeError, match="killed"):
            run(declared(tmp_path / "killed"))
    for name in ("killed", "whole"):
        run(declared(tmp_path / name))
    killed, whole = (Store(tmp_path / name).table("numbers") for name in ("killed", "whole"))
    assert NumberFigures.of(killed) == NumberFigures.of(whole)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_a_state_by_image_is_read_by_part_and_its_counts_stay_with_part_0(tmp_path: Path) -> None:
    p = declared(tmp_path)
    run(p)
    rows, numbers = (p.store.table(name).read_all().to_pylist() for name in ("high", "numbers"))
    mean = sum(row["number"] for row in numbers) / len(numbers)
    assert rows == [row for row in numbers if row["number"] > mean and row["image_id"] >> 32 != 1]
    assert HighFigures.of(p.store.table("high")) == HighFigures(looked_at=80, in_parts=(80, 0, 0, 0))
    assert run(declared(tmp_path)) == []


@pytest.mark.parametrize("written", [1, 3, 4, 6])
def test_killed_while_a_state_or_the_parts_made_of_it_are_written_it_ends_equal(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(declared(tmp_path / "whole"))
    p = declared(tmp_path / "killed")
    close, left = PartWriter.close, [written]

    def killed(writer: PartWriter) -> None:
        if "number" in writer.schema.names and writer.schema == NUMBERS and numbered.is_complete():
            left[0] -= 1
            if left[0] < 0:
                writer.abandon()
                raise RuntimeError("killed")
        close(writer)

    numbered = p.store.table("numbers")
    with monkeypatch.context() as patched:
        patched.setattr(PartWriter, "close", killed)
        with pytest.raises(RuntimeError, match="killed"):
            run(p)
    run(declared(tmp_path / "killed"))
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
    first, second = (HighFigures.of(Store(tmp_path / name).table("high")) for name in ("killed", "whole"))
    assert first == second
    assert not list((tmp_path / "killed" / "high").glob("_*/part-*"))


def test_parts_without_counts_are_read_where_rows_tell_them(tmp_path: Path) -> None:
    rows = [[{"image_id": part << 32 | n, "number": n + part} for n in range(9)] for part in range(2)]
    given = given_table(tmp_path, "given", NUMBERS, rows)
    assert [tally.total for tally in NumberTally.by_part(given)] == [36, 45]
    with pytest.raises(TableError, match=r"^given part 0: its footer has no HighTally: .* --rebuild given$"):
        HighTally.of(given)


TALLIES = st.builds(
    NumberTally,
    total=st.integers(-9, 9),
    by_remainder=st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    first=st.lists(st.integers(), max_size=5).map(tuple),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(TALLIES, max_size=6), st.integers(0, 6))
def test_sums_do_not_depend_on_how_they_are_grouped(tallies: list[NumberTally], cut: int) -> None:
    whole = NumberTally.sum(tallies)
    assert whole == NumberTally.sum([NumberTally.sum(tallies[:cut]), NumberTally.sum(tallies[cut:])])
    assert whole.total == sum(tally.total for tally in tallies)
    assert whole.by_remainder == dict(sum((Counter(t.by_remainder) for t in tallies), Counter())) | {
        name: 0 for t in tallies for name in t.by_remainder if not sum(o.by_remainder.get(name, 0) for o in tallies)
    }
    assert whole.first == tuple(number for tally in tallies for number in tally.first)[: Tally.most]
