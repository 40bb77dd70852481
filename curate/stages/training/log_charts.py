"""Charts of the log of a training."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.show import Beside, Block, Blocks, Color, Curves, Heading, Line

COLORS: tuple[Color, ...] = tuple(color for color in get_args(Color) if color != "ink")
"""Colors of the lines of a chart; more lines make more charts."""


class LogChart(NamedTuple):
    """A chart of the log: the rows whose names begin like this."""

    title: str
    y_label: str
    prefixes: tuple[str, ...]
    from_zero: bool = False
    """The y axis holds 0."""
    by_scale: bool = False
    """Figures up to 1 in a chart of their own: beside larger ones they would lie flat."""


CHARTS = (
    LogChart("Losses", "loss", ("loss",)),
    LogChart("Measured while training", "value", ("eval_",), by_scale=True),
    LogChart("Entropy of the teacher: a collapse shows as a fall to 0", "nats", ("teacher_entropy",), True),
    LogChart("Prototypes in use: a collapse shows as a fall to 1", "prototypes", ("prototypes_used",), True),
    LogChart("Spread of the features: 1 is isotropic, 0 collapsed", "spread", ("feature_std",), True),
    LogChart("Norm of the gradients before clipping", "norm", ("gradient_norm_",), True),
    LogChart("Speed", "images/s", ("images_per_second",), True),
    LogChart("Learning rate", "rate", ("learning_rate",), True),
)
"""What is shown of a log where it is there; other names of the log stay in its table."""


def log_charts(rows: pa.Table) -> Blocks:
    """Charts side by side; none where no name of the log is known.

    Args:
        rows: of `TRAINING_LOG`, in order of steps.
    """
    columns = tuple(column for chart in CHARTS for column in _charts(rows, chart))
    return (Beside(columns),) if columns else ()


def _charts(rows: pa.Table, chart: LogChart) -> Iterator[tuple[Block, Block]]:
    """A chart of the names that begin so, or more than one where there are more names than colors."""
    names = sorted(name for name in rows["name"].unique().to_pylist() if name.startswith(chart.prefixes))
    lines = [_line(rows, name, chart) for name in names]
    for group in _by_scale(lines) if chart.by_scale else [lines]:
        for start in range(0, len(group), len(COLORS)):
            colored = zip(group[start : start + len(COLORS)], COLORS, strict=False)
            drawn = [replace(line, color=color) for line, color in colored]
            yield Heading(chart.title), Curves(drawn, "step", chart.y_label, chart.from_zero)


def _line(rows: pa.Table, name: str, chart: LogChart) -> Line:
    """Named without what all of the chart share: `loss_dino` -> `dino`."""
    mine = rows.filter(pc.equal(rows["name"], name))
    short = name
    for prefix in chart.prefixes:
        short = short.removeprefix(f"{prefix.removesuffix('_')}_")
    steps = mine["step"].to_numpy().astype(np.float64)
    return Line(short.replace("_", " "), mine["value"].to_numpy(), COLORS[0], steps)


def _by_scale(lines: list[Line]) -> list[list[Line]]:
    """Lines that stay within -1..1, then the others."""
    within = [np.abs(line.values[np.isfinite(line.values)]).max(initial=0) <= 1 for line in lines]
    return [[line for line, fits in zip(lines, within, strict=True) if fits == wanted] for wanted in (True, False)]
