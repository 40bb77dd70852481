"""What the footers of the shards tell their readers."""

import json
from collections.abc import Iterator
from typing import Any

import datasets
import pyarrow as pa
import pytest

from curate.tables import shards_schema

OWN = {
    "caption": pa.string(),
    "score": pa.float64(),
    "tags": pa.list_(pa.string()),
    "boxes": pa.list_(pa.list_(pa.float32())),
    "parts": pa.list_(pa.struct([("name", pa.string()), ("at", pa.list_(pa.int64()))])),
}
"""Columns of a source, nested ones too."""


def declared() -> dict[str, Any]:
    schema = shards_schema(OWN)
    return json.loads(schema.metadata[b"huggingface"])["info"]["features"]


def type_names(feature: Any) -> Iterator[str]:
    if isinstance(feature, list):
        yield from (name for inner in feature for name in type_names(inner))
    elif "_type" in feature:
        yield feature["_type"]
    else:
        yield from (name for inner in feature.values() for name in type_names(inner))


def test_features_are_of_the_types_that_the_oldest_promised_datasets_knows() -> None:
    """Checked by hand with 2.20.0 and 4.0.0 too; neither knows what came later, and 2.20 not `List`."""
    assert set(type_names(declared())) == {"Value", "Image"}


@pytest.mark.parametrize("name", [*OWN, "clusters", "origins", "repeats", "image_id"])
def test_features_are_stored_as_the_columns_are(name: str) -> None:
    read = datasets.Features.from_dict(declared()).arrow_schema.field(name).type
    assert bare(read) == bare(shards_schema(OWN).field(name).type)


def bare(dtype: pa.DataType) -> str:
    """A type without what `datasets` does not carry: the names of elements, and that nulls are forbidden."""
    return str(dtype).replace("item: ", "element: ").replace(" not null", "")


@pytest.mark.parametrize("names", [["cat"], ["cat", "größe", 'a "b"']])
def test_classes_are_features_with_their_names(names: list[str]) -> None:
    schema = shards_schema({"label": pa.int64(), "number": pa.int64()}, {"label": names})
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": names, "_type": "ClassLabel"}  # the form of datasets 2.20 too
    read = datasets.Features.from_dict(features)
    assert read["label"].names == names
    assert read["number"] == datasets.Value("int64")
    assert schema.field("label").type == pa.int64()
