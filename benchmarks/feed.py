"""Crops per second and core of the trainer's feed, beside torchvision's operators on the same JPEG files."""

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.figures import Figure, Measured, measured, show
from curate.cli.arguments import Json
from curate.feed.batches import load_batches
from curate.feed.colors import gaussian_blur, jitter_colors
from curate.feed.crops import crop, decode_tensor, make_crops, needed_side
from curate.feed.samples import CroppedSamples
from curate.feed.settings import CropSettings
from curate.feed.shards import read_index
from curate.feed.split import BatchSplit
from curate.samples.bundled import PHOTOS
from curate.tables import HF_IMAGE

CROPS = CropSettings()
NUM_CROPS = 2 + CROPS.num_local
SIZES = {"500 x 375 px": (500, 375), "1365 x 1024 px": (1365, 1024)}
"""Width and height of the files: ImageNet's usual one, and a photograph's from the web."""
STRENGTHS = np.array([CROPS.brightness, CROPS.contrast, CROPS.saturation, CROPS.hue])
BATCH, ROWS_A_GROUP, WINDOW = 8, 16, 64
"""Of the whole feed: images a batch, rows of a row group, samples shuffled together."""

Way = Callable[[], int]
"""Does one part of the work on all files; returns how often."""


def bench_feed(
    *,
    num_images: int = 24,
    repeats: int = 5,
    epochs: int = 4,
    sizes: Sequence[str] = tuple(SIZES),
    workers: Sequence[int] = (1, 2),
) -> list[Figure]:
    """Measure each way on one core, alternating between the ways; then the whole feed in processes of its own.

    Args:
        num_images: JPEG files of each size, made from the bundled photographs.
        repeats: runs of each way, of which the median counts.
        epochs: passes of the whole feed over the files.
        sizes: of `SIZES`.
        workers: threads of the whole feed, a run each.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = [figure for size in sizes for figure in _compare(size, num_images, repeats)]
    finally:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            shards = _write_shards(Path(folder) / size, _encode(num_images, SIZES[size]))
            found += _whole_feed(size, shards, num_images * epochs, workers)
    return found


def _compare(size: str, num_images: int, repeats: int) -> list[Figure]:
    """The multi-crop and its parts, ours and torchvision's."""
    encoded = _encode(num_images, SIZES[size])
    ways = _multi_crop_ways(encoded) | _part_ways(encoded)
    for way in ways.values():
        way()
    runs = [{name: _cpu_seconds_each(way) for name, way in ways.items()} for _ in range(repeats)]
    cost = {name: median(run[name] for run in runs) for name in ways}
    whole = [
        Figure(
            f"multi-crop, {size}",
            NUM_CROPS / cost["multi-crop"],
            "crops/s/core",
            f"torchvision v2 on {kind}",
            NUM_CROPS / cost[f"torchvision {kind}"],
            note=f"2 x {CROPS.global_size} + {CROPS.num_local} x {CROPS.local_size} px, with decoding",
        )
        for kind in ("tensors", "PIL images")
    ]
    parts = [
        Figure(f"{part}, {size}", 1e3 * cost[part], "ms", "torchvision v2", 1e3 * cost[f"{part} by v2"], better="lower")
        for part in ways
        if f"{part} by v2" in ways
    ]
    return whole + parts


def _cpu_seconds_each(way: Way) -> float:
    start = time.process_time()
    times = way()
    return (time.process_time() - start) / times


def _multi_crop_ways(encoded: Sequence[bytes]) -> dict[str, Way]:
    side, seeds = needed_side(CROPS), iter(range(1 << 30))
    views = [_v2_view(0.0, 0.0), _v2_view(0.9, CROPS.solarize_probability), *[_v2_view(0.5, 0.0, local=True)] * 8]

    def ours(data: bytes) -> Tensor:
        return make_crops(decode_tensor(data, min_side=side), CROPS, rng=np.random.default_rng(next(seeds)))[1]

    def on_tensors(data: bytes) -> list[Tensor]:
        image = _v2_decode(data)
        return [view(image) for view in views]

    def on_pil(data: bytes) -> list[Tensor]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return [v2.functional.pil_to_tensor(view(image)) for view in views]

    works = {"multi-crop": ours, "torchvision tensors": on_tensors, "torchvision PIL images": on_pil}
    return {name: partial(_for_each, work, encoded) for name, work in works.items()}


def _v2_view(blur: float, solarize: float, *, local: bool = False) -> v2.Transform:
    """DINOv2's view as its authors' code has it, with the released models' probabilities of blur."""
    jitter = [v2.ColorJitter(*STRENGTHS)]
    return v2.Compose(
        [
            _v2_crop(local=local),
            v2.RandomHorizontalFlip(CROPS.flip_probability),
            v2.RandomApply(jitter, CROPS.jitter_probability),
            v2.RandomGrayscale(CROPS.gray_probability),
            v2.RandomApply([v2.GaussianBlur(9, CROPS.blur_sigma)], blur),
            v2.RandomSolarize(128, solarize),
        ]
    )


def _v2_crop(*, local: bool) -> v2.Transform:
    size, scale = (CROPS.local_size, CROPS.local_scale) if local else (CROPS.global_size, CROPS.global_scale)
    return v2.RandomResizedCrop(size, scale=scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)


def _v2_decode(data: bytes) -> Tensor:
    return v2.functional.pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


def _part_ways(encoded: Sequence[bytes]) -> dict[str, Way]:
    """Each operator by itself, applied every time, on pictures that are decoded or cropped already."""
    rng, side = np.random.default_rng(0), needed_side(CROPS)
    reduced = [decode_tensor(data, min_side=side) for data in encoded]
    full = [_v2_decode(data) for data in encoded]
    views = [_v2_crop(local=False)(image) for image in full]
    works: dict[str, tuple[Callable[..., object], Sequence[object]]] = {
        "decode": (partial(decode_tensor, min_side=side), encoded)
    }
    works["decode by v2"] = (_v2_decode, encoded)
    for name, local in (("global crop", False), ("local crop", True)):
        size, scale = (CROPS.local_size, CROPS.local_scale) if local else (CROPS.global_size, CROPS.global_scale)
        works[name] = (lambda x, size=size, scale=scale: crop(x, size, scale=scale, settings=CROPS, rng=rng), reduced)
        works[f"{name} by v2"] = (_v2_crop(local=local), full)
    works["color jitter, global"] = (partial(_jitter, rng=rng), views)
    works["color jitter, global by v2"] = (v2.ColorJitter(*STRENGTHS), views)
    works["blur, global"] = (partial(_blur, rng=rng), views)
    works["blur, global by v2"] = (v2.GaussianBlur(9, CROPS.blur_sigma), views)
    return {name: partial(_for_each, work, items) for name, (work, items) in works.items()}


def _jitter(view: Tensor, *, rng: np.random.Generator) -> np.ndarray:
    changes = STRENGTHS * rng.uniform(-1.0, 1.0, size=4)
    return _rounded(jitter_colors(view.float(), changes, order=rng.permutation(4)))


def _blur(view: Tensor, *, rng: np.random.Generator) -> np.ndarray:
    return _rounded(gaussian_blur(view.float(), rng.uniform(*CROPS.blur_sigma)))


def _rounded(pixels: Tensor) -> np.ndarray:
    return np.rint(pixels.numpy()).astype(np.uint8)


def _for_each(work: Callable[..., object], items: Sequence[object]) -> int:
    for item in items:
        work(item)
    return len(items)


def _encode(num_images: int, size: tuple[int, int]) -> list[bytes]:
    """Bundled photographs, enlarged to `size` as JPEG files of quality 90."""
    photos, encoded = sorted(PHOTOS.rglob("*.jpg")), []
    for number in range(num_images):
        with Image.open(photos[number * len(photos) // num_images % len(photos)]) as picture:
            data = io.BytesIO()
            picture.convert("RGB").resize(size).save(data, format="JPEG", quality=90)
        encoded.append(data.getvalue())
    return encoded


def _write_shards(folder: Path, encoded: Sequence[bytes]) -> str:
    folder.mkdir()
    rows = [{"bytes": data, "path": None} for data in encoded]
    pq.write_table(pa.table({"image": pa.array(rows, HF_IMAGE)}), folder / "a.parquet", row_group_size=ROWS_A_GROUP)
    return str(folder)


def _whole_feed(size: str, shards: str, num_images: int, workers: Sequence[int]) -> list[Figure]:
    runs = {number: measured(_run_feed, shards, num_images, number) for number in workers}
    held, window = _most_held_bytes(shards, num_images)
    return [
        *(_feed_figure(f"whole feed, {size}, workers={number}", run) for number, run in runs.items()),
        Figure(
            f"encoded images held at most, {size}",
            held / 2**20,
            "MiB",
            f"a window of {WINDOW} samples",
            window / 2**20,
            better="lower",
        ),
    ]


def _feed_figure(name: str, run: Measured) -> Figure:
    return Figure(
        name,
        run.result * NUM_CROPS / run.seconds,
        "crops/s",
        "of a core, by CPU seconds",
        run.result * NUM_CROPS / run.cpu_seconds,
        cpu_seconds=run.cpu_seconds,
        peak_bytes=run.peak_bytes,
        note="index, read, decode, crop, collate",
    )


def _run_feed(shards: str, num_images: int, workers: int) -> int:
    samples = CroppedSamples(read_index(shards), CROPS, seed=0, window=WINDOW)
    with closing(load_batches(samples, BatchSplit(BATCH), start=0, workers=workers)) as batches:
        return sum(len(batch.global_crops) // 2 for batch in islice(batches, num_images // BATCH))


def _most_held_bytes(shards: str, num_images: int) -> tuple[int, float]:
    """The largest sum of encoded images held on the way, and the mean size of a window of them."""
    index, split = read_index(shards), BatchSplit(BATCH)
    samples = CroppedSamples(index, CROPS, seed=0, window=WINDOW).of_rank(split, ahead=BATCH)
    held = 0
    for batch in islice(split.micro_batches(0), num_images // BATCH):
        for number in batch:
            samples[number]
            held = max(held, held_bytes(samples))
    images = [data for group in index.groups for data in index.read_images(group, range(group.num_rows))]
    sizes = [len(data) for data in images if isinstance(data, bytes)]
    return held, WINDOW * float(np.mean(sizes))


def held_bytes(samples: CroppedSamples) -> int:
    """Bytes of the encoded images that the feed holds at present."""
    futures = [future for groups in samples._images for future in list(groups._values.values()) if future.done()]
    images = [data for future in futures if not future.exception() for data in list(future.result().values())]
    held = [data for data in images if isinstance(data, bytes)]
    return sum({id(data): len(data) for data in held}.values())


def command(
    num_images: Annotated[int, typer.Option("-n", help="JPEG files of each size")] = 96,
    repeats: Annotated[int, typer.Option(help="runs of each way, of which the median counts")] = 5,
    json_: Json = False,
) -> None:
    """The trainer's multi-crop and its parts beside torchvision v2, and its whole feed: crops per second and core."""
    show(bench_feed(num_images=num_images, repeats=repeats), json_)
