"""Tables as folders: atomic commits, equal bytes, readable faults."""

import errno
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.engine.store import TEMPORARY, UPDATE, Store
from curate.engine.table import Manifest, Table
from curate.errors import TableError, WorkdirError
from curate.ops.vectors import VectorSpec, pack, unpack
from curate.tables import column, embeddings_schema

SCHEMA = pa.schema([pa.field("n", pa.int64()), pa.field("name", pa.string())])


def rows(start: int, stop: int) -> pa.RecordBatch:
    numbers = range(start, stop)
    return pa.RecordBatch.from_arrays([pa.array(numbers), pa.array([str(n) for n in numbers])], schema=SCHEMA)


def test_bytes_do_not_depend_on_how_rows_were_batched(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = store.table("a").commit(0, SCHEMA, [rows(0, 100)], fingerprint="f")
    many = store.table("b").commit(0, SCHEMA, [rows(n, n + 1) for n in range(100)], fingerprint="f")
    assert one == many
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()


def test_failed_commit_leaves_the_old_part_and_nothing_else(tmp_path: Path) -> None:
    table = Store(tmp_path).table("a")
    table.commit(0, SCHEMA, [rows(0, 3)])

    def failing():
        yield rows(5, 9)
        raise RuntimeError("no more rows")

    with pytest.raises(RuntimeError, match="no more rows"):
        table.commit(0, SCHEMA, failing())
    assert table.read(0)["n"].to_pylist() == [0, 1, 2]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["part-00000.parquet"]


def test_footer_carries_fingerprint_and_content(tmp_path: Path) -> None:
    table = Store(tmp_path).table("a")
    done = table.commit(4, SCHEMA, [rows(0, 3)], fingerprint="made-of")
    assert table.footer(4) == done
    assert done.fingerprint == "made-of"
    pinned = table.commit(5, SCHEMA, [rows(0, 3)])
    assert pinned.fingerprint == pinned.content == done.content
    assert table.committed().keys() == {4, 5}


def test_damaged_and_absent_parts_are_named(tmp_path: Path) -> None:
    table = Store(tmp_path).table("a")
    table.commit(0, SCHEMA, [rows(0, 3)])
    path = tmp_path / "a/part-00000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError, match="part-00000.parquet: damaged.*remove this file"):
        table.read(0)
    with pytest.raises(TableError, match="part-00000.parquet: damaged"):
        table.footer(0)
    with pytest.raises(TableError, match="part-00007.parquet: no such part"):
        table.read(7)
    with pytest.raises(TableError, match="a: not complete"):
        table.parts()


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written")])
def test_disk_faults_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str) -> None:
    def fail(*args: object) -> None:
        raise OSError(code, "injected")

    monkeypatch.setattr("curate.engine.store.os.fsync", fail)
    with pytest.raises(WorkdirError, match=message):
        Store(tmp_path).table("a").commit(0, SCHEMA, [rows(0, 3)])
    assert not list((tmp_path / "a").iterdir())


def _failing(error: OSError) -> Iterator[pa.RecordBatch]:
    yield rows(0, 3)
    raise error


def test_error_of_a_source_inside_a_commit_is_not_blamed_on_the_workdir(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="pool/a.jpg"):
        Store(tmp_path).table("a").commit(0, SCHEMA, _failing(PermissionError(errno.EACCES, "denied", "pool/a.jpg")))
    assert not list((tmp_path / "a").iterdir())


def test_full_disk_inside_a_commit_says_what_to_do(tmp_path: Path) -> None:
    for code in (errno.ENOSPC, errno.EDQUOT):  # Arrow raises them while it writes a row group
        with pytest.raises(WorkdirError, match="no space left; free some"):
            Store(tmp_path).table("a").commit(0, SCHEMA, _failing(OSError(code, "injected")))
    assert not list((tmp_path / "a").iterdir())


def test_workdir_below_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkdirError, match="cannot be written .*choose another workdir"):
        Store(tmp_path / "file").write_bytes("a/x.bin", b"x")


def _hold(root: str, ready: object, release: object) -> None:
    with Store(root).lock():
        ready.set()  # type: ignore[attr-defined]
        release.wait(30)  # type: ignore[attr-defined]


def test_a_second_run_is_refused_while_the_first_works(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready, release = spawn.Event(), spawn.Event()
    holder = spawn.Process(target=_hold, args=(str(tmp_path), ready, release))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(WorkdirError, match="another run is at work here"), Store(tmp_path).lock():
        pass
    holder.kill()  # a killed run holds nothing
    holder.join()
    with Store(tmp_path).lock():
        pass


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"{TEMPORARY}123").write_bytes(b"half")
    Store(tmp_path).remove_leftovers()
    assert not list((tmp_path / "a").iterdir())


def test_vectors_survive_with_nulls_and_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.random((50, 8)).astype(np.float16)
    valid = rng.random(50) < 0.7
    schema = embeddings_schema(8, dtype="float16", model="m", weights="w")
    table = Store(tmp_path).table("embeddings/x")
    columns = [pa.array(np.arange(50)), pack(vectors, valid=valid)]
    table.commit(0, schema, [pa.RecordBatch.from_arrays(columns, schema=schema)])
    read = table.read(0)
    spec = VectorSpec.of(read.schema)
    assert spec == VectorSpec("float16", 8, "m", "w")
    found, at = unpack(read["vector"], spec)
    assert np.array_equal(at, np.flatnonzero(valid))
    assert np.array_equal(found, vectors[valid])
    part, at = unpack(read["vector"].slice(10, 20), spec)
    assert np.array_equal(part, vectors[10:30][valid[10:30]])
    assert pq.read_metadata(tmp_path / "embeddings/x/part-00000.parquet").row_group(0).column(1).compression == (
        "UNCOMPRESSED"
    )
    count = duckdb.sql(f"select count(vector) from '{tmp_path}/embeddings/x/part-*.parquet'").fetchall()
    assert count == [(int(valid.sum()),)]


def test_vectors_that_repeat_are_stored_once(tmp_path: Path) -> None:
    rng, width = np.random.default_rng(0), 4096
    distinct = rng.integers(0, 256, (600, width)).astype(np.uint8)  # 2.4 MB: more than a dictionary holds by default
    vectors = pack(distinct[rng.integers(0, 600, 3000)])
    sizes = []
    for repeats in (True, False):
        schema = pa.schema([column("vector", pa.binary(width), "a vector", repeats=repeats)])
        table = Store(tmp_path).table(f"t{repeats}")
        table.commit(0, schema, [pa.RecordBatch.from_arrays([vectors], schema=schema)])
        assert table.read(0)["vector"].combine_chunks() == vectors
        sizes.append((tmp_path / f"t{repeats}/part-00000.parquet").stat().st_size)
    small, large = sizes
    assert small < 600 * width + 50_000
    assert large > 3000 * width


def test_a_range_of_images_is_read_by_the_row_groups_that_hold_it(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("image_id", pa.int64())])
    table = Store(tmp_path).table("t")
    table.commit(0, schema, [pa.RecordBatch.from_arrays([pa.array(np.arange(40_000))], schema=schema)])
    table.commit(1, schema, [])
    found = list(table.read_images(0, 100, 200))
    assert [len(rows) for rows in found] == [100]
    assert found[0]["image_id"].to_pylist() == list(range(100, 200))
    assert list(table.read_images(1, 0, 10)) == []


def test_object_stores_get_whole_files() -> None:
    store = Store("memory://curate-test")
    table = store.table("a")
    table.commit(0, SCHEMA, [rows(0, 3)])
    assert table.committed().keys() == {0}
    assert table.read(0)["n"].to_pylist() == [0, 1, 2]
    store.write_json("x.json", {"a": 1})
    assert store.read_json("x.json") == {"a": 1}
    assert store.read_json("y.json") is None


def test_signs_of_patterns_in_urls_are_names() -> None:
    store = Store("memory://curate-test/a[1]*")
    other = Store("memory://curate-test/a1")
    for one in (store, other):
        one.table("a").commit(0, SCHEMA, [rows(0, 3)])
    store.remove("a")
    assert not store.table("a").committed()
    assert other.table("a").committed().keys() == {0}


def test_driver_reads_a_manifest_once_and_sees_what_it_writes_itself(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    store.write_json("a/_table.json", {"n": 1})
    with store.keeping():
        assert store.read_json("a/_table.json") == {"n": 1}
        other.write_json("a/_table.json", {"n": 2})
        assert store.read_json("a/_table.json") == {"n": 1}
        store.write_json("a/_table.json", {"n": 3})
        assert store.read_json("a/_table.json") == other.read_json("a/_table.json") == {"n": 3}
        store.remove("a")
        assert store.read_json("a/_table.json") is None
        other.write_json("a/_table.json", {"n": 4})
    assert store.read_json("a/_table.json") == {"n": 4}


def test_worker_that_knows_a_manifest_by_its_digest_does_not_read_it_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    part = store.table("a").commit(0, SCHEMA, [rows(0, 9)], fingerprint="f")
    made = Manifest("Given", 1, {}, {}, {}, {}, complete=True, parts=[part.__dict__], rows=9)
    store.table("a").write_manifest(made)
    digest = store.table("a").manifest_digest()
    assert Table(store, "a", digest=digest).num_rows() == 9
    (tmp_path / "a/_table.json").unlink()
    assert Table(store, "a", digest=digest).num_rows() == 9
    assert not Table(store, "a", digest="of another one").is_complete()


def test_folders_within_a_folder_are_removed_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a/_pieces/x", "a/_pieces/b/y", "a/_state/x", "a/_pieces_of_mine/x", "a/x", "b/_pieces/x"):
        store.write_bytes(name, b"1")
    store.remove_folders("a", ("_pieces", "_state", "_partials"))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["a/_pieces_of_mine/x", "a/x", "b/_pieces/x"]
    assert store.list_files("a") == {"x": 1}
    assert store.list_files("a", "y") == store.list_files("none", "x") == {}
    store.remove_file("a/none")


@pytest.fixture(params=["file", "memory"])
def below(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A workdir with a table of two parts, of which work in progress is left."""
    store = Store(tmp_path / "run" if request.param == "file" else f"memory://{tmp_path}/run")
    names = ("run.json", "t/part-00000.parquet", "t/part-00001.parquet", "t/_table.json", "t/_state/part-00000.parquet")
    for name in (*names, "t/_progress.jsonl"):
        store.write_bytes(name, b"old")
    return store


def test_a_store_over_a_workdir_shows_its_files_but_none_of_work_in_progress(below: Store) -> None:
    over = below.over(UPDATE)
    assert over.root == below.root
    assert Store(over.address).root == below.root
    assert over.read_bytes("t/part-00000.parquet") == b"old"
    assert over.find("t/part-00000.parquet") == below.join("t/part-00000.parquet")
    assert over.list_files("t", "part-") == {"part-00000.parquet": 3, "part-00001.parquet": 3}
    for name in ("t/_state/part-00000.parquet", "t/_progress.jsonl"):
        assert over.read_bytes(name) is None
        assert not over.exists(name)
    assert over.list_files("t/_state") == {}
    assert over.exists("t/_table.json")
    assert over.read_own("t/_table.json") is None


def test_what_is_written_or_removed_over_a_workdir_leaves_it_as_it_is(below: Store) -> None:
    over = below.over(UPDATE)
    over.write_bytes("t/part-00000.parquet", b"newer")
    over.write_bytes("t/_state/part-00000.parquet", b"newer")
    over.remove_file("t/part-00001.parquet")
    over.remove_folders("t", ["_state"])
    assert over.find("t/part-00000.parquet") == over.join("t/part-00000.parquet")
    assert over.list_files("t", "part-") == {"part-00000.parquet": 5, "part-00001.parquet": 3}
    assert below.read_bytes("t/part-00000.parquet") == b"old"
    assert below.exists("t/_state/part-00000.parquet")


def test_files_put_in_place_replace_those_of_the_workdir_the_record_last(
    below: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, moved = below.over(UPDATE), list[str]()
    for name in ("run.json", "t/_table.json", "t/part-00001.parquet", "a/part-00000.parquet", "t/_pieces/x"):
        over.write_bytes(name, b"new")
    forget = below._forget
    monkeypatch.setattr(below, "_forget", lambda name: (moved.append(name), forget(name))[1])
    over.put_in_place()
    assert moved == ["a/part-00000.parquet", "t/part-00001.parquet", "t/_table.json", "run.json"]
    assert [below.read_bytes(name) for name in moved] == [b"new"] * 4
    assert below.read_bytes("t/part-00000.parquet") == b"old"
    assert [over.read_own(name) for name in moved] == [None] * 4
    over.put_in_place()  # as after a kill
    assert below.read_bytes("t/part-00001.parquet") == b"new"
