"""Choosing pool images that resemble curated ones: nearest to a query, or in a cluster that queries hit."""

from typing import Literal, NamedTuple

import numpy as np

from curate.ops.knn import Edges, merge_top_k, rank_in_group
from curate.ops.sampling import cap, water_fill


class SampleRetrieval(NamedTuple):
    """What sample-based retrieval chose."""

    edges: Edges
    """chosen pairs, at most k per query"""
    image_ids: np.ndarray
    """(M,) int64, ascending: the images chosen, once each"""
    multiplicity: np.ndarray
    """(M,) int64, how many queries chose each; all 1 when refilled"""


def retrieve_by_sample(edges: Edges, k: int, *, refill: bool) -> SampleRetrieval:
    """The `k` nearest pool images of each query.

    Args:
        edges: candidates per query, (curated, pool) pairs; more than k per query where refilling is wanted.
        k: images per query, >= 1.
        refill: False: an image may serve several queries, its multiplicity tells. True: it serves the query
            most similar to it (ties: smaller query id), and the others go on to their next candidates;
            queries whose candidates run out stay below k.

    Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.4; whether it refilled is not said there.
    """
    if k < 1:
        raise ValueError(f"k={k}: at least 1 image per query is needed")
    candidates = merge_top_k(edges, None)
    chosen = _match(candidates, k) if refill else merge_top_k(candidates, k)
    image_ids, multiplicity = np.unique(chosen.image_ids, return_counts=True)
    return SampleRetrieval(chosen, image_ids, multiplicity)


def retrieve_by_cluster(
    query_cluster: np.ndarray,
    pool_cluster: np.ndarray,
    pool_similarity: np.ndarray,
    *,
    min_queries: int = 3,
    per_cluster: int = 10_000,
    max_per_set: int = 1_000_000,
    order: Literal["random", "nearest"] = "random",
    seed: int,
) -> np.ndarray:
    """Pool images from the clusters that the queries of one curated set hit.

    The caps apply in the paper's order: from every cluster with MORE than `min_queries` queries, up to
    `per_cluster` images; if these exceed `max_per_set`, the clusters are capped at a common level
    (`water_fill`), so that none is lost before the others.

    Args:
        query_cluster: (Q,) int, cluster of each curated image of the set.
        pool_cluster: (P,) int, cluster of each pool image.
        pool_similarity: (P,) float32, cosine of each pool image to its centroid; decides for nearest.
        min_queries: a cluster needs strictly more queries than this.
        per_cluster: images from one cluster at most.
        max_per_set: images in all at most.
        order: which images of a cluster come first; nearest: closest to the centroid, ties by row.
        seed: of the random order.

    Returns:
        (M,) int64, ascending rows of the pool.

    Raises:
        ValueError: a negative cap.

    Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.4.
    """
    num_clusters = 1 + max(int(query_cluster.max(initial=-1)), int(pool_cluster.max(initial=-1)))
    wanted = np.bincount(query_cluster, minlength=num_clusters) > min_queries
    sizes = np.where(wanted, np.bincount(pool_cluster, minlength=num_clusters), 0)
    draws = water_fill(cap(sizes, per_cluster), max_per_set)
    if order == "nearest":
        priority = -pool_similarity
    else:
        priority = np.random.default_rng(seed).permutation(len(pool_cluster))
    by_cluster = np.lexsort((priority, pool_cluster))
    cluster = pool_cluster[by_cluster]
    return np.sort(by_cluster[rank_in_group(cluster) < draws[cluster]])


def _match(candidates: Edges, k: int) -> Edges:
    """Give each image to one query and each query up to `k` images, the strongest pairs first.

    Queries ask for their k best remaining candidates, images refuse all but their best query, until nobody
    is refused. With one order of all pairs this stable matching is what going through the pairs from the
    strongest to the weakest gives, yet a round is a few sorts instead of a loop over pairs.
    """
    left = candidates
    while True:
        asked = np.flatnonzero(rank_in_group(left.query_ids) < k)
        asking = left.take(asked)
        by_image = np.lexsort((asking.query_ids, -asking.similarity, asking.image_ids))
        refused = asked[by_image[rank_in_group(asking.image_ids[by_image]) > 0]]
        if len(refused) == 0:
            return asking
        keep = np.ones(left.num_edges, bool)
        keep[refused] = False
        left = left.take(keep)
