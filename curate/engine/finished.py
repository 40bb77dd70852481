"""The finished tables of a recipe in a workdir, as those see them who only look: report, card, explain, sweep.

What counts is what the recipe declares now, in its order and under its current settings. A table that lies in the
workdir from an earlier recipe is not read; one of an earlier setting, or made of inputs that have changed since, is
left out and named (`Finished.outdated`).
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from curate.engine.freshness import resolved_stage, why_outdated
from curate.engine.image_ids import Parts, part_of, row_of
from curate.engine.show import FlowStep
from curate.engine.stage import Scan, Stage, as_list
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.work import Step, open_input
from curate.errors import TableError
from curate.tables import ROLES

MAX_ROWS = 2_000_000
"""Rows of a table that are read for one section; larger tables are sampled, and the page says so."""
CATALOG_PARTS = 4
"""Parts of the catalog that are held, some 10 MB each."""
MAX_NAMED = 10
"""Images that are named in a list; of more, the number."""

StageT = TypeVar("StageT", bound=Stage)


class FinishedTable(NamedTuple):
    """A complete table with the stage that made it, `auto` fields resolved."""

    stage: Stage
    table: Table

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.table.name


class ImagePlace(NamedTuple):
    """One image: its place in the catalog and what the catalog says of it."""

    image_id: int
    role: str
    row: dict[str, Any]
    """Columns of the catalog."""

    @property
    def part(self) -> int:
        """Its part in the catalog and in every table aligned with it."""
        return part_of(self.image_id)

    @property
    def place(self) -> int:
        """Its row within the part."""
        return row_of(self.image_id)


@dataclass(frozen=True)
class Sample:
    """Rows of a table, all or some."""

    rows: pa.Table
    total: int
    """Rows that could have been read."""

    @property
    def whole(self) -> bool:
        """Whether all rows are there."""
        return len(self.rows) == self.total

    @property
    def note(self) -> str:
        """What to say where the figures come from a sample; empty where they do not."""
        return "" if self.whole else f"From a sample of {len(self.rows):,} of {self.total:,} rows."


@dataclass(frozen=True)
class Finished:
    """The complete tables of a run that its current settings would make, in the order of its recipe."""

    store: Store
    recipe: str
    config: dict[str, Any]
    tables: tuple[FinishedTable, ...] = field(repr=False)
    outdated: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Complete tables that are left out, and why: of an earlier setting, or of inputs that have changed since."""
    command: tuple[str, ...] | None = None
    """What followed `curate run` on the command line; None: it was called from Python, or nobody knows."""

    @property
    def name(self) -> str:
        """The last step of the workdir's path: pages and cards never show where a machine keeps it."""
        return self.store.path.rstrip("/").rsplit("/", 1)[-1]

    # -- which tables there are ------------------------------------------------------------------------------

    def made_by(self, kind: type[StageT]) -> list[tuple[StageT, Table]]:
        """Stages of this class, with their tables."""
        return [(one.stage, one.table) for one in self.tables if isinstance(one.stage, kind)]

    def only(self, kind: type[StageT]) -> tuple[StageT, Table] | None:
        """The last stage of this class with its table; None: the recipe has none, or it has not finished."""
        found = self.made_by(kind)
        return found[-1] if found else None

    def inputs_of(self, table: Table, key: str) -> list[Table]:
        """The tables that a finished table read under one name; those that are made again or outdated are left out."""
        read = (self.store.table(name) for name in table.complete_manifest().inputs.get(key, []))
        return [found for found in read if found.name not in self.outdated and found.is_complete()]

    def stage_of(self, table: Table) -> Stage | None:
        """The stage that made a finished table."""
        return next((one.stage for one in self.tables if one.name == table.name), None)

    # -- images ----------------------------------------------------------------------------------------------

    @cached_property
    def catalog(self) -> Table | None:
        """The table that lists all images."""
        return next((one.table for one in self.tables if isinstance(one.stage, Scan)), None)

    @cached_property
    def parts(self) -> Parts:
        """Facts of the catalog's parts.

        Raises:
            TableError: there is no catalog yet.
        """
        if self.catalog is None:
            raise TableError(f"{self.store.root}: has no catalog yet; run its recipe first")
        return Parts.of(self.catalog)

    def has_role(self, image_ids: np.ndarray, role: str) -> np.ndarray:
        """(N,) bool: images of that role."""
        mask: np.ndarray = self.parts.role_of(image_ids) == ROLES.index(role)
        return mask

    def place(self, image_id: int) -> ImagePlace:
        """Where an image lies."""
        row = self.catalog_row(image_id).to_pylist()[0]
        return ImagePlace(image_id, row["role"], row)

    def catalog_row(self, image_id: int) -> pa.Table:
        """The row of an image in the catalog, with the metadata of its part."""
        return self.catalog_part(part_of(image_id)).slice(row_of(image_id), 1)

    def catalog_part(self, part: int) -> pa.Table:
        """A part of the catalog; the last ones are kept, since a page names hundreds of images, most of few parts."""
        assert self.catalog is not None
        if part not in self._catalog_parts:
            while len(self._catalog_parts) >= CATALOG_PARTS:
                del self._catalog_parts[next(iter(self._catalog_parts))]
            self._catalog_parts[part] = self.catalog.read(part)
        return self._catalog_parts[part]

    @cached_property
    def _catalog_parts(self) -> dict[int, pa.Table]:
        return {}

    def name_image(self, image_id: int) -> str:
        """An image by its key and id, for people."""
        return f"{self.place(image_id).row['key']} (image {image_id})"

    def name_images(self, image_ids: Sequence[int]) -> Iterator[str]:
        """Some images in lines of their own, and how many more there are."""
        yield from (f"  {self.name_image(image_id)}" for image_id in image_ids[:MAX_NAMED])
        if len(image_ids) > MAX_NAMED:
            yield f"  and {len(image_ids) - MAX_NAMED:,} more"

    # -- rows ------------------------------------------------------------------------------------------------

    def rng(self, purpose: str) -> np.random.Generator:
        """Equal draws for equal purposes, so that a page made twice shows the same pictures."""
        return np.random.default_rng([int(self.config.get("seed") or 0), zlib.crc32(purpose.encode())])

    def sample(self, table: Table, columns: list[str], *, role: str | None = None, max_rows: int = MAX_ROWS) -> Sample:
        """Rows of a table in order: all of them, or random parts and row groups until `max_rows` are read.

        Args:
            role: of tables with the catalog's parts, only the parts of that role.
        """
        parts = [p for p in table.parts() if role is None or self.parts.role[p.number] == ROLES.index(role)]
        total = sum(part.rows for part in parts)
        order = self.rng(f"sample {table.name}").permutation(len(parts)) if total > max_rows else np.arange(len(parts))
        pieces: dict[int, pa.Table] = {}
        read = 0
        for place in order.tolist():
            if read >= max_rows:
                break
            pieces[place] = self._read(table, parts[place].number, columns, max_rows - read)
            read += len(pieces[place])
        rows = [pieces[place] for place in sorted(pieces)] or [table.schema().empty_table().select(columns)]
        return Sample(pa.concat_tables(rows), total)

    def _read(self, table: Table, part: int, columns: list[str], max_rows: int) -> pa.Table:
        """A part, or as many random row groups of it as hold `max_rows`."""
        with table.open(part) as file:
            if file.metadata.num_rows <= max_rows:
                return file.read(columns=columns)
            groups = list(_take_groups(file, max_rows, self.rng(f"groups {table.name} {part}")))
            return file.read_row_groups(sorted(groups), columns=columns)

    def rows_of(self, image: ImagePlace, table: Table) -> list[dict[str, Any]]:
        """Rows of an image in a table that has the catalog's parts."""
        return _rows_equal(table.read(image.part), "image_id", image.image_id)

    def rows_where(self, table: Table, column: str, value: int) -> list[dict[str, Any]]:
        """Rows of all parts in which a column has a value: reads the whole table, one part at a time."""
        return [row for rows in table.scan() for row in _rows_equal(rows, column, value)]

    def flow(self) -> list[FlowStep]:
        """The way from the pool to the result, as the stages tell it."""
        steps: list[FlowStep] = []
        for stage, table in self.tables:
            steps += stage.flow(table, self, steps[-1] if steps else None)
        return steps


def find_finished(
    store: Store,
    recipe: str,
    config: dict[str, Any],
    steps: Sequence[Step],
    *,
    pins: Mapping[str, dict[str, str]] | None = None,
    command: tuple[str, ...] | None = None,
) -> Finished:
    """The tables among those that steps declare which are complete and not outdated; there may be none.

    Args:
        pins: contents that the tables depend on beside their inputs, as the last run found them; None: not known.
        command: what followed `curate run` on the command line; None: not known.
    """
    found: dict[str, FinishedTable] = {}
    outdated: dict[str, str] = {}
    declared = {name for step in steps for name in step.stages}
    for step in steps:
        tables = {name: Table(store, name, store.table(name).manifest()) for name in step.stages}
        known = {name: one.table for name, one in found.items()}
        inputs = {key: open_input(store, step, key, known) for key in step.inputs}
        read = {table.name for value in inputs.values() for table in as_list(value) if table.is_complete()}
        current = found.keys() | (read - declared)  # what no step makes was there before, and has no other setting
        outdated |= why_outdated(step.stages, tables, inputs, pins=pins, current=current)
        for name, stage in step.stages.items():
            manifest = tables[name].manifest()
            if name not in outdated and manifest is not None and manifest.complete:
                found[name] = FinishedTable(resolved_stage(stage, manifest), tables[name])
    return Finished(store, recipe, config, tuple(found.values()), outdated, command)


def open_finished(
    store: Store,
    recipe: str,
    config: dict[str, Any],
    steps: Sequence[Step],
    *,
    pins: Mapping[str, dict[str, str]] | None = None,
    command: tuple[str, ...] | None = None,
) -> Finished:
    """As `find_finished`, of a workdir in which something is finished.

    Raises:
        TableError: nothing is.
    """
    found = find_finished(store, recipe, config, steps, pins=pins, command=command)
    if not found.tables:
        earlier = "".join(f"; {name} is there, but {why}" for name, why in list(found.outdated.items())[:1])
        raise TableError(
            f"{store.root}: holds no finished table of its current settings{earlier}; run its recipe with "
            f"workdir={store.root} first"
        )
    return found


def _rows_equal(rows: pa.Table, column: str, value: int) -> list[dict[str, Any]]:
    """Rows in which an int64 column has a value; where it is null, its buffer holds no id.

    Arrow's own conversions import pandas where that is installed, which takes longer than all of `curate explain`.
    """
    found, start = [], 0
    for chunk in (chunk for chunk in rows[column].chunks if len(chunk)):
        values = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk)]
        found += (start + np.flatnonzero(values == value)).tolist()
        start += len(chunk)
    return [row for place in found for row in rows.slice(place, 1).to_pylist() if row[column] is not None]


def pick(values: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` of `values`, drawn without replacement, in their order."""
    if len(values) <= size:
        return values
    chosen: np.ndarray = values[np.sort(rng.choice(len(values), size, replace=False))]
    return chosen


def _take_groups(file: Any, max_rows: int, rng: np.random.Generator) -> Iterator[int]:
    read = 0
    for group in rng.permutation(file.metadata.num_row_groups).tolist():
        if read >= max_rows:
            return
        read += file.metadata.row_group(group).num_rows
        yield group
