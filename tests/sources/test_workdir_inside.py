"""A source that holds the workdir leaves it out, on the first run and on later ones."""

from pathlib import Path

import fsspec
import pytest

from curate.errors import SourceError
from curate.sources.files import RUN
from curate.sources.left_out import LeftOut
from curate.sources.listing import list_source
from curate.workdir import RUN as MARK
from curate.workdir import RunRecord
from tests.sources.helpers import keys, source, write_files

RECORD = RunRecord(layout=2, recipe="dedup", config={}, tables=("catalog",)).model_dump_json().encode()


def test_the_mark_is_that_of_a_workdir() -> None:
    assert RUN.decode() == MARK


def test_workdirs_inside_a_source_are_left_out_and_told(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "runs/mine/run.json": RECORD, "runs/mine/report/p.jpg": b"2", "runs/x.jpg": b"3"}
    files |= {"runs/mine/shards/data/part-00000.parquet": b"", "b/run.json": b'{"recipe": 1}', "b/b.jpg": b"4"}
    write_files(tmp_path, files)
    fs = fsspec.filesystem("memory")
    for name, data in files.items():
        fs.pipe(f"/workdirs/{name}", data)
    try:
        for place in (str(tmp_path), "memory://workdirs"):
            skipped = LeftOut()
            assert [f.key for f in list_source(source(place), skipped=skipped)] == ["a.jpg", "b/b.jpg", "runs/x.jpg"]
            assert skipped["workdir of curate"] == 1
            assert skipped.example["workdir of curate"].rstrip("/") == "runs/mine"
            with pytest.raises(
                SourceError, match=r"runs/mine: is a workdir of curate; give its pictures, as .*/shards"
            ):
                keys(f"{place}/runs/mine")
    finally:
        fs.rm("/workdirs", recursive=True)
    assert keys(tmp_path / "*") == ["a.jpg", "b/b.jpg", "runs/x.jpg"]


def test_a_mark_that_is_no_file_is_not_opened(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/x.jpg"])
    (tmp_path / "a/run.json").mkdir()
    assert keys(tmp_path) == ["a/x.jpg"]
