"""Catalogs whose sources lie elsewhere by now, and those to which sources were added: what is kept, and what is not."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pytest

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline
from curate.engine.plan import plan_run
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.work import Work
from curate.errors import StaleTable
from curate.sources import containers, folders
from curate.sources import listing as listings
from curate.sources.config import Source, Sources
from curate.sources.reading import read_bytes
from curate.stages.images import listed
from curate.stages.images import moved as under_test
from curate.stages.images.catalog import Catalog
from curate.tables import CATALOG
from tests.sources.helpers import write_files, write_tar
from tests.stages.images.test_listing import write_pool as write_pool_of_all

FACTS = pa.schema([pa.field("image_id", pa.int64()), pa.field("sha256", pa.binary(32))])
read: list[str] = []


class Facts(Map):
    """What the first pass finds, as far as it matters here: reads every image."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return FACTS

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        from curate.stages.images.catalog import source_of

        found = [one.data for one in read_bytes(catalog, source_of(catalog))]
        read.extend(catalog["key"].to_pylist())
        digests = [None if data is None else hashlib.sha256(data).digest() for data in found]
        yield pa.RecordBatch.from_arrays(
            [catalog["image_id"].combine_chunks(), pa.array(digests, pa.binary(32))], schema=FACTS
        )


@pytest.fixture(autouse=True)
def count_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read.clear()

    def reads(rows: pa.Table, *args: Any, **options: Any) -> Iterator[Any]:
        read.extend(f"checked {key}" for key in rows["key"].to_pylist())
        return read_bytes(rows, *args, **options)

    monkeypatch.setattr(under_test, "read_bytes", reads)


def pipeline(root: Path, **roles: Any) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", Catalog(sources=Sources(**roles), rows_per_part=4))
    p.add("images", Facts(), catalog=catalog)
    return p


def run(root: Path, flags: Flags = Flags(), **roles: Any) -> list[str]:  # noqa: B008
    """List and read; returns what was read."""
    read.clear()
    pipeline(root, **roles).run(InProcess(1), flags)
    return sorted(read)


def rows(root: Path, table: str = "catalog") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Store(root).table(table).read_all().to_pylist()
    return found


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def write_pool(folder: Path, kind: str) -> Path:
    """Ten images of different lengths, as files, or in two tars."""
    images = {f"{number}/{name}.jpg": bytes([number]) * (10 + number) for number in range(5) for name in "ab"}
    if kind == "folder":
        for name, data in images.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        (folder / "0/a.txt").write_text("a caption")
        return folder
    folder.mkdir()
    write_tar(folder / "x.tar", {name.replace("/", "-"): data for name, data in list(images.items())[:6]})
    write_tar(folder / "y.tar", {name.replace("/", "-"): data for name, data in list(images.items())[6:]})
    return folder


def move(old: Path, new: Path, *, keep_times: bool = True) -> Path:
    shutil.copytree(old, new)
    if not keep_times:
        for path in new.rglob("*"):
            os.utime(path, ns=(1, 1))
    shutil.rmtree(old)
    return new


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize("keep_times", [True, False])
def test_moved_pool_gives_the_catalog_of_its_new_place_and_nothing_is_made_again(
    tmp_path: Path, kind: str, keep_times: bool, caplog: pytest.LogCaptureFixture
) -> None:
    old, root = write_pool(tmp_path / "old", kind), tmp_path / "run"
    assert len(run(root, pool=str(old))) == 10
    before, facts = rows(root), files(root / "images")
    new = move(old, tmp_path / "mounted/elsewhere", keep_times=keep_times)
    assert plan_run(pipeline(root, pool=str(new)), Flags(), num_images=10)[0].state == "update"
    with caplog.at_level(logging.INFO):
        checked = run(root, pool=str(new))
    how = "modification time" if keep_times else "the SHA-256 of 10 that were read"
    assert f"source pool moved to {new}: its 10 images were recognized by name, place, length and {how}" in caplog.text
    assert checked == ([] if keep_times else sorted(f"checked {row['key']}" for row in before))
    assert files(root / "images") == facts
    run(tmp_path / "fresh", pool=str(new))
    assert rows(root) == rows(tmp_path / "fresh")
    assert [row["image_id"] for row in rows(root)] == [row["image_id"] for row in before]
    table, fresh = Store(root).table("catalog"), Store(tmp_path / "fresh").table("catalog")
    assert CatalogFigures.of(table) == CatalogFigures.of(fresh)
    assert run(root, pool=str(new)) == run(root, Flags(rescan=True), pool=str(new)) == []
    assert not [path for path in root.rglob("_*") if path.name != "_table.json"]


def test_only_a_bounded_number_of_images_is_read_to_recognize_a_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "NUM_CHECKED", 3)
    old = write_pool(tmp_path / "old", "folder")
    run(tmp_path / "run", pool=str(old))
    checked = run(tmp_path / "run", pool=str(move(old, tmp_path / "new", keep_times=False)))
    assert len(set(checked)) == len(checked) == 3


def test_pool_that_was_copied_to_an_object_store_is_recognized_by_its_bytes(tmp_path: Path) -> None:
    old, root = write_pool(tmp_path / "old", "tar"), tmp_path / "run"
    run(root, pool=str(old))
    facts, keys = files(root / "images"), [row["key"] for row in rows(root)]
    store = fsspec.filesystem("memory")
    store.put(str(old), "/bucket/pool", recursive=True)
    shutil.rmtree(old)
    try:
        assert run(root, pool="memory://bucket/pool") == sorted(f"checked {key}" for key in keys)
        assert {row["uri"].rpartition("/")[0] for row in rows(root)} == {"memory:///bucket/pool"}
        assert [row["key"] for row in rows(root)] == keys
        assert files(root / "images") == facts
    finally:
        store.rm("/bucket", recursive=True)


def test_pool_that_grew_before_and_after_it_moved_keeps_the_ids_of_all(tmp_path: Path) -> None:
    old, root = write_pool(tmp_path / "old", "folder"), tmp_path / "run"
    run(root, pool=str(old))
    write_files(old, ["0/0.jpg", "9/9.jpg"])
    assert run(root, Flags(rescan=True), pool=str(old)) == ["0/0.jpg", "9/9.jpg"]
    keys = [row["key"] for row in rows(root)]
    new = move(old, tmp_path / "new")
    write_files(new, ["0/1.jpg"])
    assert run(root, pool=str(new)) == []
    assert [row["key"] for row in rows(root)] == keys
    assert run(root, Flags(rescan=True), pool=str(new)) == ["0/1.jpg"]
    newer = move(new, tmp_path / "newer")
    assert run(root, pool=str(newer)) == []
    assert [row["key"] for row in rows(root)] == [*keys, "0/1.jpg"]
    assert all(row["uri"].startswith(str(newer)) for row in rows(root))


def _longer(new: Path) -> None:
    (new / "3/a.jpg").write_bytes(b"longer than it was")


def _other_bytes(new: Path) -> None:
    (new / "3/a.jpg").write_bytes(b"x" * 13)


def _gone(new: Path) -> None:
    (new / "3/a.jpg").unlink()


def _described(new: Path) -> None:
    (new / "3/a.txt").write_text("a caption")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_longer, "the image 3/a.jpg has 18 bytes instead of 13"),
        (_other_bytes, r"the image 3/a.jpg is another one \(other SHA-256\)"),
        (_gone, "the image 3/a.jpg is not there"),
        (_described, "the image 3/a.jpg has other descriptions beside it"),
    ],
)
def test_another_pool_is_not_taken_for_one_that_moved(tmp_path: Path, change: Callable[[Path], None], why: str) -> None:
    old, root = write_pool(tmp_path / "old", "folder"), tmp_path / "run"
    run(root, pool=str(old))
    before = files(root)
    shutil.copytree(old, tmp_path / "new")
    change(tmp_path / "new")
    with pytest.raises(StaleTable, match=rf"another configuration: source pool is now .*new, where {why}. Put the old"):
        run(root, pool=str(tmp_path / "new"))
    assert files(root) == before
    assert run(root, pool=str(old)) == []


def test_times_alone_are_no_proof_where_nobody_knows_what_the_images_were(tmp_path: Path) -> None:
    def listing(pool: Path) -> Pipeline:
        p = Pipeline(Store(tmp_path / "run"), seed=0)
        p.add("catalog", Catalog(sources=Sources(pool=(Source(name="pool", path=str(pool)),))))
        return p

    old = write_pool(tmp_path / "old", "folder")
    listing(old).run(InProcess(1), Flags())
    new = move(old, tmp_path / "new", keep_times=False)
    with pytest.raises(StaleTable, match="modification times of 10 images differ, and images does not tell yet"):
        listing(new).run(InProcess(1), Flags())


def test_source_that_was_added_is_listed_alone_and_its_parts_follow_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, root = write_pool(tmp_path / "pool", "folder"), tmp_path / "run"
    heldout, curated = write_files(tmp_path / "h", ["1.jpg", "x.md"]), write_files(tmp_path / "c", ["1.jpg", "2.jpg"])
    write_files(pool, ["pool.md"])
    run(root, pool=str(pool), heldout=str(heldout))
    before = files(root)
    write_files(pool, ["new.jpg"])  # which is for --rescan to find
    assert run(root, pool=str(pool), curated=str(curated), heldout=str(heldout)) == ["1.jpg", "2.jpg"]
    after = files(root)
    assert {name: after[name] for name in before if name.endswith(".parquet")} == {
        name: data for name, data in before.items() if name.endswith(".parquet")
    }
    figures = CatalogFigures.of(Store(root).table("catalog"))
    assert [figures.sources[number] for number in figures.part_source] == ["pool"] * 3 + ["heldout", "curated"]
    assert figures.sources == ("pool", "heldout", "curated")
    assert [(found.source, found.example) for found in figures.left_out] == [("pool", "pool.md"), ("heldout", "x.md")]
    assert run(root, pool=str(pool), curated=str(curated), heldout=str(heldout)) == []
    added = [{"name": "pool", "path": str(pool)}, {"name": "more", "path": str(write_pool(tmp_path / "m", "tar"))}]
    assert len(run(root, pool=added, curated=str(curated), heldout=str(heldout))) == 10


def test_pool_may_move_and_sets_may_be_added_at_once(tmp_path: Path) -> None:
    old, root = write_pool(tmp_path / "old", "tar"), tmp_path / "run"
    run(root, pool=str(old))
    new, heldout = move(old, tmp_path / "new"), write_files(tmp_path / "h", ["1.jpg"])
    assert run(root, pool=str(new), heldout=str(heldout)) == ["1.jpg"]
    run(tmp_path / "fresh", pool=str(new), heldout=str(heldout))
    assert rows(root) == rows(tmp_path / "fresh")
    assert rows(root, "images") == rows(tmp_path / "fresh", "images")


def test_sources_that_are_gone_renamed_exchanged_or_read_otherwise_are_stale(tmp_path: Path) -> None:
    pool, other, root = write_pool(tmp_path / "p", "folder"), write_pool(tmp_path / "o", "folder"), tmp_path / "run"
    named = [{"name": "p", "path": str(pool)}, {"name": "o", "path": str(other)}]
    run(root, pool=named)
    before = files(root)
    for changed, why in (
        ({"pool": named[:1]}, "names of the sources: ['p', 'o'] -> ['p']"),
        ({"pool": [{**named[0], "name": "q"}, named[1]]}, "names of the sources: ['p', 'o'] -> ['q', 'o']"),
        ({"pool": named[::-1]}, "names of the sources: ['p', 'o'] -> ['o', 'p']"),
        ({"pool": named[:1], "curated": named[1:]}, "sources.curated.o.role: 'pool' -> 'curated'"),
        ({"pool": [{**named[0], "labels": "folder"}, named[1]]}, "sources.pool.p.labels: None -> 'folder'"),
    ):
        with pytest.raises(StaleTable, match=re.escape(f"catalog was made with another configuration: {why}")):
            run(root, **changed)
    assert files(root) == before


class Killed(BaseException):
    """Ends a run as a kill would, as far as the workdir can tell."""


@pytest.mark.parametrize("after", range(6))
@pytest.mark.parametrize("back", [False, True])
def test_run_that_is_killed_while_it_moves_parts_ends_as_one_that_was_not(
    tmp_path: Path, after: int, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, root = write_pool(tmp_path / "old", "folder"), tmp_path / "run"
    heldout = write_files(tmp_path / "h", ["1.jpg", "x.md"])
    run(root, pool=str(old))
    facts = files(root / "images")
    shutil.copytree(old, tmp_path / "new")
    steps, left = {"move_part": Table.move_part, "write_manifest": Table.write_manifest}, [after]
    for name, step in steps.items():

        def fragile(self: Table, *args: Any, step: Callable[..., None] = step) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            step(self, *args)

        monkeypatch.setattr(Table, name, fragile)
    roles = {"pool": str(tmp_path / "new"), "heldout": str(heldout)}
    with pytest.raises(Killed):
        run(root, **roles)
    monkeypatch.undo()
    goes_back = back and after > 0  # the first thing that counts is the manifest of what was listed aside
    if back and goes_back:
        with pytest.raises(StaleTable, match="names of the sources: .*heldout"):  # which is listed by now
            run(root, pool=str(old))
        roles = {"pool": str(old), "heldout": str(heldout)}
    elif back:
        roles = {"pool": str(old)}
    run(root, **roles)
    run(tmp_path / "fresh", **roles)
    assert rows(root) == rows(tmp_path / "fresh")
    assert {name: data for name, data in files(root / "images").items() if name in facts and "part" in name} == {
        name: data for name, data in facts.items() if "part" in name
    }
    assert not [path for path in root.rglob("_*") if path.name != "_table.json"]


def listing(root: Path, *sources: Source, rows: Any = 4) -> Pipeline:
    """The catalog alone."""
    p = Pipeline(Store(root), seed=0)
    p.add("catalog", Catalog(sources=Sources(pool=sources), rows_per_part=rows))
    return p


class Backwards(InProcess):
    """Tasks in another order; remembers their phases, and dies after a number of them."""

    def __init__(self, left: int = 1000) -> None:
        super().__init__(1)
        self.left, self.done = left, list[str]()

    def run(self, root: str, tasks: Any) -> Any:
        for task in reversed(tasks):
            if not self.left:
                raise Killed
            self.left -= 1
            self.done.append(task.phase)
            yield from super().run(root, [task])


def test_sources_of_every_kind_are_followed_by_tasks_and_end_as_if_they_had_been_listed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((listings, "GROUP_FILES"), (folders, "RUN_NAMES"), (containers, "LINES")):
        monkeypatch.setattr(module, name, 3)
    names = ("tree", "tars", "rows", "tar-list", "braces", "one")
    old, root = write_pool_of_all(tmp_path / "old"), tmp_path / "run"
    (tmp_path / "old/tree/z/out.jpg").unlink()
    for name, target in (("again", "../b"), ("loop", "..")):  # which go with the pool
        (tmp_path / "old/tree/z" / name).unlink()
        (tmp_path / "old/tree/z" / name).symlink_to(target)
    listing(root, *(old[name] for name in names)).run(InProcess(1), Flags())
    write_files(tmp_path / "old/tree", ["many/05.jpg"])  # which a rescan appends out of order
    listing(root, *(old[name] for name in names)).run(InProcess(1), Flags(rescan=True))
    before = rows(root)
    shutil.move(tmp_path / "old", tmp_path / "new/place")
    fsspec.filesystem("memory").rm("/listing", recursive=True)  # which is not of these sources
    new = [
        old[name].model_copy(update={"path": old[name].path.replace(f"{tmp_path}/old", f"{tmp_path}/new/place")})
        for name in names
    ]
    executor = Backwards()
    listing(root, *new).run(executor, Flags())
    assert set(executor.done) == {"list", "homes", "move"}
    after = rows(root)
    places = ("uri", "modified")
    assert [{k: v for k, v in row.items() if k not in places} for row in after] == [
        {k: v for k, v in row.items() if k not in places} for row in before
    ]
    listing(tmp_path / "fresh", *new).run(InProcess(1), Flags())
    fresh = {(row["source"], row["key"], row["offset"], row["row"]): row["uri"] for row in rows(tmp_path / "fresh")}
    assert {(row["source"], row["key"], row["offset"], row["row"]): row["uri"] for row in after} == fresh


def test_following_that_is_killed_anywhere_goes_on_and_no_task_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "GROUP_FILES", 2)
    monkeypatch.setattr(folders, "RUN_NAMES", 2)
    old = Source(name="old", path=str(write_pool(tmp_path / "old", "folder")))
    moved = Source(name="old", path=str(tmp_path / "new"))
    added = Source(name="added", path=str(write_files(tmp_path / "h", [f"{n}.jpg" for n in range(7)] + ["x.md"])))
    for name in ("whole", "killed"):
        listing(tmp_path / name, old).run(InProcess(1), Flags())
    move(tmp_path / "old", tmp_path / "new")
    whole, attempts, done = Backwards(), 0, list[str]()
    listing(tmp_path / "whole", moved, added).run(whole, Flags())
    while True:
        executor = Backwards(1)
        try:
            listing(tmp_path / "killed", moved, added).run(executor, Flags())
            break
        except Killed:
            attempts += 1
        finally:
            done += executor.done
    assert attempts > 10
    assert sorted(done) == sorted(whole.done)
    whole_files, killed_files = (files(tmp_path / name / "catalog") for name in ("whole", "killed"))
    assert whole_files.keys() == killed_files.keys()
    assert {name for name in whole_files if whole_files[name] != killed_files[name]} == {"_table.json"}  # seconds
    tables = [Store(tmp_path / name).table("catalog") for name in ("whole", "killed")]
    assert CatalogFigures.of(tables[0]) == CatalogFigures.of(tables[1])


@pytest.mark.parametrize("after", range(4))
def test_figures_of_sets_that_were_added_survive_a_kill_while_parts_are_moved(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, root = write_pool(tmp_path / "pool", "folder"), tmp_path / "run"
    heldout = write_files(tmp_path / "h", ["1.jpg", "x.md"])
    run(root, pool=str(pool))
    new = move(pool, tmp_path / "new")
    left = [after]

    def fragile(self: Table, *args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        move_part(self, *args)

    move_part = Table.move_part
    with monkeypatch.context() as patch:
        patch.setattr(Table, "move_part", fragile)
        with pytest.raises(Killed):
            run(root, pool=str(new), heldout=str(heldout))
    run(root, pool=str(new), heldout=str(heldout))
    run(tmp_path / "fresh", pool=str(new), heldout=str(heldout))
    tables = [Store(where).table("catalog") for where in (root, tmp_path / "fresh")]
    assert CatalogFigures.of(tables[0]) == CatalogFigures.of(tables[1])
    assert [found.example for found in CatalogFigures.of(tables[0]).left_out] == ["x.md"]


def test_rebuilding_forgets_a_move_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, root = write_pool(tmp_path / "old", "folder"), tmp_path / "run"
    run(root, pool=str(old))
    shutil.copytree(old, tmp_path / "new")
    write_files(old, ["0/0.jpg"])
    finish, rebuild = Work.finish, Flags(rebuild=frozenset({"catalog"}))

    def killed(*args: Any, **options: Any) -> None:
        raise Killed

    def killed_behind(*args: Any, **options: Any) -> None:
        finish(*args, **options)
        raise Killed

    for fragile, place, flags in ((killed, "move_part", Flags()), (killed_behind, "finish", rebuild)):
        with monkeypatch.context() as patch:
            patch.setattr(Table if place == "move_part" else Work, place, fragile)
            with pytest.raises(Killed):
                run(root, flags, pool=str(old if flags is rebuild else tmp_path / "new"))
    run(root, pool=str(old))
    run(tmp_path / "fresh", pool=str(old))
    assert rows(root) == rows(tmp_path / "fresh")
    assert not [path for path in root.rglob("_*") if path.name != "_table.json"]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_part_that_is_lost_after_its_source_moved_is_listed_again_and_stands_for_what_it_did(
    tmp_path: Path, kind: str
) -> None:
    old, root = write_pool(tmp_path / "old", kind), tmp_path / "run"
    run(root, pool=str(old))
    facts = files(root / "images")
    new = move(old, tmp_path / "new")
    run(root, pool=str(new))
    before = files(root)
    (root / "catalog/part-00001.parquet").unlink()
    assert run(root, pool=str(new)) == []
    assert {name: data for name, data in files(root).items() if "part" in name} == {
        name: data for name, data in before.items() if "part" in name
    }
    assert files(root / "images") == facts


def test_parts_that_are_lost_after_sources_were_added_are_listed_again(tmp_path: Path) -> None:
    pool, root = write_pool(tmp_path / "pool", "folder"), tmp_path / "run"
    roles = {"pool": str(pool), "heldout": str(write_files(tmp_path / "h", ["1.jpg"]))}
    run(root, **roles)
    roles["curated"] = str(
        write_files(tmp_path / "c", ["1.jpg", "2.jpg"])
    )  # listed before the held-out set in a new run
    run(root, **roles)
    before = {name: data for name, data in files(root).items() if "part" in name}
    for part in (1, 3, 4):
        (root / f"catalog/part-{part:05d}.parquet").unlink()
    assert run(root, **roles) == []
    assert {name: data for name, data in files(root).items() if "part" in name} == before


def test_chosen_size_of_parts_is_kept_where_sources_move_and_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed, "FEWEST_ROWS", 4)
    old = Source(name="pool", path=str(write_files(tmp_path / "pool", [f"{n:02d}.jpg" for n in range(10)])))
    listing(tmp_path / "run", old, rows="auto").run(InProcess(1), Flags())
    new = old.model_copy(update={"path": str(move(tmp_path / "pool", tmp_path / "new"))})
    added = Source(name="added", path=str(write_files(tmp_path / "h", [f"{n:03d}.jpg" for n in range(150)])))
    table = Store(tmp_path / "run").table("catalog")
    for sources, sizes in (((new,), [4, 4, 2]), ((new, added), [4, 4, 2, *[4] * 37, 2])):
        listing(tmp_path / "run", *sources, rows="auto").run(InProcess(1), Flags())
        assert [part.rows for part in table.parts()] == sizes
        manifest = table.complete_manifest()
        assert (manifest.config["rows_per_part"], manifest.resolved["rows_per_part"]) == ("auto", 4)
    write_files(tmp_path / "h", ["1500.jpg"])
    listing(tmp_path / "run", new, added, rows="auto").run(InProcess(1), Flags(rescan=True))
    assert [part.rows for part in table.parts()] == [4, 4, 2, *[4] * 37, 2, 1]


def test_images_are_drawn_from_all_parts_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which images are checked does not depend on how they are cut into parts."""
    monkeypatch.setattr(under_test, "NUM_CHECKED", 5)
    ids = list(range(100))
    drawn = [under_test._least(ids[start : start + 20]) for start in range(0, 100, 20)]
    assert under_test._least(image_id for some in drawn for image_id in some) == under_test._least(ids)
