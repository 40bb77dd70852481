"""What composites are made of: objects by class, and backgrounds, each in two halves that share no picture.

In a set with classes, an object is the middle of a picture (or the thing on its plain background) and has the class of
that picture, so that a class told right is one that was seen on other pictures. In a set without classes some pictures
are classes of their own: then the same object is to be known again elsewhere. Backgrounds are pictures of other
classes. Where the set shows things on one color, whose backgrounds would all look alike, they are bundled photographs.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image

from curate.errors import SourceError
from curate.evaluation.dense.cutouts import lies_on_one_color
from curate.evaluation.labeled import Decode, LabeledImages, open_labeled
from curate.ops.images.preprocess import MAX_ASPECT, middle

Half = Literal["train", "test"]
HALVES: tuple[Half, Half] = ("train", "test")

MAX_CLASSES = 10
"""Classes of objects at most."""
PER_CLASS = 16
"""Pictures of a class in either half, at most."""
BACKGROUNDS = 64
"""Backgrounds in either half, at most."""
LONG_SIDE = 320
"""Pixels of the long side to which pictures are brought that are larger: 500 of them then take 150 MB."""
LOOKED_AT = 12
"""Pictures that tell whether the set shows things on one color."""
NEEDED = 6
"""Pictures at least."""


@dataclass(frozen=True)
class _Rows:
    """Rows of a set for each half."""

    images: LabeledImages
    train: tuple[np.ndarray, ...]
    """(R,) int64 rows of each class."""
    test: tuple[np.ndarray, ...]

    def of(self, half: Half) -> tuple[np.ndarray, ...]:
        return self.train if half == "train" else self.test


class Material:
    """Objects and backgrounds that are made of a set of pictures."""

    def __init__(self, images: LabeledImages, *, seed: int) -> None:
        """Choose pictures; they are decoded when the first is asked for.

        Args:
            images: the set.
            seed: seed of the choice.

        Raises:
            SourceError: too few pictures, or one does not decode.
        """
        if len(images) < NEEDED:
            raise SourceError(f"{images.name}: {len(images)} pictures, at least {NEEDED} are needed for composites")
        rng = np.random.default_rng([seed, len(images)])
        self.plain = _shows_things_on_one_color(images)
        large = np.flatnonzero(np.bincount(images.labels) >= 4)  # two pictures in either half
        self.same_pictures = len(large) < 2
        """Whether pictures are their own classes, which both halves show."""
        if self.same_pictures:
            self._objects, self.classes = _pictures_as_classes(images, rng)
        else:
            most = len(large) if self.plain or len(large) < 4 else len(large) // 2
            chosen = _spread(large, min(MAX_CLASSES, most))
            self._objects = _halves(images, [np.flatnonzero(images.labels == label) for label in chosen], rng)
            self.classes = tuple(images.classes[label] for label in chosen)
        self._backgrounds = self._choose_backgrounds(images, rng)

    def _choose_backgrounds(self, images: LabeledImages, rng: np.random.Generator) -> _Rows:
        taken = np.concatenate([*self._objects.train, *self._objects.test])
        used = taken if self.same_pictures else np.flatnonzero(np.isin(images.labels, images.labels[taken]))
        left = np.setdiff1d(np.arange(len(images)), used)
        if self.plain or len(left) < 4:
            images = open_labeled("bundled")
            left = np.arange(len(images))
        return _halves(images, [left], rng, most=BACKGROUNDS)

    def object(self, label: int, half: Half, rng: np.random.Generator) -> Image.Image:
        """A picture of class `label`, 0..len(classes)-1."""
        return self._object_pictures[int(rng.choice(self._objects.of(half)[label]))]

    def background(self, half: Half, rng: np.random.Generator) -> Image.Image:
        """A picture to lie behind objects."""
        return self._background_pictures[int(rng.choice(self._backgrounds.of(half)[0]))]

    @cached_property
    def _object_pictures(self) -> dict[int, Image.Image]:
        return _decode(self._objects)

    @cached_property
    def _background_pictures(self) -> dict[int, Image.Image]:
        return _decode(self._backgrounds)


def _shows_things_on_one_color(images: LabeledImages) -> bool:
    looked = _spread(np.arange(len(images)), LOOKED_AT)
    return bool(np.mean([lies_on_one_color(_shrunk(decode)) for decode in images.pictures(looked)]) > 0.5)


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """Up to `most` of rising values, evenly spread over them."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


def _pictures_as_classes(images: LabeledImages, rng: np.random.Generator) -> tuple[_Rows, tuple[str, ...]]:
    chosen = np.sort(rng.permutation(len(images))[: max(2, min(MAX_CLASSES, len(images) // 3))])
    rows = tuple(chosen[i : i + 1] for i in range(len(chosen)))
    return _Rows(images, rows, rows), tuple(f"picture {row + 1}" for row in chosen.tolist())


def _halves(
    images: LabeledImages, groups: list[np.ndarray], rng: np.random.Generator, *, most: int = PER_CLASS
) -> _Rows:
    shuffled = [rng.permutation(rows)[: 2 * most] for rows in groups]
    cut = [(rows[: len(rows) // 2], rows[len(rows) // 2 :]) for rows in shuffled]
    return _Rows(images, tuple(np.sort(first) for first, _ in cut), tuple(np.sort(second) for _, second in cut))


def _decode(rows: _Rows) -> dict[int, Image.Image]:
    """The pictures of all rows, decoded by threads, each file read once and in order."""
    wanted = np.unique(np.concatenate([*rows.train, *rows.test]))
    with ThreadPoolExecutor() as pool:
        return dict(zip(wanted.tolist(), pool.map(_shrunk, rows.images.pictures(wanted)), strict=True))


def _shrunk(decode: Decode) -> Image.Image:
    picture = middle(decode(), max_aspect=MAX_ASPECT).copy()
    picture.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BICUBIC)
    return picture
