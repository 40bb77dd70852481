"""Whole runs on pools whose images cannot all be had: what goes on, what is told, and what the next run makes of it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import curate
from benchmarks.faulty import draw_picture
from curate.cli import main
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import TooManyUnavailable
from curate.recipe import load_config
from curate.report.status import status
from curate.running import Outcome, plan_config, run_config
from curate.sources import folder
from curate.sources.read import Read, unavailable, unreadable
from curate.stages.images.embed import EmbedFigures
from curate.stages.images.inspect import InspectFigures

NUM_IMAGES = 40
Reading = Callable[..., Read]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        (folder / f"{number:03d}.jpg").write_bytes(draw_picture(rng))
    return folder


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> dict[str, Read]:
    """What reading gives for some files: `001.jpg` in every pass, `later 001.jpg` in a later one."""
    found: dict[str, Read] = {}
    read: Reading = folder.read_folder_file

    def reading(uri: str, *, describe: Any = None, **options: Any) -> Read:
        name = Path(uri).name
        later = None if describe else found.get(f"later {name}")
        return found.get(name) or later or read(uri, describe=describe, **options)

    monkeypatch.setattr(folder, "read_folder_file", reading)
    return found


def changes(pool: Path, workdir: Path, *more: str) -> list[str]:
    return [f"sources.pool={pool}", f"workdir={workdir}", "executor.threads=1", *more]


def run(recipe: str, pool: Path, workdir: Path, *more: str) -> Outcome:
    return run_config(load_config(recipe, changes(pool, workdir, *more)), Flags())


BUSY, AWAY = unavailable("HTTP 503 Service Unavailable"), unavailable("connection refused")


def test_run_goes_on_and_tells_what_is_open_and_the_next_one_loses_nothing(
    pool: Path,
    tmp_path: Path,
    away: dict[str, Read],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away.update({"003.jpg": BUSY, "007.jpg": BUSY, "020.jpg": AWAY})
    monkeypatch.setattr(sys, "argv", ["curate", "run", "dedup", *changes(pool, tmp_path / "run", "write=null")])
    with pytest.raises(SystemExit, match="^3$"):
        main()
    told = " ".join(capsys.readouterr().err.split())
    assert "3 of 40 images (7.5 %) could not be had: 2 x HTTP 503 Service Unavailable" in told
    assert re.search(
        r"003\.jpg\), 1 x connection refused \(\S+020\.jpg\), more than sources\.max_unavailable=0\.01", told
    )
    assert "The same command reads exactly these again" in told

    store, names = Store(tmp_path / "run"), ["images", "embeddings/copy", "duplicates"]
    figures = InspectFigures.of(store.table("images"))
    assert (figures.accepted, figures.rejected, figures.unavailable) == (37, {}, {"pool": 3})
    assert [row.cells()[0] for row in status(store, names)] == [
        "images (3 open)",
        "embeddings/copy (3 open)",
        "duplicates",
    ]
    summary = curate.open_run(tmp_path / "run").summary
    assert (summary.listed, summary.rejected, summary.unavailable) == (40, {}, 3)
    assert "3 of 40 images could not be had" in (tmp_path / "run/report/index.html").read_text()
    plans = {plan.table: plan for plan in plan_config(_config(pool, tmp_path / "run"), Flags())}
    assert (plans["images"].state, plans["images"].note) == ("update", "3 rows are open: they are read again")

    away.clear()
    assert run("dedup", pool, tmp_path / "run", "write=null").unavailable.images == 0
    assert InspectFigures.of(store.table("images")) == InspectFigures(accepted=40, rejected={})
    assert store.table("embeddings/copy").read_all()["vector"].null_count == 0


def _config(pool: Path, workdir: Path) -> Any:
    return load_config("dedup", changes(pool, workdir, "write=null"))


def test_few_are_a_warning_and_none_at_all_is_an_error_that_keeps_what_was_done(
    pool: Path, tmp_path: Path, away: dict[str, Read], caplog: pytest.LogCaptureFixture
) -> None:
    away.update({f"{number:03d}.jpg": BUSY for number in range(NUM_IMAGES)})
    with pytest.raises(TooManyUnavailable, match=r"images: none of 40 images could be had \(HTTP 503 Service Una"):
        run("dedup", pool, tmp_path / "run", "write=null")
    away.clear()
    away["003.jpg"] = BUSY
    found = run("dedup", pool, tmp_path / "run", "write=null", "sources.max_unavailable=0.025").unavailable
    assert (found.images, found.listed) == (1, 40)
    assert "1 of 40 images (2.5 %) could not be had: 1 x HTTP 503 Service Unavailable" in caplog.text


def test_images_that_a_later_pass_cannot_have_cost_themselves_alone(
    pool: Path, tmp_path: Path, away: dict[str, Read]
) -> None:
    away.update({"later 004.jpg": AWAY, "later 009.jpg": unreadable("No such file or directory")})
    with pytest.raises(
        TooManyUnavailable, match=r"1 of 40 images .*1 x could not be had by a later pass \(\S+004\.jpg\)"
    ):
        run("hierarchical", pool, tmp_path / "run", "write=null")
    store = Store(tmp_path / "run")
    assert EmbedFigures.of(store.table("embeddings/clusters")).lost == 1
    selected = set(store.table("selection").read_all()["image_id"].to_pylist())
    assert selected
    assert not selected & {4, 9}
    assert "1 image of the first pass is gone or changed since" in (tmp_path / "run/report/index.html").read_text()
    away.pop("later 004.jpg")
    run("hierarchical", pool, tmp_path / "run", "write=null")
    vectors = store.table("embeddings/clusters").read_all()["vector"]
    assert (vectors[4].is_valid, vectors[9].is_valid) == (True, False)
