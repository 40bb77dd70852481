import hashlib
from itertools import islice

import pyarrow as pa
import pytest
import torch
from PIL import Image

from benchmarks.feed import held_bytes
from curate.engine.store import Store
from curate.errors import SourceError
from curate.feed.samples import CroppedSamples
from curate.feed.shards import read_index
from curate.feed.split import BatchSplit
from curate.tables import shards_schema
from tests.feed.loading import CROPS, PLAIN, batches_of, feed, taken
from tests.feed.shards import flat, png, row, write_shard, write_shards
from tests.ops.images.pictures import encode, scan_bomb


def sources_of(folder, number, **changes):
    """The source of each image of `number` batches, told by its color."""
    samples, config = feed(folder, PLAIN, **changes)
    large, _ = taken(samples, config, number, start=0)
    return large[:, 0, 0, 8, 8].view(number, -1)


@pytest.fixture
def colored(tmp_path):
    """Shards whose images are of one gray level a source: 10 of level 50, 30 of level 200, mixed."""
    shades = [200, 50, 200, 200] * 10
    rows = [row(i, encoded=flat(shade, size=32), source=f"gray{shade}") for i, shade in enumerate(shades)]
    write_shard(tmp_path / "a.parquet", rows)
    return tmp_path


def test_homogeneous_batches_show_one_source_by_its_samples(colored):
    shades = sources_of(colored, 60, feed={"homogeneous_share": 1.0})
    assert (shades == shades[:, :1]).all()
    assert (shades[:, 0] == 50).float().mean() == pytest.approx(0.25, abs=0.15)


def test_the_share_and_the_sources_of_homogeneous_batches_are_kept(colored):
    settings = {"homogeneous_share": 0.4, "homogeneous_sources": ["gray50"]}
    shades = sources_of(colored, 60, feed=settings)
    dark = (shades == 50).all(dim=1)
    assert dark.float().mean() == pytest.approx(0.4, abs=0.15)
    mixed = shades[~dark].flatten()  # an epoch of the others is still every image once
    assert (mixed[:40] == 50).sum() == 10


def test_homogeneous_batches_do_not_depend_on_ranks_or_start(colored):
    samples, config = feed(colored, feed={"homogeneous_share": 0.5})
    whole, _ = taken(samples, config, 12, start=0)
    late, _ = taken(samples, config, 5, start=7 * 8, rank=1, size=2)
    expected = whole[7 * 8 :].unflatten(0, (5, 2, 4))[:, 1].flatten(0, 1)
    assert torch.equal(late, expected)


def test_weights_of_sources_change_how_often_their_images_are_shown(colored):
    shades = sources_of(colored, 6, feed={"source_weights": {"gray200": 1 / 3, "gray50": 3.8}})
    assert (shades == 50).sum() == 38


def test_a_damaged_image_is_replaced_by_the_next_of_its_row_group_and_counted(tmp_path):
    shades = [10, 60, 110, 160, 210]
    rows = [row(i, encoded=flat(shade, size=32)) for i, shade in enumerate(shades)]
    rows[1]["image"] = {"bytes": b"no picture", "path": ""}
    rows[4]["image"] = {"bytes": None, "path": ""}
    write_shard(tmp_path / "a.parquet", rows, group=3)
    samples, config = feed(tmp_path, PLAIN, feed={"on_damaged": "skip"}, batch_size=5)
    large, _ = taken(samples, config, 2, start=0)
    for epoch in large[:, 0, 0, 8, 8].view(2, 5):
        assert sorted(epoch.tolist()) == [10, 10, 110, 110, 160]  # row 4 is the last: the next group is the first
    assert samples.skipped == 4
    again, _ = taken(samples, config.model_copy(update={"workers": 2}), 2, start=0)
    assert torch.equal(again, large)


def test_images_beyond_the_limits_count_as_damaged(tmp_path):
    large = Image.new("F", (2000, 2000))
    rows = [row(i, encoded=flat(100, size=32)) for i in range(2)]
    rows[1]["image"] = {"bytes": encode(large, "TIFF", compression="tiff_adobe_deflate"), "path": ""}
    write_shard(tmp_path / "a.parquet", rows)
    limits = {"max_decode_bytes": 8 << 20}
    samples, config = feed(tmp_path, PLAIN, feed=limits, batch_size=2)
    with pytest.raises(SourceError, match=r"row 1: .* raise feed\.max_decode_bytes, or set feed\.on_damaged=skip"):
        next(batches_of(samples, config, start=0))
    samples, config = feed(tmp_path, PLAIN, feed=limits | {"on_damaged": "skip"}, batch_size=2)
    assert (taken(samples, config, 1, start=0)[0][:, 0, 0, 8, 8] == 100).all()
    rows[1]["image"] = {"bytes": scan_bomb(), "path": ""}
    write_shard(tmp_path / "a.parquet", rows)
    samples, config = feed(tmp_path, PLAIN, feed={"max_seconds": 0.2}, batch_size=2)
    with pytest.raises(SourceError, match=r"takes more than 0.2 seconds .* raise feed\.max_seconds, or set"):
        next(batches_of(samples, config, start=0))


def test_a_lost_shard_is_replaced_from_the_next_and_counted(tmp_path):
    for name, shade in (("a", 50), ("b", 150)):
        write_shard(tmp_path / f"{name}.parquet", [row(i, encoded=flat(shade, size=32)) for i in range(4)])
    samples, config = feed(tmp_path, PLAIN, feed={"on_damaged": "skip"})
    (tmp_path / "a.parquet").unlink()
    large, _ = taken(samples, config, 1, start=0)
    assert (large[:, 0, 0, 8, 8] == 150).all()
    assert samples.skipped == 4


def test_nothing_whole_is_an_error_even_where_damage_is_skipped(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(i, encoded=b"x") for i in range(6)])
    samples, config = feed(tmp_path, feed={"on_damaged": "skip"})
    with pytest.raises(SourceError, match="feed.on_damaged=skip: no image is left that decodes"):
        next(batches_of(samples, config, start=0))


@pytest.mark.parametrize("size", [1, 2])
def test_only_a_window_of_a_ranks_encoded_images_is_held(tmp_path, monkeypatch, size):
    write_shards(tmp_path, num_shards=8, rows_each=8)
    samples, _ = feed(tmp_path)
    index, reads = samples._index, []
    largest = max(len(image) for group in index.groups for image in index.read_images(group, range(4)))
    mine = samples.of_rank(BatchSplit(8, rank=size - 1, size=size), ahead=8)
    original = type(index).read_images

    def counted(*args, **more):
        reads.append((args[1].shard, args[1].number))
        return original(*args, **more)

    monkeypatch.setattr(type(index), "read_images", counted)
    for numbers in islice(BatchSplit(8, rank=size - 1, size=size).micro_batches(0), 8):
        for number in numbers:
            mine[number]
            assert held_bytes(mine) < 8 // size * largest
        assert held_bytes(mine) == 0  # a window is two row groups, a batch a window
    assert len(set(reads)) == len(reads) > 8  # no row group twice


def test_one_image_is_augmented_afresh_in_every_epoch(tmp_path):
    write_shard(tmp_path / "a.parquet", [row(0)])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    assert not torch.equal(samples[0].global_crops, samples[1].global_crops)


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


def test_a_shard_lost_after_the_start_is_named(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [row(0)])
    samples = CroppedSamples(read_index(str(tmp_path)), CROPS, seed=0, window=8)
    path.unlink()
    with pytest.raises(SourceError, match=rf"shard {path}: row group 0 cannot be read"):
        samples[0]


def hashed_shard(folder, shades, *, wrong=(), repaired=()):
    """A shard as curate writes them, the `sha256` of some rows not that of their bytes."""
    rows = [row(i, encoded=flat(shade, size=32)) for i, shade in enumerate(shades)]
    for number, one in enumerate(rows):
        one["sha256"] = hashlib.sha256(one["image"]["bytes"] + b"x" * (number in wrong)).hexdigest()
        one["repaired"] = "metadata" if number in repaired else None
    batch = pa.RecordBatch.from_pylist(rows, schema=shards_schema({}))
    Store(folder).table("data").commit(0, batch.schema, [batch])
    return folder / "data"


def test_an_image_that_is_not_the_one_of_its_digest_is_named_or_replaced(tmp_path):
    data = hashed_shard(tmp_path, [10, 60, 110, 160], wrong=[1, 3], repaired=[3])
    samples, config = feed(data, PLAIN, feed={"verify": 1.0}, batch_size=4)
    with pytest.raises(SourceError, match=r"part-00000.parquet, row group 0, row 1: the image does not have"):
        taken(samples, config, 1, start=0)
    samples, config = feed(data, PLAIN, feed={"verify": 1.0, "on_damaged": "skip"}, batch_size=4)
    large, _ = taken(samples, config, 1, start=0)
    assert sorted(large[:, 0, 0, 8, 8].tolist()) == [10, 110, 110, 160]
    assert samples.skipped == 1


def test_the_share_of_images_is_held_against_their_digests(tmp_path):
    """With every digest wrong, each image that is looked at is counted; batches do not depend on the share."""
    data = hashed_shard(tmp_path, range(0, 200, 2), wrong=range(100))
    seen = {}
    for share in (0.0, 0.3):
        samples, config = feed(data, PLAIN, feed={"verify": share, "on_damaged": "skip"}, batch_size=20)
        taken(samples, config, 20, start=0)
        seen[share] = samples.skipped
    assert seen[0.0] == 0
    assert seen[0.3] == pytest.approx(0.3 * 400, abs=40)
    samples, config = feed(data, PLAIN, feed={"verify": 0.3, "on_damaged": "skip"}, batch_size=20)
    for rank in range(2):  # the choice is that of the sample's number, whoever shows it
        taken(samples, config, 20, start=0, rank=rank, size=2)
    assert samples.skipped == seen[0.3]


def test_shards_of_others_are_not_checked_and_that_is_said_once(tmp_path, caplog):
    caplog.set_level("INFO")
    for name in "ab":
        write_shard(tmp_path / f"{name}.parquet", [row(i) for i in range(4)])  # with digests of something else
    samples, config = feed(tmp_path, feed={"verify": 1.0})
    taken(samples, config, 1, start=0)
    said = [record.message for record in caplog.records if "feed.verify" in record.message]
    assert said == ["2 of 2 shards carry no digests of curate: feed.verify skips them"]


def test_crops_say_which_row_of_all_shards_they_show(tmp_path):
    """The picture of row i is of one shade of its own; damaged ones are those of the images in their place."""
    shades = range(10, 250, 20)
    for number, name in enumerate("abc"):
        rows = [row(i, encoded=flat(shade, size=32)) for i, shade in enumerate(shades[number * 4 : number * 4 + 4])]
        if number == 1:
            rows[2]["image"] = {"bytes": b"no picture", "path": "x.png"}
        write_shard(tmp_path / f"{name}.parquet", rows)
    samples, config = feed(tmp_path, PLAIN, feed={"on_damaged": "skip"}, batch_size=12)
    (batch,) = islice(batches_of(samples, config, start=0), 1)
    shown = [10 + 20 * number for number in batch.images.tolist()]
    assert batch.global_crops[:12, 0, 8, 8].tolist() == shown
    assert sorted(batch.images.tolist()) == [0, 1, 2, 3, 4, 5, 7, 7, 8, 9, 10, 11]
