"""Toy stages of every kind: what is made, kept, made again, resumed or refused."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate.config import Execution
from curate.engine.executors import ExecutorConfig, InProcess, start_executor
from curate.engine.figures import Figures
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Fold, Input, IteratedFold, Map, Scan, Shuffle, each, whole
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import Done, Task
from curate.errors import StaleTable, TableError

NUMBERS = pa.schema([pa.field("n", pa.int64())])
TOTALS = pa.schema([pa.field("total", pa.int64())])


def rows(values: Iterable[int], schema: pa.Schema = NUMBERS) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(list(values), pa.int64())], schema=schema)


class Count(Scan):
    parts: int = 3

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        start = len(known.parts()) if known else 0
        for part in range(start, self.parts + (1 if known else 0)):
            yield part, pa.Table.from_batches([rows(range(part * 10, part * 10 + 10))])


class AddTo(Map):
    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}
    amount: int = 1
    batch: Annotated[int, Execution()] = 8
    """Speed only."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, numbers: pa.Table) -> Batches:
        yield rows(pc.add(numbers["n"], self.amount).to_pylist())


class AddAsMeasured(AddTo):
    """Adds what is found out where the numbers are added, and a number for each time that this was asked."""

    amount: int | Literal["auto"] = "auto"  # type: ignore[assignment]
    asked: ClassVar[list[str]] = []

    def resolve(self, previous: Mapping[str, Any] | None = None, **inputs: Any) -> Self:
        return self.model_copy(update={"amount": previous["amount"]}) if previous else self

    def is_resolved(self) -> bool:
        return self.amount != "auto"

    def resolve_on_worker(self) -> Self:
        self.asked.append(type(self).__name__)
        return self.model_copy(update={"amount": 100 + len(self.asked)})


class ByParity(Shuffle):
    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def num_parts(self, **inputs: Any) -> int:
        return 2

    def scatter(self, part: int, *, numbers: pa.Table) -> Iterator[tuple[int, pa.RecordBatch]]:
        for n in numbers["n"].to_pylist():
            yield n % 2, rows([n])

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        yield rows(sorted(pieces["n"].to_pylist()))


class TotalFigures(Figures):
    total: int


class Total(Fold):
    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}
    weight: int = 1

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return TOTALS

    def partial_schema(self, **inputs: Any) -> pa.Schema:
        return TOTALS

    def partial(self, part: int, *, numbers: pa.Table) -> Batches:
        yield rows([pc.sum(numbers["n"]).as_py()], TOTALS)

    def combine(self, partials: Table | None, **tables: Any) -> Batches:
        assert partials is not None
        sums = [partials.read(p)["total"][0].as_py() for p in sorted(partials.committed())]
        yield rows([self.weight * sum(sums)], TOTALS)

    def summarize(self, table: Table, **inputs: Any) -> TotalFigures:
        return TotalFigures(total=table.read_all()["total"][0].as_py())


class Fit(Total):
    pinned: ClassVar[bool] = True


BRACKET = pa.schema([pa.field("low", pa.int64()), pa.field("high", pa.int64()), pa.field("finished", pa.bool_())])


class Median(IteratedFold):
    """The smallest number that half of all numbers do not exceed, by bisection: a round halves the bracket."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}
    rounds: int = 100

    def max_rounds(self) -> int:
        return self.rounds

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def partial_schema(self, number: int = 0, **inputs: Any) -> pa.Schema:
        return pa.schema([("low", pa.int64()), ("high", pa.int64())]) if number == 0 else TOTALS

    def state_schema(self, **inputs: Any) -> pa.Schema:
        return BRACKET

    def partial(self, part: int, *, state: pa.Table | None, numbers: pa.Table) -> Batches:
        if state is None:
            ends = pc.min_max(numbers["n"])
            yield pa.RecordBatch.from_pylist([{"low": ends["min"].as_py(), "high": ends["max"].as_py()}])
            return
        middle = (state["low"][0].as_py() + state["high"][0].as_py()) // 2
        yield rows([pc.sum(pc.less_equal(numbers["n"], middle)).as_py() * 2 - len(numbers)], TOTALS)

    def combine(self, partials: Table | None, *, state: pa.Table | None, **tables: Any) -> Batches:
        assert partials is not None
        found = pa.concat_tables([partials.read(part) for part in sorted(partials.committed())])
        if state is None:
            low, high = pc.min(found["low"]).as_py(), pc.max(found["high"]).as_py()
        else:
            low, high = state["low"][0].as_py(), state["high"][0].as_py()
            middle = (low + high) // 2
            low, high = (low, middle) if pc.sum(found["total"]).as_py() >= 0 else (middle + 1, high)
        yield pa.RecordBatch.from_pylist([{"low": low, "high": high, "finished": low == high}], schema=BRACKET)

    def run(self, part: int, state: pa.Table, **tables: Any) -> Batches:
        yield rows(state["high"].to_pylist())


class Scale(Map):
    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS), "totals": whole(TOTALS)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, numbers: pa.Table, totals: Table) -> Batches:
        yield rows(pc.multiply(numbers["n"], totals.read_all()["total"][0]).to_pylist())


def build(root: Path, *, parts: int = 3, amount: int = 1, batch: int = 8, weight: int = 1) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    numbers = p.add("numbers", Count(parts=parts))
    added = p.add("added", AddTo(amount=amount, batch=batch), numbers=numbers)
    p.add("parity", ByParity(), numbers=added)
    p.add("total", Total(), numbers=added)
    fitted = p.add("fitted", Fit(weight=weight), numbers=added)
    p.add("scaled", Scale(), numbers=added, totals=fitted)
    p.add("median", Median(), numbers=added)
    return p


def values(root: Path, name: str) -> list[int]:
    return Store(root).table(name).read_all().column(0).to_pylist()


def files(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(f.relative_to(root)): (f.read_bytes(), f.stat().st_mtime_ns) for f in root.rglob("*.parquet")}


def contents(root: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in files(root).items()}


NONE = Flags()


def test_every_kind_of_stage_gives_what_plain_python_gives(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    added = [n + 1 for n in range(30)]
    assert values(tmp_path, "added") == added
    assert values(tmp_path, "parity") == [n for n in added if n % 2 == 0] + [n for n in added if n % 2 == 1]
    assert values(tmp_path, "total") == [sum(added)]
    assert values(tmp_path, "scaled") == [n * sum(added) for n in added]
    assert TotalFigures.of(Store(tmp_path).table("total")).total == sum(added)
    assert values(tmp_path, "median") == [15]


def test_rounds_end_at_their_maximum_and_keep_only_the_newest_state(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    numbers = p.add("numbers", Count())
    p.add("median", Median(rounds=3), numbers=numbers)
    seen = []

    class Watching(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            for task, done in zip(tasks, super().run(root, tasks), strict=True):
                states = Store(root).table("median/_state").committed()
                seen.append((task.phase, task.number, sorted(states)))
                yield done

    p.run(Watching(1), NONE)
    partials = [[("partial", number, [number - 1] if number else [])] * 3 for number in range(3)]
    combined = [("combine", 0, [0]), ("combine", 1, [0, 1]), ("combine", 2, [1, 2])]
    assert seen == [step for n in range(3) for step in (*partials[n], combined[n])] + [("run", 2, [2])]
    assert values(tmp_path, "median") == [14]  # [0, 29] was halved twice


def test_states_of_another_configuration_are_not_gone_on_from(tmp_path: Path) -> None:
    def median(root: Path, low: int) -> Pipeline:
        p = Pipeline(Store(root), seed=0)
        numbers = p.add("numbers", Count(parts=low))
        p.add("median", Median(rounds=3 + low), numbers=numbers)
        return p

    class Killed(BaseException):
        pass

    class KilledInRound2(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            if tasks[0].number == 2:
                raise Killed
            yield from super().run(root, tasks)

    with pytest.raises(Killed):
        median(tmp_path / "killed", 3).run(KilledInRound2(1), NONE)
    assert Store(tmp_path / "killed").table("median/_state").committed().keys() == {1}
    refit = Flags(rebuild=frozenset({"all"}))
    median(tmp_path / "killed", 2).run(InProcess(1), refit)
    median(tmp_path / "clean", 2).run(InProcess(1), NONE)
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")


def test_second_run_computes_nothing(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = files(tmp_path)
    assert build(tmp_path, batch=99).run(InProcess(1), NONE) == []
    assert files(tmp_path) == before


def test_removed_part_alone_is_made_again_with_equal_bytes(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = files(tmp_path)
    (tmp_path / "added" / "part-00001.parquet").unlink()
    assert build(tmp_path).run(InProcess(1), NONE) == ["added"]
    after = files(tmp_path)
    assert contents(tmp_path) == {name: data for name, (data, _) in before.items()}
    assert [name for name in after if after[name][1] != before[name][1]] == ["added/part-00001.parquet"]


def test_changed_field_is_stale_names_it_and_deletes_nothing(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = files(tmp_path)
    with pytest.raises(StaleTable, match=r"added was made with another configuration: amount: 1 -> 5\n.*--update"):
        build(tmp_path, amount=5).run(InProcess(1), NONE)
    assert files(tmp_path) == before


def test_rebuild_replaces_the_table_and_what_depends_on_it_but_not_fitted_tables(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    changed = build(tmp_path, amount=5).run(InProcess(1), Flags(rebuild=frozenset({"added"})))
    assert changed == ["added", "parity", "total", "scaled", "median"]
    old_total = sum(n + 1 for n in range(30))
    assert values(tmp_path, "total") == [sum(n + 5 for n in range(30))]
    assert values(tmp_path, "scaled") == [(n + 5) * old_total for n in range(30)]


class Clip(Map):
    """Numbers, the larger ones cut to `limit`."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": each(NUMBERS)}
    limit: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, numbers: pa.Table) -> Batches:
        yield rows(min(n, self.limit) for n in numbers["n"].to_pylist())


class Audit(Map):
    """Reads what the rows of its input do not tell."""

    inputs: ClassVar[dict[str, Input]] = {"numbers": whole(NUMBERS, beyond_rows=True)}
    parts_like: ClassVar[str | None] = "one"

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, numbers: Table) -> Batches:
        yield rows([numbers.complete_manifest().config["limit"]])


def test_a_change_ends_where_rows_are_as_they_were_but_for_those_who_read_more_than_rows(tmp_path: Path) -> None:
    def clipped(limit: int) -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        cut = p.add("clipped", Clip(limit=limit), numbers=p.add("numbers", Count()))
        p.add("audit", Audit(), numbers=cut)
        p.add("total", Total(), numbers=p.add("added", AddTo(), numbers=cut))
        return p

    clipped(100).run(InProcess(1), NONE)
    before = files(tmp_path)
    flags = Flags(rebuild=frozenset({"clipped"}))
    assert clipped(99).run(InProcess(1), flags) == ["clipped", "audit"]
    assert values(tmp_path, "audit") == [99]
    assert clipped(15).run(InProcess(1), flags) == ["clipped", "audit", "added", "total"]
    after = files(tmp_path)
    assert after["added/part-00000.parquet"] == before["added/part-00000.parquet"]  # whose numbers are below all limits
    assert values(tmp_path, "total") == [sum(min(n, 15) + 1 for n in range(30))]
    assert clipped(15).run(InProcess(1), NONE) == []


def test_refit_fits_again(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    with pytest.raises(StaleTable, match=r"fitted .*weight: 1 -> 2\n.*--update"):
        build(tmp_path, weight=2).run(InProcess(1), NONE)
    assert build(tmp_path, weight=2).run(InProcess(1), Flags(refit=True)) == ["fitted", "scaled"]


def test_rescan_appends_and_only_new_parts_are_mapped(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = files(tmp_path)
    build(tmp_path).run(InProcess(1), Flags(rescan=True))
    after = files(tmp_path)
    assert values(tmp_path, "added") == [n + 1 for n in range(40)]
    kept = [f"{t}/part-0000{i}.parquet" for t in ("numbers", "added", "scaled") for i in range(3)]
    assert all(after[name] == before[name] for name in kept)


def test_interrupted_run_resumes_to_equal_tables(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Fragile(InProcess):
        """Dies after each number of tasks in turn."""

        left = 0

        def run(self, root: str, tasks: Any) -> Any:
            for done in super().run(root, tasks):
                if self.left == 0:
                    raise Killed
                self.left -= 1
                yield done

    build(tmp_path / "whole").run(InProcess(1), NONE)
    attempts = 0
    executor = Fragile(1)
    while True:
        executor.left = 1
        attempts += 1
        try:
            build(tmp_path / "killed").run(executor, NONE)
            break
        except Killed:
            continue
    assert attempts > 5
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_truncated_part_of_a_finished_table_is_made_again(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = contents(tmp_path)
    path = tmp_path / "scaled" / "part-00002.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert build(tmp_path).run(InProcess(1), NONE) == ["scaled"]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["numbers", "added", "parity", "total", "fitted"])
def test_run_killed_while_it_sums_up_leaves_no_table_complete_without_its_figures(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "whole").run(InProcess(1), NONE)
    stages = {"numbers": Count, "added": AddTo, "parity": ByParity, "total": Total, "fitted": Fit}

    def killed(self: Any, table: Table, **inputs: Any) -> dict[str, Any]:
        assert table.num_rows() > 0
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stages[name], "summarize", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed").run(InProcess(1), NONE)
    manifest = Store(tmp_path / "killed").table(name).manifest()
    assert manifest is not None
    assert not manifest.complete
    build(tmp_path / "killed").run(InProcess(1), NONE)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert TotalFigures.of(Store(tmp_path / "killed").table("total")).total == sum(range(1, 31))


def test_finished_tables_hold_nothing_hidden(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    assert not [p for p in tmp_path.rglob("_*") if p.name != "_table.json"]


def test_every_stale_table_is_told_at_once(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    with pytest.raises(StaleTable, match=r"(?s)added was made .*\nfitted was made"):
        build(tmp_path, amount=5, weight=2).run(InProcess(1), NONE)


def test_rescan_that_finds_nothing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = files(tmp_path)
    monkeypatch.setattr(Count, "scan", lambda self, known: iter(()))
    assert build(tmp_path).run(InProcess(1), Flags(rescan=True)) == []
    assert files(tmp_path) == before


def test_dask_and_in_process_give_equal_bytes(tmp_path: Path) -> None:
    build(tmp_path / "one").run(InProcess(1), NONE)
    with start_executor(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        build(tmp_path / "dask").run(executor, NONE)
    assert contents(tmp_path / "dask") == contents(tmp_path / "one")


def test_wiring_is_checked_before_any_compute(tmp_path: Path) -> None:
    p = Pipeline(Store(tmp_path), seed=0)
    numbers = p.add("numbers", Count())
    with pytest.raises(TableError, match="has no input totals"):
        p.add("a", AddTo(), numbers=numbers, totals=numbers)
    with pytest.raises(TableError, match="input 'numbers' is missing"):
        p.add("a", AddTo())
    with pytest.raises(TableError, match="has no column 'total'"):
        p.add("a", Scale(), numbers=numbers, totals=numbers)
    with pytest.raises(TableError, match="takes one table"):
        p.add("a", AddTo(), numbers=[numbers])
    with pytest.raises(TableError, match="declared twice"):
        p.add("numbers", Count())


class _Noting(InProcess):
    """Notes the phases of what it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.phases: list[str] = []

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        self.phases += [task.phase for task in tasks]
        yield from super().run(root, tasks)


def test_what_depends_on_the_machine_is_asked_of_a_worker_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AddAsMeasured, "asked", [])

    def measured(flags: Flags) -> list[str]:
        p = Pipeline(Store(tmp_path), seed=0)
        p.add("added", AddAsMeasured(), numbers=p.add("numbers", Count()))
        executor = _Noting()
        p.run(executor, flags)
        return executor.phases

    assert measured(NONE) == ["resolve", "run", "run", "run"]
    table = Store(tmp_path).table("added")
    made = table.complete_manifest()
    assert (made.config["amount"], made.resolved["amount"]) == ("auto", 101)
    assert table.read_all()["n"].to_pylist() == [n + 101 for n in range(30)]
    assert measured(NONE) == []
    assert measured(Flags(rescan=True)) == ["run"]  # the part that is new, with what was found then
    assert table.read_all()["n"].to_pylist() == [n + 101 for n in range(40)]
    assert AddAsMeasured.asked == ["AddAsMeasured"]
