"""Sets of labeled pictures that pools are made of: digits, letters, clip art, photographs, or a folder of one's own."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.curation.glyphs import NAME as GLYPH24
from benchmarks.curation.letters import FONTS, LETTERS, draw_letters
from benchmarks.scikit_digits import load_scikit_digits
from curate.errors import ConfigError, SourceError
from curate.evaluation.labeled import Decode, open_labeled
from curate.ops.images.bounds import Bounds
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
CLIP_ART_BOUNDS = Bounds(max_decode_bytes=128 << 20)
"""What decoding a piece of clip art may cost: some are drawn at 10,000 pixels and more, and are left out."""
MOST_ASKED = 100
"""Pictures of each class that are asked for, and as many that are labeled, at most."""

FOR_DIGITS = (
    *("inspect.limits.min_side=28", "copies.verify=false", "copies.crowds=trust"),
    *("hierarchical:screen.looks=[grayscale]", "hierarchical:screen.where=grayscale > 0.5"),
)
"""Of the recipes: pictures this small count; since strokes of different digits can be laid over each other, the
embedding alone judges copies, also where many look alike, as digits do to it; and what is in color is no digit. Once
copies are gone, two fifths of such a pool are junk, which is then too usual to be found by its density."""
FOR_GLYPHS = (*FOR_DIGITS, "copies.threshold=0.88")
"""The same for white shapes of 28 pixels, of which the threshold of the model leaves so many copies that half of the
kept pictures are some; on a pool of letters 0.88 leaves a tenth (counted with the truth, on seed 0)."""
FOR_SHAPES = (
    *FOR_DIGITS,
    *(f"copies.embed={{model: {GLYPH24}}}", "copies.threshold=0.96"),
    *(f"hierarchical:embed.model={GLYPH24}", f"lvd142m:retrieval.embed.model={GLYPH24}"),
    "hierarchical:clusters.levels=[400,100,10]",
)
"""The same with a descriptor of shapes in place of networks for photographs. To these half of the 839 originals of a
pool of MNIST look more like another digit than copies do like their original; to it 99 % of the copies are over 0.962,
and 99 % of the originals have no other over 0.958 (seed 0)."""
ENLARGED = 32
"""Pixels along the side of scikit-learn's digits, which have 8."""
DIGITS = ("model.dim=96", "model.heads=3", "crops.jitter_probability=0.8", "batch_size=64", "optimizer.base_lr=4e-3")
"""Of a training on digits: jitter of brightness, so that digits are not told apart by their amount of ink; larger
batches and steps, with which a ViT this small learns as much in half the iterations."""


OBJECTIVES = {
    "diet": ("objective={kind: diet}",),
    "dinov2": (
        *("objective.prototypes=64", "objective.head_hidden=512", "objective.head_bottleneck=64"),
        *("objective.teacher_temperature=[0.02,0.02]", "objective.koleo_weight=1", "objective.ibot_weight=0"),
    ),
}
"""By name, their settings in trainings this short. Of a hundred digits DIET learns more than DINOv2 in the same number
of iterations, and so its trainings tell sets apart."""


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


def open_set(
    name: str, *, objective: str = "diet", clip_art: Path = CLIP_ART, fonts: Path = FONTS, kept: Path | None = None
) -> LabeledSet:
    """A set by name, or a folder with a subfolder for each class.

    Args:
        name: `mnist`, `digits`, `letters`, `photos`, `openclipart`, or a folder.
        objective: of the trainings, a key of `OBJECTIVES`.
        clip_art: folder of Debian's clip art.
        fonts: folder of Debian's fonts that letters are drawn with.
        kept: file for the clip art at its small size, whose decoding takes minutes; None: it is not kept.

    Raises:
        ConfigError: neither a name nor a folder, another objective, or clip art or fonts are not there.
        SourceError: too few pictures, or one does not decode.
    """
    if objective not in OBJECTIVES:
        raise ConfigError(f"objective={objective}: known are {', '.join(OBJECTIVES)}")
    found = _open(name, clip_art, fonts, kept)
    return replace(found, training=(*found.training, *OBJECTIVES[objective]))


def _open(name: str, clip_art: Path, fonts: Path, kept: Path | None) -> LabeledSet:
    if name == "mnist":
        images, labels = load_mnist5k()
        colored = np.repeat(images[..., None], 3, axis=3)
        classes = tuple(str(digit) for digit in range(10))
        return LabeledSet(name, colored, labels.astype(np.int64), classes, "train/mnist5k", DIGITS, FOR_SHAPES, 800)
    if name == "digits":
        small, labels = load_scikit_digits()
        images = np.stack([np.asarray(Image.fromarray(one).resize((ENLARGED, ENLARGED))) for one in small])
        classes = tuple(str(digit) for digit in range(10))
        return LabeledSet(name, images, labels, classes, "train/mnist5k", DIGITS, FOR_DIGITS, 300)
    if name == "letters":
        images, labels = draw_letters(fonts)
        colored = np.repeat(images[..., None], 3, axis=3)
        return LabeledSet(name, colored, labels, tuple(LETTERS), "train/mnist5k", DIGITS, FOR_GLYPHS, 400)
    if name == "photos":
        return _from_folder(name, "bundled", least=MIN_PICTURES)
    if name == "openclipart":
        if not clip_art.is_dir():
            raise ConfigError(
                f"{clip_art}: no clip art; `apt-get download openclipart-png`, unpack it with `dpkg-deb -x FILE "
                "FOLDER`, and give --clip-art FOLDER/usr/share/openclipart/png"
            )
        return _clip_art(clip_art, kept)
    if not Path(name).is_dir():
        raise ConfigError(
            f"set={name}: known are mnist, digits, letters, photos, openclipart, and folders with a subfolder a class"
        )
    return _from_folder(name, name, least=MIN_PICTURES)


SIDE = 96
"""Pixels along the side of pictures of folders."""
FOR_PICTURES = ("inspect.limits.min_side=64",)
TINY = (
    *("crops.num_local=0", "crops.blur=none", "crops.solarize_probability=0", "crops.gray_probability=0"),
    *("crops.hue=0", "crops.saturation=0", "crops.global_size=48", "crops.global_scale=[0.4,1.0]", "batch_size=64"),
    *("model.patch_size=8", "model.dim=96", "model.heads=3", "model.depth=2", "optimizer.base_lr=4e-3"),
    *("precision=auto", "workers=1", "worker_kind=process"),
)
"""Of a training on pictures: what lets digits learn in some hundred iterations; colors stay, which tell classes."""


def _clip_art(folder: Path, kept: Path | None) -> LabeledSet:
    if kept is not None and kept.exists():
        with np.load(kept, allow_pickle=False) as stored:
            return _of_pictures("openclipart", stored["images"], stored["labels"], tuple(stored["classes"].tolist()))
    found = _from_folder("openclipart", str(folder), least=MIN_CLIP_ART, skipped=NO_CLASSES, bounds=CLIP_ART_BOUNDS)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        writing = kept.with_name(f"writing-{kept.name}")
        np.savez(writing, images=found.images, labels=found.labels, classes=np.array(found.classes))
        writing.replace(kept)
    return found


def _from_folder(
    name: str, place: str, *, least: int, skipped: tuple[str, ...] = (), bounds: Bounds | None = None
) -> LabeledSet:
    """The large classes of a folder; with `bounds`, pictures beyond them are left out, else they are errors."""
    opened = open_labeled(place, bounds=bounds)
    counts = np.bincount(opened.labels)
    fit = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] >= least]
    kept = sorted([i for i in fit if opened.classes[i] not in skipped][:MAX_CLASSES])
    if len(kept) < 2:
        raise SourceError(f"{place}: {len(kept)} classes of {least} pictures or more; at least 2 are needed")
    rows = np.sort(np.concatenate([np.flatnonzero(opened.labels == i)[:MAX_PICTURES] for i in kept]))
    with ThreadPoolExecutor(2) as pool:
        squares = list(pool.map(partial(_square, lenient=bounds is not None), opened.pictures(rows)))
    there = np.array([square is not None for square in squares])
    labels = np.searchsorted(kept, opened.labels[rows[there]])
    images = np.stack([square for square in squares if square is not None])
    return _of_pictures(name, images, labels, tuple(opened.classes[i] for i in kept))


def _of_pictures(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> LabeledSet:
    return LabeledSet(name, images, labels.astype(np.int64), classes, "train/tiny", TINY, FOR_PICTURES, 300)


def _square(decode: Decode, *, lenient: bool) -> np.ndarray | None:
    """(S, S, 3) uint8, the whole of a picture on white: clip art fills its frame, and a crop would cut it."""
    try:
        picture = middle(decode(), max_aspect=MAX_ASPECT).copy()
    except SourceError:
        if lenient:
            return None
        raise
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(square)
