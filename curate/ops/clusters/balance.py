"""How evenly a level of clusters shares the images, and how much it leaves unexplained."""

from typing import Any

import numpy as np

from curate.ops.entropy import effective_number

QUANTILES = ("smallest", "median", "largest")
CURVE_POINTS = 21
"""Points of `cumulative_shares`."""


def size_figures(sizes: np.ndarray, num_wanted: int) -> dict[str, Any]:
    """JSON-ready figures of the sizes of clusters.

    Args:
        sizes: (K,) int64, images per cluster, empty ones as zeros or left out.
        num_wanted: clusters asked for; those that are missing count as empty.

    Returns:
        clusters: those that hold images. empty: the others. imbalance: num_wanted x sum of squared shares, 1 where
        all are equal (faiss's imbalance factor); None without images. effective: exp(entropy) of the sizes.
        smallest, median, largest: images of a cluster, among those that hold any.
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
    """The figures of one level of a tree: those of `size_figures`, its inertia and the curve of its sizes.

    Args:
        sizes: (K,) int64, images per cluster.
        inertia: (K,) float, sum of squared L2 distances of what each cluster holds to its centroid.
        num_wanted: clusters asked for.
    """
    extra = {"inertia": float(inertia.sum()), "curve": cumulative_shares(sizes)}
    return size_figures(sizes, num_wanted) | extra
