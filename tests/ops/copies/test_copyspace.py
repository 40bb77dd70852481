"""The copy space: planted edit directions are ignored, directions of pictures stay; scikit-learn agrees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from curate.ops.copies.copyspace import fit_copy_space
from curate.ops.vectors import normalize

DIM, EDITS = 24, 4


def planted(seed: int, pictures: int, *, copies: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Pictures over the first axes, and copies that edits move along the last four, three times as far."""
    rng = np.random.default_rng(seed)
    what = rng.standard_normal((pictures, DIM)) * (np.arange(DIM) < DIM - EDITS)
    moved = 3 * rng.standard_normal((pictures, copies, DIM)) * (np.arange(DIM) >= DIM - EDITS)
    x = what[:, None] + moved + 0.1 * rng.standard_normal((pictures, copies, DIM))
    return normalize(x.reshape(-1, DIM)), np.repeat(np.arange(pictures), copies)


def wrong_neighbours(x: np.ndarray, group: np.ndarray) -> float:
    cosine = x @ x.T
    np.fill_diagonal(cosine, -2)
    return float((group[cosine.argmax(axis=1)] != group).mean())


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6))
def test_copies_of_unseen_pictures_lie_together(seed: int) -> None:
    x, group = planted(seed, 60)
    other, source = planted(seed + 1, 120)
    space = fit_copy_space(x, group, other, dim=DIM - EDITS)
    assert space.axes.shape == (DIM, DIM - EDITS)
    assert wrong_neighbours(other, source) > 0.2
    assert wrong_neighbours(space.project(other), source) < 0.03


def test_projected_vectors_are_of_unit_norm_and_dims_never_exceed_the_pool() -> None:
    x, group = planted(0, 30)
    space = fit_copy_space(x, group, x[:40], dim=256)
    assert space.axes.shape == (DIM, 10)
    assert np.linalg.norm(space.project(x), axis=1) == pytest.approx(1, abs=1e-5)


def test_of_its_own_groups_it_spans_the_discriminant_of_scikit_learn() -> None:
    x, group = planted(3, 12, copies=40)
    means = np.stack([x[group == one].mean(axis=0) for one in range(12)])
    space = fit_copy_space(x, group, np.repeat(means, 4, axis=0), dim=5, shrinkage=1e-6)
    peer = LinearDiscriminantAnalysis(solver="eigen").fit(x, group)
    mine, theirs = (np.linalg.qr(axes)[0] for axes in (space.axes.astype(np.float64), peer.scalings_[:, :5]))
    assert np.linalg.svd(mine.T @ theirs)[1] == pytest.approx(1, abs=1e-3)  # cosines of the angles between the spaces


def test_without_copies_or_a_pool_is_an_error() -> None:
    x, group = planted(0, 5)
    with pytest.raises(ValueError, match="copies and 4 are needed"):
        fit_copy_space(x[::4], group[::4], x, dim=2)
    with pytest.raises(ValueError, match="copies and 4 are needed"):
        fit_copy_space(x, group, x[:3], dim=2)
