"""Gram anchoring: the student's patches keep the similarities that those of an earlier teacher had.

In long trainings whole images go on being told apart better while patches come to resemble the cls token and lose their
places. The loss compares no features but the cosines between all patches of a crop, so that features may go on moving
while the way in which they lie to each other stays. The Gram teacher sees the same crop at a larger side, and its map
is reduced to the student's grid before lengths are taken out, which smooths it.

Source: Simeoni et al. 2025, arXiv:2508.10104, section 4. The paper writes a Frobenius norm; its weights belong to the
mean over entries.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.models.nets.trained import Trained


def gram_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all patches of a crop, in float32.

    Args:
        student: (C, P, D) patches of C crops after the final norm, masked ones too.
        teacher: (C, P, E) the Gram teacher's, without gradients; negative cosines are kept.

    Returns:
        () float32, mean over crops and P * P entries.
    """
    with torch.autocast(student.device.type, enabled=False):
        difference = _cosines(student) - _cosines(teacher)
        return difference.square().mean()


def _cosines(patches: Tensor) -> Tensor:
    """(C, P, P) cosines between the patches (C, P, D) of each crop."""
    units = F.normalize(patches.float(), dim=-1)
    return units @ units.transpose(1, 2)


@torch.no_grad()
def gram_patches(teacher: nn.Module, crops: Tensor, *, num_patches: int) -> Tensor:
    """The Gram teacher's patches of larger crops, on the student's grid.

    Args:
        teacher: a frozen backbone.
        crops: (C, 3, H, H) normalized.
        num_patches: of the student's crop, a square number.

    Returns:
        (C, num_patches, D), resized bicubically without antialiasing where its grid is another.
    """
    (seen,) = cast(Trained, teacher).forward_crops([crops])
    side, wanted = math.isqrt(seen.patches.shape[1]), math.isqrt(num_patches)
    if side == wanted:
        return seen.patches
    grid = seen.patches.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, (wanted, wanted), mode="bicubic", align_corners=False, antialias=False)
    return resized.flatten(2).transpose(1, 2)
