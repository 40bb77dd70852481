from collections import Counter

import numpy as np
import pytest

from curate.feed.order import SampleOrder
from curate.feed.settings import FeedSettings
from curate.feed.shards import read_index
from tests.feed.shards import row, write_shard, write_shards


def position(order, sample):
    return tuple(order.window(sample).position(sample))


def located(order, start, stop):
    return [position(order, sample) for sample in range(start, stop)]


@pytest.mark.parametrize("window", [1, 5, 8, 1000])
def test_each_epoch_shows_every_row_once(tmp_path, window):
    index = read_index(str(write_shards(tmp_path)))
    order = SampleOrder(index, seed=1, window=window)
    everything = [(g, r) for g, group in enumerate(index.groups) for r in range(group.num_rows)]
    for epoch in range(3):
        assert sorted(located(order, 20 * epoch, 20 * epoch + 20)) == everything


def test_epochs_and_seeds_have_orders_of_their_own(tmp_path):
    index = read_index(str(write_shards(tmp_path)))
    order = SampleOrder(index, seed=1, window=8)
    assert located(order, 0, 20) != located(order, 20, 40)
    assert located(order, 0, 20) != located(SampleOrder(index, seed=2, window=8), 0, 20)


def test_order_is_a_pure_function_of_the_sample_number(tmp_path):
    index = read_index(str(write_shards(tmp_path)))
    forward = located(SampleOrder(index, seed=1, window=8), 0, 60)
    order = SampleOrder(index, seed=1, window=8)
    backward = [position(order, sample) for sample in reversed(range(60))]
    assert backward[::-1] == forward


def test_a_window_reads_few_row_groups(tmp_path):
    index = read_index(str(write_shards(tmp_path, num_shards=4, rows_each=12)))
    groups = [g for g, _ in located(SampleOrder(index, seed=0, window=8), 0, 48)]
    assert all(len(set(groups[i : i + 8])) == 2 for i in range(0, 48, 8))
    assert any(a > b for a, b in zip(groups[::8], groups[8::8], strict=False))  # groups are shuffled too


def test_rows_are_shown_as_often_as_repeats_says(tmp_path):
    rows = [row(i, repeats=1 + i % 3) for i in range(10)]
    write_shard(tmp_path / "a.parquet", rows)
    index = read_index(str(tmp_path))
    assert (index.num_images, index.num_samples) == (10, sum(1 + i % 3 for i in range(10)))
    shown = Counter(located(SampleOrder(index, seed=0, window=6), 0, index.num_samples))
    assert {4 * g + r: n for (g, r), n in shown.items()} == {i: 1 + i % 3 for i in range(10)}


def weighted(folder, weights):
    """An index of shards of four rows a row group, row i of source `si` and of weight `weights[i]`."""
    for first in range(0, len(weights), 10):
        rows = [row(i, source=f"s{i}") for i in range(first, min(first + 10, len(weights)))]
        write_shard(folder / f"{first:03d}.parquet", rows)
    return read_index(str(folder), FeedSettings(source_weights={f"s{i}": w for i, w in enumerate(weights)}))


def shown_by_source(index, positions):
    groups = index.groups
    return Counter(groups[g].sources[0 if groups[g].codes is None else groups[g].codes[r]] for g, r in positions)


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_an_epochs_size_is_constant_and_rows_round_up_or_down(tmp_path, window):
    weights = np.random.default_rng(0).uniform(0, 2.5, 25).round(2)
    weights[::6] = 0
    index = weighted(tmp_path, weights.tolist())
    order = SampleOrder(index, seed=1, window=window)
    assert order.epoch_size == index.num_samples == round(weights.sum())
    scale = order.epoch_size / weights.sum()
    for epoch in range(5):
        shown = shown_by_source(index, located(order, epoch * order.epoch_size, (epoch + 1) * order.epoch_size))
        assert sum(shown.values()) == order.epoch_size
        for i, weight in enumerate(weights):
            assert shown[f"s{i}"] in (np.floor(weight * scale), np.ceil(weight * scale))


def test_over_epochs_every_row_is_shown_by_its_weight(tmp_path):
    weights = [0.25, 1.0, 2.5, 0.1, 0.0, 0.65, 1.5]
    index = weighted(tmp_path, weights)
    order = SampleOrder(index, seed=1, window=5)
    shown = shown_by_source(index, located(order, 0, 200 * order.epoch_size))
    scale = order.epoch_size / sum(weights)
    for i, weight in enumerate(weights):
        assert abs(shown[f"s{i}"] / 200 - weight * scale) < 0.02


def test_the_order_of_a_source_shows_its_rows_alone_once_an_epoch(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(i, source="ab"[i % 3 == 0]) for i in range(20)])
    index = read_index(str(tmp_path), FeedSettings(homogeneous_share=0.1))
    order = SampleOrder(index, seed=0, window=4, source="b")
    assert order.epoch_size == 7
    for epoch in range(3):
        positions = located(order, 7 * epoch, 7 * epoch + 7)
        assert sorted(4 * g + r for g, r in positions) == [0, 3, 6, 9, 12, 15, 18]
