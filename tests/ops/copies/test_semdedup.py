"""SemDeDup's orders and similarities, against a plain loop."""

import numpy as np
import pytest

from curate.ops.copies.semdedup import most_similar_before, preference
from curate.ops.vectors import normalize


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
def test_most_similar_before_equals_a_loop(block_rows: int) -> None:
    x = normalize(np.random.default_rng(0).standard_normal((150, 8)))
    similarity, place = most_similar_before(x, block_rows=block_rows)
    assert np.isnan(similarity[0])
    assert place[0] == -1
    for row in range(1, len(x)):
        cosine = x[:row] @ x[row]
        assert place[row] == cosine.argmax()
        assert similarity[row] == pytest.approx(cosine.max(), abs=1e-6)


def test_similarities_do_not_depend_on_the_blocks() -> None:
    x = normalize(np.random.default_rng(1).standard_normal((300, 16)))
    found = [most_similar_before(x, block_rows=rows) for rows in (3, 50, 4096)]
    for similarity, place in found[1:]:
        np.testing.assert_array_equal(similarity, found[0][0])
        np.testing.assert_array_equal(place, found[0][1])


def test_one_image_has_none_before_it() -> None:
    similarity, place = most_similar_before(np.ones((1, 4), np.float32) / 2)
    assert np.isnan(similarity).all()
    assert place.tolist() == [-1]


def test_preference_is_by_distance_then_id() -> None:
    to_centroid, ids = np.array([0.9, 0.2, 0.9, 0.5]), np.array([7, 3, 1, 2])
    assert preference(to_centroid, ids, keep="hard", seed=0).tolist() == [1, 3, 2, 0]
    assert preference(to_centroid, ids, keep="easy", seed=0).tolist() == [2, 0, 3, 1]


def test_random_preference_depends_on_seed_and_ids_alone() -> None:
    ids = np.arange(50)
    first = ids[preference(np.zeros(50), ids, keep="random", seed=0)]
    again = ids[::-1][preference(np.ones(50), ids[::-1], keep="random", seed=0)]
    other = ids[preference(np.zeros(50), ids, keep="random", seed=1)]
    assert first.tolist() == again.tolist() != other.tolist() != ids.tolist()
