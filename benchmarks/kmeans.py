"""k-means beside faiss and scikit-learn: time, memory, inertia, and what balanced sampling over the tree gives.

The tree is judged on a mixture with known concepts: 20,000 vectors of 256 dims around 500 concepts of Zipf sizes.
A tenth is drawn evenly over the tree; the normalized entropy of the concepts drawn tells how well the rare ones are
found. Inertias are compared on embeddings of real pictures, each the best of three seeds.
"""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from threadpoolctl import threadpool_limits

from benchmarks.copies import BATCH, PDQ_SPEC, PHOTOS, load_pictures
from benchmarks.figures import Figure, Measured, cpu_seconds, measured, show
from benchmarks.trees import draw_evenly, fit_tree, parents_of
from curate.cli.arguments import Json
from curate.engine.threads import set_threads
from curate.models.backbones.load import load_backbone
from curate.ops.clusters.assign import assign
from curate.ops.clusters.hierarchy import LevelFit
from curate.ops.clusters.kmeans import Sums, fit_kmeans, move_centroids, sum_by_nearest
from curate.ops.clusters.seeding import Seeding, choose_seeds
from curate.ops.entropy import normalized_entropy
from curate.ops.images.hashes import pdq
from curate.ops.images.preprocess import preprocess
from curate.ops.vectors import normalize, to_float32
from curate.samples.mnist import load_mnist5k

POINTS_PER_CENTROID = (5, 3, 2)
"""r of the tree's levels, leaves first."""
PUBLIC = "the public implementation, unseeded, 10 runs: mean 0.72, worst 0.61; 21 times faiss"


class Mixture(NamedTuple):
    """Vectors around concepts of Zipf sizes."""

    x: np.ndarray
    """(N, D) float32, unit L2"""
    concept: np.ndarray
    """(N,) int64"""
    num_concepts: int


def make_mixture(num_vectors: int, *, num_concepts: int = 500, dim: int = 256, seed: int = 0) -> Mixture:
    """Concepts are random directions, their sizes proportional to rank^-1.2; noise of 0.06 in each dimension."""
    rng = np.random.default_rng(seed)
    concepts = normalize(rng.normal(size=(num_concepts, dim)))
    share = np.arange(1, num_concepts + 1) ** -1.2
    concept = rng.choice(num_concepts, num_vectors, p=share / share.sum())
    noise = 0.06 * rng.normal(size=(num_vectors, dim)).astype(np.float32)
    return Mixture(normalize(concepts[concept] + noise), concept, num_concepts)


def bench_kmeans(
    *,
    num_vectors: int = 20_000,
    levels: Sequence[int] = (1000, 100, 20),
    num_seeds: int = 10,
    num_photos: int = 338,
    threads: int = 2,
) -> list[Figure]:
    """All figures; the seeds' runs of the peers alternate, so that a busy machine slows both."""
    set_threads(threads)
    mixture = make_mixture(num_vectors)
    with threadpool_limits(threads):  # scikit-learn's own threads too
        return [
            *compare_trees(mixture, levels, num_seeds=num_seeds, threads=threads),
            *compare_flat(mixture, levels[0], num_seeds=min(3, num_seeds), threads=threads),
            *compare_seedings(mixture, levels[0], num_seeds=min(3, num_seeds)),
            *compare_parts(mixture, levels[0]),
            *compare_inertias(real_embeddings(num_photos)),
        ]


def compare_trees(mixture: Mixture, levels: Sequence[int], *, num_seeds: int, threads: int) -> list[Figure]:
    """Trees by cosine and by L2 beside one flat faiss.Kmeans of as many leaves: seconds and sampled entropy."""
    kinds: dict[str, Callable[..., np.ndarray]] = {"cosine": draw_by_cosine, "L2": draw_by_l2, "faiss": draw_by_faiss}
    seconds, entropies = _alternate(kinds, mixture, levels, num_seeds)
    costs = {name: measured(_with_threads, threads, draw, mixture, levels, 0) for name, draw in kinds.items()}
    peer = f"flat faiss.Kmeans, {levels[0]:,} centroids, 20 iterations"
    pool = normalized_entropy(np.bincount(mixture.concept, minlength=mixture.num_concepts))
    figures = []
    for kind in ("cosine", "L2"):
        name, cost = f"tree {'/'.join(map(str, levels))} by {kind}", costs[kind]
        times = (median(seconds[kind]), median(seconds["faiss"]))
        cpu_ratio = cost.cpu_seconds / costs["faiss"].cpu_seconds
        ratios = (
            f"{times[0] / times[1]:.2f} times its time, {cpu_ratio:.2f} times its CPU seconds; "
            f"its peak {costs['faiss'].peak_bytes / 2**20:,.0f} MiB"
        )
        figures += [
            Figure(name, times[0], "s", peer, times[1], "lower", cost.cpu_seconds, cost.peak_bytes, ratios),
            Figure(
                f"{name}: entropy, mean of {num_seeds}", _mean(entropies[kind]), "", peer, _mean(entropies["faiss"])
            ),
            Figure(f"{name}: entropy, worst", min(entropies[kind]), "", peer, min(entropies["faiss"]), note=PUBLIC),
        ]
    return [*figures, Figure("entropy of the pool itself", pool, "")]


def _alternate(
    kinds: dict[str, Callable[..., np.ndarray]], mixture: Mixture, levels: Sequence[int], num_seeds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and normalized entropy of the concepts drawn, of every kind and seed."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    entropies: dict[str, list[float]] = {name: [] for name in kinds}
    for seed in range(num_seeds):
        for name, draw in kinds.items():
            spent, rows = _timed(draw, mixture, levels, seed)
            drawn = np.bincount(mixture.concept[rows], minlength=mixture.num_concepts)
            seconds[name].append(spent)
            entropies[name].append(normalized_entropy(drawn))
    return seconds, entropies


def draw_by_cosine(mixture: Mixture, levels: Sequence[int], seed: int) -> np.ndarray:
    """(N / 10,) rows, even over a tree of spherical k-means."""
    return _draw_from_tree(mixture.x, levels, LevelFit(seed=seed))


def draw_by_l2(mixture: Mixture, levels: Sequence[int], seed: int) -> np.ndarray:
    """(N / 10,) rows, even over a tree of k-means by L2 distance."""
    return _draw_from_tree(mixture.x, levels, LevelFit(seed=seed, spherical=False))


def _draw_from_tree(x: np.ndarray, levels: Sequence[int], how: LevelFit) -> np.ndarray:
    """(N / 10,) rows, even over the tree; the time of drawing is small beside that of fitting."""
    r = (*POINTS_PER_CENTROID, *POINTS_PER_CENTROID[-1:] * len(levels))[: len(levels)]
    tree = fit_tree(x, levels, points_per_centroid=r, how=how)
    leaf_ids, _ = assign(x, tree[0].centroids, spherical=how.spherical)
    return draw_evenly(leaf_ids, parents_of(tree), len(x) // 10, seed=how.seed)


def draw_by_faiss(mixture: Mixture, levels: Sequence[int], seed: int) -> np.ndarray:
    """(N / 10,) rows, even over flat clusters of faiss."""
    leaf_ids, _ = assign(mixture.x, _fit_faiss(mixture.x, levels[0], seed), spherical=False)
    return draw_evenly(leaf_ids, [], len(mixture.x) // 10, seed=seed)


def _fit_faiss(x: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    import faiss

    kmeans = faiss.Kmeans(
        x.shape[1], num_clusters, niter=20, seed=seed, min_points_per_centroid=1, max_points_per_centroid=len(x)
    )
    kmeans.train(x)
    return np.asarray(kmeans.centroids)


def compare_flat(mixture: Mixture, num_clusters: int, *, num_seeds: int, threads: int) -> list[Figure]:
    """One k-means of at most 20 iterations beside faiss and scikit-learn: seconds and inertia."""
    fits: dict[str, Callable[..., np.ndarray]] = {"ours": _fit_ours, "faiss": _fit_faiss, "sklearn": _fit_sklearn}
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    used: dict[str, list[float]] = {name: [] for name in fits}
    inertias: dict[str, list[float]] = {name: [] for name in fits}
    for seed in range(num_seeds):
        for name, fit in fits.items():
            before = cpu_seconds()
            spent, centroids = _timed(fit, mixture.x, num_clusters, seed)
            seconds[name].append(spent)
            used[name].append(cpu_seconds() - before)
            inertias[name].append(inertia_of(mixture.x, centroids))
    cost: Measured = measured(_with_threads, threads, _fit_ours, mixture.x, num_clusters, 0)
    figures = []
    for peer in ("faiss", "sklearn"):
        name = f"flat k-means, {num_clusters:,} clusters, 20 iterations"
        times, cpu = ([median(of[one]) for one in ("ours", peer)] for of in (seconds, used))
        figures += [
            Figure(name, times[0], "s", peer, times[1], "lower", cost.cpu_seconds, cost.peak_bytes),
            Figure(f"{name}: CPU seconds", cpu[0], "s", peer, cpu[1], "lower"),
            Figure(f"{name}: inertia", _mean(inertias["ours"]), "", peer, _mean(inertias[peer]), "lower"),
        ]
    return figures


def _fit_ours(x: np.ndarray, num_clusters: int, seed: int, seeding: Seeding = "auto") -> np.ndarray:
    return fit_kmeans(x, num_clusters, seed=seed, spherical=False, seeding=seeding).centroids


def _fit_sklearn(x: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    centroids: np.ndarray = KMeans(num_clusters, n_init=1, max_iter=20, random_state=seed).fit(x).cluster_centers_
    return centroids


def compare_seedings(mixture: Mixture, num_clusters: int, *, num_seeds: int) -> list[Figure]:
    """k-means|| beside greedy k-means++, each followed by the same Lloyd."""
    runs: dict[Seeding, list[tuple[float, Any]]] = {"parallel": [], "plusplus": []}
    for seed in range(num_seeds):
        for seeding, done in runs.items():
            done.append(_timed(_fit_ours, mixture.x, num_clusters, seed, seeding))
    seconds = {name: median(spent for spent, _ in done) for name, done in runs.items()}
    inertias = {name: _mean([inertia_of(mixture.x, c) for _, c in done]) for name, done in runs.items()}
    name, peer = f"k-means||, {num_clusters:,} clusters", "greedy k-means++"
    return [
        Figure(f"{name}: with Lloyd", seconds["parallel"], "s", peer, seconds["plusplus"], "lower"),
        Figure(f"{name}: inertia", inertias["parallel"], "", peer, inertias["plusplus"], "lower"),
    ]


def compare_parts(mixture: Mixture, num_clusters: int, *, num_parts: int = 16) -> list[Figure]:
    """Lloyd over sums of parts, as `FitClusters(fit="all")` adds them up, beside Lloyd over one array: same seeds."""
    seeds = mixture.x[choose_seeds(mixture.x, num_clusters, rng=np.random.default_rng(0))]
    seconds, whole = _timed(_lloyd, mixture.x, seeds, 1)
    seconds_of_parts, parts = _timed(_lloyd, mixture.x, seeds, num_parts)
    name = f"Lloyd over {num_parts} parts, 10 iterations"
    return [
        Figure(name, seconds_of_parts, "s", "one array", seconds, "lower"),
        Figure(f"{name}: largest difference of a coordinate", float(np.abs(whole - parts).max()), ""),
    ]


def _lloyd(x: np.ndarray, centroids: np.ndarray, num_parts: int) -> np.ndarray:
    for _ in range(10):
        found = Sums.zero(*centroids.shape)
        for part in np.array_split(x, num_parts):
            found.add(*sum_by_nearest(part, centroids, spherical=True))
        centroids = move_centroids(centroids, found, spherical=True)
    return centroids


def compare_inertias(embeddings: dict[str, tuple[np.ndarray, int]], *, num_seeds: int = 3) -> list[Figure]:
    """Best inertia of some seeds beside scikit-learn's, both run until they converge.

    Args:
        embeddings: name to vectors (N, D) float32 and the number of clusters.
    """
    return [
        Figure(
            f"inertia on {name}, {num_clusters} clusters, best of {num_seeds}",
            min(converged_inertia(x, num_clusters, seed) for seed in range(num_seeds)),
            "",
            "sklearn.KMeans",
            min(sklearn_inertia(x, num_clusters, seed) for seed in range(num_seeds)),
            "lower",
        )
        for name, (x, num_clusters) in embeddings.items()
    ]


def converged_inertia(x: np.ndarray, num_clusters: int, seed: int) -> float:
    """Inertia of our k-means by L2 distance, run until no centroid moves or 300 iterations are done."""
    return fit_kmeans(x, num_clusters, seed=seed, num_iterations=300, spherical=False, tolerance=0).inertia


def sklearn_inertia(x: np.ndarray, num_clusters: int, seed: int) -> float:
    """Inertia of scikit-learn's k-means, run until no centroid moves or 300 iterations are done."""
    from sklearn.cluster import KMeans

    return float(KMeans(num_clusters, n_init=1, random_state=seed, max_iter=300, tol=0).fit(x).inertia_)


def real_embeddings(num_photos: int) -> dict[str, tuple[np.ndarray, int]]:
    """Vectors of the bundled photographs and digits, each with a number of clusters."""
    pictures = load_pictures(PHOTOS, num_photos)
    hashes = np.array([np.frombuffer(pdq(picture)[0], np.uint8) for picture in pictures])
    found = {model: (_embed(model, pictures), 20) for model in ("lite0", "lite0-copy")}
    return {**found, "PDQ": (to_float32(hashes, PDQ_SPEC), 20), "MNIST-5k pixels": (mnist_pixels(), 50)}


def _embed(model: str, pictures: Sequence[Any]) -> np.ndarray:
    """(N, D) float32, unit L2"""
    backbone = load_backbone(model, device="cpu", precision="fp32")
    pixels = [preprocess(picture, backbone.preprocess) for picture in pictures]
    batches = [np.stack(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return np.concatenate([backbone.embed(torch.from_numpy(batch)).numpy() for batch in batches])


def mnist_pixels() -> np.ndarray:
    """(5000, 784) float32, 0..1"""
    images, _ = load_mnist5k()
    return images.reshape(len(images), -1).astype(np.float32) / 255


def inertia_of(x: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of squared L2 distances to the nearest centroid, by faiss, for all peers alike."""
    import faiss

    distances, _ = faiss.knn(x, np.ascontiguousarray(centroids, np.float32), 1)
    return float(distances.sum(dtype=np.float64))


def _with_threads(threads: int, function: Callable[..., Any], *args: Any) -> None:
    """For `measured`: what is returned is left out, so that only the work counts."""
    set_threads(threads)
    function(*args)


def _timed(function: Callable[..., np.ndarray], *args: Any) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def command(
    num_seeds: Annotated[int, typer.Option("--seeds", help="seeds of the trees")] = 10,
    threads: Annotated[int, typer.Option(help="threads of every peer")] = 2,
    json_: Json = False,
) -> None:
    """k-means and trees beside faiss and scikit-learn: time, memory, inertia, entropy of balanced samples."""
    show(bench_kmeans(num_seeds=num_seeds, threads=threads), json_)
