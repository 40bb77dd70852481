"""Block-wise masks of patches for the iBOT loss.

Source: BEiT (Bao et al. 2021, arXiv:2106.08254) as used by iBOT and DINOv2 (arXiv:2304.07193) and, exact, by DINOv3
(arXiv:2508.10104).
"""

import math

import numpy as np
import numpy.typing as npt

MIN_PATCHES = 4
"""Fewest patches aimed at by one block."""
ASPECT = (0.3, 1 / 0.3)
"""Height / width of a block."""
TRIES = 10
"""Blocks that are drawn until one fits; then a mask is left as it is."""

Mask = npt.NDArray[np.bool_]


def draw_masks(
    num_crops: int,
    grid: int,
    *,
    rng: np.random.Generator,
    share: float = 0.5,
    ratios: tuple[float, float] = (0.1, 0.5),
    exact: bool = False,
) -> Mask:
    """Masks for a batch: exactly floor(num_crops * share) crops get one, the rest none.

    The share of masked patches is stratified: the i-th masked crop draws its ratio from the i-th of equal
    intervals between `ratios`; then crops are shuffled.

    Args:
        num_crops: global crops of the batch, 2B.
        grid: patches along a side.
        exact: as in DINOv3, the ratio is the upper end of its interval, and where blocks leave patches missing, single
            ones are added at random until their number is met.

    Returns:
        (num_crops, grid * grid) bool, True where the student sees mask_token.
    """
    masks = np.zeros((num_crops, grid * grid), dtype=bool)
    num_masked = int(num_crops * share)
    edges = np.linspace(*ratios, num_masked + 1)
    for i in range(num_masked):
        ratio = edges[i + 1] if exact else rng.uniform(edges[i], edges[i + 1])
        wanted = int(grid * grid * ratio)
        mask = draw_block_mask(grid, wanted, rng=rng)
        masks[i] = (add_single_patches(mask, wanted, rng=rng) if exact else mask).ravel()
    return masks[rng.permutation(num_crops)]


def draw_block_mask(grid: int, num_patches: int, *, rng: np.random.Generator) -> Mask:
    """(grid, grid) bool with blocks until `num_patches` are masked or no further block fits in `TRIES` draws.

    A block never brings the count above `num_patches`, which may therefore be missed from below.
    """
    mask = np.zeros((grid, grid), dtype=bool)
    missing = num_patches
    while missing > 0:
        block = _fitting_block(mask, missing, rng)
        if block is None:
            break
        mask[block] = True
        missing = num_patches - int(mask.sum())
    return mask


def add_single_patches(mask: Mask, num_patches: int, *, rng: np.random.Generator) -> Mask:
    """`mask` with patches added at random until `num_patches` are masked; it has no more than that."""
    full = mask.ravel().copy()
    free = np.flatnonzero(~full)
    full[rng.choice(free, num_patches - int(full.sum()), replace=False)] = True
    return full.reshape(mask.shape)


def _fitting_block(mask: Mask, most: int, rng: np.random.Generator) -> tuple[slice, slice] | None:
    """A block that adds between 1 and `most` patches to `mask`, or None after `TRIES` draws."""
    grid = len(mask)
    for _ in range(TRIES):
        area = MIN_PATCHES + (most - MIN_PATCHES) * rng.random()  # below MIN_PATCHES, between the two
        aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= grid or width >= grid:
            continue
        top, left = rng.integers(grid - height + 1), rng.integers(grid - width + 1)
        block = slice(top, top + height), slice(left, left + width)
        added = height * width - int(mask[block].sum())
        if 0 < added <= most:
            return block
    return None
