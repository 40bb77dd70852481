"""Changed settings: what is made again, that the old results stay until all is complete, and kills on the way."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.incremental import looking
from curate import running
from curate.cli import app
from curate.engine import executors
from curate.engine.freshness import Flags
from curate.engine.plan import StepPlan
from curate.engine.store import UPDATE, Store
from curate.errors import ConfigError, StaleTable, WorkdirError
from curate.models.thresholds import REGISTRATION, VERIFICATION
from curate.ops.copies.registration import registration_score
from curate.recipe import RecipeConfig, load_config
from curate.running import Outcome, clean_workdir, plan_config, run_config
from curate.scale.change import cost_of_change
from curate.tables import ROLES
from curate.updating import under_way
from curate.workdir import open_record, open_tables

STRICTER = "copies.threshold=0.97"
UPDATES = Flags(update=True)
CHANGED = [
    "internal/neighbors/copy",
    "internal/neighbors/aligned",
    "internal/contaminated",
    "duplicates",
    "selection",
    "internal/map",
    "internal/own_columns",
    "shards/data",
    "shards/.rows",
    "internal/origins",
]
"""What a stricter threshold may change: neither a picture nor a search is among it."""


class Killed(BaseException):
    """Ends a run as a kill would, as far as the workdir can tell."""


def planned(dedup_pool: Path, workdir: Path, *more: str) -> tuple[RecipeConfig, list[StepPlan]]:
    config = load_config("dedup", given(dedup_pool, workdir, *more))
    return config, plan_config(config, UPDATES)


def given(dedup_pool: Path, workdir: Path, *more: str) -> list[str]:
    roles = [f"sources.{role}={dedup_pool}/{role}" for role in ROLES]
    return [*roles, f"workdir={workdir}", "executor.threads=1", "rows_per_part=25", *more]


def run(dedup_pool: Path, workdir: Path, *more: str, flags: Flags = UPDATES) -> Outcome:
    words = given(dedup_pool, workdir, *more)
    return run_config(load_config("dedup", words), flags, command=("dedup", *words))


@pytest.fixture(scope="module")
def stricter(dedup_pool: Path) -> Path:
    """A run from nothing with a stricter one."""
    run(dedup_pool, dedup_pool / "stricter/run", STRICTER, flags=Flags())
    return dedup_pool / "stricter/run"


@pytest.fixture
def workdir(dedup_run: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    shutil.copytree(dedup_run, tmp_path / "run")
    return tmp_path / "run"


def files(workdir: Path) -> dict[str, bytes]:
    """All that lies in a workdir but what an update makes beside it."""
    there = (path for path in workdir.rglob("*") if path.is_file() and UPDATE not in path.parts)
    return {path.relative_to(workdir).as_posix(): path.read_bytes() for path in there if path.name != ".lock"}


def pictures(workdir: Path) -> set[str]:
    return {name for name in files(workdir) if name.startswith("report/pictures")}


def results(workdir: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(workdir).items() if name.endswith((".parquet", "README.md"))}


def test_an_update_makes_what_the_change_needs_reads_no_picture_and_ends_as_a_run_from_nothing(
    dedup_pool: Path, workdir: Path, stricter: Path
) -> None:
    before = results(workdir)
    unused = workdir / f"report/pictures/{24 * '0'}.jpg"
    unused.parent.mkdir(exist_ok=True)
    unused.write_bytes(b"of the page before")
    with pytest.raises(StaleTable) as stale:
        run(dedup_pool, workdir, STRICTER, flags=Flags())
    told = str(stale.value).splitlines()
    assert told[0] == "internal/neighbors/copy was made with another configuration: threshold: 0.92 -> 0.97"
    assert told[1] == "internal/neighbors/aligned was made with another configuration: least_cosine: None -> 0.97"
    assert told[-1].startswith("  curate run dedup sources.pool=")
    assert told[-1].endswith(f"{STRICTER} --update")
    assert results(workdir) == before

    words = told[-1].split()[1:]
    shown = CliRunner().invoke(app, [*words, "--dry-run"], catch_exceptions=False).stdout
    assert "threshold: 0.92 -> 0.97" in shown
    assert "To be made: at most 10 tables; no image is read; about " in shown
    change = cost_of_change(*planned(dedup_pool, workdir, STRICTER))
    assert [name for step in change.steps for name in step.tables] == CHANGED
    assert change.images == 0
    assert results(workdir) == before
    assert not (workdir / UPDATE).exists()

    other = cost_of_change(*planned(dedup_pool, workdir, "inspect.decode_side=300"))
    assert (other.steps[0].tables[0], other.steps[0].images) == ("images", 54)  # all of them
    with looking() as looked:
        outcome = run(dedup_pool, workdir, STRICTER)
    assert not any(looked.values())
    assert set(outcome.changed) <= set(CHANGED)
    assert {"duplicates", "selection", "shards/data"} <= set(outcome.changed)
    assert results(workdir) == results(stricter) != before
    assert not (workdir / UPDATE).exists()
    assert pictures(workdir) == pictures(stricter)
    assert run(dedup_pool, workdir, STRICTER, flags=Flags()).changed == []


def at_task(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Kill in the task of that number."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        perform, left = executors.perform, [number]

        def fragile(*args: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return perform(*args)

        monkeypatch.setattr(executors, "perform", fragile)

    return patch


def at_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def fragile(store: Store) -> str:
        raise Killed

    monkeypatch.setattr(running, "write_report", fragile)


@pytest.mark.parametrize("kill", [at_task(1), at_task(8), at_task(14), at_task(20), at_report])
def test_killed_on_the_way_the_old_results_are_whole_and_the_next_update_goes_on(
    kill: Callable[[pytest.MonkeyPatch], None],
    dedup_pool: Path,
    dedup_run: Path,
    stricter: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            run(dedup_pool, workdir, STRICTER)
    store = Store(workdir)
    assert files(workdir) == files(dedup_run)
    assert "threshold" in open_record(store).config["copies"]
    assert open_record(store).config["copies"]["threshold"] == "known"
    opened = open_tables(store)
    assert not opened.outdated
    assert [one.name for one in opened.tables] == list(open_record(store).tables)
    begun = under_way(store)
    assert begun is not None
    assert begun.describe().endswith(f"{STRICTER} --update` goes on with it, and until then all stays")
    seen = " ".join(CliRunner().invoke(app, ["status", str(workdir)], catch_exceptions=False).stdout.split())
    assert "An update to other settings is under way" in seen
    with pytest.raises(WorkdirError, match="An update to other settings is under way"):
        run(dedup_pool, workdir, flags=Flags())
    assert files(workdir) == files(dedup_run)
    run(dedup_pool, workdir, STRICTER)
    assert results(workdir) == results(stricter)
    assert under_way(store) is None


def kill_in_switch(moves: int, dedup_pool: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update to a stricter threshold, killed when so many files are in their places."""
    replace, switching, left = Path.replace, running.updating.end_switch, [moves]

    def fragile(self: Path, target: Path | str) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return replace(self, target)

    def switch(store: Store) -> None:
        if store.over(UPDATE).read_own("_switch.json") is not None:
            monkeypatch.setattr(Path, "replace", fragile)
        switching(store)

    with monkeypatch.context():
        monkeypatch.setattr(running.updating, "end_switch", switch)
        with pytest.raises(Killed):
            run(dedup_pool, workdir, STRICTER)
    monkeypatch.undo()


@pytest.mark.parametrize("moves", [0, 3, 12, 19])
def test_killed_while_files_move_to_their_places_the_new_results_are_seen_whole(
    moves: int, dedup_pool: Path, stricter: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_in_switch(moves, dedup_pool, workdir, monkeypatch)
    seen = open_tables(Store(workdir))
    assert seen.config["copies"]["threshold"] == 0.97
    assert not seen.outdated
    fresh = open_tables(Store(stricter))
    assert [(one.name, one.table.num_rows()) for one in seen.tables] == [
        (one.name, one.table.num_rows()) for one in fresh.tables
    ]
    for name in ("duplicates", "selection", "shards/data"):
        assert seen.store.table(name).read_all() == fresh.store.table(name).read_all()
    run(dedup_pool, workdir, STRICTER, flags=Flags())
    assert results(workdir) == results(stricter)
    assert not (workdir / UPDATE).exists()


def test_cleaning_and_planning_see_the_new_results_of_a_killed_switch(
    dedup_pool: Path, stricter: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_in_switch(12, dedup_pool, workdir, monkeypatch)
    config = load_config("dedup", given(dedup_pool, workdir, STRICTER))
    assert {plan.state for plan in plan_config(config, Flags())} == {"kept"}
    told = clean_workdir(Store(workdir), dry_run=True)
    assert (workdir / UPDATE).exists()
    assert clean_workdir(Store(workdir)) == told
    assert not (workdir / UPDATE).exists()
    shutil.copytree(stricter, workdir.parent / "clean/run")
    clean_workdir(Store(workdir.parent / "clean/run"))
    assert results(workdir) == results(workdir.parent / "clean/run")
    assert run(dedup_pool, workdir, STRICTER, flags=Flags()).changed == []


def test_an_update_that_was_begun_is_given_up_by_the_settings_of_before(
    dedup_pool: Path, dedup_run: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_task(8)(patch)
        with pytest.raises(Killed):
            run(dedup_pool, workdir, STRICTER)
    assert run(dedup_pool, workdir).changed == []
    assert files(workdir).keys() == files(dedup_run).keys()
    assert not (workdir / UPDATE).exists()


def test_what_a_killed_removal_of_an_update_left_is_never_read(
    dedup_pool: Path, dedup_run: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts without their manifest, some of the same size as those of the workdir: those would be taken for them."""
    left = "internal/contaminated"

    def cut(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and not path.match(f"{left}/part-*"):
                path.unlink()
        raise Killed

    with monkeypatch.context() as patch:
        at_report(patch)
        with pytest.raises(Killed):
            run(dedup_pool, workdir, STRICTER)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(Killed):
            run(dedup_pool, workdir)
    assert list((workdir / UPDATE / left).iterdir())
    assert under_way(Store(workdir)) is None
    _, plans = planned(dedup_pool, workdir, "write.num_shards=2")
    made = [plan.table for plan in plans if plan.state != "kept"]
    assert made == ["shards/data", "shards/.rows", "internal/origins"]
    run(dedup_pool, workdir, "write.num_shards=2")
    of_shards = ("shards", "internal/origins")
    kept = {name for name in results(dedup_run) if not name.startswith(of_shards)}
    assert {name: results(workdir)[name] for name in kept} == {name: results(dedup_run)[name] for name in kept}


def test_an_update_that_fails_before_anything_is_made_leaves_nothing(
    dedup_pool: Path, dedup_run: Path, workdir: Path
) -> None:
    with pytest.raises(ConfigError, match="num_shards=5000"):
        run(dedup_pool, workdir, "write.num_shards=5000")
    assert files(workdir) == files(dedup_run)
    assert not (workdir / UPDATE).exists()


def test_one_update_serves_many_stale_tables(dedup_pool: Path, workdir: Path) -> None:
    changes = (STRICTER, "select.drop_contaminated=true", "copies.judge.threshold=0.6", "write.num_shards=2")
    with pytest.raises(StaleTable) as stale:
        run(dedup_pool, workdir, *changes, flags=Flags())
    message = str(stale.value)
    for said in (
        "least_cosine: None -> 0.97; threshold: 0.5 -> 0.6",
        "drop_contaminated: False -> True",
        "num_shards: ",
    ):
        assert message.count(said) == 1
    assert message.count("--update") == 2  # the sentence, and the command
    command = message.splitlines()[-1].split()
    run_config(load_config(command[2], command[3:-1]), UPDATES)
    assert run(dedup_pool, workdir, *changes, flags=Flags()).changed == []
    assert Store(workdir).table("shards/data").complete_manifest().resolved["num_shards"] == 2
    assert not open_tables(Store(workdir)).outdated


def test_a_value_that_auto_became_makes_nothing_again_and_is_told_from_then_on(
    dedup_pool: Path, dedup_run: Path, workdir: Path
) -> None:
    shards = Store(workdir).table("shards/data")
    became = f"write.num_shards={shards.complete_manifest().resolved['num_shards']}"
    with pytest.raises(StaleTable, match="shards/data was made"):
        run(dedup_pool, workdir, became, flags=Flags())
    run(dedup_pool, workdir, became)
    assert run(dedup_pool, workdir, became, flags=Flags()).changed == []
    assert not open_tables(Store(workdir)).outdated
    assert {n: d for n, d in results(workdir).items() if n.endswith("parquet")} == {
        n: d for n, d in results(dedup_run).items() if n.endswith("parquet")
    }


def test_sources_that_are_others_stay_an_error(dedup_pool: Path, dedup_run: Path, workdir: Path) -> None:
    for sources in (f"sources.pool={dedup_pool}/heldout", "sources.heldout=[]"):
        with pytest.raises(StaleTable, match="catalog was made with another configuration"):
            run(dedup_pool, workdir, sources)
        assert files(workdir) == files(dedup_run)


def pairs(store: Store, table: str) -> list[dict[str, Any]]:
    """Pairs with whether a held-out image is the query."""
    rows = store.table(table).read_all()
    asked = open_tables(store).has_role(rows["query_id"].to_numpy(), "heldout")
    return [{**row, "heldout": bool(one)} for row, one in zip(rows.to_pylist(), asked, strict=True)]


def counted(store: Store, least: float) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """(unverified, verified): pairs that count where those of the pool must reach `least`, as the config tells it."""
    assert store.table("internal/crowds").num_rows() == 0
    known = VERIFICATION["lite0-copy"]
    certain = {
        (row["query_id"], row["image_id"])
        for row in pairs(store, "internal/candidates/near")
        if row["similarity"] >= (known.sure if row["heldout"] else max(known.sure, least))
    }
    verified = set[tuple[int, int]]()
    for row in pairs(store, "internal/registered/copy"):
        score = registration_score(np.array([row["agreement"]]), np.array([row["num_points"]]))[0]
        needed = REGISTRATION.heldout_threshold if row["heldout"] else REGISTRATION.threshold
        if score >= needed and (row["heldout"] or row["similarity"] >= least):
            verified.add((row["query_id"], row["image_id"]))
    return certain, verified


def found(store: Store, table: str) -> set[tuple[int, int]]:
    return {(row["query_id"], row["image_id"]) for row in pairs(store, table)}


def test_a_number_is_the_cosine_from_which_pairs_count_and_doubtful_ones_are_verified(
    dedup_pool: Path, dedup_run: Path, stricter: Path, workdir: Path
) -> None:
    sizes = []
    for place, least in ((dedup_run, 0.7), (stricter, 0.97)):
        certain, verified = counted(Store(place), least)
        assert found(Store(place), "internal/neighbors/copy") == certain
        assert found(Store(place), "internal/neighbors/aligned") == verified
        sizes.append((len(certain), len(verified)))
    assert sizes[1][0] < sizes[0][0]
    with looking() as looked:  # below what has been verified: more pictures are laid over each other
        run(dedup_pool, workdir, "copies.threshold=0.62")
    store = Store(workdir)
    tried = pairs(store, "internal/registered/copy")
    assert 0.62 <= min(row["similarity"] for row in tried) < 0.7
    assert looked.keys() <= {"features"}
    assert found(store, "internal/neighbors/aligned") == counted(store, 0.62)[1]
