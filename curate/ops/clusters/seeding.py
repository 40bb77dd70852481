"""Where k-means begins: greedy k-means++ by blocked matrix products, and k-means|| beyond a size.

Lloyd's iterations only find the optimum near which they begin. With seeds drawn evenly from the vectors, a frequent
concept gets many of them and a rare one none, and no iteration ever moves a centroid across to it. Both methods here
draw seeds by D2 sampling instead: a vector is drawn with probability proportional to its squared distance to the
nearest seed so far, so that what is far from all seeds is drawn sooner or later, however rare.

k-means++ draws one seed after the other, since each draw depends on the seeds before it. That is K passes over the
data, each of them a product with one vector, which is memory-bound. The greedy variant draws several candidates a step
and takes the best of them, for a lower inertia at more work. For few clusters it draws 2 + ln K, as is usual; for many
it draws four: with more of them seeding takes longer than all of Lloyd's iterations, and with two a tree by L2 shows
rare concepts less often. Here candidates are drawn for many steps at once, by the distances that hold when the block
begins, and the distances of all of them are one matrix product. When its step comes, the distance of a candidate may
have fallen; it is then accepted with probability (D2 now) / (D2 at the block's begin), which gives exactly the
distribution of its step (rejection sampling). A block ends when too few of its candidates are left.

k-means|| (parallel) draws about K candidates at once in each of five rounds, by the distances that hold when the round
begins. That is five passes however large K is, each of them one large product. The candidates, about 5 K, are then
clustered themselves: each weighs as many vectors as it is the nearest of, and greedy k-means++ of the weighted
candidates leaves K. Its inertia after Lloyd was within three percent of the greedy one on
mixtures with a long tail.
"""

from math import log
from typing import Literal

import numpy as np

from curate.ops.blocks import blocks
from curate.ops.clusters.faiss_seam import Device
from curate.ops.clusters.nearest import BLOCK_ROWS, find_nearest, squared_norms
from curate.ops.parallel import in_threads

Seeding = Literal["auto", "plusplus", "parallel"]
"""plusplus: greedy k-means++. parallel: k-means||. auto: whichever `choose_seeding` says."""
GREEDY_DISTANCES = 1 << 34
"""N x K up to which `auto` takes greedy k-means++: a million vectors for 16,384 clusters, half an hour of one core."""
FEW_CLUSTERS = 256
"""Clusters up to which a step of greedy k-means++ draws 2 + ln K candidates; beyond it draws fewer."""
MANY_CANDIDATES = 4
"""What it draws then."""
ROUNDS = 5
"""Rounds of k-means||, as in the paper's experiments; more only where these found too few candidates."""
OVERSAMPLING = 1
"""Candidates of a round of k-means|| for each cluster; 2 takes twice as long for half a percent less inertia."""


def choose_seeds(
    x: np.ndarray,
    num_clusters: int,
    *,
    rng: np.random.Generator,
    seeding: Seeding = "auto",
    block_bytes: int = 256 << 20,
    device: Device = "cpu",
) -> np.ndarray:
    """(K,) int64, distinct rows of `x` to begin k-means with.

    Args:
        x: (N, D) float32, N >= K >= 1.
        seeding: which method draws them.
        block_bytes: memory for distances.
        device: where k-means|| searches the nearest candidates.
    """
    if seeding == "auto":
        seeding = choose_seeding(len(x), num_clusters, block_bytes=block_bytes)
    if seeding == "plusplus":
        return seed_kmeans(x, num_clusters, rng=rng, block_bytes=block_bytes)
    return seed_parallel(x, num_clusters, rng=rng, block_bytes=block_bytes, device=device)


def choose_seeding(num_rows: int, num_clusters: int, *, block_bytes: int) -> Literal["plusplus", "parallel"]:
    """Greedy k-means++ while it is quick and the distances of one of its steps fit into `block_bytes`.

    It takes K steps one after the other, each of which passes several times over N distances of each candidate;
    k-means|| takes five large products of N x K distances, on a GPU if there is one. Both run on a sample that is in
    memory: it represents the distances of the rest, and rounds over all parts would each cost a pass over all vectors.
    """
    fits = 8 * _num_candidates(num_clusters) * num_rows <= block_bytes
    return "plusplus" if fits and num_rows * num_clusters <= GREEDY_DISTANCES else "parallel"


def seed_kmeans(
    x: np.ndarray,
    num_clusters: int,
    *,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
    block_bytes: int = 256 << 20,
) -> np.ndarray:
    """(K,) int64, distinct rows of `x` chosen by greedy k-means++.

    Each step draws some candidates by D2 sampling and takes the one that lowers the inertia most.
    Candidates come in blocks, as the module says. Where fewer than K vectors differ, the rest is drawn at random.

    Args:
        x: (N, D) float32, N >= K >= 1.
        weights: (N,) float32 > 0, how many vectors each row stands for; None: one.
        block_bytes: memory for distances; 8 N bytes for each candidate are taken even where this is less.

    Source: Arthur & Vassilvitskii 2007, greedy as in its section 7.
    """
    num_candidates = _num_candidates(num_clusters)
    norms = squared_norms(x)
    first = int(rng.integers(len(x))) if weights is None else int(_draw(weights, 1, rng)[0])
    chosen = [first]
    nearest = _squared_distances(x, norms, np.array(chosen))[0]  # (N,) to the nearest seed so far
    room = max(num_candidates, block_bytes // (8 * len(x)))
    while len(chosen) < num_clusters and nearest.any():
        num_proposals = min(room, num_candidates * max(1, len(chosen) // 2))
        proposals = _draw(nearest if weights is None else nearest * weights, num_proposals, rng)
        distances = _squared_distances(x, norms, proposals)  # (P, N)
        bar = rng.random(num_proposals) * nearest[proposals]  # what the distance must still exceed in its step
        start = 0
        while len(chosen) < num_clusters:
            accepted = start + np.flatnonzero(nearest[proposals[start:]] > bar[start:])[:num_candidates]
            if len(accepted) < num_candidates and (start > 0 or len(accepted) == 0):
                break  # too few are left: draw a new block by the distances of now
            trials = np.minimum(nearest, distances[accepted])  # (C, N)
            best = int(_potentials(trials, weights).argmin())
            nearest = trials[best]
            chosen.append(int(proposals[accepted[best]]))
            start = int(accepted[-1]) + 1
    return np.concatenate([chosen, _draw_rest(len(x), chosen, num_clusters, rng)]).astype(np.int64)


def seed_parallel(
    x: np.ndarray,
    num_clusters: int,
    *,
    rng: np.random.Generator,
    block_bytes: int = 256 << 20,
    device: Device = "cpu",
) -> np.ndarray:
    """(K,) int64, distinct rows of `x` chosen by k-means||.

    Each of five rounds draws about K candidates at once by D2 sampling; the candidates, weighted by how many
    vectors are nearest to each, are then reduced to K by greedy k-means++. Rounds go on while there are fewer than K.

    Args:
        x: (N, D) float32, N >= K >= 1.
        block_bytes: memory for the distances of that last step; N x 36 and K x D x 20 bytes are taken beside it.

    Source: Bahmani et al. 2012, arXiv:1203.6402, algorithm 2.
    """
    chosen = rng.integers(len(x), size=1)
    # By vector: the candidate that is nearest to it, and the squared distance to that.
    owner, nearest = np.zeros(len(x), np.int32), find_nearest(x, x[chosen], spherical=False, device=device)[1]
    nearest[chosen] = 0
    rounds = 0
    while nearest.any() and (rounds < ROUNDS or len(chosen) < num_clusters):
        chance = nearest * (OVERSAMPLING * num_clusters / nearest.sum(dtype=np.float64))
        drawn = np.flatnonzero(rng.random(len(x)) < chance)
        rounds += 1
        if len(drawn) == 0:
            continue
        own, distance = find_nearest(x, x[drawn], spherical=False, device=device)
        own[drawn], distance[drawn] = np.arange(len(drawn)), 0  # rounding must not let one be drawn again
        closer = distance < nearest
        closer[drawn] = True
        owner[closer], nearest[closer] = own[closer] + len(chosen), distance[closer]
        chosen = np.concatenate([chosen, drawn])
    if len(chosen) <= num_clusters:
        return np.concatenate([chosen, _draw_rest(len(x), chosen, num_clusters, rng)]).astype(np.int64)
    weights = np.bincount(owner, minlength=len(chosen)).astype(np.float32)
    kept = seed_kmeans(x[chosen], num_clusters, rng=rng, weights=weights, block_bytes=block_bytes)
    return chosen[kept]


def _num_candidates(num_clusters: int) -> int:
    """Candidates of one step of greedy k-means++."""
    return 2 + int(log(num_clusters)) if num_clusters <= FEW_CLUSTERS else MANY_CANDIDATES


def _potentials(trials: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """(C,) float64: the inertia that each candidate would leave, of (C, N) squared distances."""
    if weights is None:
        return trials.sum(axis=1, dtype=np.float64)
    return np.einsum("cn,n->c", trials, weights, dtype=np.float64)


def _draw(weights: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """(num,) rows, with repeats, each with probability proportional to its weight."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    rows = np.searchsorted(cumulative, rng.random(num) * cumulative[-1], side="right")
    return np.minimum(rows, len(weights) - 1)


def _draw_rest(
    num_rows: int, chosen: list[int] | np.ndarray, num_clusters: int, rng: np.random.Generator
) -> np.ndarray:
    """Rows for the clusters that are left when every vector equals a chosen one."""
    others = np.setdiff1d(np.arange(num_rows), chosen)
    return rng.choice(others, num_clusters - len(chosen), replace=False)


def _squared_distances(x: np.ndarray, norms: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P, N) float32 squared L2 distances of `x[rows]` to all of `x`; exactly 0 to itself."""
    proposed = -2 * x[rows]
    distances = np.empty((len(rows), len(x)), np.float32)

    def fill(columns: slice) -> None:
        block = proposed @ x[columns].T
        block += norms[columns]
        block += norms[rows][:, None]
        np.maximum(block, 0, out=distances[:, columns])

    in_threads(fill, blocks(len(x), BLOCK_ROWS))
    distances[np.arange(len(rows)), rows] = 0  # rounding must not let a chosen row be drawn again
    return distances
