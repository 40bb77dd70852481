"""Small plots as inline SVG. Colors come from the style sheet, so they follow light and dark."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from curate.engine.show import Curves, Histogram, Line, Marker, Series, SortedBars
from curate.report.markup import Content, Markup, el

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 40


@dataclass(frozen=True)
class Scale:
    """From data to pixels along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log10(max(v, 1e-12)) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (at - low) / ((high - low) or 1) * (self.end - self.start), 1)


def x_scale(low: float, high: float) -> Scale:
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def y_scale(low: float, high: float, *, log: bool = False) -> Scale:
    return Scale(low, high, HEIGHT - BOTTOM, TOP, log)


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round values that cover low..high."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    step = 10 ** math.floor(math.log10(span / about))
    step = next(step * f for f in (1, 2, 5, 10) if span / (step * f) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def sorted_bars(chart: SortedBars) -> Markup:
    """One series as bars in falling order, another as a line over them."""
    bars, steps = chart.bars, chart.steps
    ranks = len(bars.values)
    highest = float(max(bars.values.max(initial=0), steps.values.max(initial=0)))
    x, y = x_scale(0, max(1, ranks)), y_scale(0, highest or 1)
    body = [
        *_y_axis(y, ticks(0, highest), chart.y_label, text=lambda v: f"{v:g}"),
        _columns(np.arange(ranks), np.arange(1, ranks + 1), bars, x, y),
        _staircase(np.arange(ranks + 1), steps, x, y, closed=False),
        *_x_axis(x, [t for t in ticks(0, ranks) if t == int(t)], chart.x_label),
    ]
    return _plot(body, legend([bars, steps]))


def histogram(chart: Histogram) -> Markup:
    """Counts per bin on a logarithmic axis."""
    edges, series, markers = chart.edges, chart.series, chart.markers
    highest = max(10.0, *(float(s.values.max(initial=0)) for s in series))
    x = x_scale(float(edges[0]), float(edges[-1]))
    y = y_scale(0.7, highest * 1.3, log=True)
    decades = [float(10**i) for i in range(int(math.log10(highest)) + 1)]
    body = [
        *_y_axis(y, decades[:: 1 + len(decades) // 7], f"{chart.counted} (log)", text=_power),
        *(_staircase(edges, s, x, y, closed=True) for s in series),
        *(_marker(m, x) for m in markers),
        *_x_axis(x, ticks(x.low, x.high), chart.x_label),
    ]
    return _plot(body, legend([*series, *markers]))


def curves(chart: Curves) -> Markup:
    """Lines over a common x axis; values that are not finite break a line."""
    lines = chart.lines
    finite = [line.values[np.isfinite(line.values)] for line in lines]
    low = min((float(v.min()) for v in finite if len(v)), default=0.0)
    high = max((float(v.max()) for v in finite if len(v)), default=1.0)
    low, high = (min(low, 0.0), max(high, 0.0)) if chart.from_zero else (low, high)
    pad = 0.04 * ((high - low) or 1)
    x = x_scale(min(float(line.x.min()) for line in lines), max(float(line.x.max()) for line in lines))
    y = y_scale(low - pad, high + pad)
    body = [
        *_y_axis(y, ticks(low, high), chart.y_label, text=lambda v: f"{v:g}"),
        *(_polyline(line, x, y) for line in lines),
        *_x_axis(x, ticks(x.low, x.high), chart.x_label),
    ]
    return _plot(body, legend(lines))


def legend(named: Iterable[Series | Marker]) -> Markup:
    """Names beside their colors, as text that grows with the page."""
    items = [
        el("span", el("i", class_=f"swatch {n.color}{' thin' if isinstance(n, Marker) else ''}"), n.name) for n in named
    ]
    return el("div", items, class_="legend")


def _plot(body: Iterable[Content], names: Markup) -> Markup:
    svg = el("svg", body, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="plot", role="img")
    return el("div", names, svg, class_="chart")


def _columns(starts: np.ndarray, ends: np.ndarray, series: Series, x: Scale, y: Scale) -> Markup:
    gap = 1 if len(starts) <= 120 else 0
    bottom = y(0)
    parts = []
    for start, end, value in zip(starts.tolist(), ends.tolist(), series.values.tolist(), strict=True):
        left, right, top = x(start), x(end), y(value)
        parts.append(f"M{left} {bottom}V{top}H{max(left + 0.5, right - gap):.1f}V{bottom}Z")
    return el("path", d="".join(parts), class_=f"area {series.color}")


def _staircase(edges: np.ndarray, series: Series, x: Scale, y: Scale, *, closed: bool) -> Markup:
    """A step per bin; a closed one stands on the axis as an area."""
    bottom = y(y.low)
    path = [f"M{x(edges[0])} {bottom}" if closed else f"M{x(edges[0])} {y(series.values[0])}"]
    for left, right, value in zip(edges[:-1].tolist(), edges[1:].tolist(), series.values.tolist(), strict=True):
        height = bottom if y.log and value <= 0 else y(value)
        path.append(f"L{x(left)} {height}H{x(right)}")
    if closed:
        path.append(f"V{bottom}Z")
    return el("path", d="".join(path), class_=f"{'area' if closed else 'line'} {series.color}")


def _polyline(line: Line, x: Scale, y: Scale) -> Markup:
    points, pen = [], "M"
    for at, value in zip(line.x.tolist(), line.values.tolist(), strict=True):
        if math.isfinite(value):
            points.append(f"{pen}{x(at)} {y(value)}")
        pen = "L" if math.isfinite(value) else "M"
    return el("path", d="".join(points), class_=f"line {line.color}")


def _marker(marker: Marker, x: Scale) -> Markup:
    at = x(marker.at)
    return el("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_=f"mark {marker.color}")


def _x_axis(x: Scale, at: Sequence[float], label: str) -> list[Markup]:
    base = HEIGHT - BOTTOM
    texts = [el("text", f"{value:g}", x=x(value), y=base + 17, class_="middle") for value in at]
    title = el("text", label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 4, class_="middle axis")
    return [el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="base"), *texts, title]


def _y_axis(y: Scale, at: Sequence[float], label: str, *, text: Callable[[float], str]) -> list[Markup]:
    grid = [el("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid-line") for value in at]
    texts = [el("text", text(value), x=LEFT - 7, y=y(value) + 4, class_="end") for value in at]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    title = el("text", label, x=13, y=middle, class_="middle axis", transform=f"rotate(-90 13 {middle})")
    return [*grid, *texts, title]


def _power(value: float) -> str:
    names = {1e3: "1k", 1e4: "10k", 1e5: "100k", 1e6: "1M", 1e7: "10M", 1e8: "100M", 1e9: "1G"}
    return names.get(value, f"{value:g}")
