"""What the tables say of the images of one page, as the page shows it."""

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa

from curate.engine.finished import Finished
from curate.engine.table import Table
from curate.review.rows import read_rows
from curate.stages.images.inspect import Inspect
from curate.stages.screening.screen import Screen
from curate.text import visible

VERDICTS = {"kept": "kept", "benchmark": "contaminated", "screened": "rejected"}
"""Verdicts of the tables in words; every other one drops the image."""
NAMED = ("source", "role", "key", "uri")
MEASURED = ("sha256", "width", "height", "format", "num_bytes", "reject", "detail")
JUDGED = ("component_size", "verdict", "partner_id", "similarity", "kind", "direct", "decision")
"""Columns of verdicts; the last one only of runs with decisions."""
RULED = ("reject", "detail")
"""Columns of scores that tell of an image which rules reject."""


class Facts(TypedDict):
    """One image. Ids are text: numbers in a browser have 53 bits."""

    id: str
    name: str
    """As decisions name it: SOURCE/KEY, or the SHA-256 where that could not stand in a file."""
    source: str
    role: str
    key: str
    uri: str
    width: int | None
    height: int | None
    format: str | None
    bytes: int | None
    verdict: str
    reason: str
    """Why it is rejected; empty: it is not."""
    detail: str
    partner: str | None
    similarity: float | None
    evidence: str | None
    direct: bool | None
    decided: str | None
    """What a person had decided about it when the run was made."""


def read_facts(run: Finished, verdicts: Table, image_ids: np.ndarray) -> dict[int, tuple[Facts, dict[str, Any]]]:
    """Each image with its facts, and with its names as the tables have them.

    Args:
        verdicts: rows of `DUPLICATES`.
    """
    assert run.catalog is not None
    inspected = run.only(Inspect)
    named = _by_id(read_rows(run.catalog, image_ids, NAMED))
    measured = _by_id(read_rows(inspected[1], image_ids, MEASURED)) if inspected else {}
    judged = _by_id(read_rows(verdicts, image_ids, JUDGED))
    screened = run.only(Screen)
    ruled = _by_id(read_rows(screened[1], image_ids, RULED)) if screened else {}
    for image_id, verdict in judged.items():
        if verdict["verdict"] == "screened":
            measured[image_id] |= ruled.get(image_id, {})
    found = {}
    for image_id, names in named.items():
        names["sha256"] = measured.get(image_id, {}).get("sha256")
        found[image_id] = (_facts(image_id, names, measured.get(image_id, {}), judged.get(image_id)), names)
    return found


def _by_id(pieces: Sequence[pa.Table]) -> dict[int, dict[str, Any]]:
    return {row["image_id"]: row for piece in pieces for row in piece.to_pylist()}


def _facts(image_id: int, names: dict[str, Any], measured: dict[str, Any], judged: dict[str, Any] | None) -> Facts:
    reject, judged = measured.get("reject"), judged or {}
    verdict = VERDICTS.get(judged["verdict"], "dropped") if judged else names["role"]
    partner, similarity = judged.get("partner_id"), judged.get("similarity")
    return Facts(
        id=str(image_id),
        name=name_of(names),
        source=visible(names["source"], keep=""),
        role=names["role"],
        key=visible(names["key"], keep=""),
        uri=visible(names["uri"], keep=""),
        width=measured.get("width"),
        height=measured.get("height"),
        format=measured.get("format"),
        bytes=measured.get("num_bytes"),
        verdict="rejected" if reject else verdict,
        reason=reject or "",
        detail=visible(measured.get("detail") or "", keep=""),
        partner=None if partner is None else str(partner),
        similarity=None if similarity is None else round(similarity, 4),
        evidence=judged.get("kind"),
        direct=judged.get("direct"),
        decided=judged.get("decision"),
    )


def name_of(names: dict[str, Any]) -> str:
    """What a decision calls an image: readable and of this image alone, where a line of a file can hold it."""
    plain = f"{names['source']}/{names['key']}"
    if names["sha256"] is not None and (plain != plain.strip() or not plain.isprintable()):
        return str(names["sha256"].hex())
    return plain
