"""Choosing pool images that resemble curated ones: nearest to a query, or in a cluster that queries fall into."""

import numpy as np

from curate.ops.edges import Edges, merge_top_k, rank_in_group
from curate.ops.selection.sampling import cap, water_fill


def match_queries(edges: Edges, k: int) -> Edges:
    """Give each image to one query and each query up to `k` images, the strongest pairs first.

    An image is given to the query most similar to it (ties: the smaller query id), and the other queries go on to
    their next candidates; queries whose candidates run out stay below k. Going through all pairs from the strongest to
    the weakest would do it, in a loop over pairs. Here all queries ask at once for their k best remaining
    candidates, images refuse all but the best query that asks, and that repeats until nobody is refused. Since both
    sides rank pairs by the same similarity, this stable matching is the same, and a round is a few sorts.

    Args:
        edges: candidates, (curated, pool) pairs, more than k per query. All are in memory: about 120 bytes
            each with the sorts.
        k: images per query, >= 1.

    Returns:
        The pairs chosen, in order of (query_id, similarity descending, image_id).

    Raises:
        ValueError: `k` < 1.

    Source: the refilled reading of Oquab et al. 2023, arXiv:2304.07193, appendix A.4, which does not say whether
    collisions were refilled; the matching is deferred acceptance, Gale and Shapley 1962.
    """
    if k < 1:
        raise ValueError(f"k={k}: at least 1 image per query is needed")
    left = merge_top_k(edges, None)
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


def cluster_draws(
    num_queries: np.ndarray,
    sizes: np.ndarray,
    *,
    min_queries: int = 3,
    per_cluster: int = 10_000,
    max_per_set: int = 1_000_000,
) -> np.ndarray:
    """How many pool images to draw from each cluster for one curated set.

    The caps apply in the paper's order: from every cluster with MORE than `min_queries` queries, up to
    `per_cluster` images; if these exceed `max_per_set`, the clusters are capped at a common level
    (`water_fill`), so that none is lost before the others.

    Args:
        num_queries: (K,) int64, curated images of the set in each cluster.
        sizes: (K,) int64, pool images in each cluster.
        min_queries: a cluster is drawn from only if it has strictly more queries than this.
        per_cluster: most images from one cluster.
        max_per_set: most images in all.

    Returns:
        (K,) int64, at most `sizes`.

    Raises:
        ValueError: a negative cap.

    Source: Oquab et al. 2023, arXiv:2304.07193, appendix A.4.
    """
    wanted = np.where(num_queries > min_queries, sizes, 0)
    return water_fill(cap(wanted, per_cluster), max_per_set)
