"""What the driver reads of tables that grow with the catalog while a recipe runs: nothing but what is listed here."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.engine import executors
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import Done, Task, perform
from curate.recipe import find_recipe, load_config
from curate.samples.bundled import photos_by_category
from curate.stages.copies.deduplicate import DeduplicateFigures
from curate.tables import VERDICTS

SMALL = ("internal/queries/", "internal/truth/", "internal/centroids/", "internal/recall/", "internal/own_columns")
SMALL += ("internal/origins",)
"""Tables that do not grow with the catalog: samples of a fixed size, centroids, a row of figures, a row a column,
counts of a bounded number of names; so do states of rounds, of which the first row is read."""

STILL_READ = {"catalog/_told", "assignments", "internal/surroundings"}
"""What tasks told of the containers that they listed; 4 bytes of each image for the sizes of leaves; 16 bytes of each
image in a crowd for their median."""


class Reads:
    """Tables that are opened to read rows outside of tasks."""

    def __init__(self) -> None:
        self.found = Counter[str]()
        self._quiet = 0

    @contextmanager
    def quiet(self) -> Iterator[None]:
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def note(self, name: str) -> None:
        if not self._quiet:
            self.found[name] += 1


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    reads, opened, schema_of = Reads(), Table.open, Table.schema

    @contextmanager
    def open_noted(table: Table, part: int) -> Iterator[pq.ParquetFile]:
        reads.note(table.name)
        with opened(table, part) as file:
            yield file

    def schema(table: Table) -> Any:
        with reads.quiet():
            return schema_of(table)

    def performed(root: str, task: Task, threads: int) -> list[Done]:
        with reads.quiet():
            return perform(root, task, threads)

    monkeypatch.setattr(Table, "open", open_noted)
    monkeypatch.setattr(Table, "schema", schema)
    monkeypatch.setattr(executors, "perform", performed)
    return reads


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Photographs, two of them twice; one of the curated and one of the held-out ones are of the pool."""
    photos = [path for paths in photos_by_category().values() for path in paths[:2]][:28]
    for role, chosen in (("pool", [*photos[:20], *photos[:2]]), ("curated", photos[19:24]), ("heldout", photos[2:3])):
        (tmp_path / role).mkdir()
        for number, path in enumerate(chosen):
            with Image.open(path) as photo:
                photo.convert("RGB").resize((96, 80)).save(tmp_path / role / f"{number:02}.png")
    return [f"sources.{role}={tmp_path / role}" for role in ("pool", "curated", "heldout")]


LVD142M = [
    "copies.embed.model=lite0-copy",
    "copies.embed.weights=null",
    "retrieval.embed.model=lite0-copy",
    "retrieval.embed.weights=null",
    "retrieval.clusters.levels=[4]",
    "retrieval.retrieve={route: both, cluster: {min_queries: 0}}",
    "select.balance={target: 10}",
]


@pytest.mark.parametrize(("name", "changes"), [("semdedup", ["embed.model=lite0-copy"]), ("lvd142m", LVD142M)])
def test_the_driver_reads_no_rows_of_tables_that_grow_with_the_catalog(
    name: str, changes: list[str], sources: list[str], reads: Reads, tmp_path: Path
) -> None:
    config = load_config(name, [*sources, f"workdir={tmp_path}/run", "rows_per_part=8", *changes])
    p = Pipeline(Store(config.workdir), seed=0)
    find_recipe(config.recipe).declare(p, config)
    p.run(InProcess(1), Flags())
    read = {table for table in reads.found if not (table.startswith(SMALL) or table.endswith("/_state"))}
    assert read <= STILL_READ
    verdicts = Counter(p.store.table("duplicates").read_all(["verdict"])["verdict"].to_pylist())
    found = DeduplicateFigures.of(p.store.table("duplicates"))
    told = (found.kept, found.duplicate, found.benchmark, found.dropped, found.screened)
    assert told == tuple(verdicts[name] for name in VERDICTS)
    assert verdicts["duplicate"] >= 2
