"""What it costs to decode pictures in processes that bound memory and time: speed on honest ones, peak on large ones.

The pass runs over the same files with its pictures decoded by these processes and by its own threads, in turns, on one
machine. Peaks are those of all processes together, of pictures as large as the limits let pass.
"""

import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import pyarrow as pa
import typer
from PIL import Image

from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.ops.images.apart import decoder_pids, end_decoders
from curate.ops.images.decoding import inspect_picture
from curate.ops.images.inspect import ImageLimits, Inspected, inspect_image
from curate.samples.bundled import PHOTOS
from curate.sources.config import Source, Sources
from curate.stages.images import pictures
from curate.stages.images.catalog import Catalog
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.stages.images.pictures import PictureStage, read_pictures

KINDS = {"JPEG": (None, 512, 1024), "PNG": (512,), "WEBP": (512,)}
"""Short sides of the pictures of each format; None: the bundled files as they are."""
LARGEST = ImageLimits().max_pixels
WIDTH = 9459
"""Pixels of the largest pictures; as many in height."""
SAMPLED_EVERY = 0.02
"""Seconds between two looks at the memory."""


def bench_speed(*, num_images: int, repeats: int) -> Iterator[Figure]:
    """Images per second of the pass with and without the processes: the medians of runs in turns."""
    passes: dict[str, Mapping[str, PictureStage]] = {
        "inspect": {"images": Inspect()},
        "inspect + copy embedding": {"images": Inspect(), "x": Embed(model="lite0")},
    }
    for form, sides in KINDS.items():
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                catalog = _catalog(_write_pictures(Path(folder) / "pool", form, side, num_images))
                for name, stages in passes.items():
                    label = f"{name}, {form} {'as bundled' if side is None else side}"
                    yield _compared(label, partial(_pass, stages, catalog), num_images, repeats)


def _compared(label: str, way: Callable[[], int], num_images: int, repeats: int) -> Figure:
    """The same way with pictures decoded apart and, beside it, decoded in its own threads."""
    apart, here = list[tuple[float, float]](), list[tuple[float, float]]()
    way()
    for _ in range(repeats):
        apart.append(_timed(way))
        with mock.patch.object(pictures, "inspect_picture", _inspect_here):
            here.append(_timed(way))
    (seconds, used), (peer_seconds, peer_used) = (sorted(runs)[repeats // 2] for runs in (apart, here))
    note = f"{1e3 * used / num_images:.2f} ms of CPU an image, {1e3 * peer_used / num_images:.2f} by its threads"
    rates = num_images / seconds, num_images / peer_seconds
    return Figure(label, rates[0], "images/s", "its own threads", rates[1], cpu_seconds=used, note=note)


def _inspect_here(data: bytes, limits: ImageLimits, *, stopped: threading.Event, **how: Any) -> Inspected:
    return inspect_image(data, limits, **how)


def _timed(way: Callable[[], int]) -> tuple[float, float]:
    """Seconds, and seconds of CPU time with the processes that decode."""
    start, used = time.perf_counter(), _cpu_seconds()
    way()
    return time.perf_counter() - start, _cpu_seconds() - used


def _cpu_seconds() -> float:
    """Of this process and of those that decode for it, so far."""
    apart = (Path(f"/proc/{pid}/schedstat").read_text().split()[0] for pid in decoder_pids())
    return time.process_time() + sum(int(used) for used in apart) / 1e9


def _pass(stages: Mapping[str, PictureStage], catalog: pa.Table) -> int:
    return sum(len(batch) for _, batch in read_pictures(stages, 0, catalog=catalog))


def _catalog(folder: Path) -> pa.Table:
    sources = Sources(pool=(Source(name="pool", path=str(folder)),))
    ((_, rows),) = Catalog(sources=sources, rows_per_part=1 << 20).scan(None)
    return rows


def _write_pictures(folder: Path, form: str, side: int | None, num_images: int) -> Path:
    folder.mkdir()
    photos = sorted(PHOTOS.rglob("*.jpg"))
    for number in range(num_images):
        photo = photos[number % len(photos)]
        path = folder / f"{number:06d}.{form.lower()}"
        if side is None:
            path.write_bytes(photo.read_bytes())
            continue
        with Image.open(photo) as picture:
            scale = side / min(picture.size)
            large = picture.convert("RGB").resize([round(scale * edge) for edge in picture.size])
            large.save(path, form, quality=90)
    return folder


# -- memory -------------------------------------------------------------------------------------------------------


def _rgb() -> Image.Image:
    tile = np.random.default_rng(0).integers(0, 256, (37, 37, 3), dtype=np.uint8)
    return Image.fromarray(tile).resize((WIDTH, WIDTH))


def _layered() -> Image.Image:
    picture = _rgb()
    picture.putalpha(picture.convert("L"))
    return picture


def _wide() -> Image.Image:
    return Image.fromarray(np.asarray(_rgb().convert("L")).astype(np.uint16) * 257)


def large_pictures() -> Iterator[tuple[str, bytes]]:
    """Pictures of nearly `LARGEST` pixels of each kind that takes memory of its own; nothing else of them is held."""
    yield "JPEG", _encoded(_rgb(), "JPEG", quality=75)
    yield "JPEG, progressive", _encoded(_rgb(), "JPEG", quality=75, progressive=True)
    yield "JPEG, progressive 4:4:4", _encoded(_rgb(), "JPEG", quality=75, progressive=True, subsampling=0)
    yield "JPEG, CMYK", _encoded(_rgb().convert("CMYK"), "JPEG", quality=75)
    yield "PNG", _encoded(_rgb(), "PNG", compress_level=1)
    yield "PNG, RGBA", _encoded(_layered(), "PNG", compress_level=1)
    yield "PNG, palette", _encoded(_rgb().convert("L").convert("P"), "PNG", compress_level=1)
    yield "PNG, 16 bits", _encoded(_wide(), "PNG", compress_level=1)
    yield "TIFF, CMYK", _encoded(_rgb().convert("CMYK"), "TIFF", compression="tiff_adobe_deflate")
    yield "TIFF, floats", _encoded(_rgb().convert("L").convert("F"), "TIFF", compression="tiff_adobe_deflate")
    yield "GIF", _encoded(_rgb().convert("L"), "GIF")
    yield "AVIF", _encoded(_rgb(), "AVIF", quality=50, speed=10)
    yield "WEBP", _encoded(_rgb(), "WEBP", quality=50, method=0)
    yield "JPEG 2000", _encoded(_rgb(), "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[40])
    yield (
        "JPEG 2000, tiles",
        _encoded(
            _rgb(), "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[40], tile_size=(1024, 1024)
        ),
    )


def _encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def bench_memory() -> Iterator[Figure]:
    """Peak of all processes while two threads have the same large picture inspected, and the CPU time of one."""
    limits = ImageLimits().for_safety_alone()
    for name, data in large_pictures():
        end_decoders()
        inspect_picture(b"", limits)
        with _sampled() as peak:
            before = _cpu_seconds()
            with ThreadPoolExecutor(2) as pool:
                found = list(pool.map(lambda _: inspect_picture(data, limits, min_side=256), range(2)))  # noqa: B023
            used = (_cpu_seconds() - before) / 2
        verdict = found[0].reject or "accepted"
        note = f"{verdict}; {len(data) / 2**20:.0f} MiB encoded; {used:.1f} s of CPU time each"
        yield Figure(f"two at once: {name}", max(peak) / 2**20, "MiB", better="lower", peak_bytes=max(peak), note=note)
    end_decoders()


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Bytes of memory of this process and of those that decode for it, what they share counted once; many times."""
    found, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(SAMPLED_EVERY):
            found.append(sum(map(_resident, [os.getpid(), *decoder_pids()])))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def command(
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="images of each kind")] = 512,
    repeats: Annotated[int, typer.Option(help="runs of each way, in turns; the median counts")] = 5,
    json_: Json = False,
) -> None:
    """The pass with pictures decoded apart, within limits, and in its own threads; peak memory on large pictures."""
    show([*bench_speed(num_images=num_images, repeats=repeats), *bench_memory()], json_)
