"""Removing working tables whose rows nothing needs any more, and knowing when something does.

Most bytes of a workdir are working tables: lists of vectors, features, candidates. When what reads them is made, their
rows are of no use until something changes. But their **parts** have to stay known, or the next run would take the table
for missing and make it again. So only the files of parts go. The manifest stays, names the parts that were removed
(`Manifest.cleaned`), and their fingerprints answer for them as before: a cleaned table counts as there. When a table
has to be made that reads one whose rows are gone, making it raises `CleanedRows`, the pipeline goes back, makes these
parts again under the fingerprints that they had, and then goes on (`Pipeline.run`).

What may go: tables under `internal/`, complete and without open rows. What stays: results; fitted tables, which are
small and might be fitted otherwise by now; tables that share a pass with results, which to have again would take
another pass over the pool; tables that report, `sweep` and `explain` read (those of stages that tell something, unless
by figures alone, and their inputs `Stage.tells_from`), so that these say the same before and after; and whatever a
table reads that is still to be made.

A process may be killed between any two lines here: the manifest is written first, so that a part which is marked and
still there is a file too many, and removed the next time.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from curate.engine.stage import Scan, Stage, as_list
from curate.engine.table import Table

if TYPE_CHECKING:
    from curate.engine.store import Store
    from curate.engine.work import Step

WORKING = "internal/"
"""Where working tables lie; what lies elsewhere is a result."""
_TELLING = ("show", "flow", "facts", "warn", "checks", "gaps", "headline", "explain", "why_open")


class CleanedRows(Exception):
    """Something is to be made of rows that were removed."""

    def __init__(self, wanted: Mapping[str, Collection[int]], reader: str) -> None:
        super().__init__(f"{', '.join(wanted)}: cleaned, and {reader} needs their rows")
        self.wanted, self.reader = wanted, reader


@dataclass(frozen=True)
class Removed:
    """What was removed of a table, or would be."""

    table: str
    parts: int
    num_bytes: int


def find_unneeded(steps: Sequence["Step"], store: "Store", current: Collection[str]) -> list[str]:
    """Working tables of which no declared table that is still to be made needs rows, in the order of the recipe.

    Args:
        steps: all that the recipe declares.
        current: tables that are complete and such as the settings of now would make them.
    """
    readers: dict[str, set[str]] = {}
    told: set[str] = set()
    for step in steps:
        for name, stage in step.stages.items():
            for key in stage.inputs:
                for read in step.inputs.get(key) or ():
                    readers.setdefault(read, set()).add(name)
                    if key in stage.tells_from:
                        told.add(read)
    needed: dict[str, bool] = {}
    unneeded: list[str] = []
    for step in reversed(steps):
        for name, stage in step.stages.items():
            needed[name] = any(
                one not in current or (needed[one] and _is_cleaned(store, one)) for one in readers.get(name, ())
            )
            shares = len(step.stages) > 1
            if name in current and not needed[name] | shares and name not in told and _may_go(stage, store.table(name)):
                unneeded.append(name)
    return unneeded[::-1]


def _is_cleaned(store: "Store", name: str) -> bool:
    manifest = store.table(name).manifest()
    return manifest is not None and bool(manifest.cleaned)


def _may_go(stage: Stage, table: Table) -> bool:
    if not table.name.startswith(WORKING) or stage.pinned or isinstance(stage, Scan):
        return False
    telling = any(getattr(type(stage), name) is not getattr(Stage, name) for name in _TELLING)
    if telling and not stage.tells_by_figures:
        return False
    return table.is_complete() and not table.num_open()


def clean(tables: Iterable[Table], *, dry_run: bool = False) -> list[Removed]:
    """Remove the files of the parts of complete tables; returns those of which there was something to remove."""
    removed = [_clean(table, dry_run=dry_run) for table in tables]
    return [one for one in removed if one.parts]


def _clean(table: Table, *, dry_run: bool) -> Removed:
    there = table.committed()
    known = {part.number for part in table.parts()}
    if there and not dry_run:
        if known - set(table.complete_manifest().cleaned):
            table.write_manifest(replace(table.complete_manifest(), cleaned=sorted(known)))
        table.drop_parts(there)
    return Removed(table.name, len(there), sum(there.values()))


def rows_gone(stage_inputs: Mapping[str, "tuple[object, bool]"], parts: Collection[int] | None) -> dict[str, set[int]]:
    """By table: parts whose rows are wanted and were removed.

    Args:
        stage_inputs: by input the tables read, and whether only parts of the numbers that are made are read.
        parts: numbers of the parts that are made; None: not known.
    """
    gone: dict[str, set[int]] = {}
    for tables, aligned in stage_inputs.values():
        for table in as_list(tables):
            absent = table.absent()
            if aligned and parts is not None:
                absent &= set(parts)
            if absent:
                gone.setdefault(table.name, set()).update(absent)
    return gone
