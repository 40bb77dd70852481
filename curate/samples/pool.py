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

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import refuse_url
from curate.errors import ConfigError, SourceError, first_line
from curate.samples.bundled import FRAMES, Photo, bundled_name, photos_by_category
from curate.samples.pictures import make_file
from curate.samples.plan import PhotoSplit, PoolFile, plan_files, shuffled, split_photos
from curate.samples.truth import JUNK_KINDS, TruthRow, write_truth
from curate.sealed_json import dump_sealed, load_sealed

CURATED_CATEGORIES = ("castles_palaces", "fish", "ruins_pyramids", "tools", "towers_statues", "wild_mammals")
"""Large categories of one clear subject each: the seeds of retrieval."""

MARKER = "pool.json"
MIN_IMAGES = 20
VERSION = 1
"""To be raised when the same parameters give other files."""


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
    refuse_url(out, setting="FOLDER")
    photos = photos_by_category()
    chosen = sorted(set(curated_categories))
    _check(num_images, contaminated, unknown=sorted(set(chosen) - set(photos)))
    parameters = {
        "version": VERSION,
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
    split = split_photos(
        photos, np.random.default_rng([seed, 1]), categories=chosen, curated_each=curated_each, num_heldout=num_heldout
    )
    frames = shuffled(sorted(FRAMES.glob("*.jpg")), np.random.default_rng([seed, 2]))
    rng = np.random.default_rng([seed, 3])  # a stream of its own: the split does not move with num_images
    items = plan_files(num_images, split, frames, rng, contaminated=contaminated, tail=tail)
    names = [f"pool/{i:06d}.jpg" for i in rng.permutation(len(items))]  # the order tells nothing
    unfinished = out.with_name(out.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    rows = _copy_untouched(unfinished, split) + _write_items(unfinished, items, names, split.heldout, seed)
    write_truth(unfinished / "truth.csv", rows)
    (unfinished / MARKER).write_bytes(dump_sealed(parameters))
    unfinished.replace(out)  # whole or not at all; an empty folder gives way


def _check(num_images: int, contaminated: float, *, unknown: list[str]) -> None:
    if num_images < MIN_IMAGES:
        raise ConfigError(f"num_images is {num_images}, it must be at least {MIN_IMAGES}")
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
    try:
        found = load_sealed((out / MARKER).read_bytes())
        assert isinstance(found, dict)
    except (ValueError, AssertionError) as error:
        raise SourceError(f"{out / MARKER}: damaged ({first_line(error)}); delete {out} and make it again") from error
    changed = [name for name in parameters if found.get(name) != parameters[name]]
    if changed:
        had = ", ".join(f"{name}={found.get(name)!r}, not {parameters[name]!r}" for name in changed)
        raise SourceError(f"{out}: holds a pool made with {had}; delete it or choose another folder")
    return True


def _copy_untouched(out: Path, split: PhotoSplit) -> list[TruthRow]:
    """Write curated/ and heldout/; returns their rows of the truth."""
    rows = []
    for kind, photos in (("curated", split.curated), ("heldout", split.heldout)):
        for photo in photos:
            file = _untouched_name(kind, photo)
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo.path, out / file)
            rows.append(TruthRow(file, photo.category, kind, "", bundled_name(photo.path)))
    return rows


def _untouched_name(kind: str, photo: Photo) -> str:
    return f"{kind}/{photo.category}/{photo.path.name}"


def _write_items(out: Path, items: list[PoolFile], names: list[str], heldout: list[Photo], seed: int) -> list[TruthRow]:
    """Write pool/; returns its rows of the truth. The bytes that others are made from stay in memory."""
    (out / "pool").mkdir(parents=True, exist_ok=True)
    heldout_names = {photo.path: _untouched_name("heldout", photo) for photo in heldout}
    copied = {item.of for item in items}
    made: dict[int, bytes] = {}
    rows = []
    for i, item in enumerate(items):
        data = make_file(item, made, np.random.default_rng([seed, 4, i]))
        if i in copied:
            made[i] = data
        (out / names[i]).write_bytes(data)
        copy_of = names[item.of] if item.of is not None else ""
        if item.kind == "heldout_copy":
            copy_of = heldout_names[item.source]
        source = "" if item.kind in JUNK_KINDS else bundled_name(item.source)
        rows.append(TruthRow(names[i], item.category, item.kind, copy_of, source))
    return rows
