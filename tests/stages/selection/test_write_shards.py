"""WriteShards: what is left out, and images of any length."""

import hashlib
import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config import identity
from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import InProcess
from curate.engine.figures import Figures
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import FlowStep
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import Done, Task
from curate.errors import ConfigError, TooManyRejects
from curate.pipelines.copies import write_shards
from curate.sources.config import Source
from curate.sources.read import Read, unavailable
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import SOURCE
from curate.stages.selection import shard_bytes
from curate.stages.selection import write_shards as module
from curate.stages.selection.own_columns import own_name
from curate.stages.selection.write_shards import ShardFigures, WriteShards
from curate.tables import CATALOG, IMAGES, SELECTION, SHARD_COLUMNS
from tests.stages.planted import PlantedCatalog, given_table, opened

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
TOLD = pa.schema([SHARD_COLUMNS.field(name) for name in ("image_id", "reader_warning", "repaired")])
IDS = {name: (number // 2) << 32 | number % 2 for number, name in enumerate(NAMES)}


def selected(root: Path) -> dict[str, Table]:
    """A pool of four files, in two parts, all of which but d.jpg are selected."""
    rows = []
    for name in NAMES:
        (root / name).write_bytes(name.encode() * 10)
        place = {"source": "pool", "role": "pool", "uri": str(root / name), "key": name}
        facts = {"sha256": hashlib.sha256(name.encode() * 10).digest(), "num_bytes": 50, "width": 8, "height": 8}
        chosen = {"clusters": [], "origins": [], "repeats": 1}
        rows.append({"image_id": IDS[name]} | place | facts | chosen)
    source = Source(name="pool", path=str(root)).model_dump_json().encode()
    tables = {}
    for name, schema in (("catalog", CATALOG.with_metadata({SOURCE: source})), ("images", IMAGES)):
        parts = [_only(rows[:2], schema), _only(rows[2:], schema)]
        figures = CatalogFigures.of_parts([("pool", "pool", 2)] * 2) if name == "catalog" else Figures()
        tables[name] = given_table(root / "run", name, schema, parts, figures=figures)
    chosen = [_only(rows[:2], SELECTION), _only(rows[2:3], SELECTION)]
    return tables | {"selection": given_table(root / "run", "selection", SELECTION, chosen)}


def _only(rows: list[dict[str, object]], schema: pa.Schema) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name in schema.names} for row in rows]


def written(stage: WriteShards, tables: dict[str, Table]) -> list[str]:
    whole = {name: tables[name] for name in ("catalog", "images")}
    chosen = tables["selection"]
    pieces = [rows for part in (0, 1) for _, rows in stage.scatter(part, selection=chosen.read(part), **whole)]
    return sorted(key for rows in pieces for key in rows["key"].to_pylist())


def test_removal_list_takes_hashes_in_any_case_keys_blank_lines_and_comments(tmp_path: Path) -> None:
    tables = selected(tmp_path)
    upper = hashlib.sha256(b"a.jpg" * 10).hexdigest().upper()
    (tmp_path / "remove.txt").write_text(f"# by request of the owner\n\n  {upper}  \nc.jpg\n")
    stage = WriteShards(num_shards=1, columns={}, removal_list=str(tmp_path / "remove.txt"))
    assert written(stage, tables) == ["b.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_removal_list_is_read_as_other_systems_write_it(encoding: str, end: str, tmp_path: Path) -> None:
    tables = selected(tmp_path)
    (tmp_path / "remove.txt").write_bytes(end.join(["c.jpg", "# größe", "a.jpg"]).encode(encoding))
    stage = WriteShards(num_shards=1, columns={}, removal_list=str(tmp_path / "remove.txt"))
    assert written(stage, tables) == ["b.jpg"]
    plain = tmp_path / "plain.txt"
    plain.write_text("a.jpg\nc.jpg\n")
    assert stage.pins() == stage.model_copy(update={"removal_list": str(plain)}).pins()


def test_removal_list_names_files_that_are_no_text_as_tables_do_and_refuses_what_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "remove.txt"
    path.write_bytes(b"\xff.jpg\na\xe2\x80\xa8b.jpg\n")  # a line separator of Unicode ends no line
    stage = WriteShards(removal_list=str(path))
    assert stage.removal().entries == {"\\xff.jpg", "a\u2028b.jpg"}
    path.write_bytes(b"PAR1\0\0")
    with pytest.raises(ConfigError, match=r"removal_list=.*remove\.txt: not a list: line 1 holds a NUL byte"):
        stage.removal()


def test_value_that_a_declared_type_does_not_hold_is_told_with_its_image(tmp_path: Path) -> None:
    rows = [{"n": 1}, {"n": None}, {}, {"n": 2**60}, {"n": "x"}]
    keys = pa.chunked_array([["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]])
    for kind, key in (("int64", "e.jpg"), ("float64", "d.jpg"), ("bool", "a.jpg")):
        stage = WriteShards(num_shards=1, columns={"n": kind})
        with pytest.raises(
            ConfigError, match=rf"columns: n is declared {kind}, .* of the image {key}; set it to string"
        ):
            stage._own_column(rows, "n", keys)
    column = WriteShards(num_shards=1, columns={"n": "string"})._own_column(rows, "n", keys)
    assert column.to_pylist() == ["1", None, None, str(2**60), "x"]


def summed_up(root: Path, tables: dict[str, Table], removed: str, *, num_rows: int) -> tuple[WriteShards, ShardFigures]:
    """A stage with this removal list, and the figures of shards of so many rows, published."""
    (root / "remove.txt").write_text(removed)
    stage, rows = WriteShards(removal_list=str(root / "remove.txt")), [{"image_id": row} for row in range(num_rows)]
    shards = given_table(root / "run", "shards", TOLD, [rows])
    figures = stage.summarize(shards, **tables)
    given_table(root / "run", "shards", shards.schema(), [rows], figures=figures)
    return stage, figures


def warnings(root: Path, stage: WriteShards) -> list[str]:
    return list(stage.warn(Store(root / "run").table("shards"), opened(root / "run", {})))


def test_entries_that_match_nothing_in_any_part_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tables = selected(tmp_path)
    removed = "a.jpg\nc.jpg\nd.jpg\ntypo.jpg\n" + "f" * 64 + "\n"
    stage, figures = summed_up(tmp_path, tables, removed, num_rows=1)
    assert (figures.removed, figures.removal.num_entries) == (2, 5)  # d.jpg is known, but was not selected
    warning = f"shards: removal_list: 2 of 5 entries match no image: {'f' * 64}, typo.jpg"
    assert warnings(tmp_path, stage) == [warning]
    assert warning in caplog.text
    stage, figures = summed_up(tmp_path, tables, "c.jpg\n", num_rows=2)
    assert (figures.removed, warnings(tmp_path, stage)) == (1, [])


def test_funnel_counts_both_roles_where_a_removal_list_hit(tmp_path: Path) -> None:
    tables, before = selected(tmp_path), FlowStep("selected", 2, 1)
    stage, _ = summed_up(tmp_path, tables, "", num_rows=3)
    shards, run = Store(tmp_path / "run").table("shards"), opened(tmp_path / "run", {})
    assert list(stage.flow(shards, run, before)) == [FlowStep("in the shards", 2, 1, (), "1 shard")]
    stage, _ = summed_up(tmp_path, tables, "a.jpg\n", num_rows=2)
    removed = FlowStep("in the shards", 2, None, (("on the removal list", 1),), "1 shard, curated included")
    assert list(stage.flow(shards, run, before)) == [removed]
    assert stage.headline(shards, run) == "2 in the shards"


def test_an_image_is_told_its_row_or_why_it_has_none(tmp_path: Path) -> None:
    selected(tmp_path)
    store = Store(tmp_path / "run")
    p = Pipeline(store, seed=0)
    schemas = {"selection": SELECTION, "catalog": CATALOG, "images": IMAGES}
    given = {name: Ref(name, schema) for name, schema in schemas.items()}
    (tmp_path / "remove.txt").write_text("b.jpg")
    write_shards(p, WriteShards(num_shards=2, removal_list=str(tmp_path / "remove.txt")), **given)
    p.run(InProcess(1), Flags())
    table = store.table("shards/data")
    run = opened(tmp_path / "run", {"catalog": PlantedCatalog(), "shards/data": WriteShards()})
    told = {name: list(WriteShards().explain(run.place(IDS[name]), table, run)) for name in NAMES}
    assert told["b.jpg"] == ["left out: it is on the removal list"]
    assert told["d.jpg"] == ["not in the shards"]
    for name in ("a.jpg", "c.jpg"):
        (place,) = told[name]
        file, row = place.split(", row ")
        part = int(file.removeprefix("shards/data/part-").removesuffix(".parquet"))
        assert table.read(part, ["key"])["key"].to_pylist()[int(row)] == name


def test_cost_is_that_of_reading_every_image_twice() -> None:
    given = Assumptions(images=10**6, image_bytes=10**5)
    inputs = {name: Shape(pool=10**6, parts=16) for name in ("selection", "catalog", "images")}
    demand, made = WriteShards().cost(inputs, given)
    size = 10**6 * (10**5 + given.name_bytes + given.own_bytes)
    assert demand.written == made.num_bytes == size
    assert (made.rows, made.parts) == (10**6, math.ceil(1e11 / (256 << 20)))
    assert demand.scratch == pytest.approx(2 * size, rel=0.01)  # 373 shards: two levels
    assert demand.read == pytest.approx(3 * size, rel=0.01)
    ample = given.model_copy(update={"task_memory": 4 << 30})  # runs of 1 GiB give each shard 2.7 MB
    assert WriteShards().cost(inputs, ample)[0].read == pytest.approx(2 * size, rel=0.01)


def test_moved_removal_list_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    for name, text in (("a.txt", "x.jpg\n"), ("b.txt", "# moved\nx.jpg\n"), ("c.txt", "y.jpg\n")):
        (tmp_path / name).write_text(text)
    first, moved, changed = (WriteShards(removal_list=str(tmp_path / name)) for name in ("a.txt", "b.txt", "c.txt"))
    assert (identity(first), first.pins()) == (identity(moved), moved.pins())
    assert first.pins() != changed.pins()


def test_absent_removal_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"removal_list=.*absent\.txt: no such file"):
        WriteShards(removal_list=str(tmp_path / "absent.txt")).pins()


def test_images_longer_than_the_readers_default_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = selected(tmp_path)
    monkeypatch.setattr(shard_bytes, "read_bytes", partial(read_bytes, max_bytes=10))
    assert written(WriteShards(num_shards=1, columns={}), tables) == ["a.jpg", "b.jpg", "c.jpg"]


def pipeline(root: Path, **fields: Any) -> tuple[Pipeline, Table]:
    """Shards of the tables that `selected` made."""
    store = Store(root / "run")
    p = Pipeline(store, seed=0)
    schemas = {"selection": SELECTION, "catalog": CATALOG, "images": IMAGES}
    given = {name: Ref(name, schema) for name, schema in schemas.items()}
    write_shards(p, WriteShards(num_shards=2, **fields), **given)
    return p, store.table("shards/data")


def shards(root: Path, *, rebuild: bool = False, **fields: Any) -> Table:
    """Make the shards, or make them again."""
    p, table = pipeline(root, **fields)
    p.run(InProcess(1), Flags(rebuild=frozenset({"shards/data"} if rebuild else ())))
    return table


def contents(table: Table) -> list[str]:
    return [part.content for part in table.parts()]


def keys(table: Table) -> set[str]:
    return set(table.read_all(["key"])["key"].to_pylist())


def removing(root: Path, *entries: str) -> str:
    (root / "remove.txt").write_text("\n".join(entries))
    return str(root / "remove.txt")


def test_a_takedown_needs_no_source_and_gives_the_bytes_of_shards_written_anew(tmp_path: Path) -> None:
    selected(tmp_path)
    everything = shards(tmp_path)
    assert keys(everything) == {"a.jpg", "b.jpg", "c.jpg"}
    before, wanted = contents(everything), removing(tmp_path, "b.jpg")
    anew = shards_elsewhere(tmp_path, wanted)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).unlink()
    (tmp_path / "c.jpg").write_bytes(b"something else")
    table = shards(tmp_path, rebuild=True, removal_list=wanted)
    assert keys(table) == {"a.jpg", "c.jpg"}
    assert contents(table) == anew != before
    assert ShardFigures.of(table).lost == 0
    (tmp_path / "b.jpg").write_bytes(b"b.jpg" * 10)  # the owner agrees after all
    assert contents(shards(tmp_path, rebuild=True)) == before


def shards_elsewhere(root: Path, removal_list: str) -> list[str]:
    """The contents of shards that are written from the sources alone."""
    shutil.copytree(root / "run", root / "other" / "run")
    shutil.rmtree(root / "other" / "run" / "shards")
    return contents(shards(root / "other", removal_list=removal_list))


def test_most_images_are_taken_from_earlier_shards_and_only_the_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected(tmp_path)
    shards(tmp_path, removal_list=removing(tmp_path, "c.jpg"))
    asked: list[str] = []

    def counted(rows: pa.Table, *args: Any, **more: Any) -> Iterator[Read]:
        asked.extend(rows["key"].to_pylist())
        return read_bytes(rows, *args, **more)

    monkeypatch.setattr(shard_bytes, "read_bytes", counted)
    monkeypatch.setattr(module, "REUSED_FROM", 0.6)
    table = shards(tmp_path, rebuild=True)
    assert (keys(table), asked) == ({"a.jpg", "b.jpg", "c.jpg"}, ["c.jpg"])


@pytest.mark.parametrize(("left", "reused"), [(1.0, True), (0.95, True), (0.5, False), (0.0, False)])
def test_driver_looks_at_a_few_shards_to_know_whether_most_images_lie_in_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: float, reused: bool
) -> None:
    monkeypatch.setattr(module, "LOOKED_AT", 4)
    parts = [[{"image_id": part << 32 | row} for row in range(300)] for part in range(6)]
    ids = pa.schema([CATALOG.field("image_id")])
    tables = {name: given_table(tmp_path, name, ids, parts) for name in ("selection", "catalog")}
    stage, looked = WriteShards(num_shards=20, seed=3), []
    keys = np.concatenate([stage._keys(part, 300) for part in range(6)])
    every = np.concatenate([np.int64(part) << 32 | np.arange(300) for part in range(6)])
    there = np.random.default_rng(0).random(len(every)) < left

    class Earlier:
        def manifest(self) -> Any:
            return SimpleNamespace(resolved={"num_shards": 20, "seed": 3, "repair_metadata": False})

        def committed(self) -> dict[int, int]:
            return dict.fromkeys(range(20), 1)

        def read(self, part: int, columns: list[str]) -> pa.Table:
            looked.append(part)
            return pa.table({"image_id": every[there & (stage._shard_of(keys) == part)]})

    assert stage.look_back(Earlier(), **tables)._from_shards is reused
    assert looked == [0, 5, 10, 15]


@pytest.mark.parametrize("how", ["gone", "changed", "damaged shard", "foreign shard"])
def test_lost_files_are_told_and_stop_only_where_they_are_many(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    selected(tmp_path)
    if how == "damaged shard":  # what is there is of no use, so that everything is read from the sources
        for number in shards(tmp_path).committed():
            Path(Store(tmp_path / "run").join("shards", "data", f"part-{number:05d}.parquet")).write_bytes(b"PAR1")
    if how == "foreign shard":
        for number in shards(tmp_path).committed():
            path = Path(Store(tmp_path / "run").join("shards", "data", f"part-{number:05d}.parquet"))
            pq.write_table(pq.read_table(path).drop_columns(["repaired"]), path)
    (tmp_path / "a.jpg").unlink()
    if how == "changed":
        (tmp_path / "a.jpg").write_bytes(b"a.jpg" * 11)
    with pytest.raises(TooManyRejects, match=r"1 selected image of 3 .* a\.jpg; restore the files"):
        shards(tmp_path, rebuild=True)
    table = shards(tmp_path, rebuild=True, max_lost_fraction=0.5)
    figures = ShardFigures.of(table)
    assert (keys(table), figures.lost, figures.missing_keys) == ({"b.jpg", "c.jpg"}, 1, ("a.jpg",))
    assert "1 selected image not in the shards (1 gone or changed since): a.jpg" in caplog.text


def test_killed_between_two_shards_of_a_takedown_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    selected(tmp_path)
    shards(tmp_path)
    wanted = removing(tmp_path, "b.jpg")
    anew = shards_elsewhere(tmp_path, wanted)
    for name in NAMES:
        (tmp_path / name).unlink()

    class Killed(InProcess):
        def run(self, root: str, tasks: list[Task]) -> Iterator[list[Done]]:
            for done in super().run(root, tasks):
                yield done
                if done[0].phase == "run":
                    raise KeyboardInterrupt

    p, _ = pipeline(tmp_path, removal_list=wanted)
    with pytest.raises(KeyboardInterrupt):
        p.run(Killed(1), Flags(rebuild=frozenset({"shards/data"})))
    assert contents(shards(tmp_path, rebuild=True, removal_list=wanted)) == anew


def test_columns_of_three_rounds_stand_side_by_side() -> None:
    names = ["width", "caption", "source", "source_x"]
    for _ in range(3):
        names = [*(n for n in SHARD_COLUMNS.names if n in ("width", "source")), *map(own_name, names)]
        assert len(set(names)) == len(names)
    assert {"width", "source_width", "source_source_width", "caption", "source_x"} <= set(names)
    assert {"source", "source_source", "source_source_source"} <= set(names)


def test_what_errors_keep_away_that_may_pass_is_read_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selected(tmp_path)
    asked: list[str] = []

    def busy(rows: pa.Table, *args: Any, **more: Any) -> Iterator[Read]:
        for key, read in zip(rows["key"].to_pylist(), read_bytes(rows, *args, **more), strict=True):
            asked.append(key)
            yield unavailable("HTTP 503") if key == "a.jpg" else read

    with monkeypatch.context() as patched:
        patched.setattr(shard_bytes, "read_bytes", busy)
        table = shards(tmp_path)
        figures = ShardFigures.of(table)
        assert (keys(table), figures.away, figures.lost) == ({"b.jpg", "c.jpg"}, 1, 0)
        assert sum(part.open for part in table.parts()) == 1
        asked.clear()
        patched.setattr(module, "REUSED_FROM", 0.6)
        before = contents(shards(tmp_path))
        assert asked == ["a.jpg"]  # the other pictures are taken from the shard, and other shards are left alone
        assert contents(shards(tmp_path)) == before
    table = shards(tmp_path)
    assert keys(table) == {"a.jpg", "b.jpg", "c.jpg"}
    assert sum(part.open for part in table.parts()) == 0
    assert contents(table) == shards_elsewhere(tmp_path, removing(tmp_path))
