"""FitCopySpace: the space of a toy pool equals a direct fit, and is read as it was fitted."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.ops.copies.copyspace import fit_copy_space
from curate.ops.vectors import normalize
from curate.stages.copies.copy_space import read_space
from curate.stages.copies.fit_copy_space import SPECTRUM, FitCopySpace
from curate.stages.copies.planted import read_planted
from tests.stages.copies.toy_calibration import declare, pool_vectors
from tests.stages.planted import make


@pytest.mark.parametrize("dim", [6, 30])
def test_space_equals_a_direct_fit_to_half_of_the_copies(tmp_path: Path, dim: int) -> None:
    p, refs = declare(tmp_path)
    p.add("space", FitCopySpace(dim=dim), **refs)
    make(p)
    planted = read_planted(p.store.table("planted"), half=0)
    pool = normalize(pool_vectors().reshape(-1, 32))
    expected = fit_copy_space(planted.vectors, planted.image_ids, pool, dim=dim)
    found = read_space(p.store.table("space"))
    assert found.axes.shape == (32, dim)
    fitted = expected.axes.shape[1]  # a quarter of the pool's images at most
    assert np.allclose(found.mean, expected.mean, atol=1e-6)
    assert np.allclose(found.axes[:, :fitted], expected.axes, atol=1e-5)
    assert not found.axes[:, fitted:].any()


def test_cost_is_that_of_products_and_one_spectrum() -> None:
    inputs = {"embeddings": Shape(pool=100_000, row_bytes=70, dim=32), "planted": Shape(pool=400)}
    demand, made = FitCopySpace(dim=8, num_images=1000).cost(inputs, Assumptions(images=100_000))
    assert demand.serial_products == 2 * 32 * 32 * (2 * 1000 + 400 + SPECTRUM * 32)
    assert (demand.written, made.rows) == (8 * 128, 8)
