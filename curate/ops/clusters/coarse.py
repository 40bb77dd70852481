"""Nearest inverted lists of many vectors: by comparing with all lists, or through groups of lists where there are many.

With K lists a vector is compared with the centroids of about sqrt(K) groups, then with those of the lists in the few
groups nearest to it. For the second step the vectors are sorted by group, so that each group takes one matrix product
with all vectors that visit it; there is no loop over vectors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.blocks import blocks
from curate.ops.clusters.kmeans import fit_kmeans
from curate.ops.clusters.split import share_leaves
from curate.ops.vectors import normalize

if TYPE_CHECKING:
    import torch

GROUPED_FROM = 2048
"""Number of lists from which on they are grouped."""
GROUPS_SEARCHED = 8
"""Groups whose lists a vector is compared with, and one more for each list after the first that it asks for."""
BLOCK_ROWS = 1 << 15
"""Vectors compared at once."""


class CoarseLists(NamedTuple):
    """Centroids of the inverted lists, and the groups that the lists belong to."""

    centroids: np.ndarray
    """(K, D) float32, unit L2"""
    group: np.ndarray
    """(K,) int32, group of each list, ascending; empty: lists are not grouped"""
    group_centroids: np.ndarray
    """(G, D) float32, unit L2; G = 0: lists are not grouped"""

    @classmethod
    def flat(cls, centroids: np.ndarray) -> CoarseLists:
        """Lists that are not grouped, of (K, D) centroids of any norm."""
        return cls(normalize(centroids), np.empty(0, np.int32), np.empty((0, centroids.shape[1]), np.float32))


def fit_lists(x: np.ndarray, num_lists: int, *, seed: int, num_iterations: int = 10) -> CoarseLists:
    """Fit the centroids of lists, through groups where there are many: k-means of the groups, then within each.

    Two levels cost N x 2 sqrt(K) distances an iteration instead of N x K.

    Args:
        x: (N, D) float32, unit L2; a sample of what the lists will hold.
        num_lists: K, 1..N.
        seed: seed of every k-means.
        num_iterations: Lloyd iterations of every k-means at most.

    Raises:
        ConfigError: K is outside 1..N.
    """
    if num_lists < GROUPED_FROM:
        return CoarseLists.flat(fit_kmeans(x, num_lists, seed=seed, num_iterations=num_iterations).centroids)
    if num_lists > len(x):
        raise ConfigError(f"num_lists={num_lists}: the sample holds {len(x)} vectors; set it to {len(x)} or less")
    seeds = np.random.SeedSequence(seed).spawn(round(num_lists**0.5) + 1)
    fit = fit_kmeans(x, len(seeds) - 1, seed=seeds[0], num_iterations=num_iterations)
    member = nearest_lists(x, CoarseLists.flat(fit.centroids), 1)[:, 0]
    sizes = np.bincount(member, minlength=len(fit.centroids))
    counts = share_leaves(sizes, num_lists)
    order = np.argsort(member, kind="stable")
    found, start = [], 0
    for size, count, group_seed in zip(sizes, counts, seeds[1:], strict=True):
        mine, start = x[order[start : start + size]], start + size
        if count:
            found.append(fit_kmeans(mine, int(count), seed=group_seed, num_iterations=num_iterations).centroids)
    group = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return CoarseLists(normalize(np.concatenate(found)), group, normalize(fit.centroids))


def nearest_lists(x: np.ndarray, lists: CoarseLists, num_probes: int, *, device: str = "cpu") -> np.ndarray:
    """The lists nearest to each vector by cosine.

    Args:
        x: (N, D) float32, unit L2.
        num_probes: P, 1..K, how many lists to find for each vector.
        device: a torch device.

    Returns:
        (N, P) int32, nearest first; where lists are grouped the true nearest may rarely be missed.
    """
    import torch

    found = np.empty((len(x), num_probes), np.int32)
    search = _ListSearch(lists, num_probes, device)
    for rows in blocks(len(x), BLOCK_ROWS):
        block = torch.from_numpy(np.ascontiguousarray(x[rows], np.float32)).to(device)
        found[rows] = search.nearest(block).cpu().numpy()
    return found


class _ListSearch:
    """The lists on a device, and how many groups a vector must visit."""

    def __init__(self, lists: CoarseLists, num_probes: int, device: str) -> None:
        import torch

        self.num_probes = num_probes
        self.centroids = torch.from_numpy(lists.centroids).to(device)
        self.group_centroids = torch.from_numpy(lists.group_centroids).to(device)
        sizes = np.bincount(lists.group, minlength=len(lists.group_centroids))  # (G,) lists of each group
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        needed = _groups_needed(sizes, num_probes)
        # Groups smaller than sqrt(K), which those of clusters are, are searched in larger number.
        several = math.ceil(GROUPS_SEARCHED * len(sizes) / max(1.0, len(lists.centroids) ** 0.5))
        self.num_groups = min(len(sizes), max(needed, several, GROUPS_SEARCHED + num_probes - 1))

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """(B, P) int32: the lists nearest to each of (B, D) vectors."""
        import torch

        if self.num_groups == 0:
            return torch.topk(x @ self.centroids.T, self.num_probes, dim=1).indices.int()
        groups = torch.topk(x @ self.group_centroids.T, self.num_groups, dim=1).indices  # (B, g)
        # By vector and group visited: the best lists there. A visit is a position in the flattened `groups`.
        score = x.new_full((*groups.shape, self.num_probes), -torch.inf)
        found = torch.zeros(score.shape, dtype=torch.int32, device=x.device)
        order = torch.argsort(groups.flatten(), stable=True)
        ends = torch.cumsum(torch.bincount(groups.flatten(), minlength=len(self.group_centroids)), 0).tolist()
        for group, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            first, last = int(self.bounds[group]), int(self.bounds[group + 1])
            if start == end or first == last:
                continue
            visits = order[start:end]
            product = x[visits // self.num_groups] @ self.centroids[first:last].T
            best = torch.topk(product, min(self.num_probes, last - first), dim=1)
            width = best.values.shape[1]
            score.view(-1, self.num_probes)[visits, :width] = best.values
            found.view(-1, self.num_probes)[visits, :width] = (best.indices + first).int()
        top = torch.topk(score.flatten(1), self.num_probes, dim=1).indices
        return torch.gather(found.flatten(1), 1, top)


def _groups_needed(sizes: np.ndarray, num_probes: int) -> int:
    """Groups that hold `num_probes` lists even if they are the smallest."""
    return int(np.searchsorted(np.cumsum(np.sort(sizes)), num_probes) + 1) if len(sizes) else 0
