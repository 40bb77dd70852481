"""Components and verdicts of streamed edges, beside scipy's components of the same edges in one matrix."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import typer
from scipy.sparse import coo_array, csgraph

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.ops.copies.components import DisjointSet
from curate.ops.copies.duplicates import Chains, deduplicate
from curate.ops.copies.graph import AcceptedImages, CatalogParts, CopyEdges

ROWS_PER_PART = 65_536
EDGES_AT_ONCE = 1 << 20
SEED = 0


def bench_components(num_images: int, *, edges_per_image: float = 1.0) -> list[Figure]:
    """Measure, each in a process of its own; the labels of all are compared.

    Args:
        num_images: nodes, all of the pool.
        edges_per_image: pairs for each; a third of them between random images, the others between near ones.
    """
    num_edges = int(edges_per_image * num_images)
    runs = {f: measured(f, num_images, num_edges) for f in (_idle, _streamed, _scipy, _verdicts, _split)}
    idle = runs[_idle].peak_bytes
    ours, peer, whole, split = (runs[f] for f in (_streamed, _scipy, _verdicts, _split))
    if not ours.result == peer.result == whole.result:
        raise AssertionError("components differ")
    name = f"{num_images:,} images, {num_edges:,} edges"
    return [
        _rate(f"components: {name}", num_images, ours, peer),
        _memory("components: memory", num_images, ours, peer, idle),
        Figure(
            f"verdicts: {name}",
            num_images / whole.seconds,
            "images/s",
            cpu_seconds=whole.cpu_seconds,
            peak_bytes=whole.peak_bytes,
        ),
        Figure("verdicts: memory", (whole.peak_bytes - idle) / num_images, "bytes/image", better="lower"),
        Figure(
            f"chains split: {name}",
            num_images / split.seconds,
            "images/s",
            cpu_seconds=split.cpu_seconds,
            peak_bytes=split.peak_bytes,
            note=f"{split.result[0] - whole.result[0]:,} images more stay",
        ),
        Figure("chains split: memory", (split.peak_bytes - idle) / num_images, "bytes/image", better="lower"),
    ]


def stream(num_images: int, num_edges: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same batches of edges at every call."""
    for number, start in enumerate(range(0, num_edges, EDGES_AT_ONCE)):
        rng = np.random.default_rng([SEED, number])
        size = min(EDGES_AT_ONCE, num_edges - start)
        rows = rng.integers(0, num_images, size)
        near = np.minimum(rows + rng.integers(1, 50, size), num_images - 1)
        yield rows, np.where(rng.random(size) < 1 / 3, rng.integers(0, num_images, size), near)


def _idle(num_images: int, num_edges: int) -> None:
    """What a process takes that only holds one batch."""
    next(stream(num_images, EDGES_AT_ONCE))


def _streamed(num_images: int, num_edges: int) -> tuple[int, int]:
    forest = DisjointSet(num_images)
    for rows, cols in stream(num_images, num_edges):
        forest.union(rows, cols)
    return _summary(forest.roots())


def _scipy(num_images: int, num_edges: int) -> tuple[int, int]:
    rows, cols = (np.concatenate(column) for column in zip(*stream(num_images, num_edges), strict=True))
    graph = coo_array((np.ones(len(rows), np.int8), (rows, cols)), (num_images, num_images))
    _, labels = csgraph.connected_components(graph, directed=False)
    return _summary(labels)


def _summary(labels: np.ndarray) -> tuple[int, int]:
    """How many components there are, and the images of the largest."""
    sizes = np.bincount(labels)
    return int(np.count_nonzero(sizes)), int(sizes.max())


def _verdicts(num_images: int, num_edges: int) -> tuple[int, int]:
    """The whole of Deduplicate, tables aside; components are left as they are."""
    return _judged(num_images, num_edges, "join")


def _split(num_images: int, num_edges: int) -> tuple[int, int]:
    """The same as it is by default."""
    return _judged(num_images, num_edges, "split")


def _judged(num_images: int, num_edges: int, chains: Chains) -> tuple[int, int]:
    rows = np.full(-(-num_images // ROWS_PER_PART), ROWS_PER_PART)
    rows[-1] = num_images - ROWS_PER_PART * (len(rows) - 1)
    parts = CatalogParts(np.zeros(len(rows), np.int8), np.zeros(len(rows), np.int32), rows)

    def images() -> Iterator[AcceptedImages]:
        for part, count in enumerate(rows.tolist()):
            ids = np.int64(part) << 32 | np.arange(count)
            yield AcceptedImages(ids, np.random.default_rng([SEED, part, 1]).integers(1, 1 << 24, count))

    def edges() -> Iterator[CopyEdges]:
        for number, pair in enumerate(stream(num_images, num_edges)):
            a, b = (np.left_shift(x // ROWS_PER_PART, 32) | (x % ROWS_PER_PART) for x in pair)
            similarity = np.random.default_rng([SEED, number, 2]).random(len(a), np.float32)
            yield CopyEdges(a, b, similarity, np.ones(len(a), np.int8))

    kept = largest = 0
    for judged in deduplicate(parts, images, edges, chains=chains):
        kept += int((judged.partner_ids < 0).sum())
        largest = max(largest, int(judged.component_size.max()))
    return kept, largest


def _rate(name: str, count: int, ours: Measured, peer: Measured) -> Figure:
    return Figure(
        name,
        count / ours.seconds,
        "images/s",
        "scipy, all edges in memory",
        count / peer.seconds,
        cpu_seconds=ours.cpu_seconds,
        peak_bytes=ours.peak_bytes,
    )


def _memory(name: str, count: int, ours: Measured, peer: Measured, idle: int) -> Figure:
    return Figure(
        name,
        (ours.peak_bytes - idle) / count,
        "bytes/image",
        "scipy",
        (peer.peak_bytes - idle) / count,
        better="lower",
        note="beside one batch of edges",
    )


def command(
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 10_000_000,
    edges: Annotated[float, typer.Option(help="pairs for each image")] = 1.0,
    json_: Json = False,
) -> None:
    """Components and verdicts of streamed pairs, beside scipy: images per second, memory an image."""
    show(bench_components(num_images, edges_per_image=edges), json_)
