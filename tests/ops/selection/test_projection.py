"""Vectors in two dimensions, against a plain singular value decomposition."""

import sys

import numpy as np
import pytest

from curate.errors import ConfigError
from curate.ops.selection.projection import MIN_UMAP, project_pca, project_umap


@pytest.mark.parametrize("shape", [(200, 12), (12, 200)])
def test_pca_is_the_projection_on_the_two_leading_directions(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape) * np.linspace(5, 1, shape[1]) + 3
    found = project_pca(x.astype(np.float32))
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    expected = (u * s)[:, :2]
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 1e-3
    assert (np.abs(found).argmax(axis=0) == np.where(found > 0, found, -found).argmax(axis=0)).all()
    assert all(found[np.abs(found[:, axis]).argmax(), axis] > 0 for axis in (0, 1))


def test_pca_does_not_depend_on_the_sign_of_the_data_beyond_the_axes() -> None:
    x = np.random.default_rng(1).standard_normal((50, 8))
    assert np.allclose(np.abs(project_pca(x)), np.abs(project_pca(-x)), atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (3, 1)])
def test_few_vectors_have_places_too(shape: tuple[int, int]) -> None:
    found = project_pca(np.ones(shape, np.float32))
    assert found.shape == (shape[0], 2)
    assert np.abs(found).max(initial=0) < 1e-6  # all alike: one place


def test_umap_keeps_groups_together_and_repeats_itself() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    centers = np.eye(3, 16).repeat(15, axis=0)
    x = centers + 0.05 * rng.standard_normal(centers.shape)
    found = project_umap(x.astype(np.float32), seed=3)
    assert (found == project_umap(x.astype(np.float32), seed=3)).all()
    group = np.arange(45) // 15
    distance = np.linalg.norm(found[:, None] - found[None], axis=2)
    assert distance[group[:, None] == group].max() < distance[group[:, None] != group].min()
    few = x[: MIN_UMAP - 1]
    assert (project_umap(few, seed=0) == project_pca(few)).all()


def test_umap_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ConfigError, match=r"projection=umap needs a package .* 'curate-vision\[map\]'"):
        project_umap(np.ones((9, 3)), seed=0)
