"""Streaming draws against a sort of everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ops.random_keys import nearest_keys, random_keys
from curate.ops.selection.draws import Draws, Keyed, count_groups, draw_smallest

images = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2**64 - 1) | st.integers(0, 3)), min_size=1, max_size=60)
wanted = st.lists(st.integers(0, 40), min_size=5, max_size=5)


def batches_of(rows, cuts=1):
    group, keys = zip(*rows, strict=True)
    whole = Keyed(np.array(group, np.int64), np.array(keys, np.uint64), np.arange(len(rows)))
    pieces = np.array_split(np.random.default_rng(cuts).permutation(len(rows)), cuts)
    return whole, lambda: iter([Keyed(*(column[piece] for column in whole)) for piece in pieces])


def draw_by_sort(rows, draws):
    """How often each image is drawn: going round each group in order of (key, id)."""
    repeats = [0] * len(rows)
    for group, count in enumerate(draws):
        own = sorted((key, i) for i, (g, key) in enumerate(rows) if g == group)
        for turn in range(count if own else 0):
            repeats[own[turn % len(own)][1]] += 1
    return repeats


@settings(deadline=None, max_examples=200)
@given(images, wanted, st.integers(1, 6), st.sampled_from([1, 700, 1 << 20]))
def test_draws_are_those_of_a_sort_whatever_the_batches_and_the_memory(rows, draws, cuts, max_bytes):
    whole, batches = batches_of(rows, cuts)
    sizes = count_groups(batches, 5)
    assert sizes.tolist() == [sum(g == group for g, _ in rows) for group in range(5)]
    found = draw_smallest(batches, sizes, np.array(draws), max_bytes=max_bytes)
    assert found.repeats(whole).tolist() == draw_by_sort(rows, draws)


def test_groups_of_many_images_are_narrowed_to_those_that_fit():
    ids = np.arange(200_000)
    whole = Keyed(ids % 7, random_keys(ids, seed=0, purpose="test"), ids)
    seen = []

    def batches():
        seen.append(0)
        yield whole

    sizes, draws = np.bincount(whole.group), np.array([1, 10, 100, 1000, 10_000, 28_571, 0])
    found = draw_smallest(batches, sizes, draws, max_bytes=1 << 20)
    assert np.bincount(whole.group, weights=found.repeats(whole), minlength=7).tolist() == draws.tolist()
    assert len(seen) == 2  # one that counts, one that collects: 200,000 candidates would not have fitted
    similarity = np.random.default_rng(0).normal(0.6, 0.1, len(ids)).astype(np.float32)
    close = whole._replace(keys=nearest_keys(similarity, ids, seed=0, purpose="test"))
    found = draw_smallest(lambda: iter([close]), sizes, draws, max_bytes=1 << 20)
    for group in range(7):
        inside = whole.group == group
        drawn = found.repeats(close)[inside] > 0
        assert drawn.sum() == draws[group]
        assert drawn.all() or not drawn.any() or similarity[inside][drawn].min() >= similarity[inside][~drawn].max()


def test_nothing_is_drawn_of_empty_groups_and_of_none():
    found = draw_smallest(lambda: iter([]), np.array([0, 0]), np.array([0, 3]))
    assert (found.every.tolist(), found.limit_id.tolist()) == ([0, 0], [-1, -1])
    assert isinstance(draw_smallest(lambda: iter([]), np.empty(0, int), np.empty(0, int)), Draws)


@pytest.mark.parametrize("step", [1, 3])
def test_more_draws_than_images_go_round_evenly(step):
    ids = np.arange(10)
    whole = Keyed(np.zeros(10, int), random_keys(ids, seed=0, purpose="x"), ids)
    repeats = draw_smallest(lambda: iter([whole]), np.array([10]), np.array([20 + step])).repeats(whole)
    assert repeats.sum() == 20 + step
    assert set(repeats) == {2, 3}
