"""The bytes of each planned file: originals, views, copies, video frames, junk."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from curate.samples.edits import crop_randomly, draw_words, encode_jpeg, mirror, open_rgb, rescale, vary_colors
from curate.samples.junk import make_junk
from curate.samples.plan import PoolFile
from curate.samples.truth import NEAR_KINDS


def make_file(item: PoolFile, made: Mapping[int, bytes], rng: np.random.Generator) -> bytes:
    """The bytes of a planned file.

    Args:
        made: bytes of the files that others are made from, by their index in the plan.
        rng: random stream of this file alone.
    """
    if item.kind == "exact_copy":
        return made[_source_index(item)]
    if item.kind in NEAR_KINDS:
        return _make_near(item.kind, open_rgb(io.BytesIO(made[_source_index(item)])), rng)
    picture = open_rgb(item.source)
    if item.kind == "original":
        return encode_jpeg(picture, 88)
    if item.kind == "view":
        return _make_view(picture, rng)
    if item.kind == "heldout_copy":
        return _make_near(str(rng.choice(NEAR_KINDS)), picture, rng)
    if item.kind == "frame":
        return _make_frame(picture, rng, first=item.first)
    return make_junk(item.kind, picture, rng)


def _source_index(item: PoolFile) -> int:
    assert item.of is not None
    return item.of


def _make_view(picture: Image.Image, rng: np.random.Generator) -> bytes:
    """Another picture that a crawl could hold of the same subject: crop (>= 60 %), flip, color, size."""
    picture = crop_randomly(picture, rng, 0.60, 0.95, jitter=0.12)
    if rng.random() < 0.5:
        picture = mirror(picture)
    if rng.random() < 0.5:
        picture = vary_colors(picture, rng, 0.12)
    picture = rescale(picture, rng.uniform(0.75, 1.1), 1, Image.Resampling.BICUBIC)
    return encode_jpeg(picture, int(rng.integers(75, 93)))


def _make_near(kind: str, picture: Image.Image, rng: np.random.Generator) -> bytes:
    if kind == "near_jpeg":
        return encode_jpeg(picture, int(rng.integers(20, 61)))
    if kind == "near_rescale":
        picture = rescale(picture, rng.uniform(0.4, 0.8), 32, Image.Resampling.BILINEAR)
    elif kind == "near_crop":
        picture = crop_randomly(picture, rng, 0.85, 0.95)
    elif kind == "near_flip":
        picture = mirror(picture)
    elif kind == "near_text":
        picture = draw_words(picture, rng)
    else:
        picture = vary_colors(picture, rng, 0.25)
    return encode_jpeg(picture, int(rng.integers(70, 90)))


def _make_frame(picture: Image.Image, rng: np.random.Generator, *, first: bool) -> bytes:
    """A video frame: as it is the first time, then as takes of the same one, encoded again."""
    if first:
        return encode_jpeg(picture, 85)
    return encode_jpeg(crop_randomly(picture, rng, 0.96, 1.0), int(rng.integers(55, 90)))
