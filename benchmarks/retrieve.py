"""Retrieval by sample from synthetic neighbors, beside the same ranking by numpy and by DuckDB in the same run."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.figures import Figure, measured, show
from benchmarks.select import ROWS_PER_PART, SEED, put
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.stages.search.rank_neighbors import RankNeighbors
from curate.stages.selection.by_sample import BySample
from curate.stages.selection.retrieve import Retrieve
from curate.tables import ASSIGNMENTS, CATALOG, NEIGHBORS

NUM_LISTS_PARTS = 4
"""Parts of the neighbors; each holds some of the candidates of every query, as lists in several parts do."""


def bench_retrieve(
    num_queries: int = 100_000, k: int = 32, num_images: int = 2_000_000, *, workdir: Path | None = None
) -> list[Figure]:
    """From the edges of a search to the rows of `retrieved`: the `k` nearest of each query out of twice as many.

    Args:
        workdir: where the tables are made; None: a temporary folder, removed at the end.
    """
    with TemporaryDirectory(dir=workdir) as folder:
        root = Path(folder)
        make_tables(root, num_queries, 2 * k, num_images)
        runs = {name: measured(run, root, k) for name, run in RUNS.items()}
    if len({run.result for run in runs.values()}) != 1:
        raise AssertionError(f"the methods retrieved different pairs: { ({n: r.result for n, r in runs.items()}) }")
    own = runs["stages"]
    return [
        Figure(
            "retrieval by sample",
            num_queries * 2 * k / own.seconds,
            "edges/s",
            name,
            num_queries * 2 * k / run.seconds,
            cpu_seconds=own.cpu_seconds,
            peak_bytes=own.peak_bytes,
            note=f"{num_queries} queries, k={k}; {name}: {run.peak_bytes / 2**20:,.0f} MiB; equal pairs",
        )
        for name, run in runs.items()
        if name != "stages"
    ]


def make_tables(root: Path, num_queries: int, num_candidates: int, num_images: int) -> None:
    """A pool, queries, and for each query `num_candidates` random images over the parts of `neighbors`."""
    rng, store = np.random.default_rng(SEED), Store(root)
    rows = [
        (role, min(ROWS_PER_PART, total - start))
        for role, total in (("pool", num_images), ("curated", num_queries))
        for start in range(0, total, ROWS_PER_PART)
    ]
    figures = CatalogFigures.of_parts((role, role, count) for role, count in rows)
    put(store, "catalog", CATALOG, len(rows), {}, figures=figures)
    assigned = {part: _assignments(part, count) for part, (_, count) in enumerate(rows)}
    put(store, "assignments", ASSIGNMENTS, len(rows), assigned)
    first = next(part for part, (role, _) in enumerate(rows) if role == "curated")
    queries = _ids(np.arange(num_queries)) + (np.int64(first) << 32)
    edges = {
        part: _edges(queries, num_candidates // NUM_LISTS_PARTS, num_images, rng) for part in range(NUM_LISTS_PARTS)
    }
    put(store, "neighbors", NEIGHBORS, NUM_LISTS_PARTS, edges)


def _ids(places: np.ndarray) -> np.ndarray:
    """Image ids of the n-th images of a role whose parts are full."""
    part, row = np.divmod(places, ROWS_PER_PART)
    ids: np.ndarray = part << 32 | row
    return ids


def _assignments(part: int, count: int) -> pa.RecordBatch:
    ids = np.int64(part) << 32 | np.arange(count)
    columns = [ids, np.zeros(count, np.int32), np.zeros(count, np.float32)]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=ASSIGNMENTS)


def _edges(queries: np.ndarray, each: int, num_images: int, rng: np.random.Generator) -> pa.RecordBatch:
    query = np.repeat(queries, each)
    image = _ids(rng.integers(0, num_images, len(query)))
    similarity = rng.random(len(query), dtype=np.float32)
    kinds = pa.DictionaryArray.from_arrays(np.zeros(len(query), np.int32), ["embedding"]).cast(pa.string())
    return pa.RecordBatch.from_arrays([*map(pa.array, (query, image, similarity)), kinds], schema=NEIGHBORS)


# -- the methods, each in a process of its own; they return the number and a checksum of the pairs ---------------


def retrieve_by_stages(root: Path, k: int) -> tuple[int, int]:
    """`RankNeighbors` and `Retrieve`, as the recipe runs them."""
    p = Pipeline(Store(root), seed=SEED)
    catalog, pairs, leaves = Ref("catalog", CATALOG), Ref("neighbors", NEIGHBORS), Ref("assignments", ASSIGNMENTS)
    near = p.add("nearest/ranked", RankNeighbors(k=k), neighbors=pairs, catalog=catalog)
    stage = Retrieve(route="sample", sample=BySample(k=k))
    p.add("retrieved", stage, catalog=catalog, nearest=near, assignments=leaves)
    p.run(InProcess(1), Flags())
    counts, sums = zip(*map(_checksum, p.store.table("retrieved").scan(["query_id", "image_id"])), strict=True)
    return sum(counts), sum(sums) % 2**64


def retrieve_by_numpy(root: Path, k: int) -> tuple[int, int]:
    """All edges in memory, one sort: what a script would do. A pair that occurs twice counts once."""
    rows = pq.read_table(root / "neighbors", columns=["query_id", "image_id", "similarity"])
    query, image, similarity = (rows[name].to_numpy() for name in rows.column_names)
    order = np.lexsort((-similarity, image, query))
    query, image, similarity = query[order], image[order], similarity[order]
    first = np.concatenate([[True], (np.diff(query) != 0) | (np.diff(image) != 0)])
    query, image, similarity = query[first], image[first], similarity[first]
    order = np.lexsort((image, -similarity, query))
    query = query[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    pairs = pa.table({"query_id": query[rank < k], "image_id": image[order][rank < k]})
    pq.write_table(pairs.sort_by("image_id"), root / "numpy.parquet")
    return _checksum(pairs)


def retrieve_by_duckdb(root: Path, k: int) -> tuple[int, int]:
    """A window over each query, in SQL."""
    import duckdb  # of the extra `dev`

    connection = duckdb.connect()
    connection.execute("set threads to 1; set enable_progress_bar = false")
    connection.execute(
        f"""copy (select query_id, image_id from (
                select query_id, image_id,
                       row_number() over (partition by query_id order by similarity desc, image_id) as place
                from (select query_id, image_id, max(similarity) as similarity
                      from '{root}/neighbors/part-*.parquet' group by all))
            where place <= {k} order by image_id) to '{root}/duckdb.parquet'"""
    )
    return _checksum(pq.read_table(root / "duckdb.parquet"))


def _checksum(pairs: pa.Table) -> tuple[int, int]:
    query, image = (pairs[name].to_numpy().astype(np.uint64) for name in ("query_id", "image_id"))
    mixed = (query * np.uint64(0x9E3779B97F4A7C15)) ^ (image * np.uint64(0xBF58476D1CE4E5B9))
    return len(pairs), int(mixed.sum(dtype=np.uint64))


RUNS = {"stages": retrieve_by_stages, "numpy sort": retrieve_by_numpy, "DuckDB window": retrieve_by_duckdb}


def command(
    num_queries: Annotated[int, typer.Option("-n", help="curated images that ask")] = 100_000,
    k: Annotated[int, typer.Option(help="images a query")] = 32,
    pool: Annotated[int, typer.Option(help="images in the pool")] = 2_000_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    json_: Json = False,
) -> None:
    """From the edges of a search to the retrieved rows, beside numpy and DuckDB: edges per second, memory."""
    show(bench_retrieve(num_queries, k, pool, workdir=workdir), json_)
