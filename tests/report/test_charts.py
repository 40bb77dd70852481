"""Plots as SVG: what is drawn for which values."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from curate.engine.show import Curves, Histogram, Line, Marker, Series, SortedBars
from curate.report.charts import Scale, curves, histogram, sorted_bars, ticks
from curate.report.markup import Markup


def paths(markup: Markup) -> list[str]:
    return [node.get("d", "") for node in ElementTree.fromstring(markup).iter("path")]


def texts(markup: Markup) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(markup).iter("text")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.45, 1.0), (-3, 12345), (0, 7), (1e-6, 3e-6)])
def test_ticks_are_few_evenly_spaced_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert low <= found[0]
    assert found[-1] <= high
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_scale_is_linear_or_logarithmic() -> None:
    assert [Scale(0, 10, 100, 200)(v) for v in (0, 5, 10)] == [100, 150, 200]
    assert [Scale(1, 100, 0, 20, log=True)(v) for v in (1, 10, 100)] == [0, 10, 20]
    assert Scale(3, 3, 0, 20)(3) == 0


def test_sorted_bars_draw_a_bar_for_each_value_and_one_line() -> None:
    before = Series("before", np.array([60.0, 30, 10]), "a")
    after = Series("after", np.array([40.0, 30, 30]), "b")
    bars, line = paths(sorted_bars(SortedBars(before, after, x_label="x", y_label="y")))
    assert bars.count("Z") == 3
    assert line.count("H") == 3
    heights = [float(h) for h in re.findall(r"V([\d.]+)H", bars)]
    assert heights == sorted(heights)  # y grows downwards, so falling values rise


def test_histogram_shows_counts_thresholds_and_empty_bins() -> None:
    edges = np.linspace(0.4, 1, 7)
    series = [Series("pool", np.array([0, 1, 10, 100, 1000, 0]), "a")]
    plot = histogram(Histogram(edges, series, [Marker("threshold 0.6", 0.6, "ink")], x_label="cosine"))
    assert "nan" not in plot
    assert len(ElementTree.fromstring(plot).findall(".//line[@class='mark ink']")) == 1
    assert {"1", "10", "100", "1k"} <= set(texts(plot))


def lines(values: list[float], *, from_zero: bool = False) -> Markup:
    line = Line("loss", np.array(values), "a", np.arange(len(values), dtype=float))
    return curves(Curves([line], x_label="step", y_label="loss", from_zero=from_zero))


def test_curves_break_where_a_value_is_not_finite() -> None:
    (path,) = paths(lines([3.0, 2.0, np.nan, 1.0, 0.5]))
    assert path.count("M") == 2
    assert path.count("L") == 2


def test_an_axis_from_zero_shows_zero() -> None:
    assert "0" in texts(lines([3.8, 4.2], from_zero=True))[:5]
    assert "0" not in texts(lines([3.8, 4.2]))[:5]


def test_curves_of_one_point_or_no_finite_value_are_drawn() -> None:
    for value in (1.0, np.inf):
        plot = lines([value])
        assert "nan" not in plot
        assert "inf" not in plot
