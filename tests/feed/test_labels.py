import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import ConfigError, SourceError
from curate.feed.labels import MAX_CLASSES, NO_CLASS, read_labels
from curate.feed.settings import FeedSettings
from curate.feed.shards import read_index
from tests.feed.shards import row, write_shard

PICTURE = row(0)


def write(folder, *columns, kind=None, group=4):
    """A shard for each column of values."""
    kind = kind or pa.string()
    for number, values in enumerate(columns):
        rows = [PICTURE | {"image_id": i, "value": value} for i, value in enumerate(values)]
        write_shard(folder / f"{number}.parquet", rows, own={"value": kind}, group=group)
    return folder


def read(folder, *, skip_damaged=False, **feed):
    index = read_index(str(folder), FeedSettings(**feed))
    return read_labels(index, "value", setting="objective.guides", skip_damaged=skip_damaged)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.string(), ["b", "a", None, "c", "", "a"]),
        (pa.large_string(), ["b", "a", None, "c", "", "a"]),
        (pa.dictionary(pa.int32(), pa.string()), ["b", "a", None, "c", "b", "a"]),
        (pa.int16(), [10, -3, None, 7, 10, 0]),
        (pa.uint64(), [2**64 - 1, 3, None, 3, 7, 1]),
        (pa.bool_(), [True, False, None, True, True, False]),
    ],
)
def test_codes_and_classes_give_the_values_back(tmp_path, kind, values):
    found = read(write(tmp_path, values[:2], values[2:], kind=kind, group=3))
    assert list(found.classes) == sorted({value for value in values if value is not None})
    back = [None if code == NO_CLASS else found.classes[code] for code in found.codes]
    assert back == values
    assert found.num_labelled == 5
    assert found.codes.dtype == np.int16


def test_images_are_counted_as_the_feed_counts_them(tmp_path):
    """The feed leaves out row groups that show nothing, and their values with them."""
    rows = [PICTURE | {"repeats": 0 if i < 4 else 1, "value": "hidden" if i < 4 else f"v{i % 2}"} for i in range(8)]
    write_shard(tmp_path / "a.parquet", rows, own={"value": pa.string()})
    found = read(tmp_path)
    assert found.classes == ("v0", "v1")
    assert found.codes.tolist() == [0, 1, 0, 1]


def test_shards_without_any_value_may_be_among_others(tmp_path):
    write(tmp_path, ["a", "b"])
    write_shard(tmp_path / "z.parquet", [PICTURE | {"value": None}] * 3, own={"value": pa.null()})
    assert read(tmp_path).codes.tolist() == [0, 1, -1, -1, -1]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (pa.float64(), "double"),
        (pa.timestamp("ms"), r"timestamp\[ms\]"),
        (pa.list_(pa.string()), "list<"),
        (pa.binary(), "binary"),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, kind, told):
    with pytest.raises(ConfigError, match=rf"guides: column value of .*0.parquet is {told}.*; write it as text, whole"):
        read(write(tmp_path, [None, None], kind=kind))


def test_too_many_values_are_refused_within_a_shard_and_over_all(tmp_path):
    num = MAX_CLASSES // 2 + 1
    write(tmp_path / "over", range(num), range(num, 2 * num), kind=pa.int32(), group=num)
    with pytest.raises(ConfigError, match=r"column value has 10,002 distinct values in the shards up to .*1.parquet"):
        read(tmp_path / "over")
    write(tmp_path / "one", range(MAX_CLASSES + 1), kind=pa.int32(), group=20_000)
    with pytest.raises(ConfigError, match=r"10,001 distinct values in .*0.parquet; at most 10,000 are classes; write"):
        read(tmp_path / "one")


def test_long_texts_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"texts of up to 1,000 characters, and a class has at most 200; name"):
        read(write(tmp_path, ["a", "b" * 1000]))


@pytest.mark.parametrize(("values", "told"), [(["a", "a", None], "the one value 'a'"), ([None, None], "no value")])
def test_a_column_of_one_value_is_refused(tmp_path, values, told):
    with pytest.raises(ConfigError, match=rf"column value has {told} in {len(values)} images; at least two"):
        read(write(tmp_path, values))


def test_shards_that_write_a_column_in_two_ways_are_refused(tmp_path):
    write(tmp_path / "a", ["1", "2"])
    write(tmp_path / "b", [1, 2], kind=pa.int64())
    with pytest.raises(ConfigError, match=r"column value is text in .*, whole numbers in .*; write it alike"):
        read(tmp_path / "*" / "0.parquet")


def test_a_missing_column_is_an_error_that_lists_those_there_are(tmp_path):
    write_shard(tmp_path / "a.parquet", [PICTURE | {"organ": "liver"}], own={"organ": pa.string()})
    with pytest.raises(SourceError, match=r"no column value, which objective.guides names; there are: .*key.*organ"):
        read(tmp_path)


def test_text_that_is_no_utf8_is_an_error(tmp_path):
    invalid = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(np.int32([0, 1, 2])), pa.py_buffer(b"a\xff")])
    table = pa.Table.from_pylist([PICTURE, PICTURE]).append_column("value", invalid)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="column value of .*a.parquet holds text that is no UTF-8"):
        read(tmp_path)


def test_images_of_a_damaged_shard_have_no_class_where_damage_is_skipped(tmp_path):
    write(tmp_path, ["a", "b"] * 50, ["b", "a"] * 50, group=100)
    index = read_index(str(tmp_path))
    path = tmp_path / "1.parquet"
    path.unlink()
    with pytest.raises(SourceError, match=r"1.parquet: column value cannot be read"):
        read_labels(index, "value", setting="objective.guides")
    found = read_labels(index, "value", setting="objective.guides", skip_damaged=True)
    assert found.codes.tolist() == [0, 1] * 50 + [NO_CLASS] * 100
