from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from curate.config import identity
from curate.errors import ConfigError, SourceError
from curate.feed.order import SampleOrder
from curate.feed.settings import FeedSettings
from curate.feed.shards import read_index
from curate.feed.strata import deal, path_strata
from curate.trainer.config import TrainConfig
from tests.feed.loading import feed, taken
from tests.feed.shards import row, write_shard


def random_paths(rng, number):
    paths = [rng.integers(0, 4, rng.integers(0, 5)).tolist() for _ in range(number)]
    return np.cumsum([0, *map(len, paths)]), np.array([step for path in paths for step in path]), paths


@pytest.mark.parametrize("level", [1, 2, 3])
def test_images_share_a_stratum_where_their_paths_begin_alike(level):
    offsets, values, paths = random_paths(np.random.default_rng(level), 300)
    strata = path_strata(offsets, values, level)
    by_prefix = {tuple(path[:level]): int(number) for path, number in zip(paths, strata, strict=True)}
    assert [by_prefix[tuple(path[:level])] for path in paths] == strata.tolist()
    assert len(set(by_prefix.values())) == len(by_prefix)


@pytest.mark.parametrize(("number", "start", "batch"), [(96, 0, 8), (101, 5, 8), (40, 3, 16), (7, 2, 16), (50, 0, 1)])
def test_whole_batches_get_equally_many_of_a_stratum_or_differ_by_one(number, start, batch):
    rng = np.random.default_rng(number)
    strata = rng.integers(0, 6, number) ** 2
    order = deal(strata, start=start, batch_size=batch, rng=rng)
    assert sorted(order) == list(range(number))
    batches = (start + np.arange(number)) // batch
    whole = [b for b in np.unique(batches) if (batches == b).sum() == batch]
    for stratum in np.unique(strata):
        counts = [(strata[order[batches == b]] == stratum).sum() for b in whole]
        assert not counts or max(counts) - min(counts) <= 1


def test_places_and_batches_of_a_sample_are_drawn_evenly():
    strata = np.repeat([0, 1, 2], [18, 4, 2])
    orders = np.array(
        [deal(strata, start=0, batch_size=6, rng=np.random.default_rng(seed)) for seed in range(3000)]
    )  # (3000, 24)
    places = orders.argsort(axis=1)
    assert np.allclose(places.mean(axis=0), 11.5, atol=0.6)
    assert (np.bincount(places[:, 23], minlength=24) > 60).all()  # 125 are expected at each


@pytest.fixture
def clustered(tmp_path):
    """Shards of 60 rows in four clusters of 30, 15, 10 and 5, each of which lies together."""
    clusters = np.repeat([0, 1, 2, 3], [30, 15, 10, 5])
    rows = [row(i, clusters=[int(cluster), i]) for i, cluster in enumerate(clusters)]
    write_shard(tmp_path / "a.parquet", rows[:35], group=8)
    write_shard(tmp_path / "b.parquet", rows[35:], group=8)
    return tmp_path, clusters


def shown(index, samples, *, batch, seed=1, window=60):
    """The row of each sample, counted over all shards."""
    order = SampleOrder(index, seed=seed, window=window).in_batches(batch)
    first = np.cumsum([0, *(group.num_rows for group in index.groups)])
    return [int(first[g]) + r for g, r in (order.window(n).position(n) for n in samples)]


def test_batches_cover_clusters_and_an_epoch_shows_every_row_once(clustered):
    folder, clusters = clustered
    index = read_index(str(folder), FeedSettings(stratify=1))
    for epoch in range(3):
        rows = shown(index, range(60 * epoch, 60 * epoch + 60), batch=12)
        assert sorted(rows) == list(range(60))
        for found in np.array(rows).reshape(5, 12):
            assert Counter(clusters[found].tolist()) == {0: 6, 1: 3, 2: 2, 3: 1}


def test_the_order_is_a_pure_function_of_the_sample_number_and_the_seed(clustered):
    index = read_index(str(clustered[0]), FeedSettings(stratify=1))
    forward = shown(index, range(150), batch=8, window=20)
    assert shown(index, reversed(range(150)), batch=8, window=20)[::-1] == forward
    assert shown(index, range(150), batch=8, window=20, seed=2) != forward
    assert shown(index, range(60), batch=8, window=20) != shown(index, range(60, 120), batch=8, window=20)


def test_weights_hold_and_without_stratification_batches_change_nothing(clustered):
    weighted = FeedSettings(stratify=1, cluster_weights={"3": 4.0})
    rows = shown(read_index(str(clustered[0]), weighted), range(75), batch=15)
    assert Counter(rows) == {i: 4 if i >= 55 else 1 for i in range(60)}
    plain = read_index(str(clustered[0]))
    assert shown(plain, range(80), batch=8) == shown(plain, range(80), batch=1)


def test_ranks_passes_and_a_late_start_share_the_batches_of_one_process(clustered):
    samples, config = feed(clustered[0], feed={"stratify": 1})
    whole, _ = taken(samples, config, 12, start=0)
    late, _ = taken(samples, config, 5, start=7 * 8, rank=1, size=2)
    expected = whole[7 * 8 :].unflatten(0, (5, 2, 4))[:, 1].flatten(0, 1)
    assert torch.equal(late, expected)


def test_the_setting_is_a_part_of_what_makes_two_runs_one():
    configs = [TrainConfig(shards="a", output="b", feed=feed) for feed in ({}, {"stratify": 1})]
    assert identity(configs[0]) != identity(configs[1])


def test_shards_without_such_clusters_are_refused(clustered, tmp_path):
    with pytest.raises(ConfigError, match="feed.stratify=3: the longest path in column clusters has 2 steps; set 2 or"):
        read_index(str(clustered[0]), FeedSettings(stratify=3))
    write_shard(tmp_path / "flat/a.parquet", [row(0), row(1)])
    with pytest.raises(ConfigError, match="has 0 steps; curate by a recipe that clusters, or leave it out"):
        read_index(str(tmp_path / "flat"), FeedSettings(stratify=1))
    pq.write_table(pq.read_table(tmp_path / "flat/a.parquet").drop(["clusters"]), tmp_path / "flat/a.parquet")
    with pytest.raises(SourceError, match="no column clusters, which feed.stratify needs"):
        read_index(str(tmp_path / "flat"), FeedSettings(stratify=1))
