"""Figures of the selection, counted part by part from its rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.store import Table

RETRIEVAL = {"sample": "retrieval", "cluster": "retrieval"}
"""Routes of `origins` that are one share of a mix."""


def count_junk(screened: Table | None) -> int:
    """Images that screening found to be junk."""
    if screened is None:
        return 0
    return sum(int(np.count_nonzero(rows["junk"].to_numpy())) for rows in screened.scan(["junk"]))


def count_routes(rows: pa.Table) -> dict[str, int]:
    """Images by route; one that several routes chose counts for each."""
    origins = rows["origins"].combine_chunks()
    routes = pc.struct_field(pc.list_flatten(origins), "route")
    pairs = pa.table({"image": pc.list_parent_indices(origins), "route": routes})
    return _counts(pairs.group_by(["image", "route"]).aggregate([])["route"])


def count_shares(rows: pa.Table) -> dict[str, dict[str, int]]:
    """Images, and times that they are shown, by the route that counts: the first of each image."""
    origins = rows["origins"].combine_chunks()
    first = pc.struct_field(pc.list_element(origins, 0), "route") if len(rows) else pa.array([], pa.string())
    counted = pa.table({"route": first, "repeats": rows["repeats"]}).group_by("route")
    found: dict[str, dict[str, int]] = {}
    for row in counted.aggregate([("repeats", "count"), ("repeats", "sum")]).to_pylist():
        share = found.setdefault(RETRIEVAL.get(row["route"], row["route"]), {"images": 0, "shown": 0})
        add_counts(share, {"images": row["repeats_count"], "shown": row["repeats_sum"]})
    return found


def add_counts(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to `total` in place."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def warn_of_contamination(found: Mapping[str, Any]) -> dict[str, str]:
    """A pool image that touches a held-out one must never get here: its component went as a whole."""
    if not found["pool"]:
        return {}
    text = f"{found['pool']} selected pool images resemble held-out ones ({found['routes']}); make `duplicates` again"
    return {"warning": text}


def _counts(values: pa.Array) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}
