"""Nearest inverted lists of many vectors: flat, or through groups of lists where there are many.

With K lists a vector is compared with about sqrt(K) group centres, then with the lists of its nearest few groups. Both
steps are matrix products over vectors sorted by group; there is no loop over vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from curate.errors import ConfigError
from curate.ops.blocks import blocks
from curate.ops.clusters.kmeans import fit_kmeans
from curate.ops.vectors import normalize

if TYPE_CHECKING:
    import torch

GROUPED_FROM = 2048
"""Lists from which on they are grouped."""
GROUPS_SEARCHED = 8
"""Groups whose lists a vector is compared with, and one more for each probe after the first."""
BLOCK_ROWS = 1 << 15
"""Vectors compared at once."""


class CoarseLists(NamedTuple):
    """Centres of the lists, and the groups that they belong to."""

    centroids: np.ndarray
    """(K, D) float32, unit L2"""
    group: np.ndarray
    """(K,) int32 group of each list, ascending; empty: lists are not grouped"""
    centres: np.ndarray
    """(G, D) float32, unit L2, of the groups"""

    @classmethod
    def flat(cls, centroids: np.ndarray) -> CoarseLists:
        """Lists that are not grouped."""
        return cls(normalize(centroids), np.empty(0, np.int32), np.empty((0, centroids.shape[1]), np.float32))


def fit_lists(x: np.ndarray, num_lists: int, *, seed: int, num_iterations: int = 10) -> CoarseLists:
    """Fit centres of lists, through groups where there are many: k-means of the groups, then within each.

    Two levels cost N x 2 sqrt(K) distances an iteration instead of N x K.

    Args:
        x: (N, D) float32, unit L2; a sample of what the lists will hold.
        num_lists: K, 1..N.

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
    counts = _share(sizes, num_lists)
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
        num_probes: P, 1..K.

    Returns:
        (N, P) int32, nearest first; where lists are grouped the true nearest may rarely be missed.
    """
    import torch

    found = np.empty((len(x), num_probes), np.int32)
    search = _Search(lists, num_probes, device)
    for rows in blocks(len(x), BLOCK_ROWS):
        block = torch.from_numpy(np.ascontiguousarray(x[rows], np.float32)).to(device)
        found[rows] = search.nearest(block).cpu().numpy()
    return found


class _Search:
    def __init__(self, lists: CoarseLists, num_probes: int, device: str) -> None:
        import torch

        self.num_probes = num_probes
        self.centroids = torch.from_numpy(lists.centroids).to(device)
        self.centres = torch.from_numpy(lists.centres).to(device)
        sizes = np.bincount(lists.group, minlength=len(lists.centres)) if len(lists.centres) else np.empty(0, np.int64)
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        needed = _groups_needed(sizes, num_probes)
        self.num_groups = min(len(sizes), max(needed, GROUPS_SEARCHED + num_probes - 1))

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        import torch

        if self.num_groups == 0:
            return torch.topk(x @ self.centroids.T, self.num_probes, dim=1).indices.int()
        groups = torch.topk(x @ self.centres.T, self.num_groups, dim=1).indices  # (B, g)
        score = x.new_full((*groups.shape, self.num_probes), -torch.inf)
        found = torch.zeros(score.shape, dtype=torch.int32, device=x.device)
        order = torch.argsort(groups.flatten(), stable=True)
        ends = torch.cumsum(torch.bincount(groups.flatten(), minlength=len(self.centres)), 0).tolist()
        for group, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            first, last = int(self.bounds[group]), int(self.bounds[group + 1])
            if start == end or first == last:
                continue
            places = order[start:end]
            product = x[places // self.num_groups] @ self.centroids[first:last].T
            best = torch.topk(product, min(self.num_probes, last - first), dim=1)
            width = best.values.shape[1]
            score.view(-1, self.num_probes)[places, :width] = best.values
            found.view(-1, self.num_probes)[places, :width] = (best.indices + first).int()
        top = torch.topk(score.flatten(1), self.num_probes, dim=1).indices
        return torch.gather(found.flatten(1), 1, top)


def _groups_needed(sizes: np.ndarray, num_probes: int) -> int:
    """Groups that hold `num_probes` lists even if they are the smallest."""
    return int(np.searchsorted(np.cumsum(np.sort(sizes)), num_probes) + 1) if len(sizes) else 0


def _share(sizes: np.ndarray, total: int) -> np.ndarray:
    """(G,) int64 lists of each group: by its size, at most its size, 1 at least where it has any; sums to `total`."""
    exact = sizes * (total / sizes.sum())
    counts = np.clip(np.floor(exact).astype(np.int64), np.minimum(sizes, 1), sizes)
    order = np.argsort(-(exact - counts), kind="stable")
    while (left := total - counts.sum()) != 0:
        room = order[(counts[order] < sizes[order]) if left > 0 else (counts[order] > 1)]
        if left < 0:
            room = room[::-1]
        counts[room[: abs(left)]] += np.sign(left)
    return counts
