"""The selection benchmark draws what it says, in all of its methods."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import select
from benchmarks.figures import Measured
from curate.engine.store import Store


@pytest.mark.parametrize("name", select.RUNS)
def test_every_method_draws_the_wanted_numbers(name: str, tmp_path: Path) -> None:
    select.make_tables(tmp_path, 3000, 250)
    draws = select.target_draws(tmp_path, 3000)
    assert draws.sum() == 300
    assert select.RUNS[name](tmp_path, draws).tolist() == draws.tolist()


def test_synthetic_leaves_are_skewed_and_tell_their_number(tmp_path: Path) -> None:
    select.make_tables(tmp_path, 70_000, 250)
    assignments = Store(tmp_path).table("assignments")
    assert [part.rows for part in assignments.parts()] == [65_536, 70_000 - 65_536]
    leaf = assignments.read_all(["cluster_id"])["cluster_id"].to_numpy()
    assert leaf.max() == 249
    assert (leaf == 0).mean() > 0.1


def test_figures_stand_beside_their_peers_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(function: Any, *args: Any) -> Measured:
        return Measured(function(*args), 0.5, 0.5, 1 << 20)

    monkeypatch.setattr(select, "measured", here)
    rate, *memory = select.bench_select(3000, 250, workdir=tmp_path)
    assert (rate.value, rate.unit) == (6000, "images/s")
    assert [figure.peer for figure in memory] == ["numpy sort", "DuckDB window"]
    assert not list(tmp_path.iterdir())
