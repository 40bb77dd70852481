import multiprocessing
from collections import Counter
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from curate import store
from curate.errors import ConfigError, SourceError
from curate.tables import shards_schema
from curate.trainer.config import CropSettings, TrainConfig
from curate.trainer.data import CroppedSamples, SampleOrder, check_workers, load_batches
from curate.trainer.shards import CONTENT, read_index
from tests.trainer.shards import png, row, write_shard, write_shards

CROPS = CropSettings(global_size=16, local_size=8, num_local=2)


def located(order, start, stop):
    return [(p.group, p.row) for p in map(order.locate, range(start, stop))]


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
    backward = [(p.group, p.row) for p in (order.locate(i) for i in reversed(range(60)))]
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


def test_samples_do_not_depend_on_workers_or_start(tmp_path):
    index = read_index(str(write_shards(tmp_path)))
    batches = {}
    for workers, start in ((0, 0), (3, 0), (2, 8)):
        config = TrainConfig(shards=str(tmp_path), output="", batch_size=4, workers=workers)
        samples = CroppedSamples(index, CROPS, seed=0, window=8)
        batches[workers] = list(islice(load_batches(samples, config, start=start), 8 - start // 4))
    for plain, threaded in zip(batches[0], batches[3], strict=True):
        assert torch.equal(plain.large, threaded.large)
        assert torch.equal(plain.small, threaded.small)
    for plain, resumed in zip(batches[0][2:], batches[2], strict=True):
        assert torch.equal(plain.large, resumed.large)


def test_worker_processes_give_the_same_samples(tmp_path):
    index = read_index(str(write_shards(tmp_path)))
    config = TrainConfig(shards=str(tmp_path), output="", batch_size=4, workers=1, worker_kind="process")
    samples = CroppedSamples(index, CROPS, seed=0, window=8)
    first = next(load_batches(samples, config, start=4))
    plain = next(load_batches(samples, config.model_copy(update={"workers": 0}), start=4))
    assert torch.equal(first.large, plain.large)
    assert torch.equal(first.small, plain.small)


def test_worker_processes_are_refused_where_none_may_be_started(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # as in a Dask worker
    config = TrainConfig(shards="", output="", workers=1, worker_kind="process")
    with pytest.raises(ConfigError, match="worker_kind=process: .*; set worker_kind=thread or executor.kind=inprocess"):
        check_workers(config)
    check_workers(config.model_copy(update={"workers": 0}))
    check_workers(config.model_copy(update={"worker_kind": "thread"}))


def test_batches_hold_views_before_images(tmp_path):
    samples = CroppedSamples(read_index(str(write_shards(tmp_path))), CROPS, seed=0, window=8)
    config = TrainConfig(shards=str(tmp_path), output="", batch_size=3, workers=0)
    batch = next(load_batches(samples, config, start=0))
    assert batch.large.shape == (2 * 3, 3, 16, 16)
    assert batch.small.shape == (2 * 3, 3, 8, 8)
    for view in range(2):
        for image in range(3):
            assert torch.equal(batch.large[view * 3 + image], samples[image].large[view])


def test_one_image_is_augmented_afresh_in_every_epoch(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(0)])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    assert not torch.equal(samples[0].large, samples[1].large)


def test_an_undecodable_image_names_shard_and_row(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [row(0), row(1, encoded=b"no picture")], group=2)
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    with pytest.raises(SourceError, match=rf"shard {path}, row group 0, row 1: the image does not decode"):
        [samples[i] for i in range(2)]


def test_a_truncated_image_names_shard_and_row(tmp_path):
    noise = png(0, size=(300, 300))
    write_shard(tmp_path / "a.parquet", [row(0, encoded=noise[: len(noise) // 2])])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    with pytest.raises(SourceError, match="row 0: the image does not decode"):
        samples[0]


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    write_shard(tmp_path / "a.parquet", [row(0)])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    with pytest.raises(SourceError, match=r"does not decode \(Image size \(1280 pixels\) exceeds limit"):
        samples[0]


def test_no_shards_is_an_error(tmp_path):
    for shards in (tmp_path, tmp_path / "gone", tmp_path / "*.parquet"):
        with pytest.raises(SourceError, match=r"no Parquet shard; give a folder"):
            read_index(str(shards))


def test_shards_without_images_are_an_error(tmp_path):
    write_shard(tmp_path / "a.parquet", [])
    with pytest.raises(SourceError, match="1 shards without a single image"):
        read_index(str(tmp_path))


def test_a_damaged_shard_is_named(tmp_path):
    write_shards(tmp_path)
    damaged = tmp_path / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(SourceError, match=rf"shard {damaged}: not a readable Parquet file"):
        read_index(str(tmp_path))


def test_a_shard_lost_after_the_start_is_named(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [row(0)])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    path.unlink()
    with pytest.raises(SourceError, match=rf"shard {path}: row group 0 cannot be read"):
        samples[0]


def test_a_table_without_pictures_is_refused(tmp_path):
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="column image is string; the trainer needs struct"):
        read_index(str(tmp_path))


def test_negative_repeats_are_refused(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(0, repeats=-1)])
    with pytest.raises(SourceError, match="repeats -1 in row group 0"):
        read_index(str(tmp_path))


def test_shards_of_other_rows_but_equal_names_and_counts_are_told_apart(tmp_path):
    path = tmp_path / "a.parquet"
    found = {}
    for name, numbers in (("first", [0, 1]), ("other", [2, 3]), ("again", [0, 1])):
        write_shard(path, [row(i) for i in numbers])
        found[name] = read_index(str(tmp_path)).fingerprint
    assert found["again"] == found["first"]
    assert found["other"] != found["first"]


def test_the_digest_of_the_rows_tells_shards_apart_where_curate_wrote_them(tmp_path):
    found = []
    for content in ("one", "two", "one"):
        schema = shards_schema({})
        writer = pq.ParquetWriter(tmp_path / "a.parquet", schema)
        writer.write_table(pa.Table.from_pylist([row(0)], schema=schema))
        writer.add_key_value_metadata({CONTENT.decode(): content, "curate.fingerprint": f"made {len(found)}"})
        writer.close()
        found.append(read_index(str(tmp_path)).fingerprint)
    assert found[0] == found[2] != found[1]
    assert store.CONTENT == CONTENT


def test_patterns_and_urls_read_the_same_shards(tmp_path):
    write_shards(tmp_path)
    folder = read_index(str(tmp_path))
    for shards in (f"{tmp_path}/part-*.parquet", f"file://{tmp_path}"):
        assert read_index(shards).fingerprint == folder.fingerprint
    one = read_index(str(tmp_path / "part-00000.parquet"))
    assert one.num_images == 10
    assert one.fingerprint != folder.fingerprint
    assert np.sum([g.num_rows for g in folder.groups]) == 20
