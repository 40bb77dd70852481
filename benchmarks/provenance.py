"""What the digests beside the shards cost: lists, counts and a check, against writing the shards themselves."""

import io
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import typer
from PIL import Image

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.store import Store
from curate.pipelines.copies import write_shards
from curate.sealed_json import dump_sealed
from curate.shard_check import check_shards
from curate.shard_manifest import NAME
from curate.sources.config import Sources
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect
from curate.stages.selection.list_rows import TABLE, manifest_of
from curate.stages.selection.publish import Publish
from curate.stages.selection.write_shards import WriteShards
from curate.tables import IMAGE_ID, SELECTION

SIDE, QUALITY = 300, 95
"""Pixels and quality of a grainy picture: about 90 KB, as pictures of the web have."""
SHARD_BYTES = 64 << 20
VERIFIED = "verified"


class Everything(Map):
    """Selects every image."""

    inputs: ClassVar[dict[str, Input]] = {"images": each(pa.schema([IMAGE_ID]))}

    def output_schema(self, **inputs: Any) -> pa.Schema:
        """That of every selection."""
        return SELECTION

    def run(self, part: int, *, images: pa.Table) -> Batches:
        """A row for each image."""
        rows = [{"image_id": i, "clusters": [], "origins": [], "repeats": 1} for i in images["image_id"].to_pylist()]
        yield pa.RecordBatch.from_pylist(rows, schema=SELECTION)


def bench_provenance(num_images: int, *, workdir: Path | None = None) -> list[Figure]:
    """Seconds to write shards, then to list and count what is in them, then to hold them against their manifest.

    Args:
        num_images: grainy pictures, about 90 KB each.
        workdir: a folder that does not exist yet; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = workdir or Path(temporary) / "bench"
        _write_pool(folder / "pool", num_images)
        _run(folder, shards=False, publish=None)
        idle = measured(_run, folder, shards=False, publish=None).cpu_seconds
        written = measured(_run, folder, shards=True, publish=None)
        told = measured(_run, folder, shards=True, publish=Publish())
        store = Store(folder / "run")
        store.write_bytes(f"shards/{NAME}", dump_sealed(manifest_of(store.table(TABLE)).as_json()))
        checked = measured(_check, store)
        size = sum(part.num_bytes for part in store.table("shards/data").parts())
        lists = sum(part.num_bytes for part in store.table(TABLE).parts())
    steps = (("shards written", written), ("listed, digested and counted", told), (VERIFIED, checked))
    figures = [_figure(name, cost, size, idle=idle, writing=written.cpu_seconds - idle) for name, cost in steps]
    note = f"{lists / num_images:.0f} bytes an image"
    return [*figures, Figure("size of the lists", 100 * lists / size, "% of the shards", note=note)]


def _figure(name: str, cost: Measured, size: int, *, idle: float, writing: float) -> Figure:
    """`idle`: CPU seconds of a run that has nothing to do, such as imports, which are taken off."""
    spent = max(0.0, cost.cpu_seconds - (0.0 if name == VERIFIED else idle))
    note = f"{1e9 * spent / size:.1f} CPU seconds a GB, {100 * spent / writing:.0f} % of writing"
    return Figure(name, cost.seconds, "s", cpu_seconds=spent, peak_bytes=cost.peak_bytes, note=note)


def _write_pool(folder: Path, num_images: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(num_images):
        file = io.BytesIO()
        rough = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        grain = rng.integers(-30, 31, (SIDE, SIDE, 3))
        pixels = np.clip(np.asarray(rough) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
        (folder / f"{number:06d}.jpg").write_bytes(file.getvalue())
        told = {"url": f"https://h{number % 997}.example/{number}", "license": "cc0", "author": f"a{number % 31}"}
        (folder / f"{number:06d}.json").write_text(json.dumps(told))


def _run(folder: Path, *, shards: bool, publish: Publish | None) -> None:
    """List and inspect the pool, and where they are wanted, write the shards of all of it."""
    p = Pipeline(Store(folder / "run"), seed=0)
    catalog = p.add("catalog", Catalog(sources=Sources.model_validate({"pool": str(folder / "pool")})))
    (images,) = p.add_pass({"images": Inspect()}, catalog=catalog)
    chosen = p.add("selection", Everything(), images=images)
    if shards:
        write = WriteShards(shard_bytes=SHARD_BYTES, publish=publish)
        write_shards(p, write, selection=chosen, catalog=catalog, images=images)
    p.run(InProcess(1), Flags())


def _check(store: Store) -> None:
    found = check_shards(store.fs, store.join("shards"))
    assert not found.problems


def command(
    num_images: Annotated[int, typer.Option("-n", help="pictures, about 90 KB each")] = 5000, json_: Json = False
) -> None:
    """Digests beside the shards: lists, counts and a check of every byte, against writing the shards."""
    show(bench_provenance(num_images), json_)
