"""Classes by name: what the numbers of a Hugging Face `ClassLabel` column mean is written in the file's footer alone.

A number says nothing without its list of names, and another file, source or round may have another list. So numbers
become names where they are read, file by file, at any depth of a column. Where all sources of the shards declare the
same list for a column, the shards hold numbers and that list again (`curate.stages.selection.class_columns`).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from curate.sources.limits import MAX_NAME_BYTES

Names = tuple[str, ...]
"""Names of classes in the order of their numbers."""
Declared = Mapping[str, Any]
"""By column: the names, or for a struct the same of its fields; lists stand for their values."""

MAX_DECLARED_BYTES = 16 << 20
"""Bytes of declared features, which go into tables and shards; 21,000 classes of ImageNet take one million."""
HUGGINGFACE = b"huggingface"
"""Key of the footer's metadata under which `datasets` writes the features."""


def declared_classes(schema: pa.Schema) -> Declared:
    """The `ClassLabel` features that a Parquet file declares; what is no proper declaration counts as none."""
    text = (schema.metadata or {}).get(HUGGINGFACE)
    try:
        features = json.loads(text)["info"]["features"] if text and len(text) <= MAX_DECLARED_BYTES else {}
        found = _classes_in(features)
    except (ValueError, TypeError, KeyError, RecursionError):  # a footer is data from outside
        return {}
    return {name: found[name] for name in schema.names if name in found} if isinstance(found, dict) else {}


def column_classes(schema: pa.Schema) -> dict[str, Names]:
    """Those of the columns that hold one class a row."""
    declared = {n: names for n, names in declared_classes(schema).items() if schema.get_field_index(n) >= 0}  # once
    return {name: names for name, names in declared.items() if not pa.types.is_nested(schema.field(name).type)}


def name_classes(values: Mapping[str, Any] | None, declared: Declared) -> dict[str, Any] | None:
    """The own columns of a row, classes by name; a number without a name (-1: no label) becomes null."""
    if values is None:
        return None
    return {k: _named(v, declared[k]) if k in declared else v for k, v in values.items()}


def common_classes(found: Iterable[Mapping[str, Names] | None]) -> dict[str, Names | None]:
    """By column: the names that all declare; None: they differ."""
    merged: dict[str, Names | None] = {}
    for classes in {id(each): each for each in found}.values():  # the rows of a file share theirs
        for name, names in (classes or {}).items():
            merged[name] = names if merged.get(name, names) == names else None
    return merged


def _classes_in(feature: Any) -> Names | dict[str, Any] | None:
    """The classes in a feature, whatever lists lie around them; None: there are none."""
    if isinstance(feature, list):
        return _classes_in(feature[0]) if len(feature) == 1 else None
    if not isinstance(feature, dict):
        return None
    match feature.get("_type"):
        case "ClassLabel":
            return _proper(feature.get("names"))
        case "Sequence" | "List" | "LargeList":
            return _classes_in(feature.get("feature"))
        case str():
            return None
    inner = {name: found for name, each in feature.items() if (found := _classes_in(each)) is not None}
    return inner or None


def _proper(names: Any) -> Names | None:
    """A list of different texts; `datasets` takes no other."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    if len(set(names)) < len(names) or not all(len(name) <= MAX_NAME_BYTES and _is_unicode(name) for name in names):
        return None
    return tuple(names)


def _is_unicode(text: str) -> bool:
    """Whether it holds no half of a surrogate pair, which no table takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(value: Any, classes: Any) -> Any:
    if isinstance(value, list):
        return [_named(each, classes) for each in value]
    if isinstance(classes, tuple):
        if isinstance(value, int) and not isinstance(value, bool):
            return classes[value] if 0 <= value < len(classes) else None
        return value
    if isinstance(value, dict):
        return {k: _named(v, classes[k]) if k in classes else v for k, v in value.items()}
    return value
