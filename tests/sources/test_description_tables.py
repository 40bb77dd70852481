"""Tables that describe many images: `metadata.csv` and its like, and what img2dataset writes beside its shards."""

import json
import random
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import SourceError
from curate.sources import description_tables
from curate.sources.description_tables import RowIndex, TableRow, index_rows, read_table_rows
from curate.sources.left_out import LeftOut
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from tests.sources.helpers import catalog, source, write_files, write_tar
from tests.sources.test_sidecars_beside import extras

ROWS = [
    {"file_name": "a.jpg", "text": 'größe, "quoted"', "number": 1, "share": 0.5, "code": "007"},
    {"file_name": "sub/b.jpg", "text": "two\nlines", "number": -2, "share": 2.0, "code": "12"},
    {"file_name": "./sub/c.jpg", "text": None, "number": 3, "share": 1e-3, "code": "3x"},
    {"file_name": "gone.jpg", "text": "no image", "number": 4, "share": 4.25, "code": "1"},
]
UNMATCHED_ROW = "row of a table of descriptions without an image"
NO_ROW = "image without a row in its table of descriptions"


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        quoted = [
            {k: "" if v is None else '"' + str(v).replace('"', '""') + '"' for k, v in row.items()} for row in rows
        ]
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in quoted)]
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_other_columns_of_a_metadata_table_become_own_columns(tmp_path: Path, suffix: str) -> None:
    images = ["a.jpg", "sub/b.jpg", "sub/c.jpg", "sub/d.jpg"]
    write_files(tmp_path / "d", images)
    write_files(tmp_path / "d", {"a.txt": b"beside wins", "a.json": b'{"number": 9}'})
    write_table(tmp_path / "d" / f"metadata.{suffix}", ROWS)
    own = [{k: v for k, v in row.items() if k != "file_name"} for row in ROWS]
    expected = {
        "a.jpg": {**own[0], "caption": "beside wins", "number": 9},
        "sub/b.jpg": own[1],
        "sub/c.jpg": own[2],
        "sub/d.jpg": None,
    }
    fs = fsspec.filesystem("memory")
    for file in (tmp_path / "d").rglob("*"):
        if file.is_file():
            fs.pipe(f"/tables/{file.relative_to(tmp_path / 'd')}", file.read_bytes())
    try:
        for place in (tmp_path / "d", "memory://tables"):
            skipped = LeftOut()
            assert extras(place, skipped=skipped) == expected
            assert skipped == {UNMATCHED_ROW: 1, NO_ROW: 1}
            assert skipped.example == {UNMATCHED_ROW: f"metadata.{suffix} row 3", NO_ROW: "sub/d.jpg"}
    finally:
        fs.rm("/tables", recursive=True)


def test_the_nearest_table_above_an_image_describes_it(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg", "x/b.jpg", "x/y/z/c.jpg", "v/d.jpg"])
    write_table(tmp_path / "metadata.csv", [{"file_name": n, "of": "top"} for n in ("a.jpg", "x/b.jpg", "v/d.jpg")])
    write_table(tmp_path / "x/metadata.jsonl", [{"file_name": n, "of": "x"} for n in ("b.jpg", "y/z/c.jpg")])
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path) + "/", "/nearest/", recursive=True)
    try:
        for place in (tmp_path, "memory://nearest"):
            skipped = LeftOut()
            of = {key: extra["of"] for key, extra in extras(place, skipped=skipped).items()}
            assert of == {"a.jpg": "top", "x/b.jpg": "x", "x/y/z/c.jpg": "x", "v/d.jpg": "top"}
            assert skipped == {UNMATCHED_ROW: 1}
    finally:
        fs.rm("/nearest", recursive=True)


def test_a_table_that_names_no_images_is_another_file(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"1", "metadata.csv": b"id,x\n1,2\n", "metadata.jsonl": b"[1]\n"})
    skipped = LeftOut()
    assert extras(tmp_path, skipped=skipped) == {"a.jpg": None}
    assert skipped == {"other file (.csv)": 1, "other file (.jsonl)": 1}


def test_rows_that_cannot_be_read_cost_themselves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description_tables, "MAX_LINE", 2000)
    good = b'{"file_name": "%s.jpg", "x": 1}\n'
    deep = b"[" * 1500 + b"\n"
    write_files(tmp_path / "j", {"a.jpg": b"1", "b.jpg": b"2"})
    write_files(
        tmp_path / "j",
        {"metadata.jsonl": good % b"a" + b"\xff{]\n\n" + deep + b'"x"\n' + b"9" * 5000 + b"\n" + good % b"b"},
    )
    assert list(extras(tmp_path / "j").values()) == [{"x": 1}, {"x": 1}]
    long = b'a.jpg,"' + b"x" * 200_000 + b'"\n'
    write_files(
        tmp_path / "c", {"a.jpg": b"1", "b.jpg": b"2", "metadata.csv": b"file_name,x\n" + long + b"b.jpg,2,3,4\n"}
    )
    assert extras(tmp_path / "c")["b.jpg"] == {"x": 2}
    broken = write_files(tmp_path / "p", {"a.jpg": b"1", "metadata.parquet": b"PAR1 no"})
    skipped = LeftOut()
    assert extras(broken, skipped=skipped, format="folder") == {"a.jpg": None}


def test_index_finds_the_first_row_of_each_name() -> None:
    rng = random.Random(0)
    names = [rng.choice([None, "", "é", *(f"n{i}" for i in range(40))]) for _ in range(200)]
    index = RowIndex(names)
    asked = sorted({name for name in names if name} | {"absent"})
    assert {name: index.find(name.encode()) for name in asked} == {
        name: names.index(name) if name in names else None for name in asked
    }
    firsts = {names.index(name) for name in asked if name in names}
    assert index.unused() == (200 - len(firsts), min(set(range(200)) - firsts))


def test_utf16_tables_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_bytes("file_name,x\na.jpg,ü\n".encode("utf-16"))
    index = index_rows(str(path), "file_name")
    assert index is not None
    assert index.find(b"a.jpg") == 0
    assert read_table_rows(str(path), [0]) == {0: TableRow({"file_name": "a.jpg", "x": "ü"})}


# -- img2dataset


def shard(folder: Path, number: int, kind: str, *, with_json: bool = True) -> list[dict[str, Any]]:
    """One shard as img2dataset writes it."""
    rows, files = [], {}
    for i in range(3):
        key = f"{number:05}{i:04}"
        row = {"key": key, "caption": f"caption {key}", "url": f"https://a/{key}", "status": "success", "exif": "{}"}
        rows.append(row)
        files |= {f"{key}.jpg": key.encode(), f"{key}.txt": row["caption"].encode()}
        files |= {f"{key}.json": json.dumps(row).encode()} if with_json else {}
    rows.append(
        {"key": f"{number:05}0003", "caption": "lost", "url": "u", "status": "failed_to_download", "exif": None}
    )
    folder.mkdir(exist_ok=True)
    if kind == "webdataset":
        write_tar(folder / f"{number:05}.tar", files)
    else:
        write_files(folder / f"{number:05}", files)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05}.parquet")
    (folder / f"{number:05}_stats.json").write_text("{}")
    return rows[:3]


@pytest.mark.parametrize("with_json", [True, False])
@pytest.mark.parametrize("kind", ["webdataset", "files"])
def test_what_img2dataset_writes_is_read_as_it_is(tmp_path: Path, kind: str, with_json: bool) -> None:
    rows = [row for number in range(3) for row in shard(tmp_path / "d", number, kind, with_json=with_json)]
    fs = fsspec.filesystem("memory")
    fs.put(str(tmp_path / "d") + "/", "/shards/", recursive=True)
    braces = "/{00000..00002}" + (".tar" if kind == "webdataset" else "")
    try:
        for place in (str(tmp_path / "d"), "memory://shards", f"{tmp_path}/d{braces}", f"memory://shards{braces}"):
            skipped = LeftOut()
            assert list(extras(place, skipped=skipped).values()) == rows, place
            assert skipped == {}
    finally:
        fs.rm("/shards", recursive=True)


def test_a_parquet_with_images_beside_a_tar_is_a_mixture(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"1"})
    pq.write_table(pa.table({"key": ["a"], "jpg": [b"1"]}), tmp_path / "0.parquet")
    with pytest.raises(SourceError, match=r"a tar archive among Parquet files"):
        extras(tmp_path)
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "1.parquet")
    with pytest.raises(SourceError, match=r"1\.parquet: a Parquet file among tar archives"):
        extras(tmp_path)


def test_tfrecords_are_refused_with_a_way_out(tmp_path: Path) -> None:
    write_files(tmp_path, ["00000.tfrecord", "00000_stats.json"])
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "00000.parquet")
    with pytest.raises(SourceError, match=r"00000\.tfrecord: TFRecord files cannot be read in place; .*webdataset"):
        list(list_source(source(tmp_path)))


def test_tables_are_read_once_for_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i}.jpg" for i in range(50)]
    write_files(tmp_path, names)
    write_table(tmp_path / "metadata.jsonl", [{"file_name": name, "n": i} for i, name in enumerate(names)])
    table = catalog(list_source(source(tmp_path)))
    opened: list[str] = []
    open_file = description_tables.open_file
    monkeypatch.setattr(description_tables, "open_file", lambda uri: opened.append(uri) or open_file(uri))
    reads = list(read_part(table, source(tmp_path)))
    assert sorted(read.extra["n"] for read in reads) == list(range(50))
    assert len(opened) == 1
