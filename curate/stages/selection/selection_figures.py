"""Figures of the selection, counted part by part."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Settings
from curate.engine.figures import Figures
from curate.engine.image_ids import Parts
from curate.engine.table import Table
from curate.engine.tallies import Tally
from curate.stages.clusters.find_junk import JunkTally
from curate.stages.copies.verdict_tally import VerdictTally
from curate.tables import CURATED, POOL, ROLES

SHARE_OF = {"sample": "retrieval", "cluster": "retrieval"}
"""Routes of `origins` that are one share of a mix; every other route is a share by itself."""


class RouteShare(Settings):
    """Images that count for one share: each image for its first route."""

    images: int
    """Images."""
    shown: int
    """Times that they are shown in an epoch."""


class ContaminationCount(Settings):
    """Selected images that resemble a held-out one."""

    pool: int
    """Images of the pool; there should be none, since their group of copies was dropped as a whole."""
    curated: int
    """Images of the curated sets."""
    routes: dict[str, int]
    """By route; an image that several routes chose counts for each."""
    by_decision: int = 0
    """Images of the pool that a person kept; they are in no other number."""


class JunkCount(Settings):
    """Pool images that were found to be junk."""

    found: int
    """All of them: they were left out of the balanced draw."""
    selected: int
    """Those of them that another route chose."""


class SelectFigures(Figures):
    """What was selected, by role and by route."""

    kept: int
    """Pool images that could have been selected: those that deduplication kept."""
    roles: dict[str, int]
    """Selected images by role."""
    routes: dict[str, int]
    """Selected images by route; an image that several routes chose counts for each."""
    shares: dict[str, RouteShare]
    """By share: retrieval, balance, curated or kept."""
    contaminated: ContaminationCount
    """What resembles a held-out image, by the stored pairs and counted on the result itself."""
    junk: JunkCount | None = None
    """Null where the recipe looks for no junk."""

    @property
    def shown(self) -> int:
        """Images shown in an epoch, repeats included."""
        return sum(share.shown for share in self.shares.values())


class SelectTally(Tally):
    """What a part adds to these."""

    routes: dict[str, int] = Field(default_factory=dict)
    """Images by route."""
    images: dict[str, int] = Field(default_factory=dict)
    """Images by share."""
    shown: dict[str, int] = Field(default_factory=dict)
    """Times that they are shown, by share."""
    contaminated: int = 0
    """Images that resemble a held-out one."""
    contaminated_routes: dict[str, int] = Field(default_factory=dict)
    """The same by route."""
    contaminated_by_decision: int = 0
    """Images that a person kept and that resemble a held-out one; not among those."""
    junk: int = 0
    """Images that were found to be junk."""

    @classmethod
    def of_part(cls, rows: pa.RecordBatch, *, touching: np.ndarray, junk: np.ndarray, wanted: np.ndarray) -> Self:
        """Of the selected images of a part; ids of those that resemble a held-out one, of junk, and of those that a
        person keeps."""
        chosen, ids = pa.Table.from_batches([rows]), rows["image_id"].to_numpy()
        by_decision = np.isin(ids, touching) & np.isin(ids, wanted)
        shares, hit = count_shares(chosen), chosen.filter(pa.array(np.isin(ids, touching) & ~by_decision))
        return cls(
            routes=count_routes(chosen),
            images={name: share.images for name, share in shares.items()},
            shown={name: share.shown for name, share in shares.items()},
            contaminated=len(hit),
            contaminated_routes=count_routes(hit),
            contaminated_by_decision=int(by_decision.sum()),
            junk=int(np.isin(ids, junk).sum()),
        )


def selection_figures(selection: Table, parts: Parts, duplicates: Table, found_junk: Table | None) -> SelectFigures:
    """Figures of a complete selection, from what the parts of it and of its inputs counted."""
    tallies, kept = SelectTally.by_part(selection), VerdictTally.by_part(duplicates)
    total = SelectTally.sum(tallies)
    rows = np.array([part.rows for part in selection.parts()])
    pool, curated = (sum(tallies[part].contaminated for part in parts.numbers(role)) for role in (POOL, CURATED))
    junk = None if found_junk is None else JunkCount(found=JunkTally.of(found_junk).junk, selected=total.junk)
    return SelectFigures(
        kept=sum(kept[part].kept for part in parts.numbers(POOL)),
        roles={role: int(rows[parts.numbers(number)].sum()) for number, role in enumerate(ROLES)},
        routes=dict(sorted(total.routes.items())),
        shares={name: RouteShare(images=total.images[name], shown=total.shown[name]) for name in sorted(total.images)},
        contaminated=ContaminationCount(
            pool=pool,
            curated=curated,
            routes=total.contaminated_routes,
            by_decision=total.contaminated_by_decision,
        ),
        junk=junk,
    )


def count_routes(rows: pa.Table) -> dict[str, int]:
    """Images by route; one that several routes chose counts for each."""
    origins = rows["origins"].combine_chunks()
    routes = pc.struct_field(pc.list_flatten(origins), "route")
    pairs = pa.table({"image": pc.list_parent_indices(origins), "route": routes})
    counts = pc.value_counts(pairs.group_by(["image", "route"]).aggregate([])["route"])
    return {row["values"]: row["counts"] for row in counts.to_pylist()}


def count_shares(rows: pa.Table) -> dict[str, RouteShare]:
    """Images, and times that they are shown, by the route that counts: the first of each image."""
    origins = rows["origins"].combine_chunks()
    first = pc.struct_field(pc.list_element(origins, 0), "route") if len(rows) else pa.array([], pa.string())
    counted = pa.table({"route": first, "repeats": rows["repeats"]}).group_by("route")
    images, shown = dict[str, int](), dict[str, int]()
    for row in counted.aggregate([("repeats", "count"), ("repeats", "sum")]).to_pylist():
        name = SHARE_OF.get(row["route"], row["route"])
        _add(images, {name: row["repeats_count"]})
        _add(shown, {name: row["repeats_sum"]})
    return {name: RouteShare(images=images[name], shown=shown[name]) for name in images}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    """Add to `total` in place."""
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
