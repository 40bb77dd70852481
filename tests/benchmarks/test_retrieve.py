"""The retrieval benchmark: every method finds the pairs that a loop finds."""

from pathlib import Path

import pytest

from benchmarks import retrieve
from benchmarks.figures import Measured
from curate.engine.store import Store


@pytest.mark.parametrize("name", retrieve.RUNS)
def test_every_method_finds_the_nearest_of_each_query(name: str, tmp_path: Path) -> None:
    retrieve.make_tables(tmp_path, 40, 16, 100)
    best: dict[int, dict[int, float]] = {}
    for row in Store(tmp_path).table("neighbors").read_all().to_pylist():
        mine = best.setdefault(row["query_id"], {})
        mine[row["image_id"]] = max(row["similarity"], mine.get(row["image_id"], -1))
    pairs = [(q, i) for q, mine in best.items() for i in sorted(mine, key=lambda i: (-mine[i], i))[:5]]
    expected = sum((q * 0x9E3779B97F4A7C15 % 2**64) ^ (i * 0xBF58476D1CE4E5B9 % 2**64) for q, i in pairs) % 2**64
    assert retrieve.RUNS[name](tmp_path, 5) == (len(pairs), expected)


def test_figures_stand_beside_their_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieve, "measured", lambda f, *args: Measured(f(*args), 0.5, 0.5, 1 << 20))
    found = retrieve.bench_retrieve(100, 4, 500, workdir=tmp_path)
    assert [figure.peer for figure in found] == ["numpy sort", "DuckDB window"]
    assert found[0].value == 100 * 8 / 0.5
    assert not list(tmp_path.iterdir())
