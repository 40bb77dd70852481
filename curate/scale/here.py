"""What this machine attains, measured."""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from curate.models.device import autocast, resolve_device, resolve_precision
from curate.models.flops import vit_flops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.ops.copies.components import DisjointSet
from curate.ops.copies.features import extract_features
from curate.ops.copies.registration import register
from curate.samples.bundled import PHOTOS
from curate.scale.disk import disk_rates
from curate.scale.hardware import HERE, Hardware, Processor
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import Inspect


def measure_hardware() -> Hardware:
    """What this machine attains, in about half a minute; rates are of all cores at once, divided by their number."""
    threads, device = torch.get_num_threads(), resolve_device("auto")
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    write, read = disk_rates(num_bytes=1 << 28)
    return Hardware(
        name=HERE,
        cores=os.cpu_count() or 1,
        gpus=gpus,
        core=_processor(torch.device("cpu"), share=threads),
        gpu=_processor(device, share=1) if gpus else None,
        decode=_decode_rate() / threads,
        registration=_registration_rate(),
        rows=_row_rate(),
        read=read,
        write=write,
    )


def _processor(device: torch.device, *, share: int) -> Processor:
    return Processor(forward=_forward_rate(device) / share, products=_product_rate(device) / share)


def _best(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _forward_rate(device: torch.device, *, batch: int = 8) -> float:
    config = vit_config("vit_small", image_size=224)
    vit = VisionTransformer(config, generator=torch.Generator().manual_seed(0)).to(device).eval()
    precision = resolve_precision("auto", device, bf16=True)
    batch = batch if device.type == "cpu" else 64
    pixels = torch.zeros(batch, 3, 224, 224, device=device)

    def forward() -> float:
        with torch.inference_mode(), autocast(device, precision):
            return float(vit(pixels).float().sum())  # waits for the device

    return batch * vit_flops(config, 224) / _best(forward)


def _product_rate(device: torch.device, *, side: int = 2048) -> float:
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    x = torch.ones(side, side, dtype=dtype, device=device)
    return 2 * side**3 / _best(lambda: float((x @ x)[0, 0]))


def _decode_rate(*, num_images: int = 48, side: int = 512) -> float:
    """Megapixels a second of the first pass, without a network."""
    with tempfile.TemporaryDirectory() as name:
        pixels = 0
        for number, path in enumerate(sorted(PHOTOS.rglob("*.jpg"))[:num_images]):
            with Image.open(path) as picture:
                scale = side / min(picture.size)
                large = picture.convert("RGB").resize([round(scale * edge) for edge in picture.size])
            large.save(Path(name) / f"{number}.jpg", quality=90)
            pixels += large.width * large.height
        sources = Sources(pool=(Source(name="pool", path=name),))
        ((_, catalog),) = Catalog(sources=sources, rows_per_part=1 << 20).scan(None)

        def read() -> int:
            return sum(batch.num_rows for batch in Inspect().run(0, catalog=catalog))

        return pixels / 1e6 / _best(read)


def _registration_rate(*, num_pairs: int = 32) -> float:
    """Of noise: points are many and none agree, as in most pairs that are tried."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 240, 320, 3), dtype=np.uint8)
    a, b = (extract_features(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2))) for picture in noise)
    return num_pairs / _best(lambda: [register(a, b) for _ in range(num_pairs)])


def _row_rate(*, num_rows: int = 1 << 20) -> float:
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(0, num_rows, (2, num_rows))

    def work() -> None:
        DisjointSet(num_rows).union(rows, cols)
        np.lexsort((rows, cols))

    return num_rows / _best(work)
