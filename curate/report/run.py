"""The finished tables of a workdir, and bounded samples of their rows."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curate.engine.store import Manifest, Store, Table
from curate.errors import TableError
from curate.report.numbers import count
from curate.stages.images.catalog import Parts, parts_of
from curate.tables import ROLES
from curate.workdir import RUN

MAX_ROWS = 2_000_000
"""Rows read of a table for one section; larger tables are sampled, and the page says so."""


@dataclass(frozen=True)
class Sample:
    """Rows of a table, all or some."""

    rows: pa.Table
    total: int
    """Rows that could have been read."""

    @property
    def whole(self) -> bool:
        return len(self.rows) == self.total

    @property
    def note(self) -> str:
        """What to say where the figures come from a sample; empty where they do not."""
        return "" if self.whole else f"From a sample of {count(len(self.rows))} of {count(self.total)} rows."


@dataclass(frozen=True)
class Run:
    """A workdir as the report sees it."""

    store: Store
    recipe: str
    config: dict[str, Any]
    manifests: dict[str, Manifest]
    """Of complete tables, in order of their names."""
    parts: Parts | None = field(repr=False)
    """Facts of the catalog's parts; None: there is no catalog."""

    @classmethod
    def open(cls, store: Store) -> "Run":
        """Raise TableError where the workdir holds no finished table."""
        found = {name: store.table(name).manifest() for name in store.table_names()}
        done = {name: manifest for name, manifest in found.items() if manifest is not None and manifest.complete}
        if not done:
            raise TableError(f"{store.root}: holds no finished table; run a pipeline with workdir={store.root} first")
        said = store.read_json(RUN) or {}
        parts = parts_of(store.table("catalog")) if "catalog" in done else None
        return cls(store, str(said.get("recipe", "unknown")), said.get("config", {}), done, parts)

    @property
    def name(self) -> str:
        """The last step of the workdir's path: pages and cards never show where a machine keeps it."""
        return self.store.path.rstrip("/").rsplit("/", 1)[-1]

    def has(self, *names: str) -> bool:
        return all(name in self.manifests for name in names)

    def table(self, name: str) -> Table:
        return self.store.table(name)

    def metrics(self, name: str) -> dict[str, Any]:
        """Figures of a table; empty where it is absent."""
        return self.manifests[name].metrics if name in self.manifests else {}

    def under(self, folder: str) -> list[str]:
        """Names of the complete tables `folder/*`."""
        return [name for name in self.manifests if name.startswith(f"{folder}/")]

    def rng(self, purpose: str) -> np.random.Generator:
        """Equal draws for equal purposes, so that a page made twice shows the same pictures."""
        return np.random.default_rng([int(self.config.get("seed") or 0), zlib.crc32(purpose.encode())])

    def has_role(self, ids: np.ndarray, role: str) -> np.ndarray:
        """(N,) bool: images of that role."""
        assert self.parts is not None
        mask: np.ndarray = self.parts.role[ids >> 32] == ROLES.index(role)
        return mask

    def sample(self, name: str, columns: list[str], *, role: str | None = None, max_rows: int | None = None) -> Sample:
        """Rows of a table in order: all of them, or random parts and row groups until `max_rows` are read.

        Args:
            role: of tables in the catalog's parts, only the parts of that role.
            max_rows: None: MAX_ROWS.
        """
        limit = MAX_ROWS if max_rows is None else max_rows
        parts = [p for p in self.table(name).parts() if role is None or self._is_role(p.number, role)]
        order = self.rng(f"sample {name}").permutation(len(parts)) if sum(p.rows for p in parts) > limit else None
        pieces: dict[int, pa.Table] = {}
        read = 0
        for place in range(len(parts)) if order is None else order.tolist():
            if read >= limit:
                break
            pieces[place] = self._read(name, parts[place].number, columns, limit - read)
            read += len(pieces[place])
        rows = [pieces[place] for place in sorted(pieces)] or [self.table(name).schema().empty_table().select(columns)]
        return Sample(pa.concat_tables(rows), sum(p.rows for p in parts))

    def _is_role(self, part: int, role: str) -> bool:
        return self.parts is not None and self.parts.role[part] == ROLES.index(role)

    def _read(self, name: str, part: int, columns: list[str], max_rows: int) -> pa.Table:
        """A part, or as many random row groups of it as hold `max_rows`."""
        with self.table(name).open(part) as file:
            if file.metadata.num_rows <= max_rows:
                return file.read(columns=columns)
            groups = list(_take_groups(file, max_rows, self.rng(f"groups {name} {part}")))
            return file.read_row_groups(sorted(groups), columns=columns)


def _take_groups(file: Any, max_rows: int, rng: np.random.Generator) -> Iterator[int]:
    read = 0
    for group in rng.permutation(file.metadata.num_row_groups).tolist():
        if read >= max_rows:
            return
        read += file.metadata.row_group(group).num_rows
        yield group


def pick(values: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """At most `size` of `values`, drawn without replacement, in their order."""
    if len(values) <= size:
        return values
    chosen: np.ndarray = values[np.sort(rng.choice(len(values), size, replace=False))]
    return chosen
