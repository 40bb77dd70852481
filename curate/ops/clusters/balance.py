"""How evenly a level of clusters shares the images, and how much it leaves unexplained."""

from typing import Any

import numpy as np

from curate.ops.entropy import effective_number

QUANTILES = ("smallest", "median", "largest")
CURVE_POINTS = 21


def size_figures(sizes: np.ndarray, num_wanted: int) -> dict[str, Any]:
    """JSON-ready figures of the sizes of clusters.

    Args:
        sizes: (K,) int64, images per cluster, empty ones as zeros or left out.
        num_wanted: clusters asked for; those that are missing count as empty.

    Returns:
        clusters: with images in them. empty: others. imbalance: num_wanted x sum of squared shares, 1 where all
        are equal, as faiss's imbalance factor. effective: exp(entropy) of the sizes. smallest, median, largest: of
        clusters with images.
    """
    full = np.sort(sizes[sizes > 0])
    if len(full) == 0:
        return {"clusters": 0, "empty": num_wanted, "imbalance": None, "effective": 0.0} | dict.fromkeys(QUANTILES, 0)
    shares = full / full.sum()
    return {
        "clusters": len(full),
        "empty": max(0, num_wanted - len(full)),
        "imbalance": round(float(num_wanted * (shares**2).sum()), 4),
        "effective": round(effective_number(full), 2),
        "smallest": int(full[0]),
        "median": int(full[len(full) // 2]),
        "largest": int(full[-1]),
    }


def cumulative_shares(sizes: np.ndarray) -> list[float]:
    """Share of the images, 0..1, in the smallest 0, 5, 10, ... 100 % of the clusters (a Lorenz curve)."""
    full = np.sort(sizes[sizes > 0])
    if len(full) == 0:
        return []
    steps = np.linspace(0, 1, CURVE_POINTS)
    known = np.linspace(0, 1, len(full) + 1)
    total = np.concatenate([[0], np.cumsum(full)]) / full.sum()
    return [round(float(value), 4) for value in np.interp(steps, known, total)]


def level_figures(sizes: np.ndarray, inertia: np.ndarray, num_wanted: int) -> dict[str, Any]:
    """As `size_figures`, with the inertia (sum of squared L2 distances of what the level clusters) and the curve."""
    extra = {"inertia": float(inertia.sum()), "curve": cumulative_shares(sizes)}
    return size_figures(sizes, num_wanted) | extra
