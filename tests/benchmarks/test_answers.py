"""The faked tables of the benchmark: listings of them are those of a join."""

from pathlib import Path

import pytest

from benchmarks import answers
from benchmarks.answers import PATH_COLUMNS, join_dropped, list_faked, make_tables, open_faked, read_tables
from curate.answers.rows import Wanted, list_images


def test_listings_of_faked_tables_are_those_of_a_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PART_ROWS", 500)
    make_tables(str(tmp_path), 1800)
    rows = {wanted: sum(map(len, list_images(open_faked(str(tmp_path)), wanted))) for wanted in Wanted}
    assert rows[Wanted.all] == 1800 == rows[Wanted.kept] + rows[Wanted.dropped] + rows[Wanted.rejected]
    assert 400 < rows[Wanted.dropped] < 700 < rows[Wanted.groups] < rows[Wanted.all]
    list_faked(str(tmp_path), "dropped", "csv")
    join_dropped(str(tmp_path))
    listed, joined = ((tmp_path / name).read_text().splitlines() for name in ("listed.csv", "duckdb.csv"))
    assert len(listed) == len(joined) == rows[Wanted.dropped] + 1
    assert {line.split(",")[3].strip('"') for line in listed} == {line.split(",")[3] for line in joined}
    assert list_faked(str(tmp_path), "dropped", "paths", PATH_COLUMNS) > 0
    assert read_tables(str(tmp_path)) > 4 * 1800
