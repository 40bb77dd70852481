"""What those who only look see of a run: the tables of its recipe, in its order, sampled where they are large."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.engine.executors import InProcess
from curate.engine.finished import Finished, find_finished, open_finished, pick
from curate.engine.freshness import Flags, part_fingerprints
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, SharedMap, Stage, each, whole
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.errors import StaleTable, TableError
from curate.stages.clusters.fit_clusters import FitClusters
from curate.tables import embeddings_schema
from tests.engine.test_pipeline import NONE, NUMBERS, AddTo, Count, Total, build, rows
from tests.stages.planted import DIM, PlantedCatalog, PlantedVectors, make, planted


def opened(p: Pipeline) -> Finished:
    return open_finished(p.store, "toy", {"seed": 3}, p.steps)


def test_tables_come_in_the_order_of_the_recipe_and_are_found_by_their_stage(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    run = opened(build(tmp_path))
    assert [one.name for one in run.tables] == build(tmp_path).names
    assert [table.name for _, table in run.made_by(Total)] == ["total", "fitted"]
    stage, table = run.only(AddTo)
    assert (stage.amount, table.name) == (1, "added")
    assert run.only(PlantedVectors) is None
    assert [t.name for t in run.inputs_of(Store(tmp_path).table("scaled"), "totals")] == ["fitted"]


def test_tables_that_the_recipe_does_not_declare_are_not_seen(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    shorter = build(tmp_path)
    shorter.steps = shorter.steps[:2]
    assert [one.name for one in opened(shorter).tables] == ["numbers", "added"]


def names(run: Finished) -> list[str]:
    return [one.name for one in run.tables]


def cut(p: Pipeline, before: str) -> Pipeline:
    """A pipeline that stops before the step of a table, as a killed run does."""
    steps = [list(step.stages) for step in p.steps]
    p.steps = p.steps[: next(number for number, tables in enumerate(steps) if before in tables)]
    return p


def test_everything_that_was_just_made_is_current(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    run = opened(build(tmp_path))
    assert names(run) == build(tmp_path).names
    assert run.outdated == {}


def test_tables_of_an_earlier_setting_are_left_out_and_named_with_what_depends_on_them(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    run = opened(build(tmp_path, amount=2, batch=3))
    assert names(run) == ["numbers"]
    assert run.outdated["added"] == "made under another setting: amount: 1 -> 2"
    assert run.outdated["parity"] == run.outdated["total"] == run.outdated["median"] == "made from an earlier added"
    assert run.outdated["scaled"] == "made from an earlier added, fitted"
    assert run.inputs_of(Store(tmp_path).table("parity"), "numbers") == []


def test_after_a_run_that_was_cut_off_tables_of_the_inputs_before_are_left_out(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    cut(build(tmp_path, amount=2), "parity").run(InProcess(1), Flags(frozenset({"added"})))
    run = opened(build(tmp_path, amount=2))
    assert names(run) == ["numbers", "added", "fitted"]  # a fitted table is known by its content, and kept
    assert set(run.outdated.values()) == {"made from an earlier added", "made from an earlier added, fitted"}
    build(tmp_path, amount=2).run(InProcess(1), NONE)
    assert opened(build(tmp_path, amount=2)).outdated == {}


def test_appended_parts_outdate_what_was_made_without_them(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    cut(build(tmp_path), "added").run(InProcess(1), Flags(rescan=True))
    run = opened(build(tmp_path))
    assert names(run) == ["numbers"]
    assert run.outdated["added"] == "made from an earlier numbers"


def test_a_table_that_is_made_again_outdates_what_was_made_of_it_before(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    fitted = Store(tmp_path).table("added")
    fitted.write_manifest(replace(fitted.complete_manifest(), complete=False))
    run = opened(build(tmp_path))
    assert names(run) == ["numbers"]
    assert "added" not in run.outdated
    assert run.outdated["parity"] == "made from an earlier added"


def test_pins_are_those_that_the_last_run_found(tmp_path: Path) -> None:
    class Weighted(AddTo):
        def pins(self) -> dict[str, str]:
            raise AssertionError("those who only look have no weights")

    build(tmp_path).run(InProcess(1), NONE)
    added = Store(tmp_path).table("added")
    manifest = replace(added.complete_manifest(), stage="Weighted", pins={"weights": "a"})
    added.write_manifest(manifest)
    p = Pipeline(Store(tmp_path), seed=0)
    p.add("added", Weighted(), numbers=p.add("numbers", Count()))
    made_of_a, made_of_b = (find_finished(p.store, "toy", {}, p.steps, pins={"added": {"weights": w}}) for w in "ab")
    assert made_of_a.outdated["added"] == "made from an earlier numbers"  # the parts themselves tell of no weights
    assert made_of_b.outdated["added"] == "made under another setting: weights: 'a' -> 'b'"
    wanted = part_fingerprints(
        {"added": Weighted()}, {"numbers": p.store.table("numbers")}, 3, pins={"added": {"weights": "a"}}
    )
    parts = [part | {"fingerprint": one} for part, one in zip(manifest.parts, wanted["added"], strict=True)]
    added.write_manifest(replace(manifest, parts=parts))
    assert find_finished(p.store, "toy", {}, p.steps, pins={"added": {"weights": "a"}}).outdated == {}


def test_tables_of_one_pass_are_outdated_with_those_before_them(tmp_path: Path) -> None:
    def together(amount: int, other: int) -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        stages = {"first": Shared(amount=amount), "second": Shared(amount=other)}
        p.add_pass(stages, numbers=p.add("numbers", Count()))
        return p

    together(1, 2).run(InProcess(1), NONE)
    assert opened(together(1, 2)).outdated == {}
    assert opened(together(1, 3)).outdated == {"second": "made under another setting: amount: 2 -> 3"}
    found = opened(together(5, 2)).outdated
    assert found == {"first": "made under another setting: amount: 1 -> 5", "second": "made from an earlier first"}


def test_a_table_that_stands_alone_depends_on_what_leads_its_pass_and_on_no_other(tmp_path: Path) -> None:
    def together(amount: int, other: int, more: tuple[str, ...] = ("alone", "apart")) -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        stages: dict[str, Stage] = {"lead": Leading(amount=amount), "next": Shared(amount=other)}
        stages |= {name: Alone(amount=len(name)) for name in more}
        p.add_pass(stages, numbers=p.add("numbers", Count()))  # type: ignore[arg-type]
        return p

    together(1, 2).run(InProcess(1), NONE)
    assert opened(together(1, 2)).outdated == {}
    assert opened(together(1, 3)).outdated == {"next": "made under another setting: amount: 2 -> 3"}
    assert opened(together(5, 2)).outdated.keys() == {"lead", "next", "alone", "apart"}
    assert opened(together(1, 2, ("apart",))).outdated == {}
    MADE.clear()
    assert together(1, 2, ("another", "apart")).run(InProcess(1), NONE) == ["another"]
    assert {"lead", "another"} == MADE
    assert together(1, 2, ("apart", "alone")).run(InProcess(1), NONE) == []


MADE: set[str] = set()
"""Tables of which rows were made."""


class Shared(SharedMap, AddTo):
    @classmethod
    def run_together(cls, stages: Any, part: int, **tables: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        MADE.update(stages)
        for name, stage in stages.items():
            yield from ((name, batch) for batch in AddTo.run(stage, part, **tables))


class Leading(Shared):
    leads: ClassVar[bool] = True


class Alone(Shared):
    stands_alone: ClassVar[bool] = True


class Sum(Map):
    """Adds up the values of several tables, and of one more where it is given."""

    inputs: ClassVar[dict[str, Input]] = {"terms": each(NUMBERS, many=True), "also": whole(NUMBERS, added=True)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return NUMBERS

    def run(self, part: int, *, terms: list[pa.Table], also: Any) -> Batches:
        yield rows(sum(table["n"].to_numpy() for table in terms).tolist())


def test_a_part_reads_and_depends_on_the_parts_of_its_number_of_many_tables(tmp_path: Path) -> None:
    def summed(*amounts: int, also: bool = False) -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        numbers = p.add("numbers", Count())
        terms = [p.add(f"term{place}", AddTo(amount=n), numbers=numbers) for place, n in enumerate(amounts)]
        p.add("sum", Sum(), terms=terms, also=numbers if also else None)
        return p

    p = summed(1, 2)
    p.run(InProcess(1), NONE)
    numbers, found = (p.store.table(name) for name in ("numbers", "sum"))
    for part in range(len(numbers.parts())):
        wanted = 2 * numbers.read(part)["n"].to_numpy() + 3
        assert found.read(part)["n"].to_pylist() == wanted.tolist()
    fingerprints = [part.fingerprint for part in found.parts()]
    assert (
        part_fingerprints({"sum": Sum()}, {"terms": [p.store.table("term0"), p.store.table("term1")]}, 2)["sum"]
        == (fingerprints[:2])
    )
    assert summed(1, 2).run(InProcess(1), NONE) == []
    with pytest.raises(StaleTable, match="also: not there -> read"):
        summed(1, 2, also=True).check(NONE)
    assert "sum" in summed(1, 2, also=True).run(InProcess(1), Flags(rebuild=frozenset({"sum"})))


class OtherVectors(PlantedVectors):
    def output_schema(self, **inputs: Any) -> pa.Schema:
        return embeddings_schema(DIM, dtype="float32", model="other", weights="")


def test_tables_fitted_on_vectors_of_an_earlier_model_are_left_out(tmp_path: Path) -> None:
    def fitted(vectors: Any) -> Pipeline:
        p = Pipeline(Store(tmp_path), seed=0)
        catalog = p.add("catalog", PlantedCatalog())
        p.add(
            "centroids",
            FitClusters(levels=(3,)),
            embeddings=p.add("vectors", vectors, catalog=catalog),
            catalog=catalog,
        )
        return p

    make(fitted(PlantedVectors()))
    cut(fitted(OtherVectors()), "centroids").run(InProcess(1), Flags(frozenset({"vectors"})))
    assert opened(fitted(OtherVectors())).outdated == {"centroids": "fitted on other vectors than its inputs now hold"}


def test_a_workdir_of_earlier_settings_alone_names_one_of_them(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    with pytest.raises(
        TableError, match=r"no finished table of its current settings; numbers is there, but made under"
    ):
        opened(build(tmp_path, parts=4))


def test_auto_values_are_those_of_the_table(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    p.add("centroids", FitClusters(levels="auto_flat"), embeddings=vectors, catalog=catalog)
    make(p)
    assert opened(p).only(FitClusters)[0].levels == (102 // 20,)


def test_workdir_without_a_finished_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="holds no finished table"):
        opened(build(tmp_path))


def test_samples_hold_all_rows_of_small_tables_and_few_of_large_ones(tmp_path: Path) -> None:
    p, _, _ = planted(tmp_path)
    make(p)
    run = opened(p)
    table = run.only(PlantedCatalog)[1]
    whole = run.sample(table, ["image_id"])
    assert (whole.whole, len(whole.rows), whole.note) == (True, 240, "")
    pool = run.sample(table, ["image_id"], role="pool")
    assert len(pool.rows) == 120
    assert run.has_role(pool.rows["image_id"].to_numpy(), "pool").all()
    few = run.sample(table, ["image_id"], max_rows=60)
    assert (few.whole, len(few.rows), few.total) == (False, 60, 240)
    assert "From a sample of 60 of 240 rows." in few.note
    assert run.sample(table, ["image_id"], max_rows=60).rows.equals(few.rows)


def test_picks_are_distinct_values_in_their_order() -> None:
    values = np.arange(100)
    chosen = pick(values, 10, np.random.default_rng(0))
    assert len(np.unique(chosen)) == 10
    assert (np.diff(chosen) > 0).all()
    assert pick(values, 200, np.random.default_rng(0)) is values


def test_large_parts_are_sampled_by_whole_row_groups_the_same_way_each_time(tmp_path: Path) -> None:
    p, _, _ = planted(tmp_path)
    make(p)
    schema, done = pa.schema([pa.field("n", pa.int64())]), []
    table = p.store.table("numbers")
    for part in range(5):
        values = pa.table({"n": np.arange(part * 40_000, (part + 1) * 40_000)}, schema=schema)
        done.append(table.commit(part, schema, values.to_batches(max_chunksize=8192)).__dict__)
    table.write_manifest(Manifest("Count", 1, {}, {}, {}, {}, complete=True, parts=done, rows=200_000))
    sample = opened(p).sample(table, ["n"], max_rows=20_000)
    values = sample.rows["n"].to_numpy()
    assert 20_000 <= len(values) < 40_000
    assert len(np.unique(values // 40_000)) == 1
    assert sample.note == f"From a sample of {len(values):,} of 200,000 rows."
    assert (np.diff(values) > 0).all()
    assert np.array_equal(values, opened(p).sample(table, ["n"], max_rows=20_000).rows["n"].to_numpy())
