"""In-context segmentation: the nearest patches of labeled pictures vote, and nothing is trained.

Source: Balazevic et al. 2023, arXiv:2306.01667 (30 neighbors, weights by softmax of cosine / temperature); the
temperature is that of the k-NN classifier of DINOv2. Their memory holds 10,240,000 patches of ADE20k.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBORS = 30
"""Patches that vote."""
TEMPERATURE = 0.07
"""A vote weighs exp(cosine / TEMPERATURE)."""
MEMORY = 50_000
"""Patches kept, at most; of a larger set equally many are drawn from each picture."""
BLOCK_CELLS = 2**26
"""Similarities that are held at a time, at most."""


class Memory:
    """Patches of labeled pictures."""

    def __init__(self, num_pictures: int, *, seed: int, most: int = MEMORY, unit: bool = True) -> None:
        """An empty memory.

        Args:
            num_pictures: pictures whose patches will come.
            seed: seed of the draw of patches.
            most: patches at most.
            unit: whether features are brought to unit length, as votes need them.
        """
        self.each = max(1, most // num_pictures)
        self.unit = unit
        self._rng = np.random.default_rng(seed)
        self._features: list[Tensor] = []
        self._shares: list[Tensor] = []

    def add(self, features: Tensor, shares: Tensor) -> None:
        """Keep patches of one picture: (N, D) features, (N, C) share of each class in each."""
        rows = torch.from_numpy(np.sort(self._rng.permutation(len(features))[: self.each]))
        self._features.append(F.normalize(features[rows], dim=1) if self.unit else features[rows])
        self._shares.append(shares[rows])

    def freeze(self) -> tuple[Tensor, Tensor]:
        """(M, D) features and (M, C) shares of all patches kept."""
        if len(self._features) > 1:
            self._features, self._shares = [torch.cat(self._features)], [torch.cat(self._shares)]
        return self._features[0], self._shares[0]

    def vote(self, features: Tensor, *, neighbors: int = NEIGHBORS) -> Tensor:
        """(N, D) features of patches -> (N, C) mean share of each class among their nearest patches."""
        keys, shares = self.freeze()
        queries = F.normalize(features, dim=1)
        block = max(1, BLOCK_CELLS // len(keys))
        return torch.cat([_vote(part @ keys.T, shares, min(neighbors, len(keys))) for part in queries.split(block)])


def _vote(similarity: Tensor, shares: Tensor, neighbors: int) -> Tensor:
    values, nearest = similarity.topk(neighbors, dim=1)
    weights = (values / TEMPERATURE).softmax(dim=1)
    return (weights[..., None] * shares[nearest]).sum(dim=1)
