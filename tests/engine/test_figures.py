"""Figures come back as the class that a stage declares."""

from pathlib import Path

import pytest

from curate.engine.executors import InProcess
from curate.engine.image_ids import CatalogFigures
from curate.engine.store import Store
from curate.errors import TableError
from tests.engine.test_pipeline import NONE, TotalFigures, build


def test_figures_of_another_version_say_what_to_do(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), NONE)
    table = Store(tmp_path).table("total")
    assert TotalFigures.of(table).total == sum(range(1, 31))
    with pytest.raises(TableError, match=r"total: its figures are not those of CatalogFigures .*--rebuild total"):
        CatalogFigures.of(table)


def test_figures_of_an_unfinished_table_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="total: not complete"):
        TotalFigures.of(Store(tmp_path).table("total"))
