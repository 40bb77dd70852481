"""What a disk may do to a workdir: each damage is found by who reads it, named, and mended by the next run."""

import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import DamagedPart, SourceError, TableError
from tests.engine.test_pipeline import NONE, ByParity, Count, build, contents, values


def flip(path: Path, place: float = 0.5) -> None:
    """Change a bit of a file, at a share of its length."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def everything(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", [0.0, 0.3, 0.9, 1.0])
def test_a_part_that_turns_out_damaged_is_made_again_on_the_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: float
) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = contents(tmp_path)
    flip(tmp_path / "added/part-00001.parquet", place)
    changed = build(tmp_path).run(InProcess(1), Flags(rebuild=frozenset({"parity", "scaled"})))
    assert sorted(changed) == ["added", "parity", "scaled"]
    assert contents(tmp_path) == before
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        r.message for r in caplog.records if "added/part-00001.parquet: damaged" in r.message
    ]
    assert "it is made again" in caplog.text


def test_two_damaged_parts_on_a_way_are_both_made_again(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = contents(tmp_path)
    for name in ("numbers/part-00000", "added/part-00000", "added/part-00002", "fitted/part-00000"):
        flip(tmp_path / f"{name}.parquet")
    build(tmp_path).run(InProcess(1), Flags(rebuild=frozenset({"scaled"})))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["numbers/part-00001", "fitted/part-00000", "parity/part-00001"])
def test_removing_the_damaged_file_and_running_again_makes_it_anew(tmp_path: Path, name: str) -> None:
    """What the error says, of tables that are known by their content too."""
    build(tmp_path).run(InProcess(1), NONE)
    before, path = contents(tmp_path), tmp_path / f"{name}.parquet"
    flip(path)
    table, part = Store(tmp_path).table(name.split("/", maxsplit=1)[0]), int(name[-5:])
    with pytest.raises(DamagedPart, match=rf"{name}.parquet: damaged .*; remove this file and run its config"):
        table.read(part)
    path.unlink()
    build(tmp_path).run(InProcess(1), NONE)
    assert contents(tmp_path) == before


def test_a_damaged_listing_of_sources_that_have_changed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    (tmp_path / "numbers/part-00001.parquet").unlink()
    before = everything(tmp_path)
    scan = Count.scan

    def changed(self: Count, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        yield from ((part, rows.slice(1)) for part, rows in scan(self, known))

    monkeypatch.setattr(Count, "scan", changed)
    with pytest.raises(TableError, match=r"part-00001.parquet: damaged or gone, and its source .*--rebuild numbers"):
        build(tmp_path).run(InProcess(1), NONE)
    assert everything(tmp_path) == before
    build(tmp_path).run(InProcess(1), Flags(rebuild=frozenset({"numbers"})))
    assert values(tmp_path, "numbers") == [n for n in range(30) if n % 10]


@pytest.mark.parametrize("rebuild", ["numbers", "all"])
def test_sources_that_are_not_there_cost_nothing_that_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rebuild: str
) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before, scan = everything(tmp_path), Count.scan

    def gone(self: Count, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        yield next(iter(scan(self, known)))
        raise SourceError("pool: no such folder")

    with monkeypatch.context() as patch:
        patch.setattr(Count, "scan", gone)
        with pytest.raises(SourceError, match="no such folder"):
            build(tmp_path).run(InProcess(1), Flags(rebuild=frozenset({rebuild})))
    assert everything(tmp_path) == before
    assert build(tmp_path).run(InProcess(1), NONE) == []


def test_intermediate_parts_of_a_killed_run_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "whole").run(InProcess(1), NONE)

    def killed(self: Any, part: int, **inputs: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ByParity, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed").run(InProcess(1), NONE)
    flip(tmp_path / "killed/parity/_pieces/part-00000.pieces")
    (tmp_path / "killed/parity/_progress.jsonl").write_bytes(b"\xff\n[]\n{}\n3\n" + b"[" * 100_000 + b"\n")
    build(tmp_path / "killed").run(InProcess(1), NONE)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


class Reusing(ByParity):
    """As shards are written: what is left of them serves to write them again."""

    reuses = True

    def run(self, part: int, *, before: Table, pieces: pa.Table) -> Any:
        return super().run(part, pieces=pieces)


def test_parts_that_may_hold_the_only_copy_are_named_and_stay(tmp_path: Path) -> None:
    def build_shards() -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        shards = p.add("shards", Reusing(), numbers=p.add("numbers", Count()))
        p.add("again", ByParity(), numbers=shards)
        return p

    build_shards().run(InProcess(1), NONE)
    path = tmp_path / "shards/part-00001.parquet"
    flip(path)
    damaged = path.read_bytes()
    with pytest.raises(DamagedPart, match=r"shards/part-00001.parquet: damaged .*remove this file"):
        build_shards().run(InProcess(1), Flags(rebuild=frozenset({"again"})))
    assert path.read_bytes() == damaged
    path.unlink()
    build_shards().run(InProcess(1), NONE)
    assert values(tmp_path, "again") == values(tmp_path, "shards")


def test_a_worker_can_send_the_error() -> None:
    found = pickle.loads(pickle.dumps(DamagedPart("a/part-00003.parquet: damaged", "a", 3)))  # noqa: S301
    assert (str(found), found.table, found.part) == ("a/part-00003.parquet: damaged", "a", 3)


WHOLE = b'{"stage": "AddTo", "version": 1, "config": {}, "resolved": {}, "pins": {}, "inputs": {}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"\x00" * 50,
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b"{}",
        WHOLE + b', "later": 1}',
        WHOLE + b', "parts": 3}',
        WHOLE + b', "complete": true, "parts": [{"number": 0}]}',
        WHOLE + b', "rows": "many"}',
    ],
)
def test_every_damage_of_a_manifest_ends_in_a_sentence_that_works(tmp_path: Path, data: bytes) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before, path = contents(tmp_path), tmp_path / "added/_table.json"
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"added/_table.json: damaged, or of another .*; remove this file and"):
        build(tmp_path).run(InProcess(1), NONE)
    path.unlink()
    assert build(tmp_path).run(InProcess(1), NONE) == ["added"]
    assert contents(tmp_path) == before


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    table = Store(tmp_path).table("numbers")
    build(tmp_path).run(InProcess(1), NONE)
    path = tmp_path / "numbers/_table.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(TableError, match="numbers/_table.json: damaged"):
            table.manifest()


def test_stray_files_are_no_parts(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    before = contents(tmp_path)
    strays = ["part-abc.parquet", "part-.parquet", "part-1.parquet", "part--0001.parquet", "part-00001.parquet.old"]
    for name in strays:
        (tmp_path / "added" / name).write_bytes(b"x")
    (tmp_path / "added/part-00007.parquet").mkdir()
    assert Store(tmp_path).table("added").committed().keys() == {0, 1, 2}
    assert build(tmp_path).run(InProcess(1), NONE) == []
    assert build(tmp_path).run(InProcess(1), Flags(rebuild=frozenset({"added"}))) == ["added"]
    assert {name: data for name, data in contents_of_parts(tmp_path).items() if name in before} == before


def contents_of_parts(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.parquet") if path.is_file()}


@pytest.mark.parametrize("name", ["a[1]", "a*b?", "with space", "ü#%20", "x::y", "[!a]"])
def test_any_name_of_a_folder_is_taken_as_it_is_written(tmp_path: Path, name: str) -> None:
    build(tmp_path / name).run(InProcess(1), NONE)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert values(tmp_path / name, "median") == [15]
    assert build(tmp_path / name).run(InProcess(1), NONE) == []
    (tmp_path / name / "scaled/part-00001.parquet").unlink()
    assert build(tmp_path / name).run(InProcess(1), NONE) == ["scaled"]
