"""Working tables whose rows are gone: nothing is made again, until something needs them."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from curate.engine import cleaning
from curate.engine.cleaning import Removed, clean, find_unneeded
from curate.engine.executors import InProcess
from curate.engine.finished import find_finished
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.plan import plan_run
from curate.engine.store import Store
from curate.engine.table import Table
from curate.errors import TableError
from tests.engine.test_pipeline import NONE, AddTo, ByParity, Count, Fit, Median, Total

FOLDED = ("internal/added", "internal/twice", "internal/parity", "internal/median")


class Told(Total):
    """A result whose report reads the rows of its input."""

    tells_from: ClassVar[tuple[str, ...]] = ("numbers",)


class Telling(AddTo):
    """A working table that the report shows."""

    def headline(self, table: Table, run: Any) -> str | None:
        return str(table.read_all()["n"][0])


def build(root: Path, *, parts: int = 3, amount: int = 1, last: int = 1) -> Pipeline:
    """numbers -> added -> twice -> parity -> median -> result; twice -> fitted; told -> total; shown."""
    p = Pipeline(Store(root), seed=0)
    numbers = p.add("numbers", Count(parts=parts))
    added = p.add("internal/added", AddTo(amount=amount), numbers=numbers)
    twice = p.add("internal/twice", AddTo(amount=0), numbers=added)
    p.add("internal/fitted", Fit(), numbers=twice)
    parity = p.add("internal/parity", ByParity(), numbers=twice)
    median = p.add("internal/median", Median(), numbers=parity)
    p.add("result", AddTo(amount=last), numbers=median)
    told = p.add("internal/told", AddTo(amount=7), numbers=added)
    p.add("total", Told(), numbers=told)
    p.add("internal/shown", Telling(), numbers=added)
    return p


def run(root: Path, flags: Flags = NONE, *, keep_working: bool = True, **fields: int) -> list[str]:
    return build(root, **fields).run(InProcess(1), flags, keep_working=keep_working)


def clean_all(root: Path, *, dry_run: bool = False, **fields: int) -> list[Removed]:
    p = build(root, **fields)
    found = find_finished(p.store, "toy", {}, p.steps)
    return clean(map(p.store.table, find_unneeded(p.steps, p.store, [t.name for t in found.tables])), dry_run=dry_run)


def everything(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def parquet(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in everything(root).items() if name.endswith(".parquet")}


def tables_of(found: dict[str, bytes]) -> set[str]:
    return {name.rpartition("/")[0] for name in found}


def test_rows_go_that_nothing_needs_and_the_next_run_does_nothing(tmp_path: Path) -> None:
    run(tmp_path)
    before = everything(tmp_path)
    told = clean_all(tmp_path, dry_run=True)
    assert everything(tmp_path) == before
    removed = clean_all(tmp_path)
    assert removed == told
    assert [one.table for one in removed] == list(FOLDED)
    gone = before.keys() - everything(tmp_path).keys()
    assert sum(one.num_bytes for one in removed) == sum(len(before[name]) for name in gone)
    assert tables_of(parquet(tmp_path)) == {
        "numbers",
        "result",
        "total",
        "internal/fitted",
        "internal/told",
        "internal/shown",
    }
    after = everything(tmp_path)
    assert run(tmp_path) == []
    assert clean_all(tmp_path) == []
    assert everything(tmp_path) == after
    assert {plan.state for plan in plan_run(build(tmp_path), NONE, num_images=30)} == {"kept"}


def test_run_that_keeps_results_alone_ends_as_one_that_is_cleaned_and_holds_less_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "all")
    clean_all(tmp_path / "all")
    sizes: list[int] = []
    inner = cleaning.clean

    def watch(tables: Any) -> Any:
        sizes.append(sum(map(len, parquet(tmp_path / "few").values())))
        return inner(tables)

    monkeypatch.setattr("curate.engine.pipeline.clean", watch)
    run(tmp_path / "few", keep_working=False)
    assert parquet(tmp_path / "few") == parquet(tmp_path / "all")
    run(tmp_path / "whole")
    assert max(sizes) < sum(map(len, parquet(tmp_path / "whole").values()))
    assert run(tmp_path / "few", keep_working=False) == []


def test_changed_setting_makes_again_what_it_needs_with_equal_bytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "a")
    clean_all(tmp_path / "a")
    changed = Flags(rebuild=frozenset({"result"}))
    plans = {
        plan.table: (plan.state, plan.todo) for plan in plan_run(build(tmp_path / "a", last=5), changed, num_images=30)
    }
    assert plans["internal/median"] == ("restore", 1)
    with caplog.at_level("INFO"):
        assert run(tmp_path / "a", changed, last=5) == ["result"]
    assert "internal/median: its rows were removed, result needs 1 parts of them again" in caplog.text
    assert "internal/added: its rows were removed" in caplog.text
    run(tmp_path / "b", last=5)
    assert parquet(tmp_path / "a") == parquet(tmp_path / "b")
    for name in FOLDED:
        assert Store(tmp_path / "a").table(name).complete_manifest().cleaned == []
        assert not list((tmp_path / "a" / name).glob("_p*"))
    assert run(tmp_path / "a", last=5) == []


def test_change_near_the_root_makes_all_anew(tmp_path: Path) -> None:
    run(tmp_path / "a")
    clean_all(tmp_path / "a")
    run(tmp_path / "a", Flags(rebuild=frozenset({"internal/added"})), amount=4)
    run(tmp_path / "b", Flags(), amount=1)
    run(tmp_path / "b", Flags(rebuild=frozenset({"internal/added"})), amount=4)
    assert parquet(tmp_path / "a") == parquet(tmp_path / "b")


def test_added_images_make_only_the_new_part_of_an_aligned_table(tmp_path: Path) -> None:
    def aligned(root: Path) -> Pipeline:
        p = Pipeline(Store(root), seed=0)
        added = p.add("internal/added", AddTo(), numbers=p.add("numbers", Count()))
        p.add("result", AddTo(), numbers=p.add("internal/twice", AddTo(amount=0), numbers=added))
        return p

    aligned(tmp_path).run(InProcess(1), NONE, keep_working=False)
    assert tables_of(parquet(tmp_path)) == {"numbers", "result"}
    aligned(tmp_path).run(InProcess(1), Flags(rescan=True))
    assert sorted(name for name in parquet(tmp_path) if name.startswith("internal")) == [
        "internal/added/part-00003.parquet",
        "internal/twice/part-00003.parquet",
    ]
    assert Store(tmp_path).table("internal/twice").complete_manifest().cleaned == [0, 1, 2]
    aligned(tmp_path / "new").run(InProcess(1), NONE)
    aligned(tmp_path / "new").run(InProcess(1), Flags(rescan=True))
    assert [part.fingerprint for part in Store(tmp_path).table("result").parts()] == [
        part.fingerprint for part in Store(tmp_path / "new").table("result").parts()
    ]


def test_what_a_table_to_be_made_reads_stays(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "result/_table.json").unlink()
    assert [one.table for one in clean_all(tmp_path)] == ["internal/added", "internal/twice", "internal/parity"]
    assert run(tmp_path) == ["result"]
    assert [one.table for one in clean_all(tmp_path)] == ["internal/median"]
    (tmp_path / "result/part-00000.parquet").unlink()
    run(tmp_path)  # makes the median again, and all that it is made of
    assert (tmp_path / "internal/added/part-00000.parquet").exists()


@pytest.mark.parametrize("at", range(8))
def test_clean_and_restoring_that_are_killed_anywhere_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    run(tmp_path / "a", last=5)
    whole = parquet(tmp_path / "a")
    run(tmp_path / "b")
    with monkeypatch.context() as patch:
        _killed_at(patch, at)
        with pytest.raises(KeyboardInterrupt):
            _clean_and_change(tmp_path / "b")
    run(tmp_path / "b", Flags(rebuild=frozenset({"result"})), last=5)
    found = parquet(tmp_path / "b")
    assert {name: data for name, data in whole.items() if name in found} == found
    assert found.keys() >= {name for name in whole if not name.startswith("internal/")}
    clean_all(tmp_path / "b", last=5)
    assert run(tmp_path / "b", last=5) == []


def _clean_and_change(root: Path) -> None:
    clean_all(root)
    run(root, Flags(rebuild=frozenset({"result"})), last=5)


def _killed_at(patch: pytest.MonkeyPatch, at: int) -> None:
    """The run ends before its writing or removing of that number."""
    left = [at * 4 + 1]

    def watched(inner: Any) -> Any:
        def before(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return inner(*args, **kwargs)

        return before

    for name in ("write_bytes", "remove", "remove_folders"):
        patch.setattr(Store, name, watched(getattr(Store, name)))


def test_damaged_part_is_mended_although_its_inputs_were_cleaned(tmp_path: Path) -> None:
    run(tmp_path)
    before = parquet(tmp_path)
    clean_all(tmp_path)
    path = tmp_path / "internal/told/part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    run(tmp_path, Flags(rebuild=frozenset({"total"})))
    found = parquet(tmp_path)
    assert found == {name: before[name] for name in found}


def test_reading_a_cleaned_part_says_so(tmp_path: Path) -> None:
    run(tmp_path)
    clean_all(tmp_path)
    with pytest.raises(TableError, match=r"added/part-00001.parquet: was cleaned.*--rebuild internal/added"):
        Store(tmp_path).table("internal/added").read(1)
