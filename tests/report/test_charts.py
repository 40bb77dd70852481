import re
from xml.etree import ElementTree

import numpy as np
import pytest

from curate.report.charts import Line, Marker, Scale, Series, curves, histogram, sorted_bars, ticks
from curate.report.markup import Markup
from curate.report.sections.similarity import bin_edges


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
    plot = sorted_bars(
        Series("before", np.array([60.0, 30, 10]), "a"),
        Series("after", np.array([40.0, 30, 30]), "b"),
        x_label="x",
        y_label="y",
    )
    bars, line = paths(plot)
    assert bars.count("Z") == 3
    assert line.count("H") == 3
    heights = [float(h) for h in re.findall(r"V([\d.]+)H", bars)]
    assert heights == sorted(heights)  # y grows downwards, so falling values rise


def test_histogram_shows_counts_thresholds_and_empty_bins() -> None:
    edges = np.linspace(0.4, 1, 7)
    series = [Series("pool", np.array([0, 1, 10, 100, 1000, 0]), "a")]
    plot = histogram(edges, series, [Marker("threshold 0.6", 0.6, "ink")], x_label="cosine")
    assert "nan" not in plot
    assert len(ElementTree.fromstring(plot).findall(".//line[@class='mark ink']")) == 1
    assert {"1", "10", "100", "1k"} <= set(texts(plot))


def test_curves_break_where_a_value_is_not_finite() -> None:
    x = np.arange(5.0)
    (path,) = paths(
        curves([Line("loss", np.array([3.0, 2.0, np.nan, 1.0, 0.5]), "a", x)], x_label="step", y_label="loss")
    )
    assert path.count("M") == 2
    assert path.count("L") == 2


def test_an_axis_from_zero_shows_zero() -> None:
    line = Line("entropy", np.array([3.8, 4.2]), "a", np.arange(2.0))
    assert "0" in texts(curves([line], x_label="", y_label="", from_zero=True))[:5]
    assert "0" not in texts(curves([line], x_label="", y_label=""))[:5]


def test_curves_of_one_point_or_no_finite_value_are_drawn() -> None:
    for values in ([1.0], [np.inf]):
        plot = curves([Line("loss", np.array(values), "a", np.zeros(1))], x_label="step", y_label="loss")
        assert "nan" not in plot
        assert "inf" not in plot


@pytest.mark.parametrize(("low", "anchor"), [(0.85, 0.9), (0.45, 0.6), (0.9, 0.9), (0.999, 0.9995)])
def test_bins_of_similarities_reach_from_the_lowest_to_one_and_meet_the_threshold(low: float, anchor: float) -> None:
    edges = bin_edges(low, kind="embedding", anchor=anchor)
    assert edges[0] <= low + 1e-9
    assert edges[-1] >= 1
    assert np.abs(edges - anchor).min() < 1e-9


def test_each_even_hash_distance_has_a_bin_of_its_own() -> None:
    similarity = 1 - 2 * np.arange(0, 129, 2) / 256
    counts, _ = np.histogram(similarity, bin_edges(0.0, kind="hash", anchor=0.5))
    assert (counts == 1).all()
    assert len(counts) == len(similarity)
