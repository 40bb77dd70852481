"""Balanced selection of synthetic images, beside the same draw by numpy and by DuckDB in the same run."""

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.figures import Figures
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.ops.selection.sampling import balanced_targets
from curate.ops.vectors import pack
from curate.stages.clusters.leaves import count_leaves
from curate.stages.selection.balance import Balance
from curate.stages.selection.select import Select
from curate.tables import ASSIGNMENTS, CATALOG, CONTAMINATED, DUPLICATES, IMAGES, centroids_schema

ROWS_PER_PART = 65_536
BRANCHING = 100
"""Leaves below one node of the upper level."""
SHARE = 0.1
"""Images drawn."""
SKEW = 3
"""Leaf sizes fall off as those of u^SKEW for uniform u: the largest of 1,000 leaves holds a tenth of the images."""
SEED = 0
CENTROIDS = centroids_schema(1, model="synthetic", weights="")


def bench_select(num_images: int = 1_000_000, num_leaves: int = 10_000, *, workdir: Path | None = None) -> list[Figure]:
    """Draw a tenth of `num_images` evenly over `num_leaves` leaves of very different sizes, Parquet to Parquet.

    Args:
        workdir: where the tables are made; None: a temporary folder, removed at the end.
    """
    with TemporaryDirectory(dir=workdir) as folder:
        root = Path(folder)
        make_tables(root, num_images, num_leaves)
        idle = measured(_import_only)
        draws = target_draws(root, num_images)
        runs = {name: measured(run, root, draws) for name, run in RUNS.items()}
        _check(runs, draws)
    return [_rate(runs, num_images, num_leaves), *_memory(runs, idle, num_images)]


def make_tables(root: Path, num_images: int, num_leaves: int) -> None:
    """A pool with its assignments; every other table that Select reads is empty."""
    rng = np.random.default_rng(SEED)
    rows = [min(ROWS_PER_PART, num_images - start) for start in range(0, num_images, ROWS_PER_PART)]
    store = Store(root)
    figures = CatalogFigures.of_parts(("pool", "pool", count) for count in rows)
    put(store, "catalog", CATALOG, len(rows), {}, figures=figures)
    for name, schema in (("images", IMAGES), ("duplicates", DUPLICATES), ("contaminated", CONTAMINATED)):
        put(store, name, schema, len(rows), {})
    assigned = {part: _assignments(part, count, num_leaves, rng) for part, count in enumerate(rows)}
    put(store, "assignments", ASSIGNMENTS, len(rows), assigned)
    put(store, "centroids", CENTROIDS, 1, {0: _tree(num_leaves)})


def _assignments(part: int, count: int, num_leaves: int, rng: np.random.Generator) -> pa.RecordBatch:
    ids = np.int64(part) << 32 | np.arange(count)
    leaf = (num_leaves * rng.random(count) ** SKEW).astype(np.int32)
    return pa.RecordBatch.from_arrays(
        [pa.array(ids), pa.array(leaf), pa.array(rng.random(count).astype(np.float32))], schema=ASSIGNMENTS
    )


def _tree(num_leaves: int) -> pa.RecordBatch:
    num_nodes = -(-num_leaves // BRANCHING)
    level = np.repeat([0, 1], [num_leaves, num_nodes]).astype(np.int16)
    cluster = np.concatenate([np.arange(num_leaves), np.arange(num_nodes)]).astype(np.int32)
    parent = np.where(level == 0, cluster // BRANCHING, 0).astype(np.int32)
    vectors, counts = pack(np.ones((len(level), 1), np.float32)), np.ones(len(level), np.int64)
    columns = [pa.array(level), pa.array(cluster), pa.array(parent, mask=level == 1), vectors, pa.array(counts)]
    return pa.RecordBatch.from_arrays(columns, schema=CENTROIDS)


def put(
    store: Store,
    name: str,
    schema: pa.Schema,
    num_parts: int,
    batches: dict[int, pa.RecordBatch],
    *,
    figures: Figures | None = None,
) -> None:
    """Make a complete table; parts without a batch are empty."""
    table = store.table(name)
    made = [table.commit(part, schema, [batches[part]] if part in batches else []) for part in range(num_parts)]
    manifest = Manifest("Synthetic", 1, {}, {}, {}, {}, complete=True, parts=[asdict(part) for part in made])
    told = {} if figures is None else figures.model_dump(mode="json")
    table.write_manifest(replace(manifest, rows=sum(part.rows for part in made), figures=told))


def target_draws(root: Path, num_images: int) -> np.ndarray:
    """(K,) int64: what every method draws of each leaf."""
    store = Store(root)
    assignments = store.table("assignments")
    sizes = count_leaves(assignments, [part.number for part in assignments.parts()])
    tree = store.table("centroids").read(0, ["level", "parent_id"])
    parents = tree["parent_id"].to_numpy()[tree["level"].to_numpy() == 0].astype(np.int64)
    return balanced_targets(np.pad(sizes, (0, len(parents) - len(sizes))), [parents], int(num_images * SHARE))


# -- the methods, each in a process of its own; they return what was drawn of each leaf --------------------------


def _import_only() -> None:
    """What the imports of this module hold."""


def select_by_stage(root: Path, draws: np.ndarray) -> np.ndarray:
    """`Select`, as a recipe runs it."""
    p = Pipeline(Store(root), seed=SEED)
    schemas = {"catalog": CATALOG, "images": IMAGES, "duplicates": DUPLICATES, "contaminated": CONTAMINATED}
    schemas |= {"assignments": ASSIGNMENTS, "centroids": CENTROIDS}
    given = {name: Ref(name, schema) for name, schema in schemas.items()}
    p.add("selection", Select(balance=Balance(target=int(draws.sum()))), **given)
    p.run(InProcess(1), Flags())
    drawn = np.zeros(len(draws), np.int64)
    for rows in p.store.table("selection").scan(["clusters"]):
        paths = rows["clusters"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
        np.add.at(drawn, paths[:, 1], 1)
    return drawn


def select_by_numpy(root: Path, draws: np.ndarray) -> np.ndarray:
    """All rows in memory, one sort by (leaf, random number): what a script would do."""
    rows = pq.read_table(root / "assignments", columns=["image_id", "cluster_id"])
    leaf = rows["cluster_id"].to_numpy()
    order = np.lexsort((np.random.default_rng(SEED).random(len(leaf)), leaf))
    first = np.searchsorted(leaf[order], np.arange(len(draws)))
    rank = np.arange(len(leaf)) - first[leaf[order]]
    chosen = np.sort(order[rank < draws[leaf[order]]])
    pq.write_table(rows.take(chosen), root / "numpy.parquet")
    return np.bincount(leaf[chosen], minlength=len(draws))


def select_by_duckdb(root: Path, draws: np.ndarray) -> np.ndarray:
    """A window over each leaf in the order of a hash of the id, in SQL."""
    import duckdb  # of the extra `dev`

    wanted = pa.table({"cluster_id": np.arange(len(draws), dtype=np.int32), "draws": draws})
    connection = duckdb.connect()
    connection.execute("set threads to 1; set enable_progress_bar = false")
    connection.register("wanted", wanted)
    connection.execute(
        f"""copy (select image_id, cluster_id from (
                select image_id, cluster_id, draws,
                       row_number() over (partition by cluster_id order by hash(image_id)) as place
                from '{root}/assignments/part-*.parquet' join wanted using (cluster_id))
            where place <= draws order by image_id) to '{root}/duckdb.parquet'"""
    )
    leaf = pq.read_table(root / "duckdb.parquet", columns=["cluster_id"])["cluster_id"].to_numpy()
    return np.bincount(leaf, minlength=len(draws))


RUNS = {"stage": select_by_stage, "numpy sort": select_by_numpy, "DuckDB window": select_by_duckdb}


def _check(runs: dict[str, Measured], draws: np.ndarray) -> None:
    for name, run in runs.items():
        if not np.array_equal(run.result, draws):
            raise AssertionError(f"{name} drew other numbers of images than wanted")


def _rate(runs: dict[str, Measured], num_images: int, num_leaves: int) -> Figure:
    best = min((name for name in runs if name != "stage"), key=lambda name: runs[name].seconds)
    return Figure(
        "selection",
        num_images / runs["stage"].seconds,
        "images/s",
        best,
        num_images / runs[best].seconds,
        cpu_seconds=runs["stage"].cpu_seconds,
        peak_bytes=runs["stage"].peak_bytes,
        note=f"{num_images} images, {num_leaves} leaves, {SHARE:.0%} drawn; targets equal in all",
    )


def _memory(runs: dict[str, Measured], idle: Measured, num_images: int) -> list[Figure]:
    """Bytes an image beyond the imports, beside each peer."""
    held = {name: max(0, run.peak_bytes - idle.peak_bytes) / num_images for name, run in runs.items()}
    return [
        Figure(
            "memory an image",
            held["stage"],
            "bytes",
            name,
            held[name],
            better="lower",
            peak_bytes=runs[name].peak_bytes,
            note=f"beyond the imports; peak is that of {name}, {runs[name].seconds:.1f} s",
        )
        for name in runs
        if name != "stage"
    ]


def command(
    num_images: Annotated[int, typer.Option("-n", help="images in the pool")] = 1_000_000,
    leaves: Annotated[int, typer.Option(help="leaf clusters")] = 10_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    json_: Json = False,
) -> None:
    """A balanced draw from synthetic clusters, beside numpy and DuckDB: images per second, memory an image."""
    show(bench_select(num_images, leaves, workdir=workdir), json_)
