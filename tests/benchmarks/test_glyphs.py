"""The descriptor of shapes: of a shape wherever it stands, and none of a plain ground."""

import io

import numpy as np
import torch
from PIL import Image

from benchmarks.curation.crawl import NO_CLASS, make_crawl
from benchmarks.curation.glyphs import INPUT, NAME, SIDE
from benchmarks.curation.sets import open_set
from curate.evaluation.features import embed_images
from curate.evaluation.labeled import from_arrays
from curate.models.backbones.load import load_backbone


def embed(pictures: list[np.ndarray]) -> torch.Tensor:
    """(N, SIDE * SIDE) unit vectors of (S, S, 3) uint8 pictures."""
    backbone = load_backbone(NAME, device="cpu", precision="fp32")
    found = torch.as_tensor(embed_images(backbone, from_arrays(np.stack(pictures), np.zeros(len(pictures)), name="x")))
    return torch.nn.functional.normalize(found.float())


def hook(*, at: tuple[int, int] = (10, 8), size: int = 30, ground: int = 0, ink: int = 255) -> np.ndarray:
    """Two bars of one shape."""
    picture = np.full((64, 64, 3), ground, np.uint8)
    row, column = at
    picture[row : row + size, column : column + size // 3] = ink
    picture[row : row + size // 3, column : column + size] = ink
    return picture


def test_a_shape_is_the_same_wherever_it_stands_however_large_it_is_and_on_any_ground() -> None:
    same = [hook(), hook(at=(30, 30)), hook(at=(2, 5), size=54), hook(ground=255, ink=0), hook(ground=90, ink=180)]
    other = [hook()[::-1].copy(), hook()[:, ::-1].copy()]
    vectors = embed([*same, *other])
    assert vectors.shape == (7, SIDE * SIDE)
    likeness = vectors[0] @ vectors.T
    assert (likeness[:5] > 0.97).all()
    assert (likeness[5:] < 0.6).all()


def test_a_plain_ground_has_no_shape() -> None:
    backbone = load_backbone(NAME, device="cpu", precision="fp32")
    plain = torch.full((2, 3, INPUT, INPUT), 140, dtype=torch.uint8)
    assert not torch.as_tensor(backbone.embed(plain)).any()


def test_copies_in_a_pool_of_digits_are_nearer_than_other_digits() -> None:
    digits = open_set("mnist")
    pool = make_crawl(digits, digits.split().pool[::4], seed=0)
    real = np.flatnonzero(pool.labels != NO_CLASS)
    vectors = np.zeros((len(pool.labels), SIDE * SIDE), np.float32)
    pictures = [np.asarray(Image.open(io.BytesIO(pool.files[row])).convert("RGB")) for row in real.tolist()]
    vectors[real] = embed(pictures).numpy()
    copies = real[pool.copy_of[real] != real]
    own = real[pool.copy_of[real] == real]
    to_original = (vectors[copies] * vectors[pool.copy_of[copies]]).sum(axis=1)
    between = vectors[own] @ vectors[own].T
    np.fill_diagonal(between, -1)
    assert (to_original > 0.96).mean() > 0.97
    assert (between.max(axis=1) > 0.96).mean() < 0.02
