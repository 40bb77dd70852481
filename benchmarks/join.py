"""The self-join of many vectors from disk, beside faiss's inverted lists with the same centers and probes.

The vectors are a seeded mixture of concepts, a tenth of them copies of others at cosines from below to far above the
threshold. The real stages fit the centers, send the vectors to their lists and join these, each step in a process of
its own; faiss holds everything in memory. Recall is that of all true pairs of a sample of queries, found by brute
force; a pair counts when either direction is found.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import typer

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, Scan, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import Done, Task
from curate.engine.threads import set_threads
from curate.ops.clusters.coarse import nearest_lists
from curate.ops.edges import Edges
from curate.ops.search.knn import find_neighbors
from curate.ops.vectors import VectorSpec, normalize, pack, to_float32, unpack
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.centroids import read_lists
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from curate.tables import CATALOG, embeddings_schema

ROWS_PER_PART = 65_536
ROWS_PER_CONCEPT = 5000
COPIES = 0.1
"""Share of the vectors that are copies."""
COSINES = (0.6, 0.99)
"""Of a copy and its original, uniformly."""
NOISE = 1.0
"""Length of the noise around a concept of length 1; two vectors of one concept then have cosines around 0.5."""
NUM_QUERIES = 2000
TRIED = 50_000
"""Queries on which the faster of faiss's two searches is chosen."""


class SyntheticCatalog(Scan):
    """A catalog of images that do not exist, all of the pool."""

    num_images: int

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """The columns of every catalog."""
        return CATALOG

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """Every part with its number."""
        for part, rows in enumerate(_part_rows(self.num_images)):
            ids = (part << 32) + np.arange(rows)
            text = pa.array(["synthetic"] * rows, pa.string())
            columns = {"image_id": ids, "source": text, "role": pa.array(["pool"] * rows), "uri": text, "key": text}
            missing = {field.name: pa.nulls(rows, field.type) for field in CATALOG if field.name not in columns}
            yield part, pa.table(columns | missing).select(CATALOG.names).cast(CATALOG)

    def summarize(self, table: Table, **inputs: Any) -> CatalogFigures:
        """The facts of the parts that other stages ask a catalog for."""
        return CatalogFigures.of_parts(("synthetic", "pool", rows) for rows in _part_rows(self.num_images))


class SyntheticVectors(Map):
    """Vectors around concepts, the last tenth of each part copies of vectors of another part."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}
    num_images: int
    dim: int
    seed: int | None = None

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """Of float16 embeddings."""
        return embeddings_schema(self.dim, dtype="float16", model="synthetic", weights="")

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        """The vectors of one part, the same at every call."""
        x = self._originals(part, len(catalog))
        num_parts = len(_part_rows(self.num_images))
        rng = np.random.default_rng([self.seed or 0, part, 1])
        copies = np.arange(len(x) - int(COPIES * len(x)), len(x))
        other = (7 * part + 3) % num_parts
        sources = self._originals(other, _part_rows(self.num_images)[other])
        chosen = sources[rng.integers(0, int((1 - COPIES) * len(sources)), len(copies))]
        noise = rng.standard_normal(chosen.shape, np.float32)
        noise -= np.einsum("nd,nd->n", noise, chosen)[:, None] * chosen
        cosine = rng.uniform(*COSINES, len(copies)).astype(np.float32)[:, None]
        x[copies] = cosine * chosen + np.sqrt(1 - cosine**2) * normalize(noise)
        ids = catalog["image_id"].combine_chunks()
        yield pa.RecordBatch.from_arrays([ids, pack(x.astype(np.float16))], schema=self.output_schema())

    def _originals(self, part: int, rows: int) -> np.ndarray:
        concepts = max(1, self.num_images // ROWS_PER_CONCEPT)
        rng = np.random.default_rng([self.seed or 0, part])
        which = rng.integers(0, concepts, rows)
        numbers, place = np.unique(which, return_inverse=True)  # a concept is known by its number: none is kept
        centers = np.stack([_concept(self.seed or 0, int(number), self.dim) for number in numbers])[place]
        noise = rng.standard_normal((rows, self.dim), np.float32) * np.float32(NOISE / np.sqrt(self.dim))
        return normalize(centers + noise)


def _concept(seed: int, number: int, dim: int) -> np.ndarray:
    """A unit vector of N(0, I), by its number."""
    x = np.random.Generator(np.random.Philox(key=[seed, number])).standard_normal(dim, np.float32)
    return x / np.linalg.norm(x)


class Answer(NamedTuple):
    """What a search found, as far as the sampled queries are concerned."""

    recall: float
    num_pairs: int
    """True pairs among the sampled queries."""


def bench_join(
    num_vectors: int,
    *,
    dim: int = 256,
    num_probes: int = 2,
    threshold: float = 0.7,
    seed: int = 0,
    threads: int,
    workdir: Path | None = None,
    with_faiss: bool = True,
) -> list[Figure]:
    """Measure every phase; the workdir is temporary unless given, and then reused."""
    with tempfile.TemporaryDirectory() as temporary:
        job = Job(str(workdir or temporary), num_vectors, dim, num_probes, threshold, seed, threads)
        phases = {name: measured(make, job, name) for name in ("vectors", "centroids", "neighbors")}
        assign = measured(assign_all, job)
        truth = measured(true_pairs, job).result
        own = measured(recall_of_table, job, truth).result
        peer = measured(faiss_search, job, truth) if with_faiss else None
        figures = _figures(job, phases, assign, own, peer)
        if workdir is None:
            shutil.rmtree(Path(temporary), ignore_errors=True)
    return figures


class Job(NamedTuple):
    """What all phases share."""

    root: str
    num_vectors: int
    dim: int
    num_probes: int
    threshold: float
    seed: int
    threads: int


def pipeline(job: Job) -> Pipeline:
    """The steps as a recipe declares them."""
    p = Pipeline(Store(job.root), seed=job.seed)
    catalog = p.add("catalog", SyntheticCatalog(num_images=job.num_vectors))
    vectors = p.add("vectors", SyntheticVectors(num_images=job.num_vectors, dim=job.dim), catalog=catalog)
    centers = p.add("centroids", FitLists(), embeddings=vectors, catalog=catalog)
    build = BuildLists(num_probes=min(job.num_probes, max(1, job.num_vectors // 1000)))
    search = FindNeighbors(threshold=job.threshold, heldout_threshold=job.threshold, lists=build)
    p.add("neighbors", search, embeddings=vectors, centroids=centers, catalog=catalog)
    return p


def make(job: Job, last: str) -> dict[str, float]:
    """Make the tables up to `last`, those before it being there; returns seconds of the tasks by their phase."""
    p = pipeline(job)
    names = [next(iter(step.stages)) for step in p.steps]
    del p.steps[names.index(last) + 1 :]
    clock = _Clock(job.threads)
    p.run(clock, Flags())
    return clock.seconds


class _Clock:
    """Tasks in this process, timed."""

    def __init__(self, threads: int) -> None:
        self.seconds: dict[str, float] = {}
        """Of all tasks of a phase; none before the first of them."""
        self._tasks = InProcess(threads)

    def run(self, root: str, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        """As `InProcess` does."""
        for found in self._tasks.run(root, tasks):
            for done in found:
                self.seconds[done.phase] = self.seconds.get(done.phase, 0.0) + done.seconds
            yield found


def assign_all(job: Job) -> None:
    """The arithmetic of the assignment alone: every vector's nearest lists."""
    set_threads(job.threads)
    store = Store(job.root)
    lists = read_lists(store.table("centroids"))
    for x in _scan(store.table("vectors")):
        nearest_lists(x[1], lists, min(job.num_probes, len(lists.centroids)))


def true_pairs(job: Job) -> Edges:
    """All pairs of sampled queries at or above the threshold, by brute force."""
    set_threads(job.threads)
    table = Store(job.root).table("vectors")
    rng = np.random.default_rng([job.seed, 2])
    parts = table.parts()
    wanted = rng.choice(job.num_vectors, min(NUM_QUERIES, job.num_vectors), replace=False)
    wanted = (wanted // ROWS_PER_PART << 32) + wanted % ROWS_PER_PART
    ids, vectors = [], []
    for part_ids, x in _scan(table):
        mine = np.isin(part_ids, wanted)
        ids.append(part_ids[mine])
        vectors.append(x[mine])
    query_ids, queries = np.concatenate(ids), np.concatenate(vectors)
    found = [
        find_neighbors(queries, x, query_ids=query_ids, base_ids=i, threshold=job.threshold, max_neighbors=None)
        for i, x in _scan(table)
    ]
    assert len(parts) == len(found)
    return Edges.concat(found)


def recall_of_table(job: Job, truth: Edges) -> Answer:
    """Share of the true pairs that the table of neighbors holds, in either direction."""
    keys = []
    for rows in Store(job.root).table("neighbors").scan(["query_id", "image_id"]):
        keys.append(_pair_keys(rows["query_id"].to_numpy(), rows["image_id"].to_numpy()))
    return _recall(truth, np.unique(np.concatenate(keys)))


def faiss_search(job: Job, truth: Edges) -> dict[str, Any]:
    """Seconds of building and searching an `IndexIVFFlat` of the same centers, and its recall."""
    import faiss

    set_threads(job.threads)
    faiss.omp_set_num_threads(job.threads)
    store = Store(job.root)
    lists = read_lists(store.table("centroids"))
    loaded = list(_scan(store.table("vectors")))
    ids, x = np.concatenate([i for i, _ in loaded]), np.concatenate([v for _, v in loaded])
    del loaded
    start = time.perf_counter()
    quantizer = faiss.IndexFlatIP(job.dim)
    quantizer.add(lists.centroids)
    index = faiss.IndexIVFFlat(quantizer, job.dim, len(lists.centroids), faiss.METRIC_INNER_PRODUCT)
    index.add(x)
    built = time.perf_counter() - start
    index.nprobe = min(job.num_probes, len(lists.centroids))
    some = x[: min(TRIED, len(x))]
    best = min(
        (_seconds(index.search, some, 8), "search"), (_seconds(index.range_search, some, job.threshold), "range")
    )
    start = time.perf_counter()
    query, image = _nearest(index, x, 8, job.threshold) if best[1] == "search" else _range(index, x, job.threshold)
    seconds = time.perf_counter() - start
    answer = _recall(truth, np.unique(_pair_keys(ids[query], ids[image])))
    return {"build": built, "search": seconds, "recall": answer.recall, "kind": best[1]}


def _seconds(search: Any, *args: Any) -> float:
    start = time.perf_counter()
    search(*args)
    return time.perf_counter() - start


def _nearest(index: Any, x: np.ndarray, k: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    similarity, found = index.search(x, k)
    rows, columns = np.nonzero(similarity >= threshold)
    return rows, found[rows, columns]


def _range(index: Any, x: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    limits, _, found = index.range_search(x, threshold)
    return np.repeat(np.arange(len(x)), np.diff(limits).astype(np.int64)), found


def _pair_keys(query: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(E,) int64, one number for each unordered pair of ids of less than 2**31 images."""
    low, high = np.minimum(query, image), np.maximum(query, image)
    return (_dense(low) << 31) | _dense(high)


def _dense(ids: np.ndarray) -> np.ndarray:
    dense: np.ndarray = (ids >> 32) * ROWS_PER_PART + (ids & 0xFFFFFFFF)
    return dense


def _recall(truth: Edges, found: np.ndarray) -> Answer:
    wanted = np.unique(_pair_keys(truth.query_ids, truth.image_ids))
    return Answer(float(np.isin(wanted, found).mean()), len(wanted))


def _scan(table: Table) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ids, vectors as float32) of each part."""
    for rows in table.scan():
        spec = VectorSpec.of(rows.schema)
        vectors, valid = unpack(rows["vector"], spec)
        yield rows["image_id"].to_numpy()[valid], to_float32(vectors, spec)


def _part_rows(num_images: int) -> list[int]:
    full, rest = divmod(num_images, ROWS_PER_PART)
    return [ROWS_PER_PART] * full + ([rest] if rest else [])


def _figures(
    job: Job, phases: dict[str, Measured], assign: Measured, own: Answer, peer: Measured | None
) -> list[Figure]:
    search, name = phases["neighbors"], f"{job.num_vectors:,} x {job.dim}"
    join = search.result["run"]
    searched = None if peer is None else float(peer.result["search"])
    beside = "" if peer is None else f"faiss IVFFlat {peer.result['kind']}, {job.num_probes} probes"

    def seconds(what: str, cost: Measured, value: float | None = None, *, compared: bool = False) -> Figure:
        return Figure(
            f"{name}: {what}",
            cost.seconds if value is None else value,
            "s",
            beside if compared else "",
            searched if compared else None,
            better="lower",
            cpu_seconds=cost.cpu_seconds,
            peak_bytes=cost.peak_bytes,
        )

    pairs = f"{own.num_pairs} true pairs of {NUM_QUERIES} queries"
    figures = [
        seconds("vectors written", phases["vectors"]),
        seconds("centers fitted", phases["centroids"]),
        seconds("vectors sent to their lists (assignment, shuffle, written)", search, search.result["scatter"]),
        seconds("join of each list (read, sorted)", search, join, compared=True),
        seconds("join and assignment", assign, join + assign.seconds, compared=True),
        Figure(f"{name}: join", 1e6 * join / job.num_vectors, "us a vector", better="lower"),
        Figure(f"{name}: lists and join", 1e6 * search.seconds / job.num_vectors, "us a vector", better="lower"),
    ]
    if peer is None:
        return [*figures, Figure(f"{name}: recall", own.recall, "", note=pairs)]
    recall = Figure(f"{name}: recall", own.recall, "", beside, peer.result["recall"], note=pairs)
    building = Figure(f"{name}: faiss builds its index", peer.result["build"], "s", peak_bytes=peer.peak_bytes)
    return [*figures, building, recall]


def command(
    num_vectors: Annotated[int, typer.Option("-n", help="vectors")] = 1_000_000,
    compare_size: Annotated[int, typer.Option(help="a second size, without faiss; 0: none")] = 0,
    dim: Annotated[int, typer.Option(help="dimensions")] = 256,
    probes: Annotated[int, typer.Option(help="lists that a vector looks into")] = 4,
    threads: Annotated[int | None, typer.Option(help="threads of every phase and of faiss; none: all cores")] = None,
    workdir: Annotated[Path | None, typer.Option(help="folder to keep the tables in; none: a temporary one")] = None,
    json_: Json = False,
) -> None:
    """Self-join of planted vectors from disk, beside faiss's inverted lists, in one run."""
    found = []
    for size in filter(None, (num_vectors, compare_size)):
        found += bench_join(
            size,
            dim=dim,
            num_probes=probes,
            threads=threads or os.cpu_count() or 1,
            workdir=workdir and workdir / str(size),
            with_faiss=size == num_vectors,
        )
    show(found, json_)
