"""Groups of copies as the report shows them: what stays first, then those that went, with the evidence."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished, pick
from curate.engine.show import LIST_CONTAMINATED, LIST_GROUPS, Block, Gallery, Heading, Pages, Picture
from curate.engine.table import Table
from curate.tables import POOL, ROLES

COLUMNS = ["image_id", "component_id", "verdict", "partner_id", "similarity", "kind", "direct"]
"""Columns of `duplicates` that groups are made of; of a run with decisions, `DECISION` too."""
DECISION = "decision"
NUM_BIGGEST, NUM_RANDOM, NUM_CONTAMINATED = 6, 60, 48
"""Groups that are shown: the biggest, some of the others, some that resemble a held-out image."""
SHOWN_BIG, SHOWN_SMALL = 36, 12
"""Pictures of one of the biggest groups, and of another one."""


def columns_of(table: Table) -> list[str]:
    """Those of `duplicates` that groups are made of."""
    return [*COLUMNS, DECISION] if DECISION in table.schema().names else COLUMNS


class CopyGroups(NamedTuple):
    """Components that lost an image to another one, in ascending order, one after the other."""

    rows: pa.Table
    """Columns of `columns_of`; those of a group by falling similarity."""
    starts: np.ndarray
    """(G,) int64, first row of each"""
    sizes: np.ndarray
    """(G,) int64"""

    @classmethod
    def of(cls, rows: pa.Table) -> "CopyGroups":
        """From rows of `duplicates`; groups that touch a held-out image are left out, and images that rules reject."""
        rows = rows.filter(pc.invert(pc.is_in(rows["verdict"], pa.array(["benchmark", "screened"]))))
        component = rows["component_id"].to_numpy()
        lost = np.unique(component[rows["verdict"].to_numpy() == "duplicate"])
        rows = rows.filter(pa.array(np.isin(component, lost)))
        rows = rows.sort_by([("component_id", "ascending"), ("similarity", "descending"), ("image_id", "ascending")])
        starts = np.flatnonzero(np.diff(rows["component_id"].to_numpy(), prepend=-1, append=-1))
        return cls(rows, starts[:-1], np.diff(starts))

    def rows_of(self, group: int) -> pa.Table:
        """The images of one group."""
        return self.rows.slice(self.starts[group], self.sizes[group])


def copy_galleries(groups: CopyGroups, run: Finished) -> Iterator[Block]:
    """The biggest groups of copies, then random ones of the others."""
    biggest = np.argsort(-groups.sizes, kind="stable")[:NUM_BIGGEST]
    others = np.setdiff1d(np.arange(len(groups.sizes)), biggest)
    random = pick(others, NUM_RANDOM, run.rng("duplicate groups"))
    shown = (("The biggest groups", biggest, SHOWN_BIG), ("Random groups", random, SHOWN_SMALL))
    for title, chosen, limit in shown:
        if len(chosen):
            galleries = tuple(_copies(groups.rows_of(group), run, limit) for group in chosen.tolist())
            more = len(others) - len(random) if chosen is random else 0
            yield from (Heading(title), Pages(galleries, more=more, rest=LIST_GROUPS))


def heldout_galleries(rows: pa.Table, run: Finished) -> Iterator[Block]:
    """Some of the held-out images, each beside the group of copies that left because of it."""
    rows = rows.filter(pc.equal(rows["verdict"], "benchmark"))
    found = np.unique(rows["component_id"].to_numpy())
    components = pick(found, NUM_CONTAMINATED, run.rng("contamination"))
    galleries = [_contaminated(rows.filter(pc.equal(rows["component_id"], one))) for one in components.tolist()]
    yield Pages(tuple(galleries), more=len(found) - len(galleries), rest=LIST_CONTAMINATED)


def curated_gallery(curated: int, heldout: int) -> Gallery:
    """A curated image beside the held-out one that it resembles: it stays, so it must be seen."""
    pictures = (
        Picture(heldout, ("held out",), "heldout"),
        Picture(curated, ("curated, stays",), "curated"),
    )
    return Gallery(pictures, group=True)


def _copies(rows: pa.Table, run: Finished, limit: int) -> Gallery:
    members = rows.to_pylist()
    stay = [Picture(one["image_id"], (_kept(one),), "kept") for one in members if one["verdict"] == "kept"]
    gone = [member for member in members if member["verdict"] == "duplicate"]
    if not stay:
        outside = gone[0]["partner_id"]
        role = int(run.parts.role_of(np.array([outside]))[0])
        stay = [Picture(outside, ("kept" if role == POOL else f"stays: {ROLES[role]}",), "kept")]
    return _group(stay, gone, limit)


def _kept(row: dict[str, Any]) -> str:
    """What is said of an image that stays, which a person may have decided."""
    return "kept by your decision" if row.get(DECISION) in ("keep", "represent") else "kept"


def _contaminated(rows: pa.Table) -> Gallery:
    gone = rows.sort_by([("similarity", "descending"), ("image_id", "ascending")]).to_pylist()
    return _group([Picture(gone[0]["partner_id"], ("held out",), "heldout")], gone, SHOWN_SMALL, LIST_CONTAMINATED)


def _group(stay: list[Picture], gone: list[dict[str, Any]], limit: int, rest: str = LIST_GROUPS) -> Gallery:
    """At most `limit` pictures of a group, of them half that stay, and how many more there are."""
    first = stay[: limit // 2]
    shown = gone[: limit - len(first)]
    others = (Picture(member["image_id"], (evidence(member),)) for member in shown)
    more = len(stay) - len(first) + len(gone) - len(shown)
    return Gallery((*first, *others), more=more, group=True, rest=rest)


def evidence(row: dict[str, Any]) -> str:
    """`0.953 embedding`; equal bytes need no number. Where it leads to another image of the group, that is said."""
    found = "same bytes" if row["kind"] == "sha256" else f"{row['similarity']:.3f} {row['kind']}"
    if row["direct"]:
        return found
    return f"{found} {'as' if row['kind'] == 'sha256' else 'to'} another one"
