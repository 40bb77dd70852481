from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.errors import ConfigError, SourceError
from curate.evaluation.labeled import from_arrays, open_labeled
from curate.ops.images.bounds import Bounds
from tests.evaluation.backbones import write_classes
from tests.feed.shards import png, row, write_shard


def write_parquet(folder: Path) -> Path:
    """Two files of 7 rows in row groups of 4, image number n labelled n % 3."""
    folder.mkdir()
    for part in range(2):
        numbers = range(part * 7, part * 7 + 7)
        images = [{"bytes": png(number), "path": None} for number in numbers]
        table = pa.table({"image": images, "class": [number % 3 for number in numbers]})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=4)
    return folder


def test_a_folder_a_file_and_a_pattern_of_parquet_agree(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data")
    whole = open_labeled(str(folder), label="class")
    assert whole.labels.tolist() == [number % 3 for number in range(14)]
    assert whole.classes == ["0", "1", "2"]
    assert len(open_labeled(str(folder / "*.parquet"), label="class")) == 14
    assert len(open_labeled(str(folder / "1.parquet"), label="class")) == 7
    assert len(open_labeled(f"file://{folder}", label="class")) == 14


def test_rows_are_the_pictures_of_their_number(tmp_path: Path) -> None:
    found = open_labeled(str(write_parquet(tmp_path / "data")), label="class")
    everything = [decode() for decode in found.pictures()]
    rows = np.array([0, 3, 4, 8, 13])
    chosen = [decode() for decode in found.pictures(rows)]
    assert len(everything) == 14
    for row_, picture in zip(rows, chosen, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(everything[row_]))
    assert len({picture.tobytes() for picture in everything}) == 14


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(i) for i in range(3)], "y": [10, 9, 2]}), tmp_path / "a.parquet")
    found = open_labeled(str(tmp_path / "a.parquet"), label="y")
    assert (found.classes, found.labels.tolist()) == (["2", "9", "10"], [2, 1, 0])


def test_bundled_sets_have_their_classes() -> None:
    photos, digits = open_labeled("bundled"), open_labeled("mnist5k")
    assert (len(photos), len(photos.classes)) == (338, 20)
    assert (len(digits), digits.classes) == (5000, [str(digit) for digit in range(10)])
    assert next(digits.pictures())().size == (28, 28)


def test_a_plain_folder_will_do_where_no_labels_are_needed(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", each=2)
    found = open_labeled(str(tmp_path / "set" / "class0"), labeled=False)
    assert (len(found), found.classes) == (2, [""])
    with pytest.raises(SourceError, match="no pictures in subfolders"):
        open_labeled(str(tmp_path / "set" / "class0"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty: no pictures there"):
        open_labeled(str(tmp_path / "empty"), labeled=False)
    with pytest.raises(SourceError, match="gone: no such folder; a folder of pictures is needed"):
        open_labeled(str(tmp_path / "gone"), labeled=False)


def test_parquet_without_labels_will_do_too(tmp_path: Path) -> None:
    found = open_labeled(str(write_shard(tmp_path / "a.parquet", [row(0), row(1)])), labeled=False)
    assert (len(found), found.classes) == (2, [""])


def test_a_test_set_takes_the_class_numbers_of_the_training_set() -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    train = from_arrays(images, np.array(["a", "b", "c", "b"]), name="train")
    test = from_arrays(images[:2], np.array(["c", "b"]), name="test")
    assert test.with_classes_of(train).labels.tolist() == [2, 1]
    assert test.with_classes_of(train).classes == ["a", "b", "c"]
    with pytest.raises(SourceError, match=r"train: class 'a' \(1 in all\) is not among the 2 of test"):
        train.with_classes_of(test)


def test_pictures_beyond_the_limits_are_told_with_the_limit(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", each=1)
    picture = tmp_path / "set" / "class0" / "bomb.tif"
    Image.new("F", (2000, 2000)).save(picture, compression="tiff_adobe_deflate")
    images = open_labeled(str(tmp_path / "set"), bounds=Bounds(max_decode_bytes=8 << 20))
    with pytest.raises(SourceError, match=r"bomb.tif: .*; remove it, or raise max_decode_bytes"):
        [decode() for decode in images.pictures()]


def test_label_columns_are_asked_for_and_checked(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data")
    with pytest.raises(
        ConfigError, match=r"0.parquet: Parquet files need label=COLUMN \(--label\); its columns are image"
    ):
        open_labeled(str(folder))
    with pytest.raises(ConfigError, match="no Parquet files, so label=y names no column"):
        open_labeled(str(write_classes(tmp_path / "set", each=1)), label="y")
    pq.write_table(pa.table({"image": [png(0)] * 2, "y": ["a", None]}), tmp_path / "null.parquet")
    with pytest.raises(SourceError, match=r"null.parquet row 1: y is None; a text or an integer is needed"):
        open_labeled(str(tmp_path / "null.parquet"), label="y")


def test_files_that_vanish_are_named(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "data")
    parquet, classes = (
        open_labeled(str(folder), label="class"),
        open_labeled(str(write_classes(tmp_path / "s", each=1))),
    )
    (folder / "1.parquet").unlink()
    with pytest.raises(SourceError, match=r"1.parquet: row group 0 cannot be read"):
        list(parquet.pictures())
    (tmp_path / "s" / "class1" / "000.png").unlink()
    with pytest.raises(SourceError, match=r"000.png: cannot be read"):
        [decode() for decode in classes.pictures()]
