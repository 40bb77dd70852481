import logging

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import retrying
from curate.engine import part_writer
from curate.errors import ConfigError, SourceError
from curate.feed.row_groups import CONTENT
from curate.feed.settings import FeedSettings
from curate.feed.shards import DamagedData, read_index
from curate.tables import shards_schema
from tests.feed.shards import png, row, write_shard, write_shards


@pytest.fixture
def memory(tmp_path):
    """The URL of a folder of fsspec's memory that holds two shards, and their local copies' folder."""
    filesystem = fsspec.filesystem("memory")
    write_shards(tmp_path)
    filesystem.put(f"{tmp_path}/", "memory://feed/", recursive=True)
    yield "memory://feed", tmp_path
    filesystem.rm("memory://feed", recursive=True)


def test_no_shards_is_an_error(tmp_path):
    for shards in (tmp_path, tmp_path / "gone", tmp_path / "*.parquet"):
        with pytest.raises(SourceError, match=r"no Parquet shard; give a workdir"):
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
    assert part_writer.CONTENT == CONTENT


def test_patterns_and_urls_read_the_same_shards(tmp_path):
    write_shards(tmp_path)
    folder = read_index(str(tmp_path))
    for shards in (f"{tmp_path}/part-*.parquet", f"file://{tmp_path}"):
        assert read_index(shards).fingerprint == folder.fingerprint
    one = read_index(str(tmp_path / "part-00000.parquet"))
    assert one.num_images == 10
    assert one.fingerprint != folder.fingerprint
    assert np.sum([g.num_rows for g in folder.groups]) == 20


def test_shards_on_a_filesystem_of_fsspec_are_read_as_local_ones_are(memory):
    url, folder = memory
    remote, local = read_index(url), read_index(str(folder))
    assert remote.fingerprint == local.fingerprint
    assert remote.read_images(remote.groups[4], [1, 0]) == local.read_images(local.groups[4], [1, 0])
    assert read_index(f"{url}/*1.parquet").num_images == 10


def test_many_footers_keep_their_order(tmp_path):
    write_shards(tmp_path, num_shards=40, rows_each=1)
    assert [g.shard[-13:-8] for g in read_index(str(tmp_path)).groups] == [f"{i:05d}" for i in range(40)]


class Flaky:
    """A filesystem whose connection breaks at the first `failures` openings."""

    def __init__(self, inner, failures):
        self.inner, self.failures = inner, failures

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def open(self, *args):
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionResetError("reset by peer")
        return self.inner.open(*args)


def test_a_broken_connection_is_tried_again_then_an_error_even_where_damage_is_skipped(memory, monkeypatch):
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    filesystem = Flaky(fsspec.filesystem("memory"), 3)
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (filesystem, "/feed"))
    index = read_index("memory://feed")
    assert index.num_images == 20
    filesystem.failures = 3
    assert index.read_images(index.groups[0], [0]) == [png(0)]
    filesystem.failures = 10**6
    with pytest.raises(SourceError, match=r"shard /feed/part-0000\d.parquet: connection broken off, 4 times in a row"):
        read_index("memory://feed", FeedSettings(on_damaged="skip"))


def test_a_damaged_shard_is_left_out_where_damage_is_skipped(tmp_path, caplog):
    write_shards(tmp_path, num_shards=3)
    whole = read_index(str(tmp_path))
    damaged = tmp_path / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        index = read_index(str(tmp_path), FeedSettings(on_damaged="skip"))
    assert index.damaged == (str(damaged),)
    assert str(damaged) in caplog.text
    assert index.num_images == 20
    assert index.fingerprint != whole.fingerprint
    damaged.unlink()
    assert read_index(str(tmp_path)).fingerprint == index.fingerprint


def test_damaged_data_pages_are_named(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [row(i) for i in range(4)])
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    index = read_index(str(tmp_path))
    with pytest.raises(DamagedData, match=rf"shard {path}: row group 0 cannot be read: .*feed.on_damaged=skip"):
        index.read_images(index.groups[0], [0])


def test_the_longest_prefix_of_clusters_weighs_and_multiplies_with_source_and_repeats(tmp_path):
    rows = [
        row(0, clusters=[3, 7, 1]),
        row(1, clusters=[3, 8]),
        row(2, clusters=[4], source="rare"),
        row(3, clusters=[], repeats=3),
        row(4, clusters=[3], source="rare", repeats=2),
    ]
    write_shard(tmp_path / "a.parquet", rows)
    feed = FeedSettings(cluster_weights={"3": 0.5, "3/7": 4.0}, source_weights={"rare": 1.5})
    index = read_index(str(tmp_path), feed)
    found = np.concatenate([group.row_weights() for group in index.groups])
    assert found.tolist() == [4.0, 0.5, 1.5, 3.0, 1.5]
    assert index.num_samples == 10  # 10.5, to even
    rare = np.concatenate([group.row_weights("rare") for group in index.groups])
    assert rare.tolist() == [0, 0, 1.5, 0, 1.5]


def test_row_groups_without_weight_are_left_out(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(i, source="ab"[i // 4]) for i in range(8)])
    index = read_index(str(tmp_path), FeedSettings(source_weights={"a": 0.0}))
    assert [group.number for group in index.groups] == [1]


def test_a_source_without_weight_has_no_batches_of_its_own(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(i, source="ab"[i % 2]) for i in range(8)])
    index = read_index(str(tmp_path), FeedSettings(source_weights={"a": 0.0}, homogeneous_share=0.5))
    assert index.sources == ["b"]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"source_weights": {"gone": 2}}, "feed.source_weights: no image is of source 'gone'; there are: test"),
        (
            {"homogeneous_share": 0.1, "homogeneous_sources": ["gone"]},
            "feed.homogeneous_sources: 'gone' shows no image; others: test",
        ),
        ({"cluster_weights": {"3/7": 2}}, "feed.cluster_weights: no image lies below cluster 3/7"),
        ({"source_weights": {"test": 0}}, "feed: weights and repeats leave no image to show"),
    ],
)
def test_weights_that_fit_no_image_are_an_error(tmp_path, feed, message):
    write_shard(tmp_path / "a.parquet", [row(0, clusters=[3])])
    with pytest.raises(ConfigError, match=message):
        read_index(str(tmp_path), FeedSettings(**feed))


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"source_weights": {"a": 2}}, "no column source, which feed.source_weights needs"),
        ({"homogeneous_share": 0.5}, "no column source, which feed.homogeneous_share needs"),
        ({"cluster_weights": {"3": 2}}, "no column clusters, which feed.cluster_weights needs"),
    ],
)
def test_a_missing_column_is_named_where_the_feed_needs_it(tmp_path, feed, message):
    rows = pa.Table.from_pylist([row(0)], schema=shards_schema({})).select(["image"])
    pq.write_table(rows, tmp_path / "a.parquet")
    assert read_index(str(tmp_path)).num_samples == 1
    with pytest.raises(SourceError, match=message):
        read_index(str(tmp_path), FeedSettings(**feed))
