"""What a generated pool is made of: which photograph serves which purpose, and each file before it is made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from curate.samples.bundled import Photo
from curate.samples.truth import JUNK_KINDS, NEAR_KINDS

SHARES = {"frame": 0.22, "near": 0.20, "exact_copy": 0.05, "heldout_copy": 0.03, "junk": 0.04}
"""Shares of the pool; the rest are the photographs' originals and views."""


class PhotoSplit(NamedTuple):
    """What each photograph is used for; none has two uses."""

    curated: list[Photo]
    """Seeds of retrieval."""
    heldout: list[Photo]
    """A benchmark that the pool is contaminated with."""
    base: list[Photo]
    """Those that the pool is made from."""


@dataclass(frozen=True, kw_only=True)
class PoolFile:
    """One file of the pool before it is made; in a plan, originals come before their copies."""

    category: str
    kind: str
    source: Path
    """Bundled picture that it shows."""
    of: int | None = None
    """Index in the plan of the file that it is made from; None: it is made from the bundled picture."""
    first: bool = False
    """The first file that shows a video frame: it is not edited."""


def split_photos(
    photos: Mapping[str, list[Path]],
    rng: np.random.Generator,
    *,
    categories: Iterable[str],
    curated_each: int,
    num_heldout: int,
) -> PhotoSplit:
    """Give every photograph to the curated seeds, the held-out benchmark, or the pool.

    Args:
        photos: paths of each category.
        categories: categories that give curated seeds.
        curated_each: seeds of each of them, at most half of the category.
        num_heldout: held-out photographs, fewer where categories would be left with less than two.
    """
    curated: list[Photo] = []
    left: dict[str, list[Path]] = {}
    for category in sorted(photos):
        paths = shuffled(photos[category], rng)
        k = min(curated_each, len(paths) // 2) if category in categories else 0
        curated += [Photo(category, path) for path in paths[:k]]
        left[category] = paths[k:]
    heldout = _take_heldout(left, num_heldout)
    return PhotoSplit(curated, heldout, [Photo(c, path) for c in sorted(left) for path in left[c]])


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


def plan_files(
    num_images: int,
    split: PhotoSplit,
    frames: list[Path],
    rng: np.random.Generator,
    *,
    contaminated: float,
    tail: float,
) -> list[PoolFile]:
    """Plan the files of a pool, originals before their copies.

    Args:
        num_images: files in all.
        frames: bundled video frames, in the order in which they are used.
        contaminated: share of the held-out photographs that have copies in the pool, 0..1.
        tail: exponent of the power law over categories; 0: flat.
    """
    want = {kind: round(num_images * share) for kind, share in SHARES.items()}
    if not split.heldout:
        want["heldout_copy"] = 0
    items = _plan_views(num_images - sum(want.values()), split.base, tail, rng)
    items += _plan_copies(items, want["near"], want["exact_copy"], rng)
    items += _plan_contamination(split.heldout, want["heldout_copy"], contaminated, rng)
    items += _plan_frames(frames, want["frame"], start=len(items))
    return items + _plan_junk(num_images - len(items), split.base, rng)


def _plan_views(num: int, base: list[Photo], tail: float, rng: np.random.Generator) -> list[PoolFile]:
    """Every photograph once, then more views of them, drawn by a long-tailed law over categories."""
    weights = _photo_weights(base, tail, rng)
    if num <= len(base):
        chosen = rng.choice(len(base), size=num, replace=False, p=weights)
        return [_original(base[i]) for i in sorted(chosen)]
    views = rng.choice(len(base), size=num - len(base), p=weights)
    items = [_original(photo) for photo in base]
    return items + [PoolFile(category=base[i].category, kind="view", source=base[i].path, of=int(i)) for i in views]


def _original(photo: Photo) -> PoolFile:
    return PoolFile(category=photo.category, kind="original", source=photo.path)


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


def _plan_copies(items: list[PoolFile], num_near: int, num_exact: int, rng: np.random.Generator) -> list[PoolFile]:
    """Near and exact copies; a few pictures are copied very often (a power law over a random order)."""
    popular = rng.permutation(len(items))
    law = _zipf(len(items), 0.8)
    near = rng.choice(popular, size=num_near, p=law)
    copies = [_copy(items, int(i), str(rng.choice(NEAR_KINDS))) for i in near]
    exact = rng.choice(popular, size=num_exact, p=law)
    return copies + [_copy(items, int(i), "exact_copy") for i in exact]


def _copy(items: list[PoolFile], of: int, kind: str) -> PoolFile:
    return PoolFile(category=items[of].category, kind=kind, source=items[of].source, of=of)


def _plan_contamination(
    heldout: list[Photo], num: int, contaminated: float, rng: np.random.Generator
) -> list[PoolFile]:
    """Copies of some of the held-out pictures, of each in turn."""
    leaked = sorted(rng.permutation(len(heldout))[: round(len(heldout) * contaminated)])
    if not leaked:
        return []
    chosen = [heldout[leaked[k % len(leaked)]] for k in range(num)]
    return [PoolFile(category=photo.category, kind="heldout_copy", source=photo.path) for photo in chosen]


def _plan_frames(frames: list[Path], num: int, *, start: int) -> list[PoolFile]:
    """The dominant mode: frames of a few scenes; `start` is the index of the first in the plan."""
    first_of: dict[str, int] = {}
    items: list[PoolFile] = []
    for k in range(num):
        path = frames[k % len(frames)]
        scene = path.stem.split("_")[0]
        items.append(
            PoolFile(
                category=f"video_{scene}", kind="frame", source=path, of=first_of.get(scene), first=k < len(frames)
            )
        )
        first_of.setdefault(scene, start + k)
    return items


def _plan_junk(num: int, base: list[Photo], rng: np.random.Generator) -> list[PoolFile]:
    kinds = [JUNK_KINDS[k % len(JUNK_KINDS)] for k in range(num)]
    return [PoolFile(category="junk", kind=kind, source=base[int(rng.integers(len(base)))].path) for kind in kinds]


def shuffled(paths: list[Path], rng: np.random.Generator) -> list[Path]:
    """The same paths in a random order."""
    return [paths[i] for i in rng.permutation(len(paths))]
