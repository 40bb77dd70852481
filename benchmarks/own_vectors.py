"""Own embeddings joined with the images that they are of: rows a second, and memory that does not grow with them.

An array of random vectors in shuffled order, its ids in a text file, and a catalog of images that do not exist. The
real stages join them, in a process of its own for each size.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import typer

from benchmarks.figures import Figure, measured, show
from benchmarks.join import ROWS_PER_PART, SyntheticCatalog
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.threads import set_threads
from curate.pipelines.vectors import embed_pool
from curate.sources.vector_files import OwnEmbeddings
from curate.tables import CATALOG, IMAGES


class NamedCatalog(SyntheticCatalog):
    """Images that do not exist, in archives."""

    def scan(self, known: Table | None) -> Iterator[tuple[int, pa.Table]]:
        """Every part with its number."""
        for part, rows in super().scan(known):
            keys = pa.array([f"{part:05}.tar/{_name(part * ROWS_PER_PART + row)}.jpg" for row in range(len(rows))])
            named = [keys if field.name == "key" else rows[field.name] for field in CATALOG]
            yield part, pa.table(named, schema=CATALOG)


class AcceptedImages(Map):
    """Facts of none of them, so that all are accepted."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """The columns of every table of images."""
        return IMAGES

    def run(self, part: int, *, catalog: pa.Table) -> Batches:
        """One row an image."""
        others = [pa.nulls(len(catalog), field.type) for field in list(IMAGES)[1:]]
        yield pa.RecordBatch.from_arrays([catalog["image_id"].combine_chunks(), *others], schema=IMAGES)


def _name(number: int) -> str:
    return f"{number:012}"


def bench_own(num_images: int, dim: int, folder: Path) -> list[Figure]:
    """Rows a second and memory of one size."""
    write_vectors(num_images, dim, folder)
    before, joined = measured(list_images, num_images, folder), measured(join, num_images, folder)
    more = joined.peak_bytes - before.peak_bytes
    title = f"{num_images:,} vectors of {dim}"
    return [
        Figure(f"{title}: joined", num_images / joined.result, "images/s", cpu_seconds=joined.cpu_seconds),
        Figure(f"{title}: memory beside that of listing", more / 1e6, "MB", better="lower"),
    ]


def write_vectors(num_images: int, dim: int, folder: Path) -> None:
    """An array in shuffled order, and its ids."""
    rng = np.random.default_rng(0)
    shape = (num_images, dim)
    array = np.lib.format.open_memmap(folder / "vectors.npy", "w+", dtype=np.float16, shape=shape)
    for start in range(0, num_images, ROWS_PER_PART):
        rows = min(ROWS_PER_PART, num_images - start)
        array[start : start + rows] = rng.standard_normal((rows, dim)).astype(np.float16)
    array.flush()
    (folder / "ids.txt").write_text("\n".join(map(_name, rng.permutation(num_images).tolist())))


def list_images(num_images: int, folder: Path) -> None:
    """The tables that the join reads."""
    set_threads(1)
    p = Pipeline(Store(str(folder / "run")), seed=0)
    catalog = p.add("catalog", NamedCatalog(num_images=num_images))
    p.add("images", AcceptedImages(), catalog=catalog)
    p.run(InProcess(1), Flags())


def join(num_images: int, folder: Path) -> float:
    """Seconds of the join."""
    set_threads(1)
    p = Pipeline(Store(str(folder / "run")), seed=0)
    catalog = p.add("catalog", NamedCatalog(num_images=num_images))
    images = p.add("images", AcceptedImages(), catalog=catalog)
    own = OwnEmbeddings(table=str(folder / "vectors.npy"), ids=str(folder / "ids.txt"))
    embed_pool(p, "embeddings/own", own, catalog=catalog, images=images, duplicates=None)
    start = time.perf_counter()
    p.run(InProcess(1), Flags())
    return time.perf_counter() - start


def command(
    images: Annotated[list[int], typer.Option(help="images, one measurement each")] = [131_072, 524_288],  # noqa: B006
    dim: Annotated[int, typer.Option(help="dimensions of the vectors")] = 256,
    json_: Json = False,
) -> None:
    """Embeddings made elsewhere, joined with their images: rows a second, and memory."""
    figures: list[Figure] = []
    for number in images:
        folder = Path(tempfile.mkdtemp())
        try:
            figures += bench_own(number, dim, folder)
        finally:
            shutil.rmtree(folder)
    show(figures, json_)
