"""What describes pictures is bounded: names, texts, values and columns beyond the limits are left out, and named."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import SourceDamaged, SourceError
from curate.sources import parquet, remote, values
from curate.sources.left_out import LONG_PATH, LeftOut
from curate.sources.limits import (
    MAX_COLUMN_NAME_BYTES,
    MAX_IMAGE_COLUMNS,
    MAX_NAME_BYTES,
    MAX_SHOWN,
    MAX_TABLE_COLUMNS,
    MAX_TEXT_BYTES,
    MAX_VALUE_BYTES,
    shortened,
)
from curate.sources.listing import list_source
from curate.sources.read import Read
from curate.sources.reading import read_part
from curate.sources.values import BYTES_EACH, choose_columns, column_values, json_ready
from tests.sources.helpers import catalog, keys, source, write_files, write_tar

AT, OVER = "x" * MAX_TEXT_BYTES, "x" * (MAX_TEXT_BYTES + 1)
WIDE_AT, WIDE_OVER = "é" * (MAX_TEXT_BYTES // 2), "é" * (MAX_TEXT_BYTES // 2) + "x"
NUM_NUMBERS = MAX_VALUE_BYTES // BYTES_EACH - 1
"""Numbers that a list may hold, which counts as one value itself."""


def reads(place: Path, **fields: Any) -> list[Read]:
    given = source(place, **fields)
    return list(read_part(catalog(list_source(given)), given))


def lost(value: Any) -> tuple[Any, set[str]]:
    left_out: set[str] = set()
    return json_ready(value, left_out), left_out


@pytest.mark.parametrize("text", [AT, WIDE_AT])
def test_a_text_is_kept_up_to_its_bytes(text: str) -> None:
    assert lost(text) == (text, set())
    assert lost({"a": [text]}) == ({"a": [text]}, set())


@pytest.mark.parametrize("text", [OVER, WIDE_OVER, "\udc80" * MAX_TEXT_BYTES])
def test_a_longer_text_is_lost_alone(text: str) -> None:
    assert lost(text) == (None, {"too_long"})
    assert lost({"a": [text, "b"], "c": 1}) == ({"a": [None, "b"], "c": 1}, {"too_long"})


def test_a_value_is_lost_as_a_whole_where_it_is_too_large() -> None:
    assert lost([0] * NUM_NUMBERS)[1] == set()
    assert lost([0] * (NUM_NUMBERS + 1)) == (None, {"too_long"})
    assert lost([[]] * (NUM_NUMBERS + 1)) == (None, {"too_long"})
    assert lost({"a": ["y" * MAX_TEXT_BYTES] * 17}) == (None, {"too_long"})


def test_an_image_has_its_first_columns() -> None:
    left_out: set[str] = set()
    chosen = choose_columns({f"c{n}": n for n in range(240_000)}, left_out)
    assert (chosen, left_out) == ({f"c{n}": n for n in range(MAX_IMAGE_COLUMNS)}, {"too_many_columns"})
    left_out = set()
    wanted = choose_columns({f"c{n}": n for n in range(240_000)}, left_out, columns=("c7", "c239999"))
    assert (wanted, left_out) == ({"c7": 7, "c239999": 239_999}, set())
    assert len(choose_columns({f"c{n}": n for n in range(MAX_IMAGE_COLUMNS)}, left_out) or {}) == MAX_IMAGE_COLUMNS
    assert left_out == set()


def test_a_name_of_a_column_is_bounded() -> None:
    left_out: set[str] = set()
    at, over = "n" * MAX_COLUMN_NAME_BYTES, "é" * (MAX_COLUMN_NAME_BYTES // 2 + 1)
    assert choose_columns({at: 1, over: 2}, left_out) == {at: 1}
    assert left_out == {"unusable_name"}


# -- Arrow


FEW = 2 * MAX_TEXT_BYTES // BYTES_EACH
"""Numbers in a list, where one value may take little more than a text."""


VIEWS = pa.array([AT, OVER, None, "b"], pa.string_view())


def has_size(column: pa.Array) -> bool:
    """Whether Arrow can tell the bytes of a column."""
    try:
        return bool(column.nbytes)
    except pa.ArrowTypeError:
        return False


@pytest.mark.parametrize(
    "column",
    [
        pa.array([AT, OVER, None, "b"]),
        pa.array([WIDE_AT, WIDE_OVER, None, "b"]),
        pa.array([AT, OVER, None, "b"], pa.large_string()),
        pytest.param(
            VIEWS,
            id="string_view",
            marks=pytest.mark.skipif(not has_size(VIEWS), reason="this Arrow reads views as plain text"),
        ),
        pa.array([AT, OVER, None, "b"]).dictionary_encode(),
        pa.array([[AT], [OVER, "b"], None, []]),
        pa.array([{"a": AT}, {"a": OVER}, None, {"a": "b"}]),
        pa.array([[("k", AT)], [("k", OVER)], None, []], pa.map_(pa.string(), pa.string())),
        pa.array([range(FEW), range(FEW + 1), None, [1]], pa.list_(pa.int32())),
        pa.array([range(FEW), range(FEW + 1), None, [1]], pa.large_list(pa.float32())),
        pa.array([[[]] * FEW, [[]] * (FEW + 1), None, [[1]]], pa.list_(pa.list_(pa.int8()))),
    ],
    ids=lambda column: str(column.type),
)
def test_cells_are_lost_alike_value_by_value_and_together(column: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_VALUE_BYTES", BYTES_EACH * (FEW + 1))
    found = []
    for at_once in (1 << 40, 0):
        monkeypatch.setattr(values, "MAX_COLUMN_BYTES", at_once)
        left_out: list[set[str]] = [set() for _ in column]
        found.append((column_values(column, left_out), left_out))
    assert found[0] == found[1]
    assert found[0][1] == [set(), {"too_long"}, set(), set()]
    plain = [json.loads(json.dumps(value)) for value in column.to_pylist()]
    assert [found[0][0][row] for row in (0, 2, 3)] == [plain[row] for row in (0, 2, 3)]


def test_no_value_is_made_of_a_cell_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_VALUE_BYTES", BYTES_EACH * (FEW + 1))
    monkeypatch.setattr(values, "MAX_COLUMN_BYTES", 1 << 20)
    made = Counter[str]()
    ready = values._ready
    monkeypatch.setattr(values, "_ready", lambda *args: made.update(["value"]) or ready(*args))
    left_out: list[set[str]] = [set()]
    column = pa.array([np.zeros(2_000_000, np.int8)], pa.list_(pa.int8()))
    assert column_values(column, left_out) == [None]
    assert (left_out, made["value"] <= FEW + 1) == ([{"too_long"}], True)


# -- files beside pictures, tables


def test_files_beside_a_picture_lose_what_is_too_long(tmp_path: Path) -> None:
    given = {
        "a.jpg": b"1",
        "a.json": json.dumps({f"k{n}": n for n in range(2000)}).encode(),
        "b.jpg": b"1",
        "b.txt": OVER.encode(),
        "c.jpg": b"1",
        "c.json": json.dumps({"long": OVER, "deep": [[OVER]], "short": "s"}).encode(),
    }
    for place in (write_files(tmp_path / "folder", given), write_tar(tmp_path / "a.tar", given)):
        a, b, c = reads(place)
        assert (len(a.extra or {}), a.left_out) == (MAX_IMAGE_COLUMNS, ("too_many_columns",))
        assert (b.extra, b.left_out) == ({"caption": None}, ("too_long",))
        assert (c.extra, c.left_out) == ({"long": None, "deep": [[None]], "short": "s"}, ("too_long",))


def test_columns_of_several_files_together_are_bounded(tmp_path: Path) -> None:
    half = MAX_IMAGE_COLUMNS // 2 + 1
    given = {
        "a.jpg": b"1",
        "a.json": json.dumps({f"k{n}": n for n in range(half)}).encode(),
        "a.meta": json.dumps({f"m{n}": n for n in range(half)}).encode(),
    }
    (read,) = reads(write_files(tmp_path, given), json_suffixes=("json", "meta"))
    assert (len(read.extra or {}), read.left_out) == (MAX_IMAGE_COLUMNS, ("too_many_columns",))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_of_tables_of_urls_lose_what_is_too_long(suffix: str, tmp_path: Path) -> None:
    url, place = f"https://example.com/{'u' * MAX_NAME_BYTES}.jpg", tmp_path / f"t.{suffix}"
    rows = [{"url": "https://example.com/a.jpg", "caption": OVER}, {"url": url, "caption": "c"}]
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), place)
    elif suffix == "jsonl":
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        place.write_text("url,caption\n" + "".join(f"{row['url']},{row['caption']}\n" for row in rows))
    first, second = list_source(source(place))
    assert (first.uri, second.uri) == ("https://example.com/a.jpg", f"#1 of {place}")
    table = catalog(list_source(source(place)))
    (read,) = read_part(table.slice(1), source(place))
    assert (read.error, read.extra) == (f"a URL of more than {MAX_NAME_BYTES} bytes", {"url": url, "caption": "c"})


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_table_of_too_many_columns_is_refused_with_what_to_do(suffix: str, tmp_path: Path) -> None:
    names, place = ["url", *(f"c{n}" for n in range(MAX_TABLE_COLUMNS))], tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.table({name: ["x"] for name in names}), place)
    else:
        place.write_text({"csv": ",", "tsv": "\t"}[suffix].join(names) + "\n")
    with pytest.raises(SourceError, match=r"10,001 columns, at most 10,000 are read; write the wanted ones to another"):
        keys(place)


def test_a_table_of_too_many_columns_beside_pictures_is_counted(tmp_path: Path) -> None:
    names = ["file_name", *(f"c{n}" for n in range(MAX_TABLE_COLUMNS))]
    skipped = LeftOut()
    write_files(tmp_path, {"a.jpg": b"1", "metadata.csv": ",".join(names).encode() + b"\n"})
    assert [found.key for found in list_source(source(tmp_path), skipped=skipped)] == ["a.jpg"]
    assert skipped["table of descriptions that cannot be read"] == 1


# -- Parquet


def write_images(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    number = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": pa.array([b"%d" % n for n in range(number)]), **columns}), path, **options)
    return path


def test_a_row_of_an_endless_path_is_called_by_its_number(tmp_path: Path) -> None:
    images = [{"bytes": b"1", "path": "n" * MAX_NAME_BYTES}, {"bytes": b"2", "path": "n" * (MAX_NAME_BYTES + 1)}]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    skipped = LeftOut()
    found = [item.key for item in list_source(source(tmp_path / "a.parquet"), skipped=skipped)]
    assert found == [f"a.parquet/{'n' * MAX_NAME_BYTES}", "a.parquet#1"]
    assert (skipped, skipped.example) == ({LONG_PATH: 1}, {LONG_PATH: "a.parquet#1"})


def test_columns_of_a_parquet_file_beyond_those_of_an_image_are_left_out(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.parquet", {f"c{n:04}": ["x"] for n in range(MAX_IMAGE_COLUMNS + 1)})
    (read,) = reads(path)
    assert (len(read.extra or {}), read.left_out) == (MAX_IMAGE_COLUMNS, ("too_many_columns",))
    (read,) = reads(path, columns=("c1000",))
    assert (read.extra, read.left_out) == ({"c1000": "x"}, ())


def test_a_file_that_is_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = pa.table({"image": [b"1"], "caption": ["y" * (2 << 20)]})
    pq.write_table(bomb, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert reads(tmp_path / "a.parquet")[0].left_out == ("too_long",)
    monkeypatch.setattr(parquet, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(SourceDamaged, match=r"a\.parquet: [\d,]+ bytes unpack to 2,[\d,]+, as no pictures or texts do"):
        keys(tmp_path / "a.parquet")
    write_images(tmp_path / "b.parquet", {"n": range(10)})
    assert len(keys(tmp_path / "b.parquet")) == 10


def test_long_names_are_shown_in_short() -> None:
    assert shortened("n" * MAX_SHOWN) == "n" * MAX_SHOWN
    assert shortened("a" * 5000 + "b" * 5000) == "a" * 128 + "..." + "b" * 128


def test_folders_deeper_than_any_path_reaches_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a.jpg"])
    monkeypatch.chdir(tmp_path)
    for _ in range(MAX_NAME_BYTES // 200 + 1):
        Path("d" * 200).mkdir()
        os.chdir("d" * 200)
        Path("b.jpg").write_bytes(b"b")
    skipped = LeftOut()
    found = list(list_source(source(tmp_path), skipped=skipped))
    assert set(skipped) == {"name longer than 4096 bytes"}  # the folder, or a file in it and the folder
    assert max(len(os.fsencode(item.uri)) for item in found) > MAX_NAME_BYTES - 250
    assert all(read.data for read in read_part(catalog(found), source(tmp_path)))


def test_declared_classes_of_endless_names_count_as_none(tmp_path: Path) -> None:
    for name, expected in (("n" * MAX_NAME_BYTES, "n" * MAX_NAME_BYTES), ("n" * (MAX_NAME_BYTES + 1), 0)):
        features = {"info": {"features": {"label": {"names": [name], "_type": "ClassLabel"}}}}
        table = pa.table({"image": [b"1"], "label": [0]}, metadata={"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / "a.parquet")
        assert [read.extra for read in reads(tmp_path / "a.parquet")] == [{"label": expected}]


def test_steps_of_paths_give_columns_of_usable_names_alone(tmp_path: Path) -> None:
    at, over = "n" * MAX_COLUMN_NAME_BYTES, "n" * (MAX_COLUMN_NAME_BYTES + 1)
    path = write_tar(tmp_path / "a.tar", {f"good=1/{at}=2/a%0ab=3/x.jpg": b"x", f"{over}=2/y.jpg": b"y"})
    assert [read.extra for read in reads(path)] == [{"good": 1, at: 2}, None]


def test_a_server_that_makes_up_folders_without_end_is_left_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Pages:
        def ls(self, url: str, *, detail: bool) -> list[dict[str, str]]:
            asked.append(url)
            return [{"name": f"{url}{name}"} for name in ("a/", "b/", "c.jpg", f"{'n' * MAX_NAME_BYTES}/")]

    monkeypatch.setattr(remote, "MAX_WEB_FOLDERS", 50)
    with pytest.raises(SourceError, match="https://x/: pages link to more than 50 folders below it; give those of the"):
        remote._find_on_web(Pages(), "https://x/")
    assert len(asked) <= 26
    assert max(map(len, asked)) < MAX_NAME_BYTES
