"""Copy detection: edited copies are planted and searched for by cosine, as in the Image Similarity Challenge.

Half of the pictures are the references. A query is an edited copy of a picture. Only a copy of a reference has
something to find; the other queries are distractors. Each query returns its nearest references, and the answers of all
queries form one list by score: micro average precision is high only where one threshold serves all queries.

Source: Douze et al. 2021, arXiv:2106.09672 (DISC21, ISC2021).
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from curate.errors import SourceError
from curate.evaluation.features import prepare
from curate.evaluation.labeled import Decode, LabeledImages
from curate.evaluation.ranking import PrecisionRecall, micro_average_precision, recall_at_precision
from curate.models.backbones.backbone import Backbone
from curate.ops.images.edits import MIN_SIDE, plant
from curate.ops.images.preprocess import MAX_ASPECT, middle
from curate.progress import track

MAX_PICTURES = 2000
"""Pictures at most that copies are planted on."""
MIN_PICTURES = 4
"""Pictures at least that copies can be planted on."""
MAX_EDITS = 3
"""A copy is made by a chain of 1 to 3 different edits."""
ANSWERS = 10
"""References that a query returns at most."""
WANTED_PRECISION = 0.9
"""Precision at which the recall is measured."""
BOOTSTRAPS = 200
"""Times that queries are drawn anew for the standard errors."""


class CopyScores(NamedTuple):
    """Both figures, and their values where the queries are drawn anew; with one seed the same queries are drawn."""

    micro_ap: float
    recall_at_90: float  # recall at 90 % precision
    micro_ap_draws: np.ndarray  # (BOOTSTRAPS,)
    recall_draws: np.ndarray  # (BOOTSTRAPS,)
    num_queries: int


def choose_pictures(num_images: int, *, seed: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(P,) rows to plant copies on, in rising order, and (P,) bool, which of them are references.

    Args:
        num_images: pictures that there are.
        seed: seed of the choice.
        where: name of the set in the message.

    Raises:
        SourceError: there are fewer than four pictures.
    """
    if num_images < MIN_PICTURES:
        raise SourceError(f"{where}: {num_images} pictures, at least {MIN_PICTURES} are needed to plant copies on")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(num_images)[:MAX_PICTURES])
    is_reference = np.zeros(len(rows), dtype=bool)
    is_reference[rng.permutation(len(rows))[: (len(rows) + 1) // 2]] = True
    return rows, is_reference


def embed_copies(backbone: Backbone, images: LabeledImages, rows: np.ndarray, *, seed: int) -> np.ndarray:
    """(P, D) unit features of one edited copy of each picture of `rows`; `seed` is that of the edits."""
    parts = []
    with track("embed copies", len(rows), unit="images") as advance:
        for pixels in prepare(_edited_copies(images, rows, seed), backbone.preprocess):
            parts.append(backbone.embed(pixels).numpy())
            advance(len(pixels))
    return np.concatenate(parts)


def _edited_copies(images: LabeledImages, rows: np.ndarray, seed: int) -> Iterator[Decode]:
    for row, decode in zip(rows.tolist(), images.pictures(rows), strict=True):
        yield partial(make_copy, decode, [seed, row])


def make_copy(decode: Decode, seed: list[int]) -> Image.Image:
    """A picture after a chain of random edits; a small picture is first enlarged to the size that edits need."""
    picture, rng = middle(decode(), max_aspect=MAX_ASPECT), np.random.default_rng(seed)
    short = min(picture.size)
    if short < MIN_SIDE:
        width, height = (round(side * MIN_SIDE / short) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return plant(picture, rng, num_edits=int(rng.integers(1, MAX_EDITS + 1)))[0]


def score_copies(originals: np.ndarray, copies: np.ndarray, is_reference: np.ndarray, *, seed: int) -> CopyScores:
    """Micro average precision, and recall at 90 % precision.

    Args:
        originals, copies: (P, D) unit features, row for row a picture and its copy.
        is_reference: (P,) bool, the pictures that are searched; at least one.
        seed: seed of the bootstrap.
    """
    references = np.flatnonzero(is_reference)
    similarity = copies @ originals[references].T  # (P, R)
    width = min(ANSWERS, len(references))
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :width]
    answers = PrecisionRecall(
        np.take_along_axis(similarity, nearest, axis=1).ravel(),
        (references[nearest] == np.arange(len(copies))[:, None]).ravel(),
        np.repeat(np.arange(len(copies)), width),
    )
    value = _copy_figures(answers, is_reference, np.ones(len(copies)))
    rng = np.random.default_rng(seed)
    draws = [_copy_figures(answers, is_reference, _draw_queries(is_reference, rng)) for _ in range(BOOTSTRAPS)]
    micro, recall = np.array(draws).T
    return CopyScores(*value, micro, recall, len(copies))


def _copy_figures(answers: PrecisionRecall, is_reference: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    curve = answers.curve(float(weights[is_reference].sum()), weights)
    return micro_average_precision(*curve), recall_at_precision(*curve, wanted=WANTED_PRECISION)


def _draw_queries(is_reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(Q,) how often each query is drawn; the two kinds are drawn apart, so that neither can be missing."""
    weights = np.zeros(len(is_reference))
    for kind in (True, False):
        rows = np.flatnonzero(is_reference == kind)
        weights += np.bincount(rng.choice(rows, len(rows)), minlength=len(weights))
    return weights
