"""The source's own columns: from JSON, caption and label files beside an image."""

import logging
from collections.abc import Mapping
from typing import Any

from curate.sources.suffixes import HEAD_BYTES, begins_as_image
from curate.sources.values import Columns, choose_columns, parse_json, parse_label, parse_text

log = logging.getLogger(__name__)


def merge_sidecars(
    sidecars: Mapping[str, bytes], *, columns: Columns, where: str
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """One dict of an image's sidecars, by suffix: `.json` as it is, `.txt` as caption, `.cls` as label.

    A key of the JSON wins over the other files.

    Returns:
        The JSON-ready columns, None where there are none, and the kinds of values that were left out
        (`curate.sources.values.LEFT_OUT`).
    """
    sidecars = {suffix: data for suffix, data in sidecars.items() if not begins_as_image(data[:HEAD_BYTES])}
    left_out: set[str] = set()
    merged: dict[str, Any] = {}
    if ".json" in sidecars:
        value = parse_json(sidecars[".json"], left_out)
        if value is not None:
            merged.update(value if isinstance(value, dict) else {"json": value})
    if ".txt" in sidecars and _is_wanted("caption", merged, columns):
        merged["caption"] = parse_text(sidecars[".txt"], left_out)
    if ".cls" in sidecars and _is_wanted("label", merged, columns):
        merged["label"] = parse_label(sidecars[".cls"], left_out)
    chosen = choose_columns(merged, left_out, columns=columns)
    if left_out:
        log.debug("%s: left out of what lies beside it: %s", where, ", ".join(sorted(left_out)))
    return chosen, tuple(sorted(left_out))


def _is_wanted(name: str, merged: Mapping[str, Any], columns: Columns) -> bool:
    return name not in merged and (columns is None or name in columns)
