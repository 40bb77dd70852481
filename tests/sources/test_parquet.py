import datetime
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import retrying
from curate.errors import SourceError
from curate.sources import parquet
from curate.sources.found import Found
from curate.sources.listing import list_source
from curate.sources.parquet import find_image_column
from curate.sources.reading import read_bytes, read_part
from curate.tables import HF_IMAGE
from tests.sources.helpers import catalog, keys, source, write_files

NUM = 300


def write_hf(path: Path, num: int = NUM) -> Path:
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"%d" % i, "path": f"p{i}.jpg"} for i in range(num)], HF_IMAGE),
            "label": pa.array(range(num), pa.int64()),
            "thumb": pa.array([b"t"] * num),
            "when": pa.array([datetime.datetime(2020, 1, 1)] * num),
            "score": pa.array([float("nan")] * num),
            "tags": pa.array([["a", "b"]] * num),
        }
    )
    pq.write_table(table, path, row_group_size=70)
    return path


def test_hugging_face_images_come_with_their_other_columns(tmp_path: Path) -> None:
    path = write_hf(tmp_path / "a.parquet")
    table = catalog(list_source(source(path)))
    assert table["key"].to_pylist() == [f"a.parquet/p{i}.jpg" for i in range(NUM)]
    assert table["row"].to_pylist() == list(range(NUM))
    reads = list(read_part(table, source(path)))
    assert [r.data for r in reads] == [b"%d" % i for i in range(NUM)]
    assert reads[5].extra == {"label": 5, "when": "2020-01-01T00:00:00", "score": None, "tags": ["a", "b"]}
    json.dumps([r.extra for r in reads], allow_nan=False)


def test_wanted_columns_alone_are_carried(tmp_path: Path) -> None:
    path = write_hf(tmp_path / "a.parquet", 3)
    table = catalog(list_source(source(path)))
    assert [r.extra for r in read_part(table, source(path, columns=("label",)))] == [{"label": i} for i in range(3)]
    assert [r.extra for r in read_bytes(table, source(path))] == [None] * 3
    with pytest.raises(SourceError, match=r"no column 'caption' to carry; there are: label, when, score, tags"):
        list(read_part(table, source(path, columns=("caption",))))


def test_selected_rows_are_read_and_other_row_groups_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_hf(tmp_path / "a.parquet")
    table = catalog(list_source(source(path))).take([0, 69, 210, 211, 299])
    groups: list[int] = []
    batches = parquet._batches
    monkeypatch.setattr(parquet, "_batches", lambda t, g, *a, **k: groups.append(g) or batches(t, g, *a, **k))
    assert [r.data for r in read_bytes(table, source(path))] == [b"0", b"69", b"210", b"211", b"299"]
    assert groups == [0, 3, 4]


def test_row_group_is_streamed_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [np.random.default_rng(i).bytes(50_000) for i in range(200)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": images}), path, row_group_size=200, write_batch_size=8)
    table = catalog(list_source(source(path)))
    num_read: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            num_read.append(len(data))
            return data

    monkeypatch.setattr(parquet, "open_file", lambda uri, spans: Counting(uri))
    reads = read_part(table, source(path))
    assert next(reads).data == images[0]
    assert sum(num_read) < path.stat().st_size / 2
    assert [r.data for r in reads] == images[1:]


@pytest.mark.parametrize("dtype", [pa.binary(), pa.large_binary()])
def test_plain_bytes_column_is_recognized(tmp_path: Path, dtype: pa.DataType) -> None:
    pq.write_table(pa.table({"id": [1, 2], "jpg": pa.array([b"a", None], dtype)}), tmp_path / "a.parquet")
    table = catalog(list_source(source(tmp_path)))
    assert table["key"].to_pylist() == ["a.parquet#0", "a.parquet#1"]
    first, second = read_part(table, source(tmp_path))
    assert (first.data, first.extra) == (b"a", {"id": 1})
    assert (second.data, second.reject, second.error) == (None, "unreadable", "the row holds no image")


def test_row_that_only_names_a_file_is_unreadable(tmp_path: Path) -> None:
    rows = [{"bytes": None, "path": "/etc/passwd"}, None]
    pq.write_table(pa.table({"image": pa.array(rows, HF_IMAGE)}), tmp_path / "a.parquet")
    table = catalog(list_source(source(tmp_path)))
    first, second = read_part(table, source(tmp_path))
    assert first.error == "the row holds only the path '/etc/passwd', no bytes"
    assert second.error == "the row holds no image"


def test_image_column_is_found_or_asked_for() -> None:
    struct: Any = HF_IMAGE
    binary, text = pa.binary(), pa.string()
    find = find_image_column
    assert find(pa.schema({"image": struct, "mask": struct}), None, where="f") == "image"
    assert find(pa.schema({"image": text, "jpg": binary}), None, where="f") == "jpg"
    assert find(pa.schema({"a": binary, "b": struct}), "b", where="f") == "b"
    with pytest.raises(SourceError, match="f: a, b could all hold the images; say which: image_column: a"):
        find(pa.schema({"a": binary, "b": struct, "c": text}), None, where="f")
    with pytest.raises(SourceError, match=r"f: no column of bytes .*columns: c"):
        find(pa.schema({"c": text}), None, where="f")
    for wanted, name in ((None, "image"), ("a", "a")):
        with pytest.raises(SourceError, match=f"f: two columns are called '{name}'"):
            find(pa.schema([(name, binary), (name, struct)]), wanted, where="f")
    with pytest.raises(SourceError, match=r"image_column 'c' is not a column of bytes.*those are: a; columns: a, c"):
        find(pa.schema({"a": binary, "c": text}), "c", where="f")


def test_files_of_a_folder_follow_each_other_as_containers(tmp_path: Path) -> None:
    write_files(tmp_path, ["README.md"])
    for name in ("b", "a"):
        write_hf(tmp_path / f"{name}.parquet", 2)
    found = list(list_source(source(tmp_path)))
    assert [(Path(f.uri).name, f.row, f.container) for f in found] == [
        ("a.parquet", 0, 0),
        ("a.parquet", 1, 0),
        ("b.parquet", 0, 1),
        ("b.parquet", 1, 1),
    ]


def test_damaged_file_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.parquet": b"PAR1 nothing PAR1"})
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        keys(tmp_path)
    path = write_hf(tmp_path / "a.parquet")
    table = catalog(list_source(source(path)))
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        list(read_part(table, source(path)))


def test_file_that_changed_since_listing_is_an_error(tmp_path: Path) -> None:
    table = catalog(list_source(source(write_hf(tmp_path / "a.parquet", 9))))
    write_hf(tmp_path / "a.parquet", 3)
    with pytest.raises(SourceError, match=r"row 8 is wanted, the file has 3.*restore it, or start anew"):
        list(read_part(table, source(tmp_path)))


def test_rows_must_ascend(tmp_path: Path) -> None:
    table = catalog(list_source(source(write_hf(tmp_path / "a.parquet", 9)))).take([3, 2])
    with pytest.raises(ValueError, match="rows must ascend"):
        list(read_part(table, source(tmp_path)))


def test_too_long_image_is_not_passed_on(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [b"1" * 11, b"2"], "n": [1, 2]}), tmp_path / "a.parquet")
    table = catalog(list_source(source(tmp_path)))
    first, second = read_part(table, source(tmp_path), max_bytes=10)
    assert (first.data, first.reject, first.extra) == (None, "too_large", {"n": 1})
    assert second.data == b"2"


def test_passing_error_goes_on_where_it_stopped_and_a_lasting_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    failures = [OSError(5, "Input/output error")] * 3

    def batches(fail_at: int) -> Any:
        for i in range(4):
            if i == fail_at and failures:
                raise failures.pop()
            yield i

    assert list(parquet._resume(lambda: batches(2), "f")) == [0, 1, 2, 3]
    failures = [OSError(5, "Input/output error")] * 9
    with pytest.raises(SourceError, match="f: Input/output error, 4 times in a row; check the disk"):
        list(parquet._resume(lambda: batches(0), "f"))


def as_text(*cells: bytes) -> pa.Array:
    """A column of text whatever its bytes are, as a careless writer leaves it."""
    return pa.Array.from_buffers(pa.string(), len(cells), pa.array(cells, pa.binary()).buffers())


def test_bad_cells_are_left_out_and_every_row_comes(tmp_path: Path) -> None:
    when = pa.array([0, 2**62, 0], pa.int64()).view(pa.timestamp("us"))
    zone = pa.array([0, 0, 0], pa.int64()).view(pa.timestamp("us", "Mars/Olympus"))
    columns = {"image": pa.array([b"0", b"1", b"2"]), "t": as_text(b"a", b"b", b"\xff"), "when": when, "zone": zone}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    reads = list(read_part(catalog(list_source(source(tmp_path))), source(tmp_path)))
    assert [r.data for r in reads] == [b"0", b"1", b"2"]
    assert [r.extra for r in reads] == [
        {"t": "a", "when": "1970-01-01T00:00:00", "zone": None},
        {"t": "b", "when": None, "zone": None},
        {"t": None, "when": "1970-01-01T00:00:00", "zone": None},
    ]
    assert [r.left_out for r in reads] == [
        ("unknown_time_zone",),
        ("time_out_of_range", "unknown_time_zone"),
        ("not_unicode", "unknown_time_zone"),
    ]


def test_of_columns_with_one_name_the_first_is_carried_and_bad_names_are_not(tmp_path: Path) -> None:
    arrays = [pa.array(["first"]), pa.array([b"x"]), pa.array(["second"]), pa.array([1]), pa.array([2]), pa.array([3])]
    table = pa.Table.from_arrays(arrays, names=["t", "image", "t", "", "a\0b", "image.path"])
    pq.write_table(table, tmp_path / "a.parquet")
    rows = catalog(list_source(source(tmp_path)))
    (read,) = read_part(rows, source(tmp_path))
    assert read.extra == {"t": "first", "image.path": 3}
    assert read.left_out == ("duplicate_name", "unusable_name")
    (read,) = read_part(rows, source(tmp_path, columns=("image.path",)))
    assert (read.data, read.extra, read.left_out) == (b"x", {"image.path": 3}, ())


def test_paths_of_images_that_are_no_utf8_are_keys_and_keep_their_bytes(tmp_path: Path) -> None:
    paths = as_text(b"\xff.jpg", b"a\\b.jpg", b"", "größe.jpg".encode())
    images = pa.StructArray.from_arrays([pa.array([b"0", None, b"2", b"3"]), paths], names=["bytes", "path"])
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    found = list(list_source(source(tmp_path)))
    names = [f.key.removeprefix("a.parquet/") for f in found]
    assert names == [r"\xff.jpg", r"a\\b.jpg", "a.parquet#2", "größe.jpg"]
    reads = list(read_part(catalog(found), source(tmp_path)))
    assert [r.data for r in reads] == [b"0", None, b"2", b"3"]


def test_struct_of_structs_holds_no_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": pa.array([{"bytes": {"bytes": b"x"}}])}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"a\.parquet: no column of bytes"):
        list(list_source(source(tmp_path)))


def test_column_name_that_is_no_utf8_is_an_error_of_its_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "QQQQ": ["a"]}), tmp_path / "a.parquet", store_schema=False)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data.replace(b"QQQQ", b"\xff\xfeQQ"))
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        list(list_source(source(tmp_path)))


def test_scattered_rows_of_types_without_a_take_kernel_are_read(tmp_path: Path) -> None:
    dates = [f"2020-01-{day:02}" for day in range(1, 21)]
    nested = pa.array([{"d": [date]} for date in dates], pa.struct([("d", pa.list_(pa.string_view()))]))
    try:
        pq.write_table(pa.table({"image": pa.array([b"x"] * 20), "n": nested}), tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip("this version of Arrow writes no views, so it reads none")
    rows = catalog(list_source(source(tmp_path))).take([0, 3, 4, 19])
    assert [r.extra for r in read_part(rows, source(tmp_path))] == [{"n": {"d": [dates[i]]}} for i in (0, 3, 4, 19)]


@pytest.mark.parametrize("dtype", [pa.binary(), HF_IMAGE])
def test_row_group_with_fewer_rows_than_it_claims_is_an_error(dtype: pa.DataType, tmp_path: Path) -> None:
    path, images = tmp_path / "a.parquet", [b"x", b"y"]
    table = pa.table({"image": pa.array(images if dtype == pa.binary() else [{"bytes": b} for b in images], dtype)})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    footer = pq.read_metadata(path)
    data, claimed = path.read_bytes(), bytes([0x16, 2 * len(images)])  # Thrift: an i64 field, zigzag
    end = len(data) - 8 - footer.serialized_size
    assert footer.num_rows == 2
    assert data[end:].count(claimed) >= 2
    path.write_bytes(data[:end] + data[end:].replace(claimed, bytes([0x16, 2 * 3])))
    changed = pq.read_metadata(path)
    assert (changed.num_rows, changed.row_group(0).num_rows) == (3, 3)
    rows = catalog([Found(str(path), f"{row}", row=row) for row in range(3)])
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        list(read_part(rows, source(path)))


def test_footer_that_tells_of_other_rows_than_its_row_groups_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"x"] * 41}), path, compression="none", use_dictionary=False)
    data, rows = path.read_bytes(), bytes([0x16, 2 * 41])  # Thrift: an i64 field, zigzag
    start = len(data) - 8 - pq.read_metadata(path).serialized_size
    places = [place for place in range(start, len(data)) if data.startswith(rows, place)]
    for place in places:
        path.write_bytes(data[: place + 1] + bytes([2 * 42]) + data[place + 2 :])
        if pq.read_metadata(path).num_rows == 42:
            break
    else:
        raise AssertionError("the number of rows was not found in the footer")
    with pytest.raises(SourceError, match=r"a\.parquet: .*its footer tells of 42 rows, its row groups of 41"):
        list(list_source(source(path)))
