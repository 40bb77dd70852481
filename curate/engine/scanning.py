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

A complete listing of other settings, of which sources lie elsewhere by now or were added, is brought up to these
without an id that moves (`Listing.changed`). What differs is listed as above, and the containers of what was listed are
noted. Then parts are made aside (`_moved`): of each part whose images lie elsewhere, a task looks for each of its rows
in the containers of that name (`move`); added sources are cut into parts that follow all others. Parts are replaced, so
a kill between two of them must not leave a listing of which nobody knows where which images lie. So a manifest is
written aside when all of them are made, and where a run finds that, it first ends what was begun.
"""

import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from curate import progress
from curate.config import digest, identity
from curate.engine.executors import Executor
from curate.engine.freshness import previous_resolved, resolved_stage, stale_message, why_stale
from curate.engine.part_writer import Part
from curate.engine.stage import Listing, Scan
from curate.engine.table import Manifest, Table
from curate.engine.tasks import (
    CUT,
    DOUBTS,
    GROUPS,
    HOMES,
    KNOWN,
    LISTED,
    LISTING,
    MOVED,
    REMADE,
    TOLD,
    Done,
    Task,
    log_entry,
    read_text,
    write_text,
)
from curate.errors import StaleTable, TableError

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
        followed = complete and isinstance(self.stage, Listing) and self._follow(self.stage)
        known = table.parts() if complete else []
        if complete:
            if not (flags.rescan and isinstance(self.stage, Listing)):  # of a rescan that was killed
                table.drop_parts(table.committed().keys() - {part.number for part in known})
            self._list_lost([part for part in known if part.number in self.work.lost(self.name)])
        elif self.before is not None:  # what was made aside for the listing that this one replaces
            self.work.store.remove_folders(self.name, (MOVED,))
        if complete and not flags.rescan:
            return [self.name] if followed else []
        stage, num_parts = self.stage, len(known)
        if isinstance(stage, Listing):
            stage, num_parts = self._list_in_tasks(stage, table if complete else None)
        else:
            num_parts += self._list_here(table if complete else None)
        self.work.finish(self.name, stage, None, num_parts)  # also where nothing is new: figures may be
        self._drop_hidden()
        return [self.name] if num_parts > len(known) or followed or not complete else []

    def _list_lost(self, lost: list[Part]) -> None:
        """Make parts of a complete listing anew that are gone or damaged.

        Raises:
            TableError: the sources are not what they were, so that image ids would move.
        """
        missing = {part.number: part for part in lost}
        if not missing:
            return
        with self._hidden(REMADE) as remade:
            moved_from = {number: part.moved_from for number, part in missing.items()}
            if isinstance(self.stage, Listing):
                stage = resolved_stage(self.stage, self.table.complete_manifest()).as_listed(self.table)
                (listed,) = self._list_groups([stage], None)
                self._write_parts(stage, listed, None, remade, only=moved_from)
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

    def _drop_hidden(self) -> bool:
        """Remove what lies in hidden folders; returns whether there was any."""
        return isinstance(self.stage, Listing) and self.work.store.remove_folders(self.name, LISTING)

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
        (listed,) = self._list_groups([stage], known)
        before = previous_resolved(self.before, stage) if known is not None else None
        stage = stage.resolve_listed(self._told(listed), before)
        if known is None:
            self.work.open_manifest(self.name, stage, None)
        return stage, self._write_parts(stage, listed, known, self.table)

    def _list_groups(self, stages: Sequence[Listing], known: Table | None) -> list[_Listed]:
        """Have every group of each stage listed; those of an earlier attempt whose content is as it was are kept."""
        store = self.work.store
        groups, rows, told = (store.table(f"{self.name}/{folder}") for folder in (GROUPS, LISTED, TOLD))
        since = self._note_known(stages[0], known) if known is not None else ""
        there = {
            footer.fingerprint: number
            for number, footer in told.whole_footers(told.committed().keys() & rows.committed().keys()).items()
            if not {(told.name, number), (rows.name, number)} & self.work.damaged
        }
        try:
            listed, tasks = self._find(stages, there, since)
        except Exception:  # such as a source that is not there
            if not there:
                self._give_up()
            raise
        wanted = {number for one in listed for number in one.numbers}
        for table in (groups, rows, told):
            table.drop_parts(table.committed().keys() - wanted)
        self.work.execute(self.executor, f"{self.name} (list)", tasks, len(wanted), unit="groups", counted="images")
        return listed

    def _find(
        self, stages: Sequence[Listing], there: Mapping[str, int], since: str
    ) -> tuple[list[_Listed], list[Task]]:
        """Find the groups of each stage; returns the tasks that list those which are not there.

        Args:
            there: fingerprints of groups that were listed, and their numbers.
            since: fingerprint of what the table holds, of which nothing is listed again; empty: nothing.
        """
        groups = self.work.store.table(f"{self.name}/{GROUPS}")
        left, listed, tasks = dict(there), list[_Listed](), list[Task]()
        free = itertools.count(max(left.values(), default=-1) + 1)
        with progress.track(f"{self.name} (find)", 0, unit="groups") as advance:
            for stage in stages:
                listed.append(_Listed([], []))
                for text, content in stage.find_groups():
                    fingerprint = digest([content, stage.version, since])
                    number = left.pop(fingerprint, None)
                    if number is None:
                        number = next(free)
                        write_text(groups, number, text)
                        plain = self._task("list", stage, {self.name: fingerprint})
                        tasks.append(replace(plain, part=number, known=bool(since)))
                    listed[-1].numbers.append(number)
                    listed[-1].fingerprints.append(fingerprint)
                    advance(1)
        return listed, tasks

    def _told(self, listed: _Listed) -> Iterator[str]:
        """What the tasks told of their groups, in order."""
        told = self.work.store.table(f"{self.name}/{TOLD}")
        with ThreadPoolExecutor(READ_AHEAD, "told") as pool:  # side by side: on an object store each takes a while
            for start in range(0, len(listed.numbers), READ_AHEAD):
                yield from pool.map(partial(read_text, told), listed.numbers[start : start + READ_AHEAD])

    def _note_known(self, stage: Listing, known: Table) -> str:
        """Write down where the rows of each container of the table lie; returns the fingerprint of what it holds."""
        return self._note_homes(stage, {part.number: part.fingerprint for part in known.parts()}, known=True)

    def _note_homes(self, stage: Listing, made_of: Mapping[int, str], *, known: bool) -> str:
        """Write down where the rows of each container lie; returns the fingerprint of all that was gone through.

        Args:
            made_of: part to its fingerprint.
            known: whether these are parts of the table; else groups that were listed.
        """
        store = self.work.store
        homes, merged = store.table(f"{self.name}/{HOMES}"), store.table(f"{self.name}/{KNOWN}")
        wanted = {number: digest(["homes", known, one]) for number, one in made_of.items()}
        whole = digest(["known", list(wanted.items())])
        found = merged.whole_footers(merged.committed()).get(0)
        if found is None or found.fingerprint != whole or (merged.name, 0) in self.work.damaged:
            there = {
                n for n, footer in homes.whole_footers(homes.committed()).items() if footer.fingerprint == wanted.get(n)
            }
            there -= {number for name, number in self.work.damaged if name == homes.name}
            plain = replace(self._task("homes", stage, {}), known=known)
            tasks = [
                replace(plain, part=n, fingerprints={self.name: one}) for n, one in wanted.items() if n not in there
            ]
            self.work.execute(self.executor, f"{self.name} (known)", tasks, len(wanted))
            rows = pa.concat_tables([homes.read(number) for number in wanted]).sort_by(
                [("home", "ascending"), ("part", "ascending"), ("start", "ascending")]
            )
            merged.commit(0, rows.schema, rows.to_batches(), fingerprint=whole)
        return whole

    def _write_parts(
        self,
        stage: Listing,
        listed: _Listed,
        known: Table | None,
        target: Table,
        *,
        only: Mapping[int, str] | None = None,
    ) -> int:
        """Have the parts written; returns how many there are, known ones included.

        Args:
            only: numbers of the parts to write, and what they stand for (`Part.moved_from`); None: all.
        """
        first = len(known.parts()) if known is not None else 0
        cuts = list(stage.cut(self._told(listed), known))
        if target is self.table:
            self._begin(target, first, [identity(stage), first, listed.fingerprints])
        numbers = range(first, first + len(cuts))
        wanted = dict.fromkeys(numbers, "") if only is None else {n: only[n] for n in sorted(only) if n in numbers}
        plain = replace(self._task("run", stage, {self.name: ""}), target=target.name)
        tasks = [
            replace(
                plain,
                part=part,
                moved_from=wanted[part],
                cut=tuple((listed.numbers[group], start, stop) for group, start, stop in cuts[part - first]),
            )
            for part in self._missing(target, wanted)
        ]
        self.work.execute(self.executor, self.name, tasks, len(wanted))
        return first + len(cuts)

    def _begin(self, target: Table, first: int, made_of: Any) -> None:
        """Keep what an attempt left in `target` from part `first` on, where it was made of the same."""
        made = digest(["cut", target.name, made_of])
        marks = self.work.store.table(f"{self.name}/{CUT}")
        mark = marks.whole_footers(marks.committed()).get(0)
        if mark is None or mark.fingerprint != made:
            target.drop_parts(number for number in target.committed() if number >= first)
            write_text(marks, 0, "", fingerprint=made)

    def _missing(self, target: Table, wanted: Iterable[int]) -> list[int]:
        """Those of the wanted parts that `target` does not hold."""
        damaged = {number for name, number in self.work.damaged if name == target.name}
        there = target.whole_footers(set(target.committed()) - damaged)
        return [number for number in wanted if number not in there]

    def _task(self, phase: Any, stage: Listing, fingerprints: dict[str, str]) -> Task:
        schema = stage.output_schema()
        return Task(phase, 0, {self.name: stage}, {self.name: schema}, fingerprints, {}, within=self.work.step.within)

    # -- sources that moved, or were added -----------------------------------------------------------------------

    def _follow(self, stage: Listing) -> bool:
        """Bring a complete listing of other settings up to those of now; returns whether there was anything to do."""
        aside = self.work.store.table(f"{self.name}/{MOVED}")
        begun = aside.manifest()
        if begun is not None:
            self._replace_parts(aside, begun)
            stale = why_stale(self.table, stage, self.work.step.schemas[self.name], self.work.flags)
            if stale:
                raise StaleTable(stale_message({self.name: stale}, listings={self.name}))
        found = self.table.complete_manifest()
        if found.config == identity(stage):
            if not self.work.flags.rescan:  # which goes on with what one that was killed has left
                self._give_up()
            return begun is not None
        self.table.drop_parts(self.table.committed().keys() - {part.number for part in self.table.parts()})
        try:
            made = self._make_aside(stage, found, aside)
        except StaleTable:  # what lies there is not what was listed: all stays as it was
            self._give_up()
            raise
        aside.write_manifest(made)
        self._replace_parts(aside, made)
        return True

    def _make_aside(self, stage: Listing, found: Manifest, aside: Table) -> Manifest:
        """Make all parts that the table lacks or that are to be replaced; returns the manifest that it then gets."""
        changed, previous = stage.changed(self.table), previous_resolved(found, stage)
        stages = [one for one in (changed.moved, changed.added) if one is not None]
        listings = self._list_groups(stages, None)
        contents = [part.content for part in self.table.parts()]
        self._begin(aside, 0, [identity(stage), contents, [listed.fingerprints for listed in listings]])
        if changed.moved is not None:
            self._move(
                changed.moved.resolve_listed(self._told(listings[0]), previous), changed.parts, listings[0], aside
            )
        now = stage
        if changed.added is not None:
            now = changed.added.resolve_listed(self._told(listings[-1]), previous)
            self._write_parts(now, listings[-1], self.table, aside)
        figures = now.summarize(Table(self.work.store, self.name, found))
        config = identity(stage)
        return replace(
            found,
            config=config,
            resolved={
                key: config[key] if config[key] != found.config.get(key) else found.resolved[key] for key in config
            },
            pins=stage.pins(),
            figures=figures.model_dump(mode="json"),
        )

    def _move(self, stage: Listing, parts: Sequence[int], listed: _Listed, aside: Table) -> None:
        """Have parts made of which all images lie elsewhere by now.

        Raises:
            StaleTable: what lies there is not what was listed.
        """
        self._note_homes(stage, dict(zip(*listed, strict=True)), known=False)
        told_of = self.work.store.table(f"{self.name}/{DOUBTS}")
        known = {part.number: part for part in self.table.parts()}
        doubted = {number for name, number in self.work.damaged if name == told_of.name}
        todo = sorted({*self._missing(aside, parts), *doubted})
        plain = replace(self._task("move", stage, {self.name: ""}), target=aside.name)
        tasks = [replace(plain, part=number, moved_from=known[number].read_as) for number in todo]
        self.work.execute(self.executor, f"{self.name} (move)", tasks, len(parts))
        stage.check_moved(self.table, aside, {number: read_text(told_of, number) for number in parts})

    def _replace_parts(self, aside: Table, made: Manifest) -> None:
        """Put the parts that were made aside in place of those that are there, and behind them."""
        for number in sorted(aside.committed()):
            aside.move_part(number, self.table)
        stage = type(self.stage).model_validate(made.config)
        self.work.finish(self.name, stage, None, max(self.table.committed()) + 1, opened=made)
        self._drop_hidden()

    def _give_up(self) -> None:
        """Remove what is left of an attempt to list anything."""
        if self._drop_hidden():
            self.table.end_log()
