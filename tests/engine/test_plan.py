"""The plan tells what the run then does."""

from pathlib import Path

import pytest

from curate.engine.executors import InProcess
from curate.engine.plan import plan_run
from curate.errors import ConfigError
from curate.stages.clusters.fit_clusters import FitClusters
from tests.engine.test_pipeline import NONE, build
from tests.stages.planted import make, planted


def states(pipeline, flags=NONE):
    return {p.table: (p.state, p.todo) for p in plan_run(pipeline, flags, num_images=30)}


def test_plan_tells_what_run_will_do(tmp_path: Path) -> None:
    assert {state for state, _ in states(build(tmp_path)).values()} == {"make"}
    build(tmp_path).run(InProcess(1), NONE)
    assert {state for state, _ in states(build(tmp_path)).values()} == {"kept"}
    (tmp_path / "added" / "part-00001.parquet").unlink()
    after = states(build(tmp_path))
    assert after["numbers"] == ("kept", 0)
    assert after["added"] == ("update", 1)
    assert after["fitted"] == ("kept", 0)  # known by its content
    assert after["scaled"] == ("waiting", None)


def test_plan_shows_what_is_stale_and_computes_nothing(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    found = plan_run(build(tmp_path, amount=3), NONE, num_images=30)
    assert {p.table for p in found if p.state == "stale"} == {"added"}
    assert "amount: 1 -> 3" in next(p.note for p in found if p.table == "added")
    assert {state for state, _ in states(build(tmp_path)).values()} == {"kept"}


def test_plan_tells_what_auto_becomes(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    p.add("centroids", FitClusters(levels="auto"), embeddings=vectors, catalog=catalog)
    (before,) = [s for s in plan_run(p, NONE, num_images=2000) if s.table == "centroids"]
    assert (before.auto, before.at_most) == ({"levels": [100, 10]}, True)
    make(p)
    (after,) = [s for s in plan_run(p, NONE, num_images=2000) if s.table == "centroids"]
    assert (after.state, after.auto, after.at_most) == ("kept", {"levels": [102 // 20]}, False)


def test_plan_refuses_what_cannot_work_with_so_many_images(tmp_path: Path) -> None:
    p, catalog, vectors = planted(tmp_path)
    p.add("centroids", FitClusters(levels=(500,)), embeddings=vectors, catalog=catalog)
    with pytest.raises(ConfigError, match=r"levels=\[500\]: there are 400 images; .* at most 400"):
        plan_run(p, NONE, num_images=400)
    assert plan_run(p, NONE, num_images=500)
