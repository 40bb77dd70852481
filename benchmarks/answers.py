"""What it costs to list the images of a large run: seconds and memory beside a plain read of the same tables.

The tables are faked: names as a crawl has them, three images in ten copies of another one that lies anywhere in the
catalog, one in a hundred rejected. So nothing is as near to its partner as it mostly is in a real pool.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

from benchmarks.figures import Figure, measured, show
from curate.answers.rows import Wanted, list_images, listed_schema
from curate.answers.saving import PATH_COLUMNS, WRITERS, write_paths
from curate.answers.staying import Staying
from curate.cli.arguments import Json
from curate.engine.figures import Figures
from curate.engine.finished import Finished, FinishedTable
from curate.engine.image_ids import CatalogFigures, ids_of_part
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.sources.config import Sources
from curate.stages.clusters.assign import Assign
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.images.catalog import SOURCE, Catalog
from curate.stages.images.inspect import Inspect
from curate.stages.selection.select import Select
from curate.tables import ASSIGNMENTS, CATALOG, DUPLICATES, IMAGES, ORIGIN, SELECTION

PART_ROWS = 1 << 16
COPIES, REJECTED, SELECTED = 0.3, 0.01, 0.5
"""Shares of all images; of those that are kept, the share that is selected."""
BUDGET = 500 << 20
"""Bytes that no listing may take."""
SOURCES = Sources.model_validate({"pool": "/data/pool"})


class _Faked:
    """The verdicts on all images, by their number."""

    def __init__(self, num_images: int) -> None:
        rng = np.random.default_rng(0)
        self.num_images = num_images
        drawn = rng.random(num_images, np.float32)
        self.rejected = drawn < REJECTED
        self.copy = ~self.rejected & (drawn < REJECTED + COPIES)
        kept = np.flatnonzero(~self.rejected & ~self.copy)
        self.partner = np.full(num_images, -1, np.int64)
        self.partner[self.copy] = kept[rng.integers(0, len(kept), int(self.copy.sum()))]
        component = np.where(self.copy, self.partner, np.arange(num_images))
        self.size = np.bincount(component, minlength=num_images)[component].astype(np.int32)
        self.component = component

    def parts(self) -> Iterator[tuple[int, slice]]:
        """(part, its images)."""
        for part, start in enumerate(range(0, self.num_images, PART_ROWS)):
            yield part, slice(start, min(start + PART_ROWS, self.num_images))


def _ids(numbers: np.ndarray) -> np.ndarray:
    found: np.ndarray = (numbers // PART_ROWS) << 32 | numbers % PART_ROWS
    return found


def make_tables(root: str, num_images: int) -> None:
    """The tables that a listing joins, under `root`."""
    faked, store = _Faked(num_images), Store(root)
    rows = [(f"{where.start}", part, where) for part, where in faked.parts()]
    listed = CatalogFigures.of_parts(("pool", "pool", where.stop - where.start) for _, _, where in rows)
    _put(store, "catalog", Catalog(sources=SOURCES), (_catalog(faked, *row[1:]) for row in rows), listed)
    _put(store, "images", Inspect(), (_images(faked, *row[1:]) for row in rows))
    _put(store, "duplicates", Deduplicate(), (_verdicts(faked, *row[1:]) for row in rows))
    _put(store, "assignments", Assign(), (_clusters(faked, *row[1:]) for row in rows))
    _put(store, "selection", Select(), (_selected(faked, *row[1:]) for row in rows))


def _put(store: Store, name: str, stage: Stage, parts: Iterator[pa.Table], figures: Figures | None = None) -> None:
    table = store.table(name)
    done = [table.commit(number, rows.schema, rows.to_batches()) for number, rows in enumerate(parts)]
    made = (figures or Figures()).model_dump(mode="json")
    shown = [part.__dict__ for part in done]
    total = sum(part.rows for part in done)
    manifest = Manifest(type(stage).__name__, 1, {}, {}, {}, {}, complete=True, parts=shown, rows=total, figures=made)
    table.write_manifest(manifest)


def _catalog(faked: _Faked, part: int, where: slice) -> pa.Table:
    numbers = np.arange(where.start, where.stop)
    words = (_padded(numbers // 10_000, 5), _padded(numbers, 9), _padded(numbers * 2654435761 % 2**32, 10))
    keys = pc.binary_join_element_wise(*words, "/")
    keys = pc.binary_join_element_wise(keys, ".jpg", "")
    columns: dict[str, Any] = {
        "image_id": ids_of_part(part, len(keys)),
        "source": pa.repeat("pool", len(keys)),
        "role": pa.repeat("pool", len(keys)),
        "uri": pc.binary_join_element_wise("/data/pool/", keys, ""),
        "key": keys,
    }
    columns |= {field.name: pa.nulls(len(keys), field.type) for field in CATALOG if field.name not in columns}
    found = pa.table({name: columns[name] for name in CATALOG.names}, CATALOG)
    return found.replace_schema_metadata({SOURCE: SOURCES.pool[0].model_dump_json().encode()})


def _padded(numbers: np.ndarray, width: int) -> pa.Array:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")


def _images(faked: _Faked, part: int, where: slice) -> pa.Table:
    rejected, size = faked.rejected[where], where.stop - where.start
    digests = np.random.default_rng([1, part]).bytes(32 * size)
    columns: dict[str, Any] = {
        "image_id": ids_of_part(part, size),
        "sha256": pa.Array.from_buffers(pa.binary(32), size, [None, pa.py_buffer(digests)]),
        "num_bytes": np.full(size, 100_000),
        "width": np.full(size, 640, np.int32),
        "height": np.full(size, 480, np.int32),
        "reject": pc.if_else(pa.array(rejected), "truncated", pa.scalar(None, pa.string())),
        "detail": pc.if_else(pa.array(rejected), "the data end early", pa.scalar(None, pa.string())),
    }
    columns |= {field.name: pa.nulls(size, field.type) for field in IMAGES if field.name not in columns}
    return pa.table({name: columns[name] for name in IMAGES.names}, IMAGES)


def _verdicts(faked: _Faked, part: int, where: slice) -> pa.Table:
    numbers = np.arange(where.start, where.stop)[~faked.rejected[where]]
    copy = faked.copy[numbers]
    columns = {
        "image_id": _ids(numbers),
        "component_id": _ids(faked.component[numbers]),
        "component_size": faked.size[numbers],
        "verdict": pc.if_else(pa.array(copy), "duplicate", "kept"),
        "partner_id": pa.array(_ids(faked.partner[numbers]), mask=~copy),
        "similarity": pa.array(np.full(len(numbers), 0.97, np.float32), mask=~copy),
        "kind": pc.if_else(pa.array(copy), "embedding", pa.scalar(None, pa.string())),
        "direct": pa.array(copy, mask=~copy),
    }
    return pa.table(columns, DUPLICATES)


def _kept(faked: _Faked, where: slice) -> np.ndarray:
    numbers = np.arange(where.start, where.stop)
    kept: np.ndarray = numbers[~faked.rejected[where] & ~faked.copy[where]]
    return kept


def _clusters(faked: _Faked, part: int, where: slice) -> pa.Table:
    numbers = _kept(faked, where)
    return pa.table(
        [_ids(numbers), (numbers % 5000).astype(np.int32), np.full(len(numbers), 0.5, np.float32)], ASSIGNMENTS
    )


def _selected(faked: _Faked, part: int, where: slice) -> pa.Table:
    numbers = _kept(faked, where)
    numbers = numbers[np.random.default_rng([2, part]).random(len(numbers)) < SELECTED]
    ones = pa.array(np.arange(len(numbers) + 1, dtype=np.int32))
    origins = pa.ListArray.from_arrays(
        ones, pa.repeat(pa.scalar({"route": "kept", "set": None, "query_id": None}, ORIGIN), len(numbers))
    )
    clusters = pa.ListArray.from_arrays(ones, pa.array((numbers % 5000).astype(np.int32)))
    return pa.table([_ids(numbers), clusters, origins, np.ones(len(numbers), np.int32)], SELECTION)


def open_faked(root: str) -> Finished:
    """The run that these tables would be of."""
    store = Store(root)
    stages: dict[str, Stage] = {
        "catalog": Catalog(sources=SOURCES),
        "images": Inspect(),
        "duplicates": Deduplicate(),
        "assignments": Assign(),
        "selection": Select(),
    }
    tables = tuple(FinishedTable(stage, store.table(name)) for name, stage in stages.items())
    return Finished(store, "hierarchical", {}, tables)


def list_faked(root: str, wanted: str, format_: str, columns: Sequence[str] | None = None) -> int:
    """Bytes that a listing writes."""
    run = open_faked(root)
    place = Path(root) / f"listed.{format_}"
    batches = list_images(run, Wanted(wanted), columns)
    with place.open("wb") as file:
        if format_ == "paths":
            write_paths(batches, file, end=b"\0", staying=Staying.beside(run, Wanted(wanted)))
        else:
            WRITERS[format_](batches, listed_schema(columns), file)
    return place.stat().st_size


def read_tables(root: str) -> int:
    """Rows that pyarrow reads of the same tables, batch by batch, and nothing else."""
    rows = 0
    for name in ("catalog", "images", "duplicates", "assignments", "selection"):
        for path in sorted(Path(root, name).glob("part-*.parquet")):
            rows += sum(len(batch) for batch in pq.ParquetFile(path).iter_batches())
    return rows


def join_dropped(root: str) -> int:
    """The same as the listing of copies, joined and written by DuckDB."""
    import duckdb

    where, place = os.fspath(root), os.fspath(Path(root) / "duckdb.csv")
    connection = duckdb.connect(config={"threads": 1, "memory_limit": "8GB", "temp_directory": os.fspath(root)})
    connection.sql("set enable_progress_bar = false")
    connection.sql(
        f"""
        copy (
            select c.image_id, c.source, c.role, c.key, c.uri, hex(i.sha256), i.width, i.height, d.verdict,
                d.partner_id, p.key, p.uri, d.similarity, d.kind, d.component_id, d.component_size
            from '{where}/duplicates/part-*.parquet' d
            join '{where}/catalog/part-*.parquet' c using (image_id)
            join '{where}/images/part-*.parquet' i using (image_id)
            join '{where}/catalog/part-*.parquet' p on p.image_id = d.partner_id
            where d.verdict = 'duplicate'
        ) to '{place}' (format csv)
        """
    )
    return Path(place).stat().st_size


def bench_answers(num_images: int, *, workdir: Path | None = None) -> list[Figure]:
    """Seconds and memory of each kind of listing.

    Args:
        num_images: in the pool.
        workdir: a folder that does not exist yet; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = str(workdir or Path(temporary) / "run")
        measured(make_tables, root, num_images)
        steps: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
            ("pyarrow reads the tables", read_tables, ()),
            ("list --dropped --csv", list_faked, ("dropped", "csv")),
            ("list --dropped --paths0", list_faked, ("dropped", "paths", PATH_COLUMNS)),
            ("list --groups --csv", list_faked, ("groups", "csv")),
            ("list --selected --parquet", list_faked, ("selected", "parquet")),
            ("list --all --csv", list_faked, ("all", "csv")),
            ("DuckDB joins and writes the dropped", join_dropped, ()),
        ]
        return [_figure(name, step, (root, *given)) for name, step, given in steps]


def _figure(name: str, step: Callable[..., Any], given: tuple[Any, ...]) -> Figure:
    cost = measured(step, *given)
    what = "rows" if step is read_tables else "bytes written"
    over = "" if cost.peak_bytes <= BUDGET or step is not list_faked else f", MORE THAN {BUDGET >> 20} MiB"
    note = f"{cost.result:,} {what}{over}"
    return Figure(name, cost.seconds, "s", cpu_seconds=cost.cpu_seconds, peak_bytes=cost.peak_bytes, note=note)


def command(
    rows: Annotated[int, typer.Option(help="images of the pool")] = 10_000_000,
    workdir: Annotated[Path | None, typer.Option(help="keep the tables in this new folder; none: temporary")] = None,
    json_: Json = False,
) -> None:
    """Seconds and memory of listing the images of a run, beside a plain read and a join of the same tables."""
    show(bench_answers(rows, workdir=workdir), json_)
