"""Figures of cluster sizes."""

import numpy as np
import pytest

from curate.ops.clusters.balance import cumulative_shares, level_figures, size_figures


def test_equal_sizes_have_imbalance_one_and_all_clusters_effective():
    figures = size_figures(np.full(8, 25), 8)
    assert figures == {
        "clusters": 8,
        "empty": 0,
        "imbalance": 1.0,
        "effective": 8.0,
        "smallest": 25,
        "median": 25,
        "largest": 25,
    }


def test_imbalance_is_that_of_faiss():
    faiss = pytest.importorskip("faiss")
    sizes = np.array([5, 0, 17, 3, 40])
    ids = np.repeat(np.arange(5), sizes)
    expected = faiss.imbalance_factor(len(ids), 5, faiss.swig_ptr(ids))
    figures = size_figures(sizes, 5)
    assert figures["imbalance"] == pytest.approx(expected, abs=1e-4)
    assert (figures["clusters"], figures["empty"], figures["smallest"], figures["median"]) == (4, 1, 3, 17)


def test_clusters_that_were_asked_for_and_are_missing_count_as_empty():
    assert size_figures(np.array([4, 4]), 5)["empty"] == 3


def test_no_images_have_figures_too():
    assert size_figures(np.zeros(3, int), 3)["clusters"] == 0


def test_inertia_of_a_level_is_that_of_its_clusters():
    assert level_figures(np.array([2, 3]), np.array([0.5, 0.25]), 2)["inertia"] == 0.75


def test_curve_is_the_share_of_the_smallest_clusters():
    assert cumulative_shares(np.full(40, 7)) == pytest.approx(np.linspace(0, 1, 21))
    sizes = np.array([1] * 19 + [81])
    curve = cumulative_shares(sizes)
    assert (curve[0], curve[10], curve[19], curve[20]) == (0, 0.1, 0.19, 1)
    assert cumulative_shares(np.zeros(3, int)) == []
