"""The benchmark of components agrees with scipy, or fails."""

import pytest

from benchmarks import components
from benchmarks.components import bench_components


def test_figures_stand_beside_scipy() -> None:
    found = {figure.name.split(":")[0] + figure.unit: figure for figure in bench_components(5000)}
    names = ("components", "verdicts", "chains split")
    assert set(found) == {f"{name}{unit}" for name in names for unit in ("images/s", "bytes/image")}
    assert found["componentsimages/s"].peer_value > 0


def test_other_components_than_scipys_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "measured", lambda f, *a: components.Measured(f.__name__, 1.0, 1.0, 1))
    with pytest.raises(AssertionError, match="differ"):
        bench_components(10)
