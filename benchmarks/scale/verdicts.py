"""What the counts of runs of several sizes say: figures an image, how they grow, and what is more than it should be."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from benchmarks.scale.measure import Ran, Row
from curate.engine.cost import Demand
from curate.engine.numbers import size
from curate.scale.estimate import amount

GROWTH = 1.15
"""Times by which a figure of an image may grow from one size to the next; of a step whose law says N log N, times the
ratio of the logarithms; of one whose law says that growth ends at a bound, times what it says of both sizes."""
AMPLIFICATION = 2.5
"""Bytes that may be read for each byte of inputs and output."""
DRIVER_BYTES = (1 << 30, 1)
"""Memory that a driver may take: so many bytes, and so many an image."""
PLANNED = 1.5
"""Factor by which the plan may be off."""
FIGURES = ("cpu_seconds", "bytes_read", "bytes_written", "requests")
FLOORS: Mapping[str, float] = {"cpu_seconds": 1.0, "bytes_read": 2 << 20, "bytes_written": 2 << 20, "requests": 300}
"""What a whole step may take at any size: below that a figure says nothing about growth."""
UNPLANNED: Mapping[str, float] = {"bytes_read": 128 << 10, "requests": 40}
"""What a whole step may take unplanned: manifests, and ends of parts that are hardly longer."""
PLANS: Mapping[str, Callable[[Demand], float]] = {
    "cpu_seconds": lambda planned: planned.products + planned.serial_products,
    "bytes_read": lambda planned: planned.read,
    "bytes_written": lambda planned: planned.written + planned.scratch,
    "requests": lambda planned: planned.requests,
}
"""What a law says of a figure; of CPU seconds what grows faster than rows do."""
HEAD = (
    "step",
    "law",
    "images",
    "CPU us",
    "read B",
    "written B",
    "requests",
    "growth",
    "read/needed",
    "task",
    "plan off by",
)


class Growth(NamedTuple):
    """How much a figure of one step grew from one size to the next, an image."""

    recipe: str
    table: str
    stage: str
    figure: str
    factor: float
    allowed: float


def growths(runs: Sequence[Ran]) -> Iterator[Growth]:
    """Of the last two sizes of each recipe, every figure of every step that is above its floor."""
    for _, several in groupby(runs, key=lambda run: run.recipe):
        sizes = list(several)[-2:]
        for few, many in pairwise(sizes):
            earlier = {row.table: row for row in few.rows}
            yield from (one for row in many.rows for one in _growth(earlier[row.table], row))


def _growth(few: Row, many: Row) -> Iterator[Growth]:
    for figure in FIGURES:
        before, after = getattr(few.counts, figure), getattr(many.counts, figure)
        if after > FLOORS[figure]:
            factor = (after / many.images) / (max(before, 1e-9) / few.images)
            yield Growth(many.recipe, many.table, many.stage, figure, factor, GROWTH * _foreseen(few, many, figure))


def _foreseen(few: Row, many: Row, figure: str) -> float:
    """Times by which the law of a step lets a figure of an image grow; 1 where it grows with N."""
    logs = math.log(many.images) / math.log(few.images) if many.planned.n_log_n else 1
    before, after = PLANS[figure](few.planned), PLANS[figure](many.planned)
    if not many.planned.settles or not before:
        return logs
    return max(logs, after / many.images / (before / few.images))


def law_of(row: Row) -> str:
    """How a step grows, as its law says."""
    return ("N log N" if row.planned.n_log_n else "N") + ", settling" * row.planned.settles


def growing(runs: Sequence[Ran]) -> list[dict[str, object]]:
    """Figures that grew by more than they may."""
    return [one._asdict() for one in growths(runs) if one.factor > one.allowed]


def misplanned(row: Row, floors: Mapping[str, float] = UNPLANNED) -> dict[str, float]:
    """Figures of a step of which the plan is off by more than `PLANNED`: planned for each counted one.

    Args:
        floors: what both count as where they are less.
    """
    pairs = {
        "bytes_read": (row.planned.read, row.counts.bytes_read),
        "requests": (row.planned.requests, row.counts.requests),
    }
    ratios = {name: max(plan, floors[name]) / max(found, floors[name]) for name, (plan, found) in pairs.items()}
    return {name: ratio for name, ratio in ratios.items() if not 1 / PLANNED <= ratio <= PLANNED}


def format_runs(runs: Sequence[Ran]) -> str:
    """A table of each recipe, and what is more than it should be."""
    grown = {(one.recipe, one.table): one for one in sorted(growths(runs), key=lambda one: one.factor / one.allowed)}
    lines = []
    for recipe, several in groupby(runs, key=lambda run: run.recipe):
        sizes = list(several)
        lines += [f"{recipe}: figures an image", *_aligned([HEAD, *_cells(sizes, grown)]), ""]
        lines += [_whole(run) for run in sizes]
        lines += [f"  more than it may be: {text}" for text in _faults(sizes)] + [""]
    return "\n".join(lines)


def _cells(runs: Sequence[Ran], grown: Mapping[tuple[str, str], Growth]) -> Iterator[tuple[str, ...]]:
    steps = [row.table for row in runs[-1].rows]
    by_step = {(row.table, row.images): row for run in runs for row in run.rows}
    for table in steps:
        for run in runs:
            row = by_step[table, run.rows[0].images]
            growth = grown.get((row.recipe, table)) if run is runs[-1] else None
            law = law_of(by_step[table, runs[-1].rows[0].images]) if run is runs[0] else ""
            yield _row_cells(row, growth, law)


def _row_cells(row: Row, growth: Growth | None, law: str) -> tuple[str, ...]:
    counts, each = row.counts, row.images
    off = ", ".join(f"{name} x {ratio:.2g}" for name, ratio in misplanned(row).items())
    fastest = "" if growth is None else f"{growth.factor:.2f} {growth.figure.removesuffix('_seconds')}"
    return (
        f"{row.table} ({row.stage})" * bool(law),
        law,
        f"{each:,}",
        f"{1e6 * counts.cpu_seconds / each:,.1f}",
        f"{counts.bytes_read / each:,.0f}",
        f"{counts.bytes_written / each:,.0f}",
        f"{counts.requests / each:.4f}",
        fastest + "!" * (growth is not None and growth.factor > growth.allowed),
        f"{row.amplification:.2f}" + "!" * _reads_too_much(row),
        size(counts.peak_task_bytes),
        off,
    )


def _reads_too_much(row: Row) -> bool:
    return row.amplification > AMPLIFICATION and row.counts.bytes_read > FLOORS["bytes_read"]


def _whole(run: Ran) -> str:
    row = run.rows[0]
    cpu = sum(one.counts.cpu_seconds for one in run.rows)
    read, requests = (sum(getattr(one.counts, name) for one in run.rows) for name in ("bytes_read", "requests"))
    driver = "" if run.driver_bytes is None else f", driver {size(run.driver_bytes)}"
    killed = f", killed {run.kills} times" * bool(run.kills) + ", same tables as without" * run.compared
    return (
        f"  {row.images:,} images: {run.seconds:,.0f} s, {cpu:,.0f} CPU s in tables, {size(read)} read by "
        f"{amount(requests)} requests{driver}{killed}"
    )


def _faults(runs: Sequence[Ran]) -> Iterator[str]:
    for one in growths(runs):
        if one.factor > one.allowed:
            yield f"{one.table} ({one.stage}): {one.figure} an image grew x {one.factor:.2f}, at most {one.allowed:.2f}"
    for run in runs:
        for row in filter(_reads_too_much, run.rows):
            yield f"{row.table}: {row.images:,} images: reads {row.amplification:.1f} times what it needs"
        fixed, each = DRIVER_BYTES
        if (run.driver_bytes or 0) > fixed + each * run.rows[0].images:
            yield f"{run.rows[0].images:,} images: the driver holds {size(run.driver_bytes or 0)}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
