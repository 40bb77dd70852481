"""Whether a picture is found again from a part of it: what self-supervision is trained for, so that it shows early.

Each picture is asked for once, by a random part of it that is mirrored half of the time; the answer is the nearest of
all whole pictures by cosine. Agreement of such views is what DINO's loss asks of a network (Caron et al. 2021,
arXiv:2104.14294, section 3.1), while classes follow from it only after long training.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image, ImageOps

from curate.errors import SourceError
from curate.evaluation.accuracy import Accuracy
from curate.evaluation.features import prepare
from curate.evaluation.labeled import Decode, LabeledImages
from curate.models.backbones.backbone import Backbone
from curate.ops.images.preprocess import MAX_ASPECT, middle
from curate.ops.vectors import normalize

STRETCH = 4 / 3
"""The part's aspect ratio differs from the picture's by this factor at most."""


def find_from_parts(backbone: Backbone, images: LabeledImages, *, area: tuple[float, float], seed: int) -> Accuracy:
    """The share of pictures whose nearest one, asked by a part of it, is the picture itself.

    Args:
        area: least and largest share of its picture's area that a part shows.
        seed: seed of the parts; with one seed every backbone answers the same questions.

    Raises:
        SourceError: there are fewer than two pictures, or one cannot be read or does not decode.
    """
    if len(images) < 2:
        raise SourceError(f"{images.name}: {len(images)} pictures, at least 2 are needed to find one among others")
    whole = _embed(backbone, images.pictures())
    parts = _embed(backbone, _parts(images, area, seed))
    return Accuracy.of(np.argmax(parts @ whole.T, axis=1) == np.arange(len(images)))


def _embed(backbone: Backbone, pictures: Iterator[Decode]) -> np.ndarray:
    return normalize(
        np.concatenate([backbone.embed(pixels).numpy() for pixels in prepare(pictures, backbone.preprocess)])
    )


def _parts(images: LabeledImages, area: tuple[float, float], seed: int) -> Iterator[Decode]:
    for number, decode in enumerate(images.pictures()):
        yield partial(_cut, decode, area, [seed, number])


def _cut(decode: Decode, area: tuple[float, float], seed: list[int]) -> Image.Image:
    return cut_part(middle(decode(), max_aspect=MAX_ASPECT), area, np.random.default_rng(seed))


def cut_part(picture: Image.Image, area: tuple[float, float], rng: np.random.Generator) -> Image.Image:
    """A random part of a picture, of a share of its area between two bounds; mirrored half of the time."""
    side, stretch = math.sqrt(rng.uniform(*area)), math.exp(rng.uniform(-1, 1) * math.log(STRETCH) / 2)
    width, height = (
        max(1, min(length, round(length * side * factor)))
        for length, factor in zip(picture.size, (stretch, 1 / stretch), strict=True)
    )
    left, top = (int(rng.integers(0, gap + 1)) for gap in (picture.width - width, picture.height - height))
    part = picture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(part) if rng.random() < 0.5 else part
