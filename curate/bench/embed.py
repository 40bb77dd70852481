"""Images per second of the embedding pass, beside a plain loop and beside the bare forward, in one run."""

import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from curate.models.backbone import Backbone
from curate.models.export import ExportInfo, write_export
from curate.models.load import load_backbone
from curate.models.vit import VisionTransformer, vit_config
from curate.ops.images import preprocess
from curate.ops.threads import set_threads
from curate.samples.pool import PHOTOS
from curate.sources.config import Source, Sources
from curate.stages.catalog import Catalog
from curate.stages.embed import Embed
from curate.stages.inspect import Inspect
from curate.stages.read_images import read_images

BATCHES = (4, 8, 16, 32, 64)
PLAIN_BATCH = 32


@dataclass(frozen=True)
class Rate:
    """One way to embed the same pictures."""

    name: str
    images: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    """Largest resident memory of the process so far."""

    @property
    def per_second(self) -> float:
        return self.images / self.seconds


class _Files(Dataset[torch.Tensor]):
    """What most people write: PIL, resize, crop, float32, mean and deviation, one image at a time."""

    def __init__(self, paths: Sequence[Path], backbone: Backbone) -> None:
        self.paths, self.how = paths, backbone.preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            pixels = torch.from_numpy(preprocess(picture.convert("RGB"), self.how)).float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.how.mean, self.how.std))
        return (pixels - mean) / std


def bench_embed(*, model: str = "vit_small", num_images: int = 512, side: int = 512, repeats: int = 3) -> list[Rate]:
    """Measure, alternating between the ways, and keep the median time of each.

    Args:
        model: a model id with weights on this machine, or vit_small: ViT-S/14 with random weights, which run as
            fast as trained ones.
        num_images: JPEG files, made from the bundled photographs.
        side: pixels of their short side.
    """
    threads = torch.get_num_threads()
    set_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = _random_vit(folder) if model == "vit_small" else None
        embed = Embed(model="curate" if weights else model, weights=weights, precision="auto").resolve()
        paths = _write_pictures(folder / "pictures", num_images, side)
        catalog = _catalog(folder / "pictures")
        images = pa.Table.from_batches([b for _, b in read_images({"images": Inspect()}, 0, catalog=catalog)])
        backbone, plain = embed.backbone(), load_backbone(embed.model, weights=weights, precision="fp32")
        pixels = torch.from_numpy(np.stack([preprocess(Image.open(p).convert("RGB"), backbone.preprocess)
                                            for p in paths[:128]]))  # fmt: skip
        ways: dict[str, Callable[[], int]] = {
            "plain loop: DataLoader, PIL, fp32": lambda: _plain_loop(paths, plain, threads),
            "curate: inspect, PDQ and embed": lambda: _pass({"images": Inspect(), "x": embed}, catalog, None),
            "curate: embed what was inspected": lambda: _pass({"x": embed}, catalog, images),
        }
        for batch in BATCHES:
            ways[f"bare forward, batch {batch}, {embed.precision}"] = partial(_forward, pixels, backbone, batch)
        return [_median(name, way, repeats) for name, way in ways.items()]


def format_embed(rates: list[Rate]) -> str:
    """A table with the two ratios that matter."""
    plain, best = rates[0].per_second, max(r.per_second for r in rates if r.name.startswith("bare"))
    lines = [f"{'way':44} images/s  / plain  / bare  CPU s/image  peak MiB"]
    lines += [
        f"{r.name:44} {r.per_second:8.1f} {r.per_second / plain:8.2f} {r.per_second / best:7.2f}"
        f" {r.cpu_seconds / r.images:12.4f} {r.peak_mib:9.0f}"
        for r in rates
    ]
    return "\n".join(lines)


def as_json(rates: list[Rate]) -> str:
    return json.dumps([asdict(r) | {"images_per_second": r.per_second} for r in rates], indent=1)


def _random_vit(folder: Path) -> str:
    vit = VisionTransformer(vit_config("vit_small", image_size=224), generator=torch.Generator().manual_seed(0))
    write_export(folder / "vit.safetensors", vit, ExportInfo(image_size=224, short_edge=256))
    return str(folder / "vit.safetensors")


def _write_pictures(folder: Path, num_images: int, side: int) -> list[Path]:
    folder.mkdir()
    photos = sorted(PHOTOS.rglob("*.jpg"))
    for number in range(num_images):
        with Image.open(photos[number % len(photos)]) as picture:
            scale = side / min(picture.size)
            large = picture.convert("RGB").resize([round(scale * edge) for edge in picture.size])
            large.save(folder / f"{number:06d}.jpg", quality=90)
    return sorted(folder.iterdir())


def _catalog(folder: Path) -> pa.Table:
    sources = Sources(pool=(Source(name="pool", path=str(folder)),))
    ((_, rows),) = Catalog(sources=sources, rows_per_part=1 << 20).scan(None)
    return rows


def _plain_loop(paths: Sequence[Path], backbone: Backbone, workers: int) -> int:
    batches = DataLoader(_Files(paths, backbone), batch_size=PLAIN_BATCH, num_workers=workers)
    with torch.inference_mode():
        return sum(len(backbone.module(batch)) for batch in batches)


def _pass(stages: Mapping[str, Inspect | Embed], catalog: pa.Table, images: pa.Table | None) -> int:
    rows = (batch for name, batch in read_images(stages, 0, catalog=catalog, images=images) if name == "x")
    return sum(len(batch) - batch["vector"].null_count for batch in rows)


def _forward(pixels: torch.Tensor, backbone: Backbone, batch: int) -> int:
    return sum(len(backbone.embed(pixels[i : i + batch])) for i in range(0, len(pixels), batch))


def _median(name: str, way: Callable[[], int], repeats: int) -> Rate:
    runs = [_timed(way) for _ in range(repeats)]
    images, seconds, cpu = sorted(runs, key=lambda run: run[1])[len(runs) // 2]
    return Rate(name, images, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _timed(way: Callable[[], int]) -> tuple[int, float, float]:
    before, start = _cpu_seconds(), time.perf_counter()
    images = way()
    return images, time.perf_counter() - start, _cpu_seconds() - before


def _cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
