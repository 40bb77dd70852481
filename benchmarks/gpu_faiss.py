"""The part `faiss` of `benchmarks.gpu`: what searches and clusters on a GPU, beside brute force on the CPU.

Products are rounded otherwise on a GPU, so of two candidates that are nearly equally near it may choose the other.
The checks therefore compare values, never ids: how near the chosen ones are, and how far from the threshold a pair
lies that one side has and the other lacks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.figures import Figure
from benchmarks.gpu import Findings, median_seconds
from curate.ops.clusters.coarse import CoarseLists, nearest_lists
from curate.ops.clusters.faiss_seam import load_faiss
from curate.ops.clusters.kmeans import fit_kmeans, run_lloyd
from curate.ops.clusters.nearest import find_nearest
from curate.ops.search.knn import find_neighbors, join_within
from curate.ops.vectors import normalize

PRODUCT_TOLERANCE = 1e-5
"""Of a float32 product of unit vectors, whose sums two libraries round in different orders."""
EXACT_TOLERANCE = 1e-6
"""Of a cosine that is computed again for its pair alone, as `find_neighbors` does on every device."""
INERTIA_TOLERANCE = 1e-3
"""Relative, after some iterations from equal centroids: near ties move vectors between clusters."""
SEEDED_TOLERANCE = 0.02
"""Relative, of two fits that draw their own seeds."""
THRESHOLD = 0.7
"""Least cosine of a pair in the join."""
COSINES = (0.6, 0.99)
"""Of a planted copy and its original, uniformly."""
CHECKED_ROWS, CHECKED_LISTS, CHECKED_QUERIES = 50_000, 20, 100
"""Vectors, lists and queries of which the results are computed again, one by one."""

Kind = Literal["cpu", "cuda"]


class Sizes(NamedTuple):
    """How much is searched."""

    vectors: int
    dim: int
    queries: int
    lists: int
    clusters: int
    clustered: int
    """Vectors that k-means clusters."""
    k: int = 10
    """Neighbors of a query."""
    probes: int = 4
    """Lists in which a query is searched."""
    iterations: int = 5
    """Of k-means."""


SMALL = Sizes(vectors=4000, dim=32, queries=200, lists=20, clusters=50, clustered=2000)
LARGE = Sizes(vectors=1_000_000, dim=256, queries=2000, lists=1000, clusters=2000, clustered=250_000)


class Data(NamedTuple):
    """Vectors with planted neighbors, and what they are compared with."""

    base: np.ndarray
    """(N, D) float32, unit L2; the second half are copies of the first, row by row"""
    queries: np.ndarray
    """(Q, D) float32, unit L2"""
    centroids: np.ndarray
    """(L, D) float32, unit L2, of the inverted lists"""


def examine(findings: Findings, sizes: Sizes | None = None) -> None:
    """Check and measure everything; large on a GPU, small without one unless `sizes` says otherwise."""
    sizes = sizes or (LARGE if findings.on_gpu else SMALL)
    kind: Kind = "cuda" if findings.on_gpu else "cpu"
    data = make_data(sizes)
    with findings.guarded("nearest centroids"):
        _examine_nearest(findings, data, kind)
    with findings.guarded("flat search"):
        _examine_flat(findings, data, sizes, kind)
    with findings.guarded("inverted lists"):
        _examine_lists(findings, data, sizes, kind)
    with findings.guarded("k-means"):
        _examine_kmeans(findings, data, sizes, kind)


def make_data(sizes: Sizes) -> Data:
    """The same data at every call."""
    rng = np.random.default_rng(0)
    half = sizes.vectors // 2
    originals = _unit_noise(rng, half, sizes.dim)
    noise = _unit_noise(rng, half, sizes.dim)
    noise = normalize(noise - np.einsum("nd,nd->n", noise, originals)[:, None] * originals)
    cosine = rng.uniform(*COSINES, half).astype(np.float32)[:, None]
    base = np.concatenate([originals, cosine * originals + np.sqrt(1 - cosine**2) * noise])
    queries = normalize(base[rng.choice(len(base), sizes.queries)] + 0.5 * _unit_noise(rng, sizes.queries, sizes.dim))
    return Data(base, queries, base[rng.choice(half, sizes.lists, replace=False)])


def _unit_noise(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    return normalize(rng.standard_normal((num, dim), np.float32))


def _examine_nearest(findings: Findings, data: Data, kind: Kind) -> None:
    """`find_nearest`, by which vectors are assigned to clusters."""
    for spherical, name in ((True, "by inner product"), (False, "by L2")):
        findings.check(
            f"nearest centroid {name}",
            partial(_nearest_difference, data, spherical=spherical, kind=kind),
            tolerance=PRODUCT_TOLERANCE,
        )
        search = partial(find_nearest, data.base, data.centroids, spherical=spherical)
        _compare(
            findings,
            f"nearest of {len(data.centroids):,} centroids {name}",
            partial(search, device=kind),
            search,
            partial(_faiss_nearest, data.base, data.centroids, spherical),
            count=len(data.base),
        )


def _compare(
    findings: Findings,
    name: str,
    ours: Callable[[], object],
    on_cpu: Callable[[], object],
    by_faiss: Callable[[], object],
    *,
    count: int,
) -> None:
    """The rate of `ours` beside that of the CPU where there is a GPU, else beside that of faiss."""
    peer, other = ("the CPU", on_cpu) if findings.on_gpu else ("faiss", by_faiss)

    def figures() -> list[Figure]:
        rates = [count / median_seconds(work, findings.device, repeats=1) for work in (ours, other)]
        return [Figure(name, rates[0], "vectors/s", peer, rates[1])]

    findings.measure(name, figures)


def _nearest_difference(data: Data, *, spherical: bool, kind: Kind) -> float:
    """Largest difference of the score, and of what the chosen centroid truly has, from faiss's on the CPU."""
    chosen, score = find_nearest(data.base, data.centroids, spherical=spherical, device=kind)
    wanted = _faiss_nearest(data.base, data.centroids, spherical)
    x, own = data.base[:CHECKED_ROWS], data.centroids[chosen[:CHECKED_ROWS]].astype(np.float64)
    true = np.einsum("nd,nd->n", x, own) if spherical else ((x - own) ** 2).sum(axis=1)
    return max(_largest(score, wanted), _largest(true, wanted[:CHECKED_ROWS]))


def _faiss_nearest(x: np.ndarray, centroids: np.ndarray, spherical: bool) -> np.ndarray:
    """(N,) float32 inner product with, or squared L2 distance from, the nearest centroid, by faiss on the CPU."""
    faiss = load_faiss()
    metric = faiss.METRIC_INNER_PRODUCT if spherical else faiss.METRIC_L2
    score: np.ndarray = faiss.knn(x, centroids, 1, metric=metric)[0][:, 0]
    return score


def _examine_flat(findings: Findings, data: Data, sizes: Sizes, kind: Kind) -> None:
    """`find_neighbors` without a threshold: the nearest of all vectors."""
    findings.check(
        f"flat search, {sizes.k} nearest",
        lambda: _largest(_search_flat(data, sizes.k, kind), _faiss_flat(data, sizes.k)),
        tolerance=PRODUCT_TOLERANCE,
    )
    _compare(
        findings,
        f"flat search, {sizes.k} nearest of {len(data.base):,}",
        partial(_search_flat, data, sizes.k, kind),
        partial(_search_flat, data, sizes.k, "cpu"),
        partial(_faiss_flat, data, sizes.k),
        count=sizes.queries,
    )


def _search_flat(data: Data, k: int, kind: Kind) -> np.ndarray:
    """(Q, k) float32, the similarities of each query's nearest vectors, falling."""
    found = find_neighbors(
        data.queries,
        data.base,
        query_ids=np.arange(len(data.queries)) + len(data.base),
        base_ids=np.arange(len(data.base)),
        threshold=-np.inf,
        max_neighbors=k,
        device=kind,
    )
    return found.similarity.reshape(len(data.queries), k)


def _faiss_flat(data: Data, k: int) -> np.ndarray:
    """The same by faiss on the CPU."""
    faiss = load_faiss()
    similarity: np.ndarray = faiss.knn(data.queries, data.base, k, metric=faiss.METRIC_INNER_PRODUCT)[0]
    return similarity


def _examine_lists(findings: Findings, data: Data, sizes: Sizes, kind: Kind) -> None:
    """Inverted lists: which are nearest, the search in those of a query, the join within each."""
    lists = CoarseLists.flat(data.centroids)
    member = nearest_lists(data.base, lists, 1)[:, 0]
    rows = [np.flatnonzero(member == number) for number in range(sizes.lists)]
    probed = nearest_lists(data.queries, lists, sizes.probes)
    search = partial(_search_lists, data, rows, probed, sizes.k)
    brute = partial(_brute_lists, data, member, probed[:CHECKED_QUERIES], sizes.k)
    findings.check(
        "nearest lists", lambda: _lists_difference(data, lists, sizes.probes, kind), tolerance=PRODUCT_TOLERANCE
    )
    findings.check(
        f"search in {sizes.probes} lists",
        lambda: _largest(search(kind)[:CHECKED_QUERIES], brute()),
        tolerance=PRODUCT_TOLERANCE,
    )
    findings.check(
        "join within lists", lambda: _join_difference(data, rows[:CHECKED_LISTS], kind), tolerance=EXACT_TOLERANCE
    )
    index = _faiss_lists(data)
    by_faiss = partial(_search_index, index, data.queries, sizes.k, sizes.probes)
    name = f"search in {sizes.probes} of {sizes.lists:,} lists"
    _compare(findings, name, partial(search, kind), partial(search, "cpu"), by_faiss, count=sizes.queries)
    join = partial(_join_lists, data, rows)
    name, looked = f"join within {sizes.lists:,} lists", partial(_join_by_faiss, data, rows)
    _compare(findings, name, partial(join, kind), partial(join, "cpu"), looked, count=sizes.vectors)
    if findings.on_gpu:
        findings.measure("faiss's lists on the GPU", lambda: [_faiss_on_gpu(findings, index, by_faiss, data, sizes)])


def _lists_difference(data: Data, lists: CoarseLists, probes: int, kind: Kind) -> float:
    """How far the inner products of the chosen lists lie from the largest ones."""
    products = data.queries.astype(np.float64) @ lists.centroids.T.astype(np.float64)
    chosen = nearest_lists(data.queries, lists, probes, device=kind)
    best = -np.sort(-products, axis=1)[:, :probes]
    return _largest(np.take_along_axis(products, chosen.astype(np.int64), axis=1), best)


def _join_lists(data: Data, rows: list[np.ndarray], kind: Kind) -> list[Any]:
    """The edges within each list."""
    return [
        join_within(data.base[members], members, threshold=THRESHOLD, max_neighbors=None, device=kind)
        for members in rows
    ]


def _join_by_faiss(data: Data, rows: list[np.ndarray]) -> list[Any]:
    """The same by a range search of faiss on the CPU in each list."""
    faiss, found = load_faiss(), []
    for members in rows:
        index = faiss.IndexFlatIP(data.base.shape[1])
        index.add(data.base[members])
        found.append(index.range_search(data.base[members], THRESHOLD))
    return found


def _join_difference(data: Data, rows: list[np.ndarray], kind: Kind) -> float:
    """Largest error of a similarity, and distance from the threshold of a pair on which brute force disagrees."""
    worst = 0.0
    for members, edges in zip(rows, _join_lists(data, rows, kind), strict=True):
        cosine = data.base[members].astype(np.float64) @ data.base[members].T.astype(np.float64)
        place = np.searchsorted(members, edges.query_ids), np.searchsorted(members, edges.image_ids)
        found = np.zeros(cosine.shape, bool)
        found[place] = True
        wanted = (cosine >= THRESHOLD) & ~np.eye(len(members), dtype=bool)
        worst = max(worst, _largest(edges.similarity, cosine[place]), _largest(cosine[found != wanted], THRESHOLD))
    return worst


def _search_lists(data: Data, rows: list[np.ndarray], probed: np.ndarray, k: int, kind: Kind) -> np.ndarray:
    """(Q, k) float32, the similarities of each query's nearest vectors in its lists, falling; -inf where there are
    fewer."""
    queries, similarities = [], []
    for number, members in enumerate(rows):
        asking = np.flatnonzero((probed == number).any(axis=1))
        if len(asking) and len(members):
            found = find_neighbors(
                data.queries[asking],
                data.base[members],
                query_ids=asking + len(data.base),
                base_ids=members,
                threshold=-np.inf,
                max_neighbors=k,
                device=kind,
            )
            queries.append(found.query_ids - len(data.base))
            similarities.append(found.similarity)
    query, similarity = np.concatenate(queries), np.concatenate(similarities)
    order = np.lexsort((-similarity, query))
    query, similarity = query[order], similarity[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    best = np.full((len(data.queries), k), -np.inf, np.float32)
    best[query[rank < k], rank[rank < k]] = similarity[rank < k]
    return best


def _brute_lists(data: Data, member: np.ndarray, probed: np.ndarray, k: int) -> np.ndarray:
    """The same of the first queries, as many as `probed` has rows, by one product for each."""
    best = np.full((len(probed), k), -np.inf, np.float32)
    for number, (query, lists) in enumerate(zip(data.queries[: len(probed)], probed, strict=True)):
        products = np.sort(data.base[np.isin(member, lists)] @ query)[::-1][:k]
        best[number, : len(products)] = products
    return best


def _faiss_lists(data: Data) -> Any:
    """A faiss index of the same lists, on the CPU."""
    faiss = load_faiss()
    dim = data.base.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(data.centroids)
    index = faiss.IndexIVFFlat(quantizer, dim, len(data.centroids), faiss.METRIC_INNER_PRODUCT)
    index.add(data.base)
    return index


def _search_index(index: Any, queries: np.ndarray, k: int, probes: int) -> np.ndarray:
    index.nprobe = probes
    similarity: np.ndarray = index.search(queries, k)[0]
    return similarity


def _faiss_on_gpu(findings: Findings, index: Any, on_cpu: Callable[[], object], data: Data, sizes: Sizes) -> Figure:
    """faiss's own inverted lists, copied to the GPU, beside the same on the CPU."""
    faiss = load_faiss()
    copied = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    on_gpu = partial(_search_index, copied, data.queries, sizes.k, sizes.probes)
    rates = [sizes.queries / median_seconds(work, findings.device, repeats=1) for work in (on_gpu, on_cpu)]
    return Figure("faiss IVFFlat on the GPU", rates[0], "vectors/s", "on the CPU", rates[1])


def _examine_kmeans(findings: Findings, data: Data, sizes: Sizes, kind: Kind) -> None:
    """Lloyd's iterations from equal centroids beside faiss's, and whole fits beside those of the CPU."""
    x = data.base[:: max(1, len(data.base) // sizes.clustered)][: sizes.clustered]
    seeds = x[np.random.default_rng(1).choice(len(x), sizes.clusters, replace=False)]
    lloyd = partial(run_lloyd, x, seeds, num_iterations=sizes.iterations, spherical=False, tolerance=0)
    fit = partial(fit_kmeans, x, sizes.clusters, seed=0, num_iterations=sizes.iterations, seeding="parallel")
    wanted = partial(_faiss_kmeans, x, seeds, sizes.iterations)
    findings.check(
        f"k-means, {sizes.iterations} iterations from equal centroids",
        lambda: _relative(_inertia(x, lloyd(device=kind).centroids), _inertia(x, wanted())),
        tolerance=INERTIA_TOLERANCE,
    )
    findings.check(
        "k-means|| and its iterations",
        lambda: _relative(fit(device=kind).inertia, fit(seed=1).inertia),  # other seeds: the CPU too has a peer
        tolerance=SEEDED_TOLERANCE,
    )
    name = f"k-means of {sizes.clusters:,} clusters, {sizes.iterations} iterations"
    _compare(findings, name, partial(lloyd, device=kind), lloyd, wanted, count=len(x) * sizes.iterations)


def _faiss_kmeans(x: np.ndarray, seeds: np.ndarray, iterations: int) -> np.ndarray:
    """Centroids after some iterations of faiss's k-means on the CPU."""
    faiss = load_faiss()
    kmeans = faiss.Kmeans(
        x.shape[1], len(seeds), niter=iterations, min_points_per_centroid=1, max_points_per_centroid=len(x)
    )
    kmeans.train(x, init_centroids=seeds)
    centroids: np.ndarray = kmeans.centroids
    return centroids


def _inertia(x: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared distances from the nearest centroid, by faiss on the CPU for all alike."""
    return float(_faiss_nearest(x, np.ascontiguousarray(centroids), False).sum(dtype=np.float64))


def _relative(found: float, wanted: float) -> float:
    return abs(found - wanted) / wanted


def _largest(found: np.ndarray, wanted: np.ndarray | float) -> float:
    """The largest difference of two values; infinity where one alone is not finite, 0 where there are none."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(np.where(found == wanted, 0, found - wanted))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
