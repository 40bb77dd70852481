"""The measured join gives every image its vector."""

from pathlib import Path

import numpy as np

from benchmarks.own_vectors import join, list_images, write_vectors
from curate.engine.store import Store
from curate.ops.vectors import VectorSpec, normalize, unpack


def test_every_image_gets_the_vector_of_its_name(tmp_path: Path) -> None:
    write_vectors(300, 8, tmp_path)
    list_images(300, tmp_path)
    assert join(300, tmp_path) > 0
    rows = Store(str(tmp_path / "run")).table("embeddings/own").read_all()
    found, at = unpack(rows["vector"], VectorSpec.of(rows.schema))
    names = list(map(int, (tmp_path / "ids.txt").read_text().split()))
    expected = normalize(np.load(tmp_path / "vectors.npy"))[np.argsort(names)]
    assert len(at) == 300
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=1e-3)
