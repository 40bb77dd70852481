"""The source's own columns: from JSON, caption and label files beside an image, or from Parquet columns."""

import datetime
import json
import logging
import math
from collections.abc import Mapping
from typing import Any

from curate.sources.suffixes import HEAD_BYTES, begins_as_image

MAX_SIDECAR_BYTES = 1 << 20
"""A longer sidecar is not one image's description, and is not read."""

Columns = tuple[str, ...] | None
"""Names of the columns to carry; None: all."""

log = logging.getLogger(__name__)


def merge_sidecars(sidecars: Mapping[str, bytes], *, columns: Columns, where: str) -> dict[str, Any] | None:
    """One dict of an image's sidecars, by suffix: `.json` as it is, `.txt` as caption, `.cls` as label.

    A key of the JSON wins over the other files. JSON that cannot be parsed is reported and left out: it says
    nothing about the image.
    """
    sidecars = {suffix: data for suffix, data in sidecars.items() if not begins_as_image(data[:HEAD_BYTES])}
    merged: dict[str, Any] = {}
    if ".json" in sidecars:
        merged.update(_parse_json(sidecars[".json"], where))
    if ".txt" in sidecars:
        merged.setdefault("caption", sidecars[".txt"].decode("utf-8", errors="replace").strip())
    if ".cls" in sidecars:
        merged.setdefault("label", _parse_label(sidecars[".cls"]))
    return choose_columns(merged, columns=columns)


def choose_columns(values: Mapping[str, Any], *, columns: Columns) -> dict[str, Any] | None:
    """The wanted columns, JSON-ready; None when none is left."""
    chosen = {k: json_ready(v) for k, v in values.items() if columns is None or k in columns}
    return chosen or None


def json_ready(value: Any) -> Any:
    """A value as JSON can hold it: bytes and numbers that are not finite become null, times become ISO text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, bytes):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


def _parse_json(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        log.warning("%s: the JSON beside it is left out: %s", where, error)
        return {}
    return value if isinstance(value, dict) else {"json": value}


def _parse_label(data: bytes) -> int | str:
    text = data.decode("utf-8", errors="replace").strip()
    return int(text) if text.isascii() and text.isdigit() else text
