"""What the stages of verification share: the threshold of each pair, and small pictures by image."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.stages.copies.keep_near import KeepNear
from curate.stages.copies.verified_pairs import SmallPictures, least_similarity
from tests.stages.copies.given_pairs import made, parts, pictures


def test_pairs_with_a_heldout_query_have_a_threshold_of_their_own() -> None:
    pairs = pa.table({"query_id": [0, 2 << 32, 1 << 32]})
    stage = KeepNear(threshold=0.9, heldout_threshold=0.5)
    assert least_similarity(stage, pairs, parts()).tolist() == np.array([0.9, 0.5, 0.9], np.float32).tolist()


def test_small_pictures_are_found_by_image(tmp_path: Path) -> None:
    p = made(tmp_path)
    found = SmallPictures(p.store.table("luma"), 1).of(np.array([1 << 32 | 4, 1 << 32 | 1]))
    assert np.array_equal(found, pictures()[1, [4, 1]])
