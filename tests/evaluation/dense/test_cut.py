import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from curate.evaluation.dense.cut import box_of, box_overlap, edges, find_object, second_eigenvector


def test_the_eigenvector_solves_the_generalized_problem_as_scipy_does() -> None:
    features = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    weights = edges(features)
    w = weights.numpy()
    degree = np.diag(w.sum(axis=1))
    values, vectors = eigh(degree - w, degree)
    ours = second_eigenvector(weights)
    residual = (degree - w) @ ours - values[1] * degree @ ours
    assert np.abs(residual).max() < 1e-9
    assert abs(np.corrcoef(ours, vectors[:, 1])[0, 1]) == pytest.approx(1, abs=1e-8)


def test_edges_are_by_cosine() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 0.1], [0.0, 2.0]])
    np.testing.assert_allclose(edges(features).numpy(), [[1, 1, 1e-5], [1, 1, 1e-5], [1e-5, 1e-5, 1]])


def test_a_patch_of_other_features_is_found() -> None:
    rng = np.random.default_rng(0)
    features = np.tile([1.0, 0.0, 0.0], (12, 14, 1)) + rng.normal(0, 0.05, (12, 14, 3))
    features[3:7, 5:10] = np.array([0.0, 1.0, 0.0]) + rng.normal(0, 0.05, (4, 5, 3))
    found = find_object(torch.from_numpy(features).float())
    expected = np.zeros((12, 14), bool)
    expected[3:7, 5:10] = True
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(box_of(found), [5, 3, 10, 7])


def test_overlap_of_boxes_is_that_of_their_pixels() -> None:
    boxes = np.array([[0, 0, 4, 3], [2, 1, 6, 5], [7, 7, 9, 9], [1, 1, 3, 2]], np.float64)

    def pixels(box: np.ndarray) -> np.ndarray:
        drawn = np.zeros((10, 10), bool)
        left, top, right, bottom = box.astype(int)
        drawn[top:bottom, left:right] = True
        return drawn

    expected = [(pixels(boxes[0]) & pixels(b)).sum() / (pixels(boxes[0]) | pixels(b)).sum() for b in boxes]
    np.testing.assert_allclose(box_overlap(boxes[0], boxes), expected)
