"""The cells as a table: means over seeds, and gains over the random set with their intervals."""

from collections.abc import Sequence

import numpy as np

from benchmarks.curation.arms import FIRST
from benchmarks.curation.cells import INITIAL, READOUTS, Cell
from benchmarks.curation.intervals import Gain, paired_gain
from benchmarks.figures import Figure


def gains(cells: Sequence[Cell], readout: str) -> dict[tuple[str, int], Gain]:
    """Each arm at each length beside the random one, over the seeds that have both."""
    by_key = {(cell.arm, cell.iterations, cell.seed): cell for cell in cells}
    found = {}
    for arm, iterations in dict.fromkeys((cell.arm, cell.iterations) for cell in cells):
        seeds = [s for a, n, s in by_key if (a, n) == (arm, iterations) and (FIRST, iterations, s) in by_key]
        if arm not in (FIRST, INITIAL) and seeds:
            pairs = [(by_key[FIRST, iterations, s], by_key[arm, iterations, s]) for s in seeds]
            found[arm, iterations] = paired_gain([a for a, _ in pairs], [b for _, b in pairs], readout)
    return found


def format_table(name: str, cells: Sequence[Cell]) -> str:
    """The cells as text: means over seeds, and gains over random with their intervals."""
    lines = [f"{name}: {len(cells[0].knn)} held-out pictures, equally many of each class; gains over random, 95 %"]
    lines.append("  arm           iterations  images  k-NN    gain                  linear  gain")
    for arm, iterations in dict.fromkeys((cell.arm, cell.iterations) for cell in cells):
        mine = [cell for cell in cells if (cell.arm, cell.iterations) == (arm, iterations)]
        told = ""
        for readout in READOUTS:
            mean = np.mean([cell.right(readout).mean() for cell in mine])
            gain = gains(cells, readout).get((arm, iterations))
            told += f"  {100 * mean:5.1f}   {'' if gain is None else _told(gain):<20}"
        lines.append(f"  {arm:<12}  {iterations:>10}  {mine[0].num_images:>6}{told}".rstrip())
    lines.append("Of the sets, mean over seeds: entropy of classes; share of different pictures; share of junk")
    for arm in dict.fromkeys(cell.arm for cell in cells if cell.arm != INITIAL):
        facts = [(c.entropy, c.originals, c.junk) for c in cells if c.arm == arm]
        lines.append(f"  {arm:<12}  " + "  ".join(f"{value:.3f}" for value in np.mean(facts, axis=0)))
    return "\n".join(lines)


def _told(gain: Gain) -> str:
    if gain.num_seeds < 2:
        return f"{100 * gain.value:+5.1f}, of one seed"
    star = "*" if gain.is_significant else " "
    return f"{100 * gain.value:+5.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]{star}"


def as_figures(cells: Sequence[Cell]) -> list[Figure]:
    """The gains for programs."""
    return [
        Figure(
            f"{readout}: {arm} minus random, {iterations} iterations",
            gain.value,
            "share",
            note=_interval(gain) + f"better in {gain.better} of {gain.num_seeds} seeds",
        )
        for readout in READOUTS
        for (arm, iterations), gain in gains(cells, readout).items()
    ]


def _interval(gain: Gain) -> str:
    return f"95 %: {gain.low:+.4f} to {gain.high:+.4f}; " if gain.num_seeds > 1 else ""
