"""Sets of labeled pictures that pools are made of: digits, clip art, photographs, or a folder of one's own."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.evaluation.labeled import LabeledImages, open_labeled
from curate.ops.images.preprocess import MAX_ASPECT, middle
from curate.samples.mnist import load_mnist5k

MAX_CLASSES = 20
"""Classes that are kept, the largest ones."""
MIN_PICTURES, MIN_CLIP_ART = 12, 100
"""Pictures that a class of a folder, or of clip art, needs to be kept."""
MAX_PICTURES = 400
"""Pictures of a class that are kept."""
NO_CLASSES = ("unsorted", "special")
"""Folders of clip art that hold pictures of every kind."""
CLIP_ART = Path("/usr/share/openclipart/png")
"""Where Debian's package `openclipart-png` puts its pictures."""
MOST_ASKED = 100
"""Pictures of each class that are asked for, and as many that are labeled, at most."""

FOR_DIGITS = ("inspect.limits.min_side=28", "copies.verify=false")
"""Of the recipes: pictures this small count, and since strokes of different digits can be laid over each other, the
embedding alone judges copies."""
DIGITS = ("model.dim=192", "objective.ibot_weight=0", "crops.jitter_probability=0.8")
"""Of a training on digits: ViT-Ti's width, which learns more in so few iterations; no iBOT, which costs a fifth of the
time; jitter of brightness, so that digits are not told apart by their amount of ink."""


class Rows(NamedTuple):
    """Rows of a set by what they are for."""

    pool: np.ndarray  # pools are made of them
    labeled: np.ndarray  # read-outs see their labels; equally many of each class
    asked: np.ndarray  # the test set; equally many of each class


@dataclass(frozen=True)
class LabeledSet:
    """Square pictures with classes, and how they are curated and trained on."""

    name: str
    images: np.ndarray
    """(N, S, S, 3) uint8."""
    labels: np.ndarray
    """(N,) int64."""
    classes: tuple[str, ...]
    config: str
    """Of every training."""
    training: tuple[str, ...]
    """`key=value` changes of that config."""
    curation: tuple[str, ...]
    """`key=value` changes of every recipe, `RECIPE:key=value` of one."""
    iterations: int
    """Of the shorter training."""

    @property
    def digest(self) -> str:
        """Of the pictures and labels."""
        found = hashlib.sha256(self.images.tobytes())
        found.update(self.labels.tobytes())
        return found.hexdigest()

    def split(self) -> Rows:
        """Rows for pools, for labels and for tests, the same for every seed; no picture is in two of them."""
        counts = np.bincount(self.labels)
        each = max(2, min(MOST_ASKED, int(counts.min()) // 5))
        rng = np.random.default_rng(0)
        by_class = [rng.permutation(np.flatnonzero(self.labels == label)) for label in range(len(counts))]
        parts = (slice(2 * each, None), slice(each, 2 * each), slice(each))
        return Rows(*(np.sort(np.concatenate([rows[part] for rows in by_class])) for part in parts))


def open_set(name: str, *, clip_art: Path = CLIP_ART) -> LabeledSet:
    """A set by name, or a folder with a subfolder for each class.

    Args:
        name: `mnist`, `photos`, `openclipart`, or a folder.
        clip_art: folder of Debian's clip art.

    Raises:
        ConfigError: neither a name nor a folder, or the clip art is not there.
        SourceError: too few pictures, or one does not decode.
    """
    if name == "mnist":
        images, labels = load_mnist5k()
        colored = np.repeat(images[..., None], 3, axis=3)
        classes = tuple(str(digit) for digit in range(10))
        return LabeledSet(name, colored, labels.astype(np.int64), classes, "train/mnist5k", DIGITS, FOR_DIGITS, 600)
    if name == "photos":
        return _from_folder(name, "bundled", least=MIN_PICTURES)
    if name == "openclipart":
        if not clip_art.is_dir():
            raise ConfigError(
                f"{clip_art}: no clip art; `apt-get download openclipart-png`, unpack it with `dpkg-deb -x FILE "
                "FOLDER`, and give --clip-art FOLDER/usr/share/openclipart/png"
            )
        return _from_folder(name, str(clip_art), least=MIN_CLIP_ART, skipped=NO_CLASSES)
    if not Path(name).is_dir():
        raise ConfigError(f"set={name}: known are mnist, photos, openclipart, and folders with a subfolder a class")
    return _from_folder(name, name, least=MIN_PICTURES)


SIDE = 96
"""Pixels along the side of pictures of folders."""
FOR_PICTURES = ("inspect.limits.min_side=64",)
TINY = ("crops.num_local=0",)
"""Of a training on pictures: local crops would double the time of a step."""


def _from_folder(name: str, place: str, *, least: int, skipped: tuple[str, ...] = ()) -> LabeledSet:
    opened = open_labeled(place)
    counts = np.bincount(opened.labels)
    fit = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] >= least]
    kept = sorted([i for i in fit if opened.classes[i] not in skipped][:MAX_CLASSES])
    if len(kept) < 2:
        raise SourceError(f"{place}: {len(kept)} classes of {least} pictures or more; at least 2 are needed")
    rows = np.sort(np.concatenate([np.flatnonzero(opened.labels == i)[:MAX_PICTURES] for i in kept]))
    numbers = {label: number for number, label in enumerate(kept)}
    labels = np.array([numbers[label] for label in opened.labels[rows].tolist()])
    classes = tuple(opened.classes[i] for i in kept)
    images = np.stack(list(_squares(opened, rows)))
    return LabeledSet(name, images, labels, classes, "train/tiny", TINY, FOR_PICTURES, 400)


def _squares(opened: LabeledImages, rows: np.ndarray) -> Iterator[np.ndarray]:
    """(S, S, 3) uint8, the whole of each picture on white: clip art fills its frame, and a crop would cut it."""
    for decode in opened.pictures(rows):
        picture = middle(decode(), max_aspect=MAX_ASPECT).copy()
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        square = Image.new("RGB", (SIDE, SIDE), "white")
        square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
        yield np.asarray(square)
