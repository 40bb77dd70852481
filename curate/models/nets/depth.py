"""Stochastic depth by leaving images out: who takes a residual branch.

Source: as in DINOv2, arXiv:2304.07193.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Group(NamedTuple):
    """Images of one size inside the concatenated tokens: `images` times `tokens` rows."""

    images: int
    tokens: int

    @property
    def rows(self) -> int:
        return self.images * self.tokens


class Kept(NamedTuple):
    """The images that take a residual branch."""

    rows: Tensor  # (K,) int64, their rows in the concatenated tokens
    scale: Tensor  # (K, 1) float32, images over kept images of each row's group
    groups: tuple[Group, ...]  # that those rows form


def draw_kept(groups: Sequence[Group], rate: float, *, device: torch.device, generator: torch.Generator | None) -> Kept:
    """Choose the images of each group that take a residual branch: n = max(floor(B (1 - rate)), 1) of B.

    Skipped images cost nothing, unlike with a mask; B/n keeps the expectation.
    """
    rows, scale, kept, start = [], [], [], 0
    source = device if generator is None else generator.device
    for group in groups:
        n = max(int(group.images * (1 - rate)), 1)
        images = torch.randperm(group.images, device=source, generator=generator)[:n].to(device)
        tokens = torch.arange(group.tokens, device=device)
        rows.append((start + images[:, None] * group.tokens + tokens).flatten())
        scale.append(torch.full((n * group.tokens, 1), group.images / n, device=device))
        kept.append(Group(n, group.tokens))
        start += group.rows
    return Kept(torch.cat(rows), torch.cat(scale), tuple(kept))
