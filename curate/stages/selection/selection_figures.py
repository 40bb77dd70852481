"""Figures of the selection, counted part by part from its rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.config import Settings
from curate.engine.figures import Figures
from curate.engine.table import Table
from curate.stages.copies.contamination import touching_heldout
from curate.stages.selection.routes import RouteTables
from curate.tables import POOL, ROLES

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


class JunkCount(Settings):
    """Pool images that screening found to be junk."""

    screened: int
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
    """Null where the recipe screens nothing."""

    @property
    def shown(self) -> int:
        """Images shown in an epoch, repeats included."""
        return sum(share.shown for share in self.shares.values())


def selection_figures(selection: Table, given: RouteTables, neighbors: Sequence[Table]) -> SelectFigures:
    """Figures of a complete selection. Memory: one part, and a bit an image of the catalog.

    Args:
        given: the tables that the selection was made from.
        neighbors: pairs of copies, those with held-out images among them.
    """
    roles, routes = dict.fromkeys(ROLES, 0), dict[str, int]()
    images, shown, hit_routes = dict[str, int](), dict[str, int](), dict[str, int]()
    hit_roles = dict.fromkeys(ROLES, 0)
    touching = touching_heldout(neighbors, given.parts)
    for part in selection.parts():
        rows = selection.read(part.number, ["image_id", "origins", "repeats"])
        role = ROLES[given.parts.role[part.number]]
        roles[role] += part.rows
        _add(routes, count_routes(rows))
        for name, share in count_shares(rows).items():
            _add(images, {name: share.images})
            _add(shown, {name: share.shown})
        hit = rows.filter(pa.array(touching.has(rows["image_id"].to_numpy())))
        hit_roles[role] += len(hit)
        _add(hit_routes, count_routes(hit))
    return SelectFigures(
        kept=sum(_count_kept(given.duplicates, part) for part in given.parts.numbers(POOL)),
        roles=roles,
        routes=dict(sorted(routes.items())),
        shares={name: RouteShare(images=images[name], shown=shown[name]) for name in sorted(images)},
        contaminated=ContaminationCount(pool=hit_roles["pool"], curated=hit_roles["curated"], routes=hit_routes),
        junk=None if given.screened is None else _junk(selection, given),
    )


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


def _count_kept(duplicates: Table, part: int) -> int:
    verdicts = duplicates.read(part, ["verdict"])["verdict"]
    return pc.sum(pc.equal(verdicts, "kept")).as_py() or 0


def _junk(selection: Table, given: RouteTables) -> JunkCount:
    screened, selected = 0, 0
    for part in given.parts.numbers(POOL):
        assigned = given.assigned(part)
        screened += int(np.count_nonzero(assigned.junk))
        ids = selection.read(part, ["image_id"])["image_id"].to_numpy()
        selected += int(np.isin(ids, assigned.image_ids[assigned.junk]).sum())
    return JunkCount(screened=screened, selected=selected)
