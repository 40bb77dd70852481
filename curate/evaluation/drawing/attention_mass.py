"""Masks of the few patches that hold most of an attention map."""

import numpy as np


def keep_mass(attention: np.ndarray, mass: float) -> np.ndarray:
    """Mask the smallest set of patches that holds the share `mass` of each map's attention.

    Args:
        attention: (..., N), >= 0; need not sum to 1, since the cls token attends to itself and to registers too.
        mass: share of the attention, above 0 and at most 1.

    Returns:
        (..., N) bool, True for the patches of the set; of equal patches the first ones are in it.

    Raises:
        ValueError: `mass` is out of range, or attention is negative.

    Source: the visualization of Caron et al. 2021, arXiv:2104.14294, figure 3.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass {mass:g}: a share above 0 and at most 1 is needed")
    if attention.min(initial=0) < 0:
        raise ValueError(f"attention of {attention.min():g}: shares of attention are never negative")
    weights = attention.astype(np.float64)
    order = np.argsort(-weights, axis=-1, kind="stable")
    falling = np.take_along_axis(weights, order, axis=-1)
    held = np.cumsum(falling, axis=-1)
    wanted = held - falling < mass * held[..., -1:]  # the patches before this one do not suffice
    mask = np.empty(weights.shape, bool)
    np.put_along_axis(mask, order, wanted, axis=-1)
    return mask
