"""Classes by name, against what `datasets` itself writes and reads."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.sources.class_names import HUGGINGFACE, common_classes, declared_classes, name_classes
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from tests.sources.helpers import catalog, source

ANIMALS, COLORS = ("cat", "dog", "größe"), ("red", "green")


def list_of(feature: Any) -> Any:
    """A list of a feature as this version of `datasets` writes it."""
    return datasets.List(feature) if hasattr(datasets, "List") else [feature]


def write(path: Path, columns: dict[str, list[Any]], features: dict[str, Any]) -> Path:
    """A Parquet file as `datasets` writes it, with an image a row."""
    rows = len(next(iter(columns.values())))
    images = [{"bytes": b"%d" % number, "path": None} for number in range(rows)]
    known = datasets.Features({"image": datasets.Image(), **features})
    data = datasets.Dataset.from_dict({"image": images, **columns}, features=known)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_parquet(str(path))
    return path


def extras(path: Path, **fields: Any) -> list[dict[str, Any] | None]:
    rows = catalog(list_source(source(path, **fields)))
    return [read.extra for read in read_part(rows, source(path, **fields))]


def test_numbers_are_read_as_the_names_that_their_file_declares(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"label": [2, 0, -1, None]}, {"label": datasets.ClassLabel(names=list(ANIMALS))})
    write(tmp_path / "b.parquet", {"label": [0, 1]}, {"label": datasets.ClassLabel(names=list(COLORS))})
    write(tmp_path / "c.parquet", {"label": [0, 1]}, {"label": datasets.Value("int64")})
    names = [extra["label"] for extra in extras(tmp_path) if extra is not None]
    assert names == ["größe", "cat", None, None, "red", "green", 0, 1]
    classes = [found.classes for found in list_source(source(tmp_path))]
    assert classes == [{"label": ANIMALS}] * 4 + [{"label": COLORS}] * 2 + [{}] * 2


def test_classes_inside_lists_and_structs_are_named_too(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=list(ANIMALS))
    features = {
        "tags": list_of(label),
        "grid": list_of(list_of(label)),
        "main": {"class": label, "score": datasets.Value("float64")},
        "objects": list_of({"class": label, "box": list_of(datasets.Value("int64"))}),
        "columns": datasets.Sequence({"class": label, "area": datasets.Value("int64")}),
    }
    row = {
        "tags": [0, 2, -1],
        "grid": [[1], []],
        "main": {"class": 1, "score": 0.5},
        "objects": [{"class": 2, "box": [1, 2]}, {"class": 0, "box": []}],
        "columns": {"class": [1, 0], "area": [2, 1]},
    }
    write(tmp_path / "a.parquet", {name: [value, None] for name, value in row.items()}, features)
    (found, empty) = extras(tmp_path)
    assert found == {
        "tags": ["cat", "größe", None],
        "grid": [["dog"], []],
        "main": {"class": "dog", "score": 0.5},
        "objects": [{"class": "größe", "box": [1, 2]}, {"class": "cat", "box": []}],
        "columns": {"class": ["dog", "cat"], "area": [2, 1]},
    }
    assert empty is not None
    (first, _) = list_source(source(tmp_path))
    assert first.classes == {}  # one class a row: none of these columns


def test_wanted_columns_alone_are_named(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=list(ANIMALS))
    path = write(tmp_path / "a.parquet", {"label": [1], "other": [2]}, {"label": label, "other": label})
    assert extras(path, columns=("other",)) == [{"other": "größe"}]


@pytest.mark.parametrize(
    "feature",
    [
        {"_type": "ClassLabel"},
        {"_type": "ClassLabel", "names": None},
        {"_type": "ClassLabel", "names": []},
        {"_type": "ClassLabel", "names": "cat"},
        {"_type": "ClassLabel", "names": ["cat", 1]},
        {"_type": "ClassLabel", "names": ["cat", "cat"]},
        {"_type": "ClassLabel", "names": ["cat", "\ud83d"]},
        {"_type": "Value", "names": ["cat"]},
        {"_type": ["ClassLabel"], "names": ["cat"]},
        [],
        None,
        7,
    ],
)
def test_declarations_that_datasets_would_refuse_are_none(feature: Any) -> None:
    text = json.dumps({"info": {"features": {"label": feature}}}).encode()
    assert declared_classes(pa.schema([("label", pa.int64())], {HUGGINGFACE: text})) == {}


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"info": 1}', b'{"info": {"features": [1]}}', b"[" * 100_000),
        b'{"info": {"features": {"label": ' + b'{"a":' * 5000 + b"1" + b"}" * 5003,
    ],
)
def test_hostile_footers_declare_nothing(text: bytes) -> None:
    assert declared_classes(pa.schema([("label", pa.int64())], {HUGGINGFACE: text})) == {}


def test_old_footers_and_columns_that_are_not_there_are_read(tmp_path: Path) -> None:
    old = {"num_classes": 2, "names": ["red", "green"], "names_file": None, "id": None, "_type": "ClassLabel"}
    many = {"feature": old, "length": -1, "id": None, "_type": "Sequence"}
    text = json.dumps({"info": {"features": {"label": old, "many": many, "gone": old}}}).encode()
    schema = pa.schema([("image", pa.binary()), ("label", pa.int32()), ("many", pa.list_(pa.int8()))])
    table = pa.table([[b"1"], [1], [[0, 1]]], schema=schema.with_metadata({HUGGINGFACE: text}))
    pq.write_table(table, tmp_path / "a.parquet")
    assert extras(tmp_path) == [{"label": "green", "many": ["red", "green"]}]


def test_values_that_are_no_numbers_of_classes_stay() -> None:
    declared = {"label": ("a", "b"), "main": {"x": ("c",)}}
    values = {"label": True, "main": "text", "other": 1}
    assert name_classes(values, declared) == values
    assert name_classes({"label": "b", "main": {"x": 0, "y": 0}}, declared) == {
        "label": "b",
        "main": {"x": "c", "y": 0},
    }
    assert name_classes({"label": 2}, declared) == {"label": None}
    assert name_classes(None, declared) is None


def test_common_classes_are_those_that_no_file_denies() -> None:
    first, same, other = {"a": ("x",), "b": ("y",)}, {"a": ("x",)}, {"b": ("y", "z")}
    assert common_classes([first, None, same, {}]) == first
    assert common_classes([first, other, first]) == {"a": ("x",), "b": None}
    assert common_classes([first, other, {"b": ("y", "z")}, first]) == {"a": ("x",), "b": None}
