"""A pool of every kind of broken file, and a run over it in its own process: `python -m tests.equal_bytes POOL DIR`.

The run embeds nothing, so that it takes no torch: listing, inspection, equal bytes, verdicts, selection and shards.
"""

import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.config import parse
from curate.engine.pipeline import Pipeline
from curate.ops.images.formats import READ
from curate.pipelines.copies import write_shards
from curate.recipe import RecipeConfig
from curate.stages.copies.contamination import FindContaminated
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.exact import FindExact
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect
from curate.stages.selection.select import Select
from curate.stages.selection.write_shards import WriteShards

FORMATS = [form for form in READ if form not in ("HEIF", "JXL", "QOI")]
"""Formats that Pillow alone writes, in every version that counts."""
CUTS, FLIPS = 8, 8
"""Places at which the picture of a format is cut, and bytes of it that are changed."""
SUFFIX = {"JPEG": "jpg", "TIFF": "tif"}


class EqualBytes(RecipeConfig):
    """The config of `equal_bytes`."""

    rows_per_part: int = 64
    """Images of a part of the catalog."""
    inspect: Inspect = Inspect()
    """Which images are rejected."""
    write: WriteShards | None = WriteShards(num_shards=2)
    """How the result is written; null: it is not."""


def equal_bytes(p: Pipeline, cfg: EqualBytes) -> None:
    """Find equal bytes alone, and write what is left."""
    catalog = p.add("catalog", Catalog(sources=cfg.sources, rows_per_part=cfg.rows_per_part))
    (images,) = p.add_pass({"images": cfg.inspect}, catalog=catalog)
    pairs = [p.add("internal/exact", FindExact(), images=images, catalog=catalog)]
    contaminated = p.add("internal/contaminated", FindContaminated(), neighbors=pairs, catalog=catalog)
    given = {"catalog": catalog, "images": images}
    duplicates = p.add("duplicates", Deduplicate(), neighbors=pairs, contaminated=contaminated, **given)
    chosen = p.add("selection", Select(), duplicates=duplicates, contaminated=contaminated, **given)
    if cfg.write is not None:
        write_shards(p, cfg.write, selection=chosen, **given)


def picture(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, form: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def write_broken_pool(root: Path) -> dict[str, str]:
    """A folder, a Parquet file and a held-out folder: sources of a run."""
    folder, heldout = root / "folder", root / "heldout"
    folder.mkdir(parents=True)
    heldout.mkdir()
    rng = np.random.default_rng(0)
    for form in FORMATS:
        whole = encode(picture(1), form)
        suffix = SUFFIX.get(form, form.lower())
        (folder / f"{form}.{suffix}").write_bytes(whole)
        for cut in np.linspace(4, len(whole) - 1, CUTS).astype(int).tolist():
            (folder / f"{form}-cut{cut:06d}.{suffix}").write_bytes(whole[:cut])
        for number in range(FLIPS):  # in the first half, where headers lie, and anywhere
            data = bytearray(whole)
            data[int(rng.integers(len(data) // (2 if number % 2 else 1)))] ^= int(rng.integers(1, 256))
            (folder / f"{form}-flip{number}.{suffix}").write_bytes(bytes(data))
    noise = rng.integers(0, 255, (60, 60, 3), np.uint8)
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")))
    written = {
        "empty.jpg": b"",
        "page.jpg": b"<html><body>gone, see https://example.com/x</body></html>",
        "layers.png": b"8BPS\0\1" + b"\0" * 60,
        "bomb.png": bomb,
        "long.png": encode(picture(2)) + b"\0" * 100_000,
        "line.png": encode(picture(3, (300, 33))),
        "small.png": encode(picture(4, (20, 20))),
        "uniform.png": encode(Image.new("RGB", (50, 50), "teal")),
        "noise.png": encode(Image.fromarray(noise)),
        "again.png": encode(picture(5)),
        "twice.png": encode(picture(5)),
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
        (heldout / name).write_bytes(data)
    rows = [{"image": {"bytes": encode(picture(9)), "path": "a"}, "caption": "one"}, {"image": None, "caption": "none"}]
    pq.write_table(pa.Table.from_pylist(rows), root / "rows.parquet")
    return {"folder": str(folder), "rows": str(root / "rows.parquet"), "heldout": str(heldout)}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def values(pool: Path, workdir: Path, threads: int) -> dict[str, object]:
    """The values of a config."""
    named = [{"name": "folder", "path": str(pool / "folder")}, {"name": "rows", "path": str(pool / "rows.parquet")}]
    return {
        "recipe": "tests.equal_bytes:equal_bytes",
        "workdir": str(workdir),
        "sources": {"pool": named, "heldout": str(pool / "heldout")},
        "executor": {"threads": threads},
        "inspect": {"limits": {"max_pixels": 100 * 100, "max_bytes": 100_000}, "max_reject_fraction": 1},
    }


if __name__ == "__main__":
    from curate.engine.freshness import Flags
    from curate.running import run_config

    threads = int(os.environ["OMP_NUM_THREADS"])
    given = values(Path(sys.argv[1]), Path(sys.argv[2]), threads)
    run_config(parse(EqualBytes, given, where="test"), Flags())
