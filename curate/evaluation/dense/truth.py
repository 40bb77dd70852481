"""Pictures with a truth for every pixel: what the dense measures ask, whoever made it.

Pictures are made or read when they are asked for, so a task of any size costs the memory of a few of them. Coordinates
are (x, y) in pixels from the top left corner of the picture; the center of the first pixel is (0.5, 0.5).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from curate.errors import ConfigError

UNKNOWN = -1
"""Label of a pixel whose class is not stated; it counts neither for nor against."""

T_co = TypeVar("T_co", covariant=True)


class Series(Generic[T_co]):
    """So many things in a fixed order, each made anew when it is asked for."""

    def __init__(self, num: int, get: Callable[[int], T_co]) -> None:
        self._num, self._get = num, get

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[T_co]:
        return map(self._get, range(self._num))

    def __getitem__(self, number: int) -> T_co:
        if not 0 <= number < self._num:
            raise IndexError(number)
        return self._get(number)

    def first(self, most: int) -> "Series[T_co]":
        """The first of them, at most so many."""
        return Series(min(most, self._num), self._get)


class Segmented(NamedTuple):
    """A picture whose pixels have classes."""

    picture: Image.Image
    labels: np.ndarray  # (H, W) int64, 0..C-1 or UNKNOWN


class Matched(NamedTuple):
    """Two views of one scene, and points that are seen in both."""

    first: Image.Image
    second: Image.Image
    points: np.ndarray  # (K, 2) float64, (x, y) in the first view
    found: np.ndarray  # (K, 2) float64, the same points in the second view


class Clip(NamedTuple):
    """Frames of a video, and the objects in each of them."""

    name: str
    frames: Series[Image.Image]
    masks: Series[np.ndarray]  # (H, W) int64 each: 0 background, 1..K objects, UNKNOWN


class Deep(NamedTuple):
    """A picture whose pixels have depths."""

    picture: Image.Image
    depth: np.ndarray  # (H, W) float32, NaN: unknown


class WithObjects(NamedTuple):
    """A picture and the objects in it."""

    picture: Image.Image
    boxes: np.ndarray  # (K, 4) float64, left, top, right, bottom
    mask: np.ndarray | None  # (H, W) bool, the pixels of the objects; None: boxes alone are known


@dataclass(frozen=True)
class SegmentationTask:
    """Labels are read from `train` and told for `test`."""

    train: Series[Segmented]
    test: Series[Segmented]
    classes: tuple[str, ...]
    protocol: str
    """What the pictures are, in words of the table."""


@dataclass(frozen=True)
class CorrespondenceTask:
    """Points of first views are looked for in second views."""

    pairs: Series[Matched]
    protocol: str


@dataclass(frozen=True)
class PropagationTask:
    """The objects of a first frame are followed."""

    clips: Series[Clip]
    protocol: str


@dataclass(frozen=True)
class DepthTask:
    """Depths are learned on `train` and told for `test`."""

    train: Series[Deep]
    test: Series[Deep]
    unit: str
    """Unit of the depths."""
    deepest: float
    """Depths that are told are kept between 0 and this."""
    protocol: str


@dataclass(frozen=True)
class DiscoveryTask:
    """Objects are found without a label."""

    pictures: Series[WithObjects]
    protocol: str


@dataclass(frozen=True)
class DenseTruth:
    """What is known about every pixel of a set of pictures; None: no truth for that task."""

    name: str
    """Name of the set."""
    segmentation: SegmentationTask | None = None
    correspondence: CorrespondenceTask | None = None
    propagation: PropagationTask | None = None
    depth: DepthTask | None = None
    discovery: DiscoveryTask | None = None

    def known(self) -> list[str]:
        """Names of the tasks that have a truth."""
        tasks = ("segmentation", "correspondence", "propagation", "depth", "discovery")
        return [name for name in tasks if getattr(self, name) is not None]

    def check(self, task: str) -> None:
        """Raise ConfigError where `task` has no truth here."""
        if task not in self.known():
            raise ConfigError(
                f"{self.name}: holds no truth for {task}, but for {', '.join(self.known())}; ask for that, or give "
                "another --data"
            )
