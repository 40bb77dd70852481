"""Rows on their way: the same for every layout, and reads that grow with the rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.counting import Counts
from curate.engine import pieces, shuffle
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pieces import PieceFiles
from curate.engine.pipeline import Pipeline
from curate.engine.shuffle import Layout, Scattered, partition, row_bytes
from curate.engine.stage import Batches, Input, Scan, Shuffle, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import piece_files
from tests.engine.test_damage import flip

WORDS = pa.schema(
    [pa.field("n", pa.int64(), nullable=False), pa.field("word", pa.string()), pa.field("on", pa.bool_())],
    metadata={"of": "words"},
)


def words(numbers: np.ndarray) -> pa.Table:
    text = pa.array([None if n % 7 == 0 else "w" * int(n % 11) for n in numbers.tolist()], pa.string())
    return pa.Table.from_arrays([pa.array(numbers), text, pa.array(numbers % 3 == 0)], schema=WORDS)


def travel(root: Path, layout: Layout, parts: list[tuple[np.ndarray, pa.Table]]) -> dict[int, pa.Table]:
    """The rows of each bucket, where tasks run in any order."""
    first, last = piece_files(Store(root), "t", WORDS)

    def rows(group: int) -> Iterator[Scattered]:
        for part in layout.parts_of(group):
            for start in range(0, len(parts[part][0]), 5):  # batches of any length, one bucket in a number or in all
                bucket = parts[part][0][start : start + 5]
                yield from partition(parts[part][1].slice(start, 5), bucket)

    for group in reversed(range(layout.groups)):
        with (first if layout.coarse else last).begin(group, "f") as file:
            if layout.coarse:
                shuffle.write_coarse(file, rows(group), WORDS, layout)
            else:
                shuffle.write_fine(file, rows(group), WORDS, layout, None)
            file.close()
    for task in reversed(range(layout.coarse * layout.slices)):
        with last.begin(task, "f") as file:
            shuffle.write_fine(file, shuffle.read_coarse(first, layout, task), WORDS, layout, None)
            file.close()
    return {bucket: shuffle.read_bucket(last, layout, bucket) for bucket in range(layout.buckets)}


@pytest.mark.parametrize("seed", range(12))
def test_a_bucket_gets_its_rows_in_the_order_of_the_input_whatever_the_layout(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, buckets = int(rng.integers(1, 9)), int(rng.integers(1, 30))
    sizes = rng.integers(0, 120, inputs)
    parts = [(rng.integers(0, buckets, size), words(rng.integers(0, 1 << 40, size))) for size in sizes.tolist()]
    whole, bucket = pa.concat_tables([rows for _, rows in parts]), np.concatenate([one for one, _ in parts])
    for number, coarse in enumerate((0, 1, min(buckets, 2), min(buckets, 6))):
        groups = int(rng.integers(1, inputs + 1))
        layout = Layout(
            inputs, groups, buckets, coarse, int(rng.integers(1, groups + 1)), 1 << int(rng.integers(0, 14))
        )
        found = travel(tmp_path / str(number), layout, parts)
        for one, rows in found.items():
            assert rows.equals(whole.filter(pa.array(bucket == one)), check_metadata=True)
            assert all(column.num_chunks == 1 for column in rows.columns)


def plan(num_bytes: float, **fields: Any) -> Layout:
    return Layout.plan(
        **{"inputs": num_bytes / 2e8, "buckets": num_bytes / 2.7e8, "raw": True} | fields, num_bytes=num_bytes
    )


@pytest.mark.parametrize("memory", [1 << 30, 8 << 30])
def test_opens_and_reads_grow_with_the_bytes(memory: int) -> None:
    """From a pool of thousands of images to 14 TB of shards."""
    for num_bytes in 10.0 ** np.arange(6, 13.2, 0.2):
        layout = plan(num_bytes, task_memory=memory)
        runs = max(layout.groups, num_bytes / layout.run_bytes)
        if layout.coarse:
            opens = layout.groups * layout.coarse + layout.slices * layout.buckets
            reads = runs * layout.coarse + runs / layout.coarse * layout.buckets
        else:
            opens, reads = layout.groups * layout.buckets, runs * layout.buckets
        assert opens <= 4 * shuffle.FEW_READS + 2 * num_bytes / shuffle.READ_BYTES
        assert reads <= 4 * shuffle.FEW_READS + 3 * num_bytes / shuffle.READ_BYTES


def test_tasks_that_scatter_are_as_many_as_are_worth_it() -> None:
    """The images of a small pool, its pairs, and those of a large one."""
    assert Layout.plan(inputs=8, buckets=4, num_bytes=200 << 20, raw=True)[:4] == (8, 8, 4, 0)
    assert Layout.plan(inputs=8, buckets=8, num_bytes=1 << 20, raw=False)[:4] == (8, 1, 8, 0)
    assert Layout.plan(inputs=500, buckets=3, num_bytes=4 << 30, raw=False).groups == shuffle.FEW_GROUPS
    assert Layout.plan(inputs=10**5, buckets=10**4, num_bytes=10 << 40, raw=True).groups == 10 << 10


def test_levels_follow_from_memory_and_buckets() -> None:
    assert plan(50e9).levels == 1  # 186 shards, of which a run of 256 MiB has more than 1 MiB each
    assert plan(100e9).levels == 2
    assert plan(100e9, task_memory=4 << 30).levels == 1
    assert plan(14e12, task_memory=1 << 40).levels == 2


@pytest.mark.parametrize("layout", [Layout(7, 3, 10, 0, 0, 9), Layout(7, 5, 10, 4, 2, 9), Layout(1, 1, 3, 3, 1, 9)])
def test_every_input_and_every_bucket_has_its_place(layout: Layout) -> None:
    assert [part for group in range(layout.groups) for part in layout.parts_of(group)] == list(range(layout.inputs))
    if layout.coarse:
        of = layout.coarse_of(np.arange(layout.buckets))
        assert of.tolist() == sorted(of.tolist())
        for bucket, coarse in enumerate(of.tolist()):
            told = [layout.regrouped(task) for task in layout.files_of(bucket)]
            assert {one for one, _ in told} == {coarse}
            assert [group for _, groups in told for group in groups] == list(range(layout.groups))


# -- a pipeline --------------------------------------------------------------------------------------------------------

ROWS = pa.schema([pa.field("n", pa.int64()), pa.field("payload", pa.binary(120))])
PART, BUCKET_ROWS = 128, 64


class Payloads(Scan):
    parts: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ROWS

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        for part in range(self.parts):
            numbers = np.arange(part * PART, (part + 1) * PART)
            payload = np.random.default_rng(part).bytes(120 * PART)
            yield part, pa.table([numbers, [payload[i : i + 120] for i in range(0, len(payload), 120)]], schema=ROWS)


class Mix(Shuffle):
    """Rows in an order that has nothing to do with that of the input, in parts of about 64 rows."""

    inputs: ClassVar[dict[str, Input]] = {"rows": each(ROWS)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return ROWS

    def piece_schema(self, **inputs: Any) -> pa.Schema:
        return ROWS

    def num_parts(self, **inputs: Any) -> int:
        return int(inputs["rows"].num_rows()) // BUCKET_ROWS

    def scatter(self, part: int, *, rows: pa.Table) -> Iterator[Scattered]:
        total = self.num_parts_
        yield from partition(rows, rows["n"].to_numpy() * 2654435761 % total)

    num_parts_: int = 1

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        yield from pieces.to_batches()


class Largest(Mix):
    """Of each remainder of 5 the largest number, which of few rows can be told as well as of all."""

    def condense(self, pieces: pa.Table) -> pa.Table:
        numbers = pieces["n"].to_numpy()
        order = np.lexsort((-numbers, numbers % 5))
        first = np.unique(numbers[order] % 5, return_index=True)[1]
        return pieces.take(order[first])

    def run(self, part: int, *, pieces: pa.Table) -> Batches:
        yield from self.condense(pieces).to_batches()


MEMORY = 64 << 10


def build(root: Path | str, *, parts: int = 16, memory: int = MEMORY, stage: type[Mix] = Mix) -> Pipeline:
    p = Pipeline(Store(root), seed=0, task_memory=memory)
    rows = p.add("rows", Payloads(parts=parts))
    p.add("mixed", stage(num_parts_=parts * PART // BUCKET_ROWS), rows=rows)
    return p


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if bytes were a thousand times as many."""
    for name, value in (("READ_BYTES", 1 << 10), ("FEW_READS", 16), ("FEW_GROUPS", 4)):
        monkeypatch.setattr(shuffle, name, value)
    monkeypatch.setattr(pieces, "TAIL_BYTES", 512)


def made(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "mixed").glob("*.parquet")}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at_once", [0, 1 << 20])
def test_bytes_and_reads_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """A file for each part that each bucket opens would be read 8 times for each KiB at 32 parts, twice at 8."""
    monkeypatch.setattr(pieces, "AT_ONCE_BYTES", at_once)
    for parts in (8, 16, 32):
        build(tmp_path / str(parts), parts=parts).run(InProcess(1), Flags())
        counted = Store(tmp_path / str(parts)).table("mixed").complete_manifest().counted
        found = Counts.sum(counts for phase, counts in counted.items() if phase in ("regroup", "run"))
        num_bytes = parts * PART * row_bytes(ROWS)
        assert num_bytes < found.bytes_read < 3 * num_bytes  # once or twice, and what tells of them
        assert found.opens < 2 * num_bytes / shuffle.READ_BYTES
        assert found.requests < 4 * num_bytes / shuffle.READ_BYTES


@pytest.mark.usefixtures("small")
def test_tables_do_not_depend_on_memory_or_levels(tmp_path: Path) -> None:
    seen = []

    class Watching(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            seen.extend(task.phase for task in tasks)
            yield from super().run(root, tasks)

    for stage in (Mix, Largest):
        for memory in (MEMORY, 4 * MEMORY, 1 << 30):
            seen.append(memory)
            build(tmp_path / f"{stage.__name__}{memory}", memory=memory, stage=stage).run(Watching(1), Flags())
            assert made(tmp_path / f"{stage.__name__}{memory}") == made(tmp_path / f"{stage.__name__}{MEMORY}")
    assert ("regroup" in seen[: seen.index(4 * MEMORY)], "regroup" in seen[seen.index(1 << 30) :][:20]) == (True, False)
    assert not list((tmp_path / f"Mix{MEMORY}/mixed").glob("_[!t]*"))


@pytest.mark.usefixtures("small")
def test_rows_are_as_of_one_sort(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), Flags())
    total = 16 * PART // BUCKET_ROWS
    for part in range(total):
        numbers = Store(tmp_path).table("mixed").read(part)["n"].to_pylist()
        assert numbers == [n for n in range(16 * PART) if n * 2654435761 % total == part]


@pytest.mark.usefixtures("small")
def test_killed_after_any_task_it_goes_on_to_equal_parts(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Fragile(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            for done in super().run(root, tasks):
                nonlocal left, total
                left, total = left - 1, total + 1
                if left < 0:
                    raise Killed
                yield done

    left, total, attempts = 1 << 30, 0, 0
    build(tmp_path / "whole").run(Fragile(1), Flags())
    needed, total = total, 0
    while True:
        left, attempts = 2, attempts + 1
        try:
            build(tmp_path / "killed").run(Fragile(1), Flags())
            break
        except Killed:
            continue
    assert attempts > 10
    assert total == needed  # what was made is not made again
    assert made(tmp_path / "killed") == made(tmp_path / "whole")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("folder", ["_scattered", "_pieces"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.97, 1.0])
def test_damage_on_the_way_is_found_and_mended(tmp_path: Path, folder: str, place: float) -> None:
    after = {"_scattered": "regroup", "_pieces": "run"}[folder]

    class Damaging(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            if tasks[0].phase == after and not damaged:
                damaged.append(sorted((tmp_path / "run/mixed" / folder).glob("*.pieces"))[1])
                flip(damaged[0], place)
            yield from super().run(root, tasks)

    damaged: list[Path] = []
    build(tmp_path / "whole").run(InProcess(1), Flags())
    build(tmp_path / "run").run(Damaging(1), Flags())
    assert damaged
    assert made(tmp_path / "run") == made(tmp_path / "whole")


POOL = pa.proxy_memory_pool(pa.default_memory_pool())
"""Counts what is asked of it; kept, since what it gave must not outlive it."""


def test_a_task_holds_little_more_than_its_run_whatever_comes(tmp_path: Path) -> None:
    files, layout = PieceFiles(Store(tmp_path), "t", ROWS), Layout(64, 1, 8, 0, 0, 1 << 20)
    usual = pa.default_memory_pool()
    rows = pa.table([np.arange(2000), [b"x" * 120] * 2000], schema=ROWS)
    pa.set_memory_pool(POOL)
    try:
        with files.begin(0, "f") as file:
            copies = (rows.take(np.arange(2000)).to_batches()[0] for _ in range(64))
            shuffle.write_fine(file, ((np.arange(2000) % 8, copy) for copy in copies), ROWS, layout, None)
            file.close()
    finally:
        pa.set_memory_pool(usual)
    assert rows.nbytes * 64 > 14 * layout.run_bytes
    assert layout.run_bytes < POOL.max_memory() < 3 * layout.run_bytes  # of the four that a task has


@pytest.mark.usefixtures("small")
def test_a_remote_workdir_gives_the_same_and_segments_are_read_ahead(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), Flags())
    root = f"memory://{tmp_path.name}"
    build(root, memory=2 * MEMORY).run(InProcess(1), Flags())
    there, here = Store(root).table("mixed"), Store(tmp_path).table("mixed")
    assert there.read_all().equals(here.read_all())
