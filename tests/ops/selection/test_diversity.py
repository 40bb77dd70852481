"""The Vendi score, against its definition by the N x N kernel, and where it is known."""

import numpy as np
import pytest
from scipy.stats import entropy

from curate.ops.selection.diversity import vendi_score
from curate.ops.vectors import normalize


def test_score_equals_its_definition() -> None:
    x = normalize(np.random.default_rng(0).standard_normal((40, 12)))
    eigenvalues = np.linalg.eigvalsh((x @ x.T).astype(np.float64) / len(x))
    assert vendi_score(x) == pytest.approx(np.exp(entropy(np.maximum(eigenvalues, 0))), rel=1e-5)


def test_orthogonal_vectors_count_and_repeats_do_not() -> None:
    assert vendi_score(np.eye(7, dtype=np.float32)) == pytest.approx(7)
    assert vendi_score(np.repeat(np.eye(7, dtype=np.float32), 5, axis=0)) == pytest.approx(7)
    assert vendi_score(np.ones((9, 4), np.float32) / 2) == pytest.approx(1)
