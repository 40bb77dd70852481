"""How evenly a level of clusters shares the images, and how much it leaves unexplained."""

from typing import Any

import numpy as np

from curate.ops.entropy import effective_number

QUANTILES = ("smallest", "median", "largest")


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


def level_figures(sizes: np.ndarray, inertia: np.ndarray, num_wanted: int) -> dict[str, Any]:
    """As `size_figures`, with the inertia: sum of squared L2 distances of all that the level clusters."""
    return size_figures(sizes, num_wanted) | {"inertia": float(inertia.sum())}
