"""Objects of a first frame followed through a video: each patch takes the labels of the patches it resembles.

Source: Jabri et al. 2020, arXiv:2006.14613, with the settings of DINO (Caron et al. 2021, arXiv:2104.14294) on
DAVIS 2017: the first frame and the last 7, the 5 most similar patches within 12 patches (of the 30 along the short side
of 480 pixels), weights exp(cosine / 0.1). DINOv3 follows the same scheme at more pixels.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CONTEXT = 7
"""Frames before the one asked for whose labels it reads, beside the first."""
NEAREST = 5
"""Patches whose labels a patch takes."""
TEMPERATURE = 0.1
"""A label weighs exp(cosine / TEMPERATURE)."""
REACH = 12 / 30
"""How far those patches lie from it at most, as a share of the patches along the short side."""


def follow(features: Iterable[Tensor], labels: Tensor) -> Iterator[Tensor]:
    """Labels of every frame after the first.

    Args:
        features: (h, w, D) for each frame, in order.
        labels: (h, w, C) of the first frame, the share of each label in each patch.

    Yields:
        (h, w, C) likewise.
    """
    frames = iter(features)
    first = next(frames)
    near = _near(first.shape[0], first.shape[1])
    start = F.normalize(first.flatten(0, 1), dim=1), labels.flatten(0, 1)
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=CONTEXT)
    for frame in frames:
        unit = F.normalize(frame.flatten(0, 1), dim=1)
        told = _take(unit, [start, *recent], near)
        recent.append((unit, told))
        yield told.unflatten(0, labels.shape[:2])


def _near(rows: int, columns: int) -> Tensor:
    """(N, N) bool, which patches lie within reach of which."""
    reach = max(1, round(REACH * min(rows, columns)))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return ((y[:, None] - y).abs() <= reach) & ((x[:, None] - x).abs() <= reach)


def _take(unit: Tensor, context: list[tuple[Tensor, Tensor]], near: Tensor) -> Tensor:
    """(N, C) labels that the patches (N, D) of a frame take of those of other frames."""
    similarity = torch.cat([(unit @ keys.T).masked_fill(~near, -torch.inf) for keys, _ in context], dim=1)
    labels = torch.cat([told for _, told in context])
    values, nearest = similarity.topk(NEAREST, dim=1)
    weights = (values / TEMPERATURE).softmax(dim=1)
    return (weights[..., None] * labels[nearest]).sum(dim=1)
