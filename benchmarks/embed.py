"""Images per second of the embedding pass, beside a plain loop and beside the bare forward, in one run."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import torch
import typer
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.figures import Figure, cpu_seconds, peak_memory, show
from curate.cli.arguments import Json
from curate.engine.threads import set_threads
from curate.models.backbones.backbone import Backbone
from curate.models.backbones.load import load_backbone
from curate.models.device import autocast
from curate.models.files.export import write_export
from curate.models.files.header import ExportInfo
from curate.models.flops import picture_flops
from curate.models.nets.config import vit_config
from curate.models.nets.vit import VisionTransformer
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.ops.images.preprocess import decode_side, preprocess
from curate.samples.bundled import PHOTOS
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import read_pictures

BATCHES = (4, 8, 16, 32, 64)
PLAIN_BATCH = 32
LARGE_SIDE = 1024
"""Pixels of the short side of larger files, for decoding alone."""
DECODED = 24
"""Files decoded a time, by one thread."""


@dataclass(frozen=True)
class Timed:
    """The median of some runs of one way over the same pictures."""

    images: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Largest resident memory of the process so far."""

    @property
    def rate(self) -> float:
        """Images per second."""
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


def bench_embed(*, model: str = "vit_small", num_images: int = 512, side: int = 512, repeats: int = 3) -> list[Figure]:
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
        large = _write_pictures(folder / "large", DECODED, LARGE_SIDE)
        catalog = _catalog(folder / "pictures")
        images = pa.Table.from_batches(list(Inspect().run(0, catalog=catalog)))
        backbone, plain = embed.backbone(), load_backbone(embed.model, weights=weights, precision="fp32")
        pixels = torch.from_numpy(np.stack([_prepared(path, backbone) for path in paths[:128]]))
        few = slice(0, max(1, num_images // 4))
        ways: dict[str, Callable[[], int]] = {
            "plain": lambda: _plain_loop(paths, plain, threads),
            "first": lambda: _pass({"images": Inspect(), "x": embed}, catalog, None),
            "pass": lambda: _pass({"x": embed}, catalog, images),
            "quarter": lambda: _pass({"x": embed}, catalog[few], images[few]),
            "products": lambda: _multiply(backbone, embed.precision),
        }
        ways |= {f"bare {batch}": partial(_forward, pixels, backbone, batch) for batch in BATCHES}
        for size, files in ((side, paths[:DECODED]), (LARGE_SIDE, large)):
            encoded = [path.read_bytes() for path in files]
            ways[f"decode {size}"] = partial(_decode, encoded, backbone)
            ways[f"pil {size}"] = partial(_decode_plainly, files, backbone)
        runs = [{name: _timed(way) for name, way in ways.items()} for _ in range(repeats)]
        found = {name: _median([run[name] for run in runs]) for name in ways}
        flops = picture_flops(plain.module, backbone.preprocess.size)
    return _figures(found, side, flops, embed.precision)


def _figures(found: Mapping[str, Timed], side: int, flops: float, precision: str) -> list[Figure]:
    batch = max(BATCHES, key=lambda batch: found[f"bare {batch}"].rate)
    bare, loop = found[f"bare {batch}"], "plain loop: DataLoader, PIL, fp32"
    best = f"bare forward, batch {batch}, {precision}"
    return [
        _beside("embed what was inspected", found["pass"], loop, found["plain"]),
        _beside("embed what was inspected", found["pass"], best, bare),
        _beside("inspect, PDQ and embed", found["first"], loop, found["plain"]),
        _beside("embed four times as many", found["pass"], "a quarter of them", found["quarter"]),
        _beside(f"decode and resize, {side} px", found[f"decode {side}"], "PIL", found[f"pil {side}"]),
        _beside(
            f"decode and resize, {LARGE_SIDE} px", found[f"decode {LARGE_SIDE}"], "PIL", found[f"pil {LARGE_SIDE}"]
        ),
        Figure(best, bare.rate * flops, "flop/s", f"products of {SIDE} x {SIDE}", found["products"].rate * 2 * SIDE**3),
    ]


def _beside(name: str, ours: Timed, peer: str, other: Timed) -> Figure:
    return Figure(
        name, ours.rate, "images/s", peer, other.rate, cpu_seconds=ours.cpu_seconds, peak_bytes=ours.peak_bytes
    )


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
    rows = (batch for name, batch in read_pictures(stages, 0, catalog=catalog, images=images) if name == "x")
    return sum(len(batch) - batch["vector"].null_count for batch in rows)


def _forward(pixels: torch.Tensor, backbone: Backbone, batch: int) -> int:
    return sum(len(backbone.embed(pixels[i : i + batch])) for i in range(0, len(pixels), batch))


SIDE = 2048
"""Of the square matrices whose product tells what the machine attains."""


def _multiply(backbone: Backbone, precision: str) -> int:
    """One product, counted as one image."""
    x = torch.ones(SIDE, SIDE, device=backbone.device)
    with torch.inference_mode(), autocast(backbone.device, "bf16" if precision == "bf16" else "fp32"):
        return int(float((x @ x)[0, 0]) > 0)


def _prepared(path: Path, backbone: Backbone) -> np.ndarray:
    with Image.open(path) as picture:
        return preprocess(picture.convert("RGB"), backbone.preprocess)


def _decode_plainly(files: Sequence[Path], backbone: Backbone) -> int:
    for path in files:
        _prepared(path, backbone)
    return len(files)


def _decode(encoded: Sequence[bytes], backbone: Backbone) -> int:
    """As the pass does it: at a reduced scale where that is enough, with the checks of an image."""
    limits, side = ImageLimits(), decode_side([backbone.preprocess], at_least=64)
    for data in encoded:
        picture = inspect_image(data, limits, min_side=side).picture
        assert picture is not None
        preprocess(picture, backbone.preprocess)
    return len(encoded)


def _median(runs: list[Timed]) -> Timed:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def _timed(way: Callable[[], int]) -> Timed:
    before, start = cpu_seconds(), time.perf_counter()
    images = way()
    return Timed(images, time.perf_counter() - start, cpu_seconds() - before, peak_memory())


def command(
    model: Annotated[str, typer.Option(help="model id; vit_small: ViT-S/14 with random weights")] = "vit_small",
    num_images: Annotated[int, typer.Option("-n", help="JPEG files")] = 256,
    side: Annotated[int, typer.Option(help="pixels of their short side")] = 512,
    json_: Json = False,
) -> None:
    """Images per second of the embedding pass, a plain loop and the bare forward, in one run."""
    show(bench_embed(model=model, num_images=num_images, side=side), json_)
