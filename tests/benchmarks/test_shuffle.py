"""The benchmark of a shuffle: rows keep their order, and figures are those of each byte."""

from pathlib import Path

import numpy as np

from benchmarks.figures import Measured
from benchmarks.shuffle import figures_of, make
from curate.counting import Counts
from curate.engine.store import Store


def test_rows_are_mixed_and_counted(tmp_path: Path) -> None:
    counts = make(tmp_path, 600, 100, 100, 150, 1 << 20)
    table = Store(tmp_path).table("mixed")
    numbers = [rows["n"].to_numpy() for rows in table.scan()]
    assert len(numbers) == 4
    assert sorted(np.concatenate(numbers).tolist()) == list(range(600))
    assert all((np.diff(one) > 0).all() for one in numbers)
    assert counts.bytes_read > 2 * 60_000  # the input, and what was scattered
    assert counts.bytes_written > 2 * 60_000


def test_figures_stand_beside_those_of_half_the_rows() -> None:
    half, whole = Counts(bytes_read=200, requests=10), Counts(bytes_read=600, requests=20)
    found = {f.name: f for f in figures_of("x", 200.0, Measured(whole, 1.0, 1.0, 1), (100.0, half))}
    assert (found["x: bytes read"].value, found["x: bytes read"].peer_value) == (3.0, 2.0)
    assert found["x: requests"].value == found["x: requests"].peer_value
