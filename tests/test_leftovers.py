"""What a run that was cut off leaves behind is never told as the run of the current settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from curate import running
from curate.cli import app
from curate.config import parse
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.engine.work import Work
from curate.errors import NothingSelected, TableError
from curate.report.explain import explain
from curate.running import report_is_behind, run_config, write_report
from curate.workdir import find_tables, open_tables
from tests.equal_bytes import EqualBytes, encode, picture

NUM_IMAGES = 5
AFTER_IMAGES = [
    "internal/exact",
    "internal/contaminated",
    "duplicates",
    "selection",
    "internal/own_columns",
    "shards/data",
    "shards/.rows",
    "internal/origins",
]


class Killed(Exception):
    """The process is gone."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five pictures, and a finished run over them."""
    (tmp_path / "pool").mkdir()
    for number in range(NUM_IMAGES):
        (tmp_path / "pool" / f"{number}.png").write_bytes(encode(picture(number)))
    run(tmp_path)
    return tmp_path


def run(root: Path, *, flags: Flags = Flags(), **changes: Any) -> list[str]:  # noqa: B008
    """Tables that a run with changed settings made."""
    values = {"recipe": "tests.equal_bytes:equal_bytes", "sources": {"pool": str(root / "pool")}}
    given = {"workdir": str(root / "run"), "executor": {"threads": 1}} | values | changes
    return run_config(parse(EqualBytes, given, where="test"), flags).changed


def run_until(monkeypatch: pytest.MonkeyPatch, root: Path, table: str, **given: Any) -> None:
    """As `run`, killed when a table is about to be made."""

    class Killing(Work):
        def run(self, executor: Any) -> list[str]:
            if table in self.step.stages:
                raise Killed
            return super().run(executor)

    with monkeypatch.context() as patch:
        patch.setattr("curate.engine.pipeline.Work", Killing)
        with pytest.raises(Killed):
            run(root, **given)


def told(root: Path) -> str:
    """What `curate status` prints, lines unfolded."""
    return " ".join(CliRunner().invoke(app, ["status", str(root / "run")], catch_exceptions=False).output.split())


def store(root: Path) -> Store:
    return Store(root / "run")


def card(root: Path) -> str:
    path = root / "run/shards/README.md"
    return path.read_text() if path.exists() else ""


STRICTER = {"inspect": {"limits": {"min_side": 33}}}


def test_tables_of_an_earlier_setting_are_left_out_of_page_story_and_status(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = card(root)
    run_until(monkeypatch, root, "images", flags=Flags(frozenset({"images"})), **STRICTER)
    found = open_tables(store(root))
    assert [one.name for one in found.tables] == ["catalog"]
    assert list(found.outdated) == ["images", *AFTER_IMAGES]
    why = "images is left out: made under another setting: limits.min_side: 32 -> 33."
    assert why in told(root)
    assert "images (outdated)" in told(root)
    page = Path(write_report(store(root))).read_text()
    assert "limits.min_side: 32 -&gt; 33" in page
    assert f"since they depend on what changed: {', '.join(AFTER_IMAGES)}" in page
    assert 'id="selected"' not in page
    assert "shards/data/part" not in explain(found, "0.png")
    assert why in explain(found, "0.png")
    assert card(root) == before  # it tells of the rows that still lie beside it


def test_tables_made_before_the_cut_are_current_and_those_behind_it_are_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "pool/new.png").write_bytes(encode(picture(99)))
    run_until(monkeypatch, root, "duplicates", flags=Flags(rescan=True))
    there = [one.name for one in open_tables(store(root)).tables]
    assert there == ["catalog", "images", "internal/exact", "internal/contaminated"]
    run(root)
    assert find_tables(store(root)).outdated == {}
    assert "left out" not in told(root)


def test_what_turns_out_as_it_was_outdates_nothing_behind_it(root: Path) -> None:
    assert run(root, flags=Flags(frozenset({"images"})), **STRICTER) == ["images"]
    assert find_tables(store(root)).outdated == {}


def test_new_images_outdate_what_was_made_without_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "pool/new.png").write_bytes(encode(picture(99)))
    run_until(monkeypatch, root, "images", flags=Flags(rescan=True))
    assert [one.name for one in open_tables(store(root)).tables] == ["catalog"]
    assert "images is left out: made from an earlier catalog" in told(root)


def test_shards_before_a_takedown_are_not_those_of_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "gone.txt").write_text("0.png\n")
    write = {"num_shards": 2, "removal_list": str(root / "gone.txt")}
    run_until(monkeypatch, root, "shards/data", flags=Flags(frozenset({"shards/data"})), write=write)
    assert list(find_tables(store(root)).outdated) == ["shards/data", "shards/.rows", "internal/origins"]
    assert "removal_list: None -> " in told(root)
    run(root, write=write, flags=Flags(frozenset({"shards/data"})))
    assert "4 images with their original bytes" in card(root)


def test_shards_that_the_recipe_no_longer_makes_are_not_told(root: Path) -> None:
    run(root, write=None)
    found = open_tables(store(root))
    assert "shards/data" not in [one.name for one in found.tables]
    assert "shards/data" not in told(root)


def rows_named_by(root: Path) -> str:
    named: str = yaml.safe_load(card(root).split("---\n")[1])["configs"][0]["description"]
    return named


def test_while_shards_are_replaced_no_card_vouches_for_the_rows_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rows_named_by(root)
    with monkeypatch.context() as patch:  # while the parts of the shards are made
        patch.setattr(Work, "_run_phases", _kill_at_shards(Work._run_phases))
        with pytest.raises(Killed):
            run(root, seed=1, flags=Flags(frozenset({"selection", "shards/data"})))
    assert card(root) == ""
    with monkeypatch.context() as patch:  # when they are there, and the card is not
        patch.setattr(running, "write_report", _kill)
        with pytest.raises(Killed):
            run(root, seed=1, flags=Flags(frozenset({"selection", "shards/data"})))
    assert card(root) == ""
    assert report_is_behind(store(root))
    assert "Report and dataset card tell of earlier tables, or are missing" in told(root)
    assert run(root, seed=1) == []
    assert rows_named_by(root) != before
    assert not report_is_behind(store(root))


def _kill(*args: Any, **given: Any) -> Any:
    raise Killed


def _kill_at_shards(run_phases: Any) -> Any:
    def phases(self: Work, *args: Any) -> None:
        run_phases(self, *args) if "shards/data" not in self.step.stages else _kill()

    return phases


def test_a_card_that_names_other_rows_is_noticed_and_written_anew(root: Path) -> None:
    right = card(root)
    (root / "run/shards/README.md").write_text(right.replace("digest of the rows: ", "digest of the rows: 0"))
    assert "Report and dataset card tell of earlier tables" in told(root)
    assert run(root) == []
    assert card(root) == right
    assert "Report and dataset card" not in told(root)


def test_a_page_of_thresholds_goes_with_the_tables_that_it_swept(root: Path) -> None:
    sweep = root / "run/report/sweep.html"
    sweep.write_text("thresholds")
    write_report(store(root))
    run(root)
    assert sweep.exists()
    run(root, flags=Flags(frozenset({"images"})), **STRICTER)
    assert not sweep.exists()


def test_until_the_sources_are_listed_a_workdir_is_one_of_the_settings_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, before = {"pool": {"name": "other", "path": str(root / "pool")}}, told(root)
    run_until(monkeypatch, root, "catalog", flags=Flags(frozenset({"all"})), sources=sources)
    assert told(root) == before
    run_until(monkeypatch, root, "images", flags=Flags(frozenset({"all"})), sources=sources)
    assert store(root).read_json("run.json")["config"]["sources"]["pool"][0]["name"] == "other"


def test_nothing_of_the_current_settings_is_an_error_that_names_what_lies_there(root: Path) -> None:
    """As where the catalog of a workdir was put back by hand."""
    record = store(root).read_json("run.json")
    record["config"]["sources"]["pool"][0]["name"] = "other"
    store(root).write_json("run.json", record)
    with pytest.raises(TableError, match="no finished table of its current settings; catalog is there, but made under"):
        open_tables(store(root))
    assert "catalog (outdated)" in told(root)


def test_a_run_that_selects_nothing_writes_the_report_that_tells_why(root: Path) -> None:
    """Every image of the pool is held out too; an update to that leaves what was there."""
    before, sources = card(root), {"pool": str(root / "pool"), "heldout": str(root / "pool")}
    for workdir in (root / "other", root / "run"):
        update = Flags(rescan=True, update=True) if workdir.name == "run" else Flags()
        with pytest.raises(NothingSelected, match="selection: no image was selected") as failed:
            run(root, flags=update, sources=sources, workdir=str(workdir))
        page = Path(failed.value.__notes__[0].removeprefix("the report: ")).read_text()
        assert "5 images of the pool kept out" in page
    assert card(root) == before
    assert "5 images of the pool kept out" not in (root / "run/report/index.html").read_text()
