"""Stochastic depth as in DINOv2: the images of a batch that take a residual branch are drawn, the others skip it.

Source: Huang et al. 2016, arXiv:1603.09382; on subsets of the batch: Oquab et al. 2023, arXiv:2304.07193.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Group(NamedTuple):
    """Images of one size whose tokens follow one another in the matrix of all tokens."""

    images: int
    tokens: int

    @property
    def rows(self) -> int:
        """Rows of the matrix that the group takes up."""
        return self.images * self.tokens


class Kept(NamedTuple):
    """The images that take a residual branch."""

    rows: Tensor  # (K,) int64, the rows of their tokens
    scale: Tensor  # (K, 1) float32, for each row the images of its group over those of them that take the branch
    groups: tuple[Group, ...]  # that these rows form


def draw_kept(groups: Sequence[Group], rate: float, *, device: torch.device, generator: torch.Generator | None) -> Kept:
    """Draw the images of each group that take a residual branch: max(floor(B * (1 - rate)), 1) of its B images.

    Args:
        groups: of the batch, in the order of their rows.
        rate: share of the images that skip the branch, 0 to 1.
        device: where the indices are needed.
        generator: source of the randomness; None: torch's global one.
    """
    rows, scale, kept, start = [], [], [], 0
    source = device if generator is None else generator.device
    for group in groups:
        n = max(int(group.images * (1 - rate)), 1)
        images = torch.randperm(group.images, device=source, generator=generator)[:n].to(device, non_blocking=True)
        tokens = torch.arange(group.tokens, device=device)
        rows.append((start + images[:, None] * group.tokens + tokens).flatten())
        scale.append(torch.full((n * group.tokens, 1), group.images / n, device=device))
        kept.append(Group(n, group.tokens))
        start += group.rows
    return Kept(torch.cat(rows), torch.cat(scale), tuple(kept))
