"""Write an uncurated pool, the way a web crawl looks, from the bundled photographs and video frames.

The output folder gets
    pool/NNNNNN.jpg            long-tailed views of the photographs, near and exact copies, video frames (the
                               dominant mode), copies of held-out pictures (contamination) and junk
    curated/<category>/*.jpg   seeds for retrieval (untouched photographs)
    heldout/<category>/*.jpg   a held-out benchmark (untouched photographs)
    truth.csv                  file, category, kind, copy_of, source; paths relative to the folder
    pool.json                  the parameters that made it

A photograph goes to exactly one of curated/, heldout/ and pool/; only the planted `heldout_copy` files break
that, and the truth names each of them. `copy_of` names the file that a file was made from: the original or view
of an exact or near copy, the held-out picture of a `heldout_copy`, the photograph's `original` for a `view` (a
crop of 60 % or more, perhaps flipped), the scene's first frame for a `frame`.

The same parameters, pictures and Pillow version give the same bytes.
"""

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from curate.errors import ConfigError, SourceError

SAMPLES = Path(__file__).resolve().parent
PHOTOS = SAMPLES / "photos"
FRAMES = SAMPLES / "frames"

SHARES = {"frame": 0.22, "near": 0.20, "exact_copy": 0.05, "heldout_copy": 0.03, "junk": 0.04}
"""Shares of the pool; the rest are the photographs' originals and views."""

NEAR_KINDS = ("near_jpeg", "near_rescale", "near_crop", "near_flip", "near_text", "near_colour")
JUNK_KINDS = (
    "junk_uniform",
    "junk_noise",
    "junk_tiny",
    "junk_truncated",
    "junk_text",
    "junk_empty",
    "junk_aspect",
)
CURATED_CATEGORIES = ("castles_palaces", "fish", "ruins_pyramids", "tools", "towers_statues", "wild_mammals")
"""Large categories of one clear subject each: the seeds of retrieval."""

MARKER = "pool.json"
TRUTH_COLUMNS = ("file", "category", "kind", "copy_of", "source")

_OVERLAYS = (
    "SAMPLE",
    "(c) example",
    "SALE -20%",
    "preview",
    "wallpaper HD",
    "www.example.com",
    "breaking news",
    "photo of the day",
)
_MIN_IMAGES = 20
_VERSION = 1  # bump when the same parameters give other files


Row = tuple[str, str, str, str, str]
"""A line of the truth."""


class Photo(NamedTuple):
    """A bundled picture."""

    category: str
    path: Path


class Split(NamedTuple):
    """What each photograph is for."""

    curated: list[Photo]
    heldout: list[Photo]
    base: list[Photo]
    """Those that the pool is made from."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of the pool, planned; sources come before their copies."""

    category: str
    kind: str
    source: Path
    """Bundled picture it is made from."""
    of: int | None = None
    """Index of the item it is made from."""
    first: bool = False
    """First take of a video frame: as it is."""


def make_pool(
    out: Path,
    *,
    num_images: int = 2000,
    seed: int = 0,
    curated_categories: Iterable[str] = CURATED_CATEGORIES,
    curated_each: int = 10,
    num_heldout: int = 60,
    contaminated: float = 0.5,
    tail: float = 1.0,
) -> None:
    """Write the pool to `out`; an output of the same parameters is left as it is.

    Args:
        num_images: files in pool/, at least 20.
        curated_categories: categories that give photographs to curated/.
        curated_each: photographs of each of them, at most half of the category.
        num_heldout: photographs in heldout/.
        contaminated: share of heldout/ that has copies in the pool, 0..1.
        tail: exponent of the power law over categories; 0: flat.

    Raises:
        SourceError: `out` holds something else.
        ConfigError: a parameter is out of range.
    """
    photos = _bundled_photos()
    chosen = sorted(set(curated_categories))
    _check(num_images, contaminated, unknown=sorted(set(chosen) - set(photos)))
    parameters = {
        "version": _VERSION,
        "num_images": num_images,
        "seed": seed,
        "curated_categories": chosen,
        "curated_each": curated_each,
        "num_heldout": num_heldout,
        "contaminated": contaminated,
        "tail": tail,
    }
    if _is_made(out, parameters):
        return
    split = _split_photos(
        photos, np.random.default_rng([seed, 1]), categories=chosen, curated_each=curated_each, num_heldout=num_heldout
    )
    frames = _shuffled(sorted(FRAMES.glob("*.jpg")), np.random.default_rng([seed, 2]))
    rng = np.random.default_rng([seed, 3])  # a stream of its own: the split does not move with num_images
    items = _plan(num_images, split, frames, rng, contaminated=contaminated, tail=tail)
    names = [f"pool/{i:06d}.jpg" for i in rng.permutation(len(items))]  # the order tells nothing
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    rows = _copy_untouched(unfinished, split) + _write_items(unfinished, items, names, split.heldout, seed)
    _write_truth(unfinished / "truth.csv", rows)
    (unfinished / MARKER).write_text(json.dumps(parameters, indent=1) + "\n")
    unfinished.replace(out)  # whole or not at all; an empty folder gives way


def _bundled_photos() -> dict[str, list[Path]]:
    folders = sorted(path for path in PHOTOS.iterdir() if path.is_dir())
    return {folder.name: sorted(folder.glob("*.jpg")) for folder in folders}


def _check(num_images: int, contaminated: float, *, unknown: list[str]) -> None:
    if num_images < _MIN_IMAGES:
        raise ConfigError(f"num_images is {num_images}, it must be at least {_MIN_IMAGES}")
    if not 0 <= contaminated <= 1:
        raise ConfigError(f"contaminated is {contaminated}, it must lie in 0..1")
    if unknown:
        raise ConfigError(f"no category {unknown[0]!r} among the bundled photographs")


def _is_made(out: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether `out` holds this very pool.

    Raises:
        SourceError: it holds another, or foreign files.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MARKER).is_file():
        raise SourceError(f"{out}: not an empty folder, and no pool of this generator; choose another folder")
    found = json.loads((out / MARKER).read_text())
    changed = [name for name in parameters if found.get(name) != parameters[name]]
    if changed:
        had = ", ".join(f"{name}={found.get(name)!r}, not {parameters[name]!r}" for name in changed)
        raise SourceError(f"{out}: holds a pool made with {had}; delete it or choose another folder")
    return True


def _shuffled(paths: list[Path], rng: np.random.Generator) -> list[Path]:
    return [paths[i] for i in rng.permutation(len(paths))]


def _split_photos(
    photos: Mapping[str, list[Path]],
    rng: np.random.Generator,
    *,
    categories: Iterable[str],
    curated_each: int,
    num_heldout: int,
) -> Split:
    """Give every photograph to the curated seeds, the held-out benchmark, or the pool."""
    curated: list[Photo] = []
    left: dict[str, list[Path]] = {}
    for category in sorted(photos):
        paths = _shuffled(photos[category], rng)
        k = min(curated_each, len(paths) // 2) if category in categories else 0
        curated += [Photo(category, path) for path in paths[:k]]
        left[category] = paths[k:]
    heldout = _take_heldout(left, num_heldout)
    return Split(curated, heldout, [Photo(c, path) for c in sorted(left) for path in left[c]])


def _take_heldout(left: dict[str, list[Path]], num_heldout: int) -> list[Photo]:
    """Take pictures out of `left`: every category in turn, the fullest first, while it keeps two or more."""
    heldout: list[Photo] = []
    taken = dict.fromkeys(left, 0)
    while len(heldout) < num_heldout:
        category = max(sorted(left), key=lambda c: (len(left[c]) - 2) / (taken[c] + 1.0))
        if len(left[category]) <= 2:
            break
        heldout.append(Photo(category, left[category].pop()))
        taken[category] += 1
    return heldout


def _plan(
    num_images: int,
    split: Split,
    frames: list[Path],
    rng: np.random.Generator,
    *,
    contaminated: float,
    tail: float,
) -> list[Item]:
    """The files of the pool, sources before their copies."""
    want = {kind: round(num_images * share) for kind, share in SHARES.items()}
    if not split.heldout:
        want["heldout_copy"] = 0
    items = _plan_views(num_images - sum(want.values()), split.base, tail, rng)
    items += _plan_copies(items, want["near"], want["exact_copy"], rng)
    items += _plan_leaks(split.heldout, want["heldout_copy"], contaminated, rng)
    items += _plan_frames(frames, want["frame"], start=len(items))
    return items + _plan_junk(num_images - len(items), split.base, rng)


def _plan_views(num: int, base: list[Photo], tail: float, rng: np.random.Generator) -> list[Item]:
    """Every photograph once, then more views of them, drawn by a long-tailed law over categories."""
    weights = _photo_weights(base, tail, rng)
    if num <= len(base):
        chosen = rng.choice(len(base), size=num, replace=False, p=weights)
        return [_original(base[i]) for i in sorted(chosen)]
    views = rng.choice(len(base), size=num - len(base), p=weights)
    items = [_original(photo) for photo in base]
    return items + [Item(category=base[i].category, kind="view", source=base[i].path, of=int(i)) for i in views]


def _original(photo: Photo) -> Item:
    return Item(category=photo.category, kind="original", source=photo.path)


def _photo_weights(base: list[Photo], tail: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(P,) probability of each photograph: a power law over categories in random order, even within one."""
    sizes = Counter(photo.category for photo in base)
    categories = sorted(sizes)
    order = rng.permutation(len(categories))
    law = dict(zip((categories[i] for i in order), _zipf(len(categories), tail), strict=True))
    weights = np.array([law[photo.category] / sizes[photo.category] for photo in base])
    return weights / weights.sum()


def _zipf(n: int, exponent: float) -> npt.NDArray[np.float64]:
    """(n,) weights of a power law over ranks, summing to 1."""
    weights = 1.0 / np.arange(1, n + 1) ** exponent
    return weights / weights.sum()


def _plan_copies(items: list[Item], num_near: int, num_exact: int, rng: np.random.Generator) -> list[Item]:
    """Near and exact copies; a few pictures are copied very often (a power law over a random order)."""
    popular = rng.permutation(len(items))
    law = _zipf(len(items), 0.8)
    near = rng.choice(popular, size=num_near, p=law)
    copies = [_copy(items, int(i), str(rng.choice(NEAR_KINDS))) for i in near]
    exact = rng.choice(popular, size=num_exact, p=law)
    return copies + [_copy(items, int(i), "exact_copy") for i in exact]


def _copy(items: list[Item], of: int, kind: str) -> Item:
    return Item(category=items[of].category, kind=kind, source=items[of].source, of=of)


def _plan_leaks(heldout: list[Photo], num: int, contaminated: float, rng: np.random.Generator) -> list[Item]:
    """Contamination: copies of a part of the held-out pictures, of each in turn."""
    leaked = sorted(rng.permutation(len(heldout))[: round(len(heldout) * contaminated)])
    if not leaked:
        return []
    chosen = [heldout[leaked[k % len(leaked)]] for k in range(num)]
    return [Item(category=photo.category, kind="heldout_copy", source=photo.path) for photo in chosen]


def _plan_frames(frames: list[Path], num: int, *, start: int) -> list[Item]:
    """The dominant mode: frames of a few scenes; `start` is the index of the first in the plan."""
    first_of: dict[str, int] = {}
    items: list[Item] = []
    for k in range(num):
        path = frames[k % len(frames)]
        scene = path.stem.split("_")[0]
        items.append(
            Item(category=f"video_{scene}", kind="frame", source=path, of=first_of.get(scene), first=k < len(frames))
        )
        first_of.setdefault(scene, start + k)
    return items


def _plan_junk(num: int, base: list[Photo], rng: np.random.Generator) -> list[Item]:
    kinds = [JUNK_KINDS[k % len(JUNK_KINDS)] for k in range(num)]
    return [Item(category="junk", kind=kind, source=base[int(rng.integers(len(base)))].path) for kind in kinds]


def _copy_untouched(out: Path, split: Split) -> list[Row]:
    """Write curated/ and heldout/; returns their rows of the truth."""
    rows = []
    for kind, photos in (("curated", split.curated), ("heldout", split.heldout)):
        for photo in photos:
            file = _untouched_name(kind, photo)
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo.path, out / file)
            rows.append((file, photo.category, kind, "", _bundled_name(photo.path)))
    return rows


def _untouched_name(kind: str, photo: Photo) -> str:
    return f"{kind}/{photo.category}/{photo.path.name}"


def _bundled_name(path: Path) -> str:
    return path.relative_to(SAMPLES).as_posix()


def _write_items(out: Path, items: list[Item], names: list[str], heldout: list[Photo], seed: int) -> list[Row]:
    """Write pool/; returns its rows of the truth. The bytes that others are made from stay in memory."""
    (out / "pool").mkdir(parents=True, exist_ok=True)
    heldout_names = {photo.path: _untouched_name("heldout", photo) for photo in heldout}
    copied = {item.of for item in items}
    made: dict[int, bytes] = {}
    rows = []
    for i, item in enumerate(items):
        data = _make(item, made, np.random.default_rng([seed, 4, i]))
        if i in copied:
            made[i] = data
        (out / names[i]).write_bytes(data)
        copy_of = names[item.of] if item.of is not None else ""
        if item.kind == "heldout_copy":
            copy_of = heldout_names[item.source]
        source = "" if item.kind in JUNK_KINDS else _bundled_name(item.source)
        rows.append((names[i], item.category, item.kind, copy_of, source))
    return rows


def _write_truth(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TRUTH_COLUMNS)
        writer.writerows(sorted(rows))


def _make(item: Item, made: Mapping[int, bytes], rng: np.random.Generator) -> bytes:
    """The bytes of a planned file."""
    if item.kind == "exact_copy":
        return made[_source_index(item)]
    if item.kind in NEAR_KINDS:
        return _make_near(item.kind, _decode(io.BytesIO(made[_source_index(item)])), rng)
    picture = _decode(item.source)
    if item.kind == "original":
        return _to_jpeg(picture, 88)
    if item.kind == "view":
        return _make_view(picture, rng)
    if item.kind == "heldout_copy":
        return _make_near(str(rng.choice(NEAR_KINDS)), picture, rng)
    if item.kind == "frame":
        return _make_frame(picture, rng, first=item.first)
    return _make_junk(item.kind, picture, rng)


def _source_index(item: Item) -> int:
    assert item.of is not None
    return item.of


def _decode(source: Path | io.BytesIO) -> Image.Image:
    with Image.open(source) as picture:
        return picture.convert("RGB")


def _to_jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=int(quality))
    return buffer.getvalue()


def _make_view(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """Another picture that a crawl could hold of the same subject: crop (>= 60 %), flip, colour, size."""
    picture = _crop(picture, rng, 0.60, 0.95, jitter=0.12)
    if rng.random() < 0.5:
        picture = _flip(picture)
    if rng.random() < 0.5:
        picture = _recolour(picture, rng, 0.12)
    picture = _rescale(picture, rng.uniform(0.75, 1.1), 1, Image.Resampling.BICUBIC)
    return _to_jpeg(picture, int(rng.integers(75, 93)))


def _make_near(kind: str, picture: Image.Image, rng: np.random.Generator) -> bytes:
    if kind == "near_jpeg":
        return _to_jpeg(picture, int(rng.integers(20, 61)))
    if kind == "near_rescale":
        picture = _rescale(picture, rng.uniform(0.4, 0.8), 32, Image.Resampling.BILINEAR)
    elif kind == "near_crop":
        picture = _crop(picture, rng, 0.85, 0.95)
    elif kind == "near_flip":
        picture = _flip(picture)
    elif kind == "near_text":
        picture = _overlay_text(picture, rng)
    else:
        picture = _recolour(picture, rng, 0.25)
    return _to_jpeg(picture, int(rng.integers(70, 90)))


def _make_frame(picture: Image.Image, rng: np.random.Generator, *, first: bool) -> bytes:
    """A video frame: as it is the first time, then as takes of the same one, encoded again."""
    if first:
        return _to_jpeg(picture, 85)
    return _to_jpeg(_crop(picture, rng, 0.96, 1.0), int(rng.integers(55, 90)))


def _make_junk(kind: str, picture: Image.Image, rng: np.random.Generator) -> bytes:
    if kind == "junk_uniform":
        width, height = (int(v) for v in rng.integers(64, 400, 2))
        red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
        return _to_jpeg(Image.new("RGB", (width, height), (red, green, blue)), 85)
    if kind == "junk_noise":
        height, width = (int(v) for v in rng.integers(64, 300, 2))
        return _to_jpeg(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)), 60)
    if kind == "junk_tiny":
        side = int(rng.integers(1, 32))
        return _to_jpeg(picture.resize((side, max(1, side * picture.height // picture.width))), 85)
    if kind == "junk_truncated":
        data = _to_jpeg(picture, 85)
        return data[: int(len(data) * rng.uniform(0.02, 0.7))]
    if kind == "junk_text":
        page = b"<html><head><title>404 Not Found</title></head><body>gone %d</body></html>\n"
        return page % rng.integers(0, 10**9)
    if kind == "junk_empty":
        return b""
    return _make_strip(picture, rng)


def _make_strip(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """A picture of an extreme aspect, lying or standing."""
    width, height = picture.size
    if rng.random() < 0.5:
        lying = picture.crop((0, height // 2, width, height // 2 + max(8, height // 12)))
        return _to_jpeg(lying.resize((width * 2, 24)), 85)
    standing = picture.crop((width // 2, 0, width // 2 + max(8, width // 12), height))
    return _to_jpeg(standing.resize((24, height * 2)), 85)


def _crop(
    picture: Image.Image, rng: np.random.Generator, low: float, high: float, *, jitter: float = 0.0
) -> Image.Image:
    """A random crop that keeps between `low` and `high` of the area; `jitter` varies its aspect."""
    width, height = picture.size
    keep = rng.uniform(low, high)
    aspect = np.exp(rng.uniform(-jitter, jitter)) if jitter else 1.0
    share_x = min(1.0, np.sqrt(keep) * aspect)  # the shares of the sides multiply to `keep`, neither exceeds 1
    share_y = min(1.0, keep / share_x)
    share_x = min(1.0, keep / share_y)
    w, h = max(1, int(np.ceil(width * share_x))), max(1, int(np.ceil(height * share_y)))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return picture.crop((x, y, x + w, y + h))


def _flip(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _rescale(picture: Image.Image, scale: float, least: int, filtering: Image.Resampling) -> Image.Image:
    """Resize by a factor, to at least `least` pixels a side."""
    size = (max(least, round(picture.width * scale)), max(least, round(picture.height * scale)))
    return picture.resize(size, filtering)


def _recolour(picture: Image.Image, rng: np.random.Generator, amount: float) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(float(rng.uniform(1 - amount, 1 + amount)))
    return picture


def _overlay_text(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(int(min(picture.size) * rng.uniform(0.07, 0.14)))
    x = int(rng.uniform(0.02, 0.35) * picture.width)
    y = int(rng.uniform(0.05, 0.85) * picture.height)
    red, green, blue = (int(v) for v in rng.choice([(255, 255, 255), (255, 230, 0), (20, 20, 20)]))
    words = str(rng.choice(_OVERLAYS))
    draw.text((x + 1, y + 1), words, fill=(0, 0, 0), font=font)
    draw.text((x, y), words, fill=(red, green, blue), font=font)
    return picture
