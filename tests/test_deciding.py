"""What a person decides: run, look, write `decisions.csv`, run again; and again under other settings."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.incremental import LOOSER, looking
from curate.decisions import FILE, Decision, append_decisions, forget_decisions, read_decisions
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import load_config
from curate.report.card import render_card
from curate.report.explain import explain
from curate.running import plan_config, run_config
from curate.samples.pool import make_pool
from curate.workdir import find_tables

APPLIED = [
    "internal/decisions",
    "internal/contaminated",
    "duplicates",
    "selection",
    "internal/map",
    "internal/own_columns",
]
"""What decisions make again, beside the shards."""
SHARDS = ["shards/data", "shards/.rows", "internal/origins"]
"""The shards, and what is told of them."""
TUNED = [f"internal/{name}/pdq" for name in ("truth", "neighbors")]


class World:
    """A finished run, and names of some of its images."""

    def __init__(self, samples: Path, workdir: Path) -> None:
        self.samples, self.workdir = samples, workdir

    def values(self, *more: str) -> list[str]:
        roles = [f"sources.{role}={self.samples / role}" for role in ("pool", "curated", "heldout")]
        cheap = ["copies.borders=false", "copies.crowds=trust", "copies.verify=false", "executor.threads=1"]
        return [*roles, f"workdir={self.workdir}", "rows_per_part=20", *cheap, *more]

    def run(
        self, *more: str, rebuild: list[str] | None = None, update: bool = False
    ) -> tuple[list[str], dict[str, int]]:
        """Tables that changed, and how many images were looked at for what."""
        with looking() as looked:
            flags = Flags(rebuild=frozenset(rebuild or ()), update=update)
            outcome = run_config(load_config("dedup", self.values(*more)), flags)
        return outcome.changed, {key: count for key, count in looked.items() if count}

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Rows by key."""
        store = Store(self.workdir)
        keys = store.table("catalog").read_all(["image_id", "key"])
        key = dict(zip(*(column.to_pylist() for column in keys.columns), strict=True))
        return {key[row["image_id"]]: row for row in store.table(table).read_all().to_pylist()}

    def parts(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.workdir)): p.read_bytes() for p in sorted(self.workdir.rglob("part-*"))}

    def decide(self, *decisions: Decision) -> None:
        append_decisions(self.workdir / FILE, decisions)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run without decisions, which no test changes."""
    root = tmp_path_factory.mktemp("deciding")
    make_pool(root / "samples", num_images=30, seed=3, curated_each=1, num_heldout=8)
    world = World(root / "samples", root / "run")
    world.run()
    return world


@pytest.fixture
def world(first: World, tmp_path: Path) -> World:
    shutil.copytree(first.workdir, tmp_path / "run")
    return World(first.samples, tmp_path / "run")


def named(world: World, verdict: str, *, alone: bool = False) -> list[str]:
    rows = world.rows("duplicates").items()
    return [key for key, row in rows if row["verdict"] == verdict and (row["component_size"] == 1 or not alone)]


def partner(world: World, key: str) -> str:
    rows, ids = world.rows("duplicates"), world.rows("catalog")
    return next(name for name, row in ids.items() if row["image_id"] == rows[key]["partner_id"])


def test_decisions_make_again_what_they_change_and_nothing_before(world: World) -> None:
    went, (leaked, *_), (single, *_) = (
        named(world, "duplicate"),
        named(world, "benchmark"),
        named(world, "kept", alone=True),
    )
    other = partner(world, went[1])
    lines = [Decision(went[0], "keep"), Decision(leaked, "keep"), Decision(single, "drop")]
    world.decide(*lines, Decision(went[1], "not-copies", other), Decision("000002.png", "drop"))
    plans = {plan.table: plan.state for plan in plan_config(load_config("dedup", world.values()), Flags())}
    assert plans["internal/decisions"] == "make"
    assert {plans[name] for name in plans if name not in (*APPLIED, *SHARDS)} == {"kept"}
    assert find_tables(Store(world.workdir)).outdated == {}, "until the next run the tables are right"

    assert world.run() == ([*APPLIED, *SHARDS], {})
    verdicts, selected = world.rows("duplicates"), world.rows("selection")
    assert [verdicts[key]["verdict"] for key in (went[0], leaked, single)] == ["kept", "kept", "dropped"]
    assert verdicts[went[1]]["component_id"] != verdicts[other]["component_id"]
    assert [[o["route"] for o in selected[key]["origins"]] for key in (went[0], leaked)] == [["kept", "decision"]] * 2
    assert single not in selected
    assert world.run() == ([], {})

    run = find_tables(Store(world.workdir))
    text = "\n".join(explain(run, key) for key in (went[0], leaked, single, went[1]))
    for said in ("kept by your decision, though a copy of", "though its group touches the held-out image"):
        assert said in text
    assert "dropped by your decision" in text
    assert f"by you: no copy of {other}" in text
    card = render_card(run)
    assert "copies of benchmark images: 1 image kept by decision of a person" in card
    assert "5 lines: 2 keep, 2 drop, 1 not-copies" in card
    warnings = [text for stage, table in run.tables for text in stage.warn(table, run)]
    assert "decisions: 1 of 6 entries match no image: 000002.png" in warnings
    assert any("1 image kept by your decision though the group resembles a held-out image" in w for w in warnings)

    world.decide(Decision(leaked, "keep", note="looked at again"))
    assert world.run() == (["internal/decisions"], {}), "another order of lines that mean the same"


def test_decisions_hold_under_another_threshold_and_are_undone_without_a_trace(first: World, world: World) -> None:
    kept = named(world, "kept", alone=True)
    went = named(world, "duplicate")[0]
    world.decide(Decision(went, "keep"), Decision(kept[0], "drop"))
    world.run()
    changed, looked = world.run(LOOSER, rebuild=TUNED)
    assert "duplicates" in changed
    assert looked == {}
    assert "internal/decisions" not in changed
    verdicts = world.rows("duplicates")
    assert (verdicts[went]["verdict"], verdicts[kept[0]]["verdict"]) == ("kept", "dropped")

    changed, _ = world.run(update=True)
    assert "duplicates" in changed
    assert "internal/decisions" not in changed
    assert world.rows("duplicates")[went]["verdict"] == "kept"
    forget_decisions(world.workdir / FILE, read_decisions(world.workdir / FILE))
    assert "duplicates" in world.run()[0]
    parts = {name: data for name, data in world.parts().items() if not name.startswith("internal/decisions/")}
    assert parts == first.parts()
    assert find_tables(Store(world.workdir)).outdated == {}
    world.decide(Decision(went, "keep"))
    assert world.run("decisions=null") == ([], {}), "none are taken"


def test_a_file_elsewhere_is_taken_and_one_that_is_not_there_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"decisions=.*mine\.csv: no such file; give a CSV file, or leave it at auto"):
        world.run(f"decisions={tmp_path / 'mine.csv'}")
    (tmp_path / "mine.csv").write_text("image;decision\n")
    with pytest.raises(ConfigError, match=r"mine\.csv: line 1: no column of these"):
        world.run(f"decisions={tmp_path / 'mine.csv'}")
    (tmp_path / "mine.csv").write_text("image,decision\n" + f"{named(world, 'kept')[0]},drop\n")
    world.run(f"decisions={tmp_path / 'mine.csv'}")
    assert len(named(world, "dropped")) == 1
    (tmp_path / "mine.csv").unlink()
    assert find_tables(Store(world.workdir)).outdated == {}, "who looks needs no file"


def test_a_workdir_may_begin_with_decisions(first: World, tmp_path: Path) -> None:
    world = World(first.samples, tmp_path / "run")
    world.workdir.mkdir()
    world.decide(Decision("a.jpg", "keep"))
    plans = {plan.table: plan.state for plan in plan_config(load_config("dedup", world.values()), Flags())}
    assert plans["internal/decisions"] == "make", "it is no foreign folder"
