"""Keys: even, distinct, in the order that they promise."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curate.ops.random_keys import nearest_keys, random_keys


def test_random_keys_are_even_distinct_and_independent_of_purpose_and_order():
    ids = np.concatenate([np.arange(50_000), (7 << 32) + np.arange(50_000)])
    keys, other = (random_keys(ids, seed=1, purpose=p) for p in ("a", "b"))
    assert len(np.unique(keys)) == len(ids)
    counts = np.bincount((keys >> np.uint64(54)).astype(int), minlength=1024)
    expected = len(ids) / 1024
    assert ((counts - expected) ** 2 / expected).sum() < 1024 + 6 * np.sqrt(2 * 1024)
    ranks = np.argsort(np.argsort(keys)), np.argsort(np.argsort(other))
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.02
    assert abs(np.corrcoef(ranks[0], np.arange(len(ids)))[0, 1]) < 0.02
    assert random_keys(ids[::-1], seed=1, purpose="a").tolist() == keys[::-1].tolist()


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=40), st.integers(0, 3))
def test_nearest_keys_order_by_similarity_then_at_random(similarity, seed):
    similarity, ids = np.array(similarity, np.float32), np.arange(len(similarity))
    keys = nearest_keys(similarity, ids, seed=seed, purpose="x")
    chance = random_keys(ids, seed=seed, purpose="x") >> np.uint64(32)
    assert np.argsort(keys, kind="stable").tolist() == np.lexsort((chance, -similarity)).tolist()
