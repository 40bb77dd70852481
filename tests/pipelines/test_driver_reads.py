"""What the driver reads of tables that grow with the catalog while a recipe runs: nothing but what is listed here."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.engine import executors
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.engine.table import Table
from curate.engine.tasks import Done, Task, perform
from curate.recipe import find_recipe, load_config
from curate.samples.pool import make_pool

SMALL = ("internal/queries", "internal/truth", "internal/centroids", "internal/thresholds", "internal/planted")
"""Tables that do not grow with the catalog: samples of a fixed size, and centroids."""


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
        self.found[name] += not self._quiet


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


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("driver") / "samples"
    make_pool(root, num_images=40, seed=3)
    return [f"sources.{role}={root / role}" for role in ("pool", "curated", "heldout")]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("semdedup", ["clusters.levels=[3]"]),
        ("lvd142m", ["select.balance={target: 10}", "retrieval.retrieve.route=both", "retrieval.clusters.levels=[4]"]),
    ],
)
def test_the_driver_reads_no_rows_of_tables_that_grow_with_the_catalog(
    name: str, changes: list[str], sources: list[str], reads: Reads, tmp_path: Path
) -> None:
    given = [*sources, f"workdir={tmp_path}", "rows_per_part=16", *changes]
    config = load_config(name, given)
    p = Pipeline(Store(config.workdir), seed=0)
    find_recipe(config.recipe).declare(p, config)
    p.run(InProcess(1), Flags())
    grown = {table: number for table, number in reads.found.items() if number and not table.startswith(SMALL)}
    assert grown == {}
