"""Making the table of a Scan: what lies outside the workdir is listed, lost parts are listed again, new ones appended.

What makes this hard: ids follow from the order of the whole listing, parts are cut by counts that nobody knows before
all is listed, and there may be a billion rows. So a `Listing` goes through phases, each a set of tasks whose work lies
in hidden folders of the table until it is complete:

    driver   finds groups of what is to be listed, in order, and writes each down (`_groups`): no row, only containers
    list     a task lists one group (`_listed`), and tells what the driver needs to know of it (`_told`): its counts
    driver   cuts parts from the counts
    run      a task writes one part from the rows of the groups that it is made of

A group carries a fingerprint of its content, so that a listing which was killed, or which damage stops, goes on with
what it has, wherever groups have moved to. The parts of the table are written last: until every source is listed,
nothing that is there is touched. A rescan first notes where the rows of each container lie (`_homes`, by tasks, merged
into `_known`), so that whoever lists a container again compares with its rows and no others.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from curate import progress
from curate.config import digest, identity
from curate.engine.executors import Executor
from curate.engine.freshness import previous_resolved, resolved_stage
from curate.engine.part_writer import Part
from curate.engine.stage import Listing, Scan
from curate.engine.table import Table
from curate.engine.tasks import CUT, GROUPS, HOMES, KNOWN, LISTED, REMADE, TOLD, Done, Task, log_entry, write_text
from curate.errors import TableError

if TYPE_CHECKING:
    from curate.engine.work import Work

logger = logging.getLogger(__name__)

READ_AHEAD = 16
"""What tasks told is read so many at once."""


class _Listed(NamedTuple):
    """A listing, ready to be cut."""

    numbers: list[int]
    """Of the hidden parts that hold the groups, in the order of the groups."""
    fingerprints: list[str]
    """Of the groups."""


class Scanning:
    """Making the table of one Scan."""

    def __init__(self, work: "Work", stage: Scan, executor: Executor) -> None:
        self.work, self.stage, self.executor = work, stage, executor
        ((self.name, self.table),) = work.tables.items()
        self.before = work.before[self.name]

    def run(self) -> list[str]:
        """Make what is missing; returns the name of the table, if it changed."""
        flags, table = self.work.flags, self.table
        complete = self.before is not None and self.before.complete and not flags.may_rebuild(self.name)
        known = table.parts() if complete else []
        if complete:
            if not (flags.rescan and isinstance(self.stage, Listing)):  # of a rescan that was killed
                table.drop_parts(table.committed().keys() - {part.number for part in known})
            self._list_lost([part for part in known if part.number in self.work.lost(self.name)])
        if complete and not flags.rescan:
            return []
        stage, num_parts = self.stage, len(known)
        if isinstance(stage, Listing):
            stage, num_parts = self._list_in_tasks(stage, table if complete else None)
        else:
            num_parts += self._list_here(table if complete else None)
        self.work.finish(self.name, stage, None, num_parts)  # also where nothing is new: figures may be
        return [self.name] if num_parts > len(known) or not complete else []

    def _list_lost(self, lost: list[Part]) -> None:
        """Make parts of a complete listing anew that are gone or damaged.

        Raises:
            TableError: the sources are not what they were, so that image ids would move.
        """
        missing = {part.number: part for part in lost}
        if not missing:
            return
        with self._hidden(REMADE) as remade:
            if isinstance(self.stage, Listing):
                stage = resolved_stage(self.stage, self.table.complete_manifest())
                self._write_parts(stage, self._list_groups(stage, None), None, remade, only=set(missing))
            else:
                self._commit(remade, (one for one in self.stage.scan(None) if one[0] in missing))
            found = remade.footers(remade.committed())
            for number, part in missing.items():
                if found.get(number) != part:
                    raise TableError(
                        f"{self.table.part_path(number)}: damaged or gone, and its source is not what it was when it "
                        f"was listed; restore the source, or list all anew with --rebuild {self.name} (what depends on "
                        "it follows)"
                    )
            for number in missing:
                logger.warning("%s: damaged or gone; listed again", self.table.part_path(number))
                remade.move_part(number, self.table)
        self._drop_hidden()

    @contextmanager
    def _hidden(self, folder: str) -> Iterator[Table]:
        """A hidden table for what is made before it replaces what is there."""
        hidden = self.work.store.table(f"{self.name}/{folder}")
        self.work.store.remove(hidden.name)  # of a run that was killed
        try:
            yield hidden
        finally:
            self.work.store.remove(hidden.name)

    def _drop_hidden(self) -> None:
        self.work.store.remove_folders(self.name, (GROUPS, LISTED, TOLD, HOMES, KNOWN, CUT))

    # -- in the driver -------------------------------------------------------------------------------------------

    def _list_here(self, known: Table | None) -> int:
        """The parts of a plain Scan; returns how many there are."""
        if self.before is not None and self.before.complete and known is None:  # what is there stays until all is new
            with self._hidden(REMADE) as listed:
                entries = self._commit(listed, self.stage.scan(None))
                self.work.open_manifest(self.name, self.stage, None)
                for entry in entries:
                    listed.move_part(entry["part"], self.table)
                    self.table.log_task(entry)
            return len(entries)
        if known is None:
            self.work.open_manifest(self.name, self.stage, None)
        return len(self._commit(self.table, self.stage.scan(known)))

    def _commit(self, target: Table, parts: Iterable[tuple[int, pa.Table]]) -> list[dict[str, Any]]:
        """Commit what a scan finds to `target`, and log it there; returns the entries of the log."""
        entries, start = [], time.perf_counter()
        with progress.track(self.name, 0, unit="parts") as advance:
            for part, rows in parts:
                done = target.commit(part, rows.schema, rows.to_batches())
                entries.append(log_entry(Done(target.name, "run", done, time.perf_counter() - start)))
                target.log_task(entries[-1])
                start = time.perf_counter()
                advance(1, note=f"{done.rows} images")
        return entries

    # -- in tasks ------------------------------------------------------------------------------------------------

    def _list_in_tasks(self, stage: Listing, known: Table | None) -> tuple[Listing, int]:
        """The stage with its `auto` values, and the number of parts."""
        if self.before is None or not self.before.complete:
            self.work.open_manifest(self.name, stage, None)
        listed = self._list_groups(stage, known)
        before = previous_resolved(self.before, stage) if known is not None else None
        stage = stage.resolve_listed(self._told(listed), before)
        if known is None:
            self.work.open_manifest(self.name, stage, None)
        return stage, self._write_parts(stage, listed, known, self.table)

    def _list_groups(self, stage: Listing, known: Table | None) -> _Listed:
        """Have every group listed; those of an earlier attempt whose content is as it was are kept."""
        store = self.work.store
        groups, rows, told = (store.table(f"{self.name}/{folder}") for folder in (GROUPS, LISTED, TOLD))
        since = self._note_known(stage, known) if known is not None else ""
        there = {
            footer.fingerprint: number
            for number, footer in told.whole_footers(told.committed().keys() & rows.committed().keys()).items()
            if not {(told.name, number), (rows.name, number)} & self.work.damaged
        }
        numbers: list[int] = []
        fingerprints: list[str] = []
        tasks: list[Task] = []
        free = itertools.count(max(there.values(), default=-1) + 1)
        with progress.track(f"{self.name} (find)", 0, unit="groups") as advance:
            for text, content in stage.find_groups():
                fingerprint = digest([content, stage.version, since])
                number = there.pop(fingerprint, None)
                if number is None:
                    number = next(free)
                    write_text(groups, number, text)
                    tasks.append(self._task("list", number, stage, {self.name: fingerprint}, known=known is not None))
                numbers.append(number)
                fingerprints.append(fingerprint)
                advance(1)
        for table in (groups, rows, told):
            table.drop_parts(table.committed().keys() - set(numbers))
        self.work.execute(self.executor, f"{self.name} (list)", tasks, len(numbers), unit="groups", counted="images")
        return _Listed(numbers, fingerprints)

    def _told(self, listed: _Listed) -> Iterator[str]:
        """What the tasks told of their groups, in order."""
        told = self.work.store.table(f"{self.name}/{TOLD}")
        with ThreadPoolExecutor(READ_AHEAD, "told") as pool:  # side by side: on an object store each takes a while
            for start in range(0, len(listed.numbers), READ_AHEAD):
                texts = pool.map(lambda n: told.read(n)["text"][0].as_py(), listed.numbers[start : start + READ_AHEAD])
                yield from texts

    def _note_known(self, stage: Listing, known: Table) -> str:
        """Write down where the rows of each container lie; returns the fingerprint of what the table holds."""
        store, parts = self.work.store, known.parts()
        homes, merged = store.table(f"{self.name}/{HOMES}"), store.table(f"{self.name}/{KNOWN}")
        wanted = {part.number: digest(["homes", part.fingerprint]) for part in parts}
        whole = digest(["known", [part.fingerprint for part in parts]])
        found = merged.whole_footers(merged.committed()).get(0)
        if found is None or found.fingerprint != whole or (merged.name, 0) in self.work.damaged:
            there = {
                n for n, footer in homes.whole_footers(homes.committed()).items() if footer.fingerprint == wanted[n]
            }
            there -= {number for name, number in self.work.damaged if name == homes.name}
            tasks = [
                self._task("homes", n, stage, {self.name: one}, known=True)
                for n, one in wanted.items()
                if n not in there
            ]
            self.work.execute(self.executor, f"{self.name} (known)", tasks, len(parts))
            rows = pa.concat_tables([homes.read(part.number) for part in parts]).sort_by(
                [("home", "ascending"), ("part", "ascending"), ("start", "ascending")]
            )
            merged.commit(0, rows.schema, rows.to_batches(), fingerprint=whole)
        return whole

    def _write_parts(
        self, stage: Listing, listed: _Listed, known: Table | None, target: Table, *, only: set[int] | None = None
    ) -> int:
        """Have the parts written; returns how many there are, known ones included.

        Args:
            only: numbers of the parts to write; None: all.
        """
        first = len(known.parts()) if known is not None else 0
        cuts = list(stage.cut(self._told(listed), known))
        made_of = digest(["cut", identity(stage), first, listed.fingerprints])
        marks = self.work.store.table(f"{self.name}/{CUT}")
        mark = marks.whole_footers(marks.committed()).get(0)
        if target is self.table and (mark is None or mark.fingerprint != made_of):
            target.drop_parts(number for number in target.committed() if number >= first)
            write_text(marks, 0, "", fingerprint=made_of)
        damaged = {number for name, number in self.work.damaged if name == target.name}
        there = target.whole_footers(set(target.committed()) - damaged)
        wanted = range(first, first + len(cuts))
        todo = [part for part in (wanted if only is None else sorted(only & set(wanted))) if part not in there]
        plain = self._task("run", 0, stage, {self.name: ""}, known=False)
        tasks = [
            replace(
                plain,
                part=part,
                target=target.name,
                pieces=tuple((listed.numbers[group], start, stop) for group, start, stop in cuts[part - first]),
            )
            for part in todo
        ]
        self.work.execute(self.executor, self.name, tasks, len(wanted))
        return first + len(cuts)

    def _task(self, phase: Any, part: int, stage: Listing, fingerprints: dict[str, str], *, known: bool) -> Task:
        schema = stage.output_schema()
        within = self.work.step.within
        return Task(phase, part, {self.name: stage}, {self.name: schema}, fingerprints, {}, within=within, known=known)
