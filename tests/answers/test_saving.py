"""Listings as files, read back by other readers; and paths, as other programs take them."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import curate
from curate.answers.outputs import new_file
from curate.answers.rows import Wanted, list_images, listed_schema
from curate.answers.saving import PATH_COLUMNS, WRITERS, NotAPath, write_paths
from curate.answers.staying import Staying
from curate.cli import app
from curate.errors import CurateError
from curate.tables import LISTED
from tests.answers.conftest import BYTES, ODD, Made, copy_of, jpeg

HOSTILE = ["=1+1", "+1", "-1", "@x", "a\nb\r\n", 'q"u,o', "\x1b[2J\u202e", "", None, "Grüße", " lead"]
"""Cells of a column; names and texts that strangers chose."""


def saved(format_: str, batches: list[pa.RecordBatch], schema: pa.Schema) -> bytes:
    file = io.BytesIO()
    WRITERS[format_](iter(batches), schema, file)
    return file.getvalue()


def hostile() -> pa.RecordBatch:
    columns = {"image_id": range(len(HOSTILE)), "key": HOSTILE, "detail": HOSTILE[::-1]}
    schema = pa.schema([LISTED.field(name).with_nullable(True) for name in columns])
    return pa.RecordBatch.from_pydict({name: list(values) for name, values in columns.items()}, schema=schema)


def test_csv_shows_what_acts_unseen_and_keeps_the_rest() -> None:
    batch = hostile()
    text = saved("csv", [batch, batch], batch.schema).decode()
    assert not any(letter in text for letter in "\r\x1b\u202e")
    read = [row["key"] for row in csv.DictReader(io.StringIO(text))]
    shown = ["=1+1", "+1", "-1", "@x", r"a\nb\r\n", 'q"u,o', r"\x1b[2J\u202e", "", "", "Grüße", " lead"]
    assert read == shown * 2


def test_json_lines_and_parquet_hold_every_value() -> None:
    batch = hostile()
    lines = saved("jsonl", [batch], batch.schema).split(b"\n")
    assert [json.loads(line) for line in lines if line] == batch.to_pylist()
    assert (
        pq.read_table(io.BytesIO(saved("parquet", [batch, batch], batch.schema))).to_pylist() == batch.to_pylist() * 2
    )


@pytest.mark.parametrize("format_", WRITERS)
def test_no_row_is_a_file_with_columns(format_: str) -> None:
    data = saved(format_, [], listed_schema(["key", "verdict"]))
    if format_ == "parquet":
        assert pq.read_table(io.BytesIO(data)).schema.names == ["key", "verdict"]
    else:
        assert data == (b"key,verdict\n" if format_ == "csv" else b"")


def paths(made: Made, wanted: Wanted) -> tuple[list[bytes], NotAPath]:
    file = io.BytesIO()
    run = made.run.finished
    found = write_paths(list_images(run, wanted, PATH_COLUMNS), file, end=b"\0", staying=Staying.beside(run, wanted))
    return file.getvalue().split(b"\0")[:-1], found


def test_paths_are_files_as_the_system_names_them(made: Made) -> None:
    found, others = paths(made, Wanted.all)
    folder = os.fsencode(made.root / "photos")
    here = {os.path.join(at, name) for at, _, names in os.walk(folder) for name in names}  # noqa: PTH118  # bytes
    assert set(found) == here - {folder + b"/case.txt"}
    assert folder + b"/" + BYTES in found
    assert others == NotAPath(within=7, remote=0, kept=0)


def test_a_file_that_stays_under_another_name_is_not_told_to_go(tmp_path: Path) -> None:
    """Curated and held-out images that lie in the pool, twice each, and a copy that two names lead to.

    Of two files with equal bytes the pair of the verdict tells one, so that it cannot say whether the other one stays.
    """
    pool = tmp_path / "pool"
    for folder, number in (("curated", 0), ("heldout", 1)):
        (pool / folder).mkdir(parents=True)
        for name in ("a.jpg", "b.jpg"):
            (pool / folder / name).write_bytes(jpeg(number))
    (pool / "copy.jpg").write_bytes(copy_of(0))
    (pool / "other.jpg").write_bytes(jpeg(2))
    (pool / "same.jpg").write_bytes(jpeg(2))
    link = tmp_path / "link.jpg"
    link.symlink_to(pool / "other.jpg")
    sources = {"pool": [str(pool), str(link)], "curated": str(pool / "curated"), "heldout": str(pool / "heldout")}
    executor = {"kind": "inprocess", "threads": 1}
    run = curate.run("dedup", workdir=str(tmp_path / "run"), sources=sources, write=None, executor=executor)
    made = Made(run, tmp_path)
    found, others = paths(made, Wanted.dropped)
    assert {Path(os.fsdecode(path)).name for path in found} == {"copy.jpg", "same.jpg"}
    assert others == NotAPath(within=0, remote=0, kept=3)
    assert paths(made, Wanted.contaminated) == ([], NotAPath(within=0, remote=0, kept=2))
    assert len(paths(made, Wanted.kept)[0]) == 1


def test_no_file_is_replaced_unasked_and_none_is_half_written(tmp_path: Path) -> None:
    place = tmp_path / "new/out.csv"
    with new_file(str(place)) as file:
        file.write(b"one")
    with pytest.raises(CurateError, match=r"out.csv: there is such a file already; .* --force"), new_file(str(place)):
        pass
    with pytest.raises(ZeroDivisionError), new_file(str(place), overwrite=True) as file:
        file.write(b"two" * (1 // 0))
    assert place.read_bytes() == b"one"
    with new_file(str(place), overwrite=True) as file:
        file.write(b"two")
    assert place.read_bytes() == b"two"
    with pytest.raises(CurateError, match="new: a folder; name a file"), new_file(str(place.parent)):
        pass


# -- the command -------------------------------------------------------------------------------------------------


def command(made: Made, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["list", made.run.workdir, *arguments], catch_exceptions=False)


def test_the_command_prints_csv_into_a_pipe_and_its_summary_beside_it(made: Made) -> None:
    found = command(made)
    keys = [row["key"] for row in csv.DictReader(io.StringIO(found.stdout))]
    expected = made.run.list("dropped", columns=["key"]).read_all()["key"].to_pylist()
    assert keys == expected
    assert found.stderr.startswith("20 images in the pool: 12 kept, 5 dropped")
    assert command(made, "--dropped").stderr == ""


def test_limit_columns_and_roles_hold_for_every_format(made: Made, tmp_path: Path) -> None:
    asked = ["--all", "--role", "curated", "--role", "heldout", "--columns", "key,role", "--limit", "1"]
    assert command(made, *asked, "--jsonl", "-").stdout == '{"key": "c.jpg", "role": "curated"}\n'
    assert command(made, *asked, "--csv", "-").stdout == 'key,role\n"c.jpg","curated"\n'
    place = tmp_path / "rows.parquet"
    assert command(made, *asked, "--parquet", str(place)).stdout == ""
    assert pq.read_table(place).to_pylist() == [{"key": "c.jpg", "role": "curated"}]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kept", "--dropped"], "--kept and --dropped: they exclude each other"),
        (["--paths", "--csv", "-"], "--csv and --paths: they exclude each other"),
        (["--paths", "--columns", "key"], "--columns: paths have none"),
        (["--parquet", "-"], "--parquet: not to standard output"),
        (["--columns", "key,nothing"], "nothing: no column of a listing"),
    ],
)
def test_what_does_not_go_together_is_said(arguments: list[str], told: str, made: Made) -> None:
    with pytest.raises(CurateError, match=told):
        command(made, *arguments)


def test_paths_of_copies_can_be_handed_to_rm(made: Made, tmp_path: Path) -> None:
    """On links in place of the files; names that begin with a dash or hold an end of a line are among them."""
    found = command(made, "--all", "--paths0")
    assert "7 images: inside an archive or a table" in found.stderr
    links = []
    for number, path in enumerate(found.stdout_bytes.split(b"\0")[:-1]):
        links.append(os.fsencode(tmp_path) + b"/%d " % number + os.path.basename(path))  # noqa: PTH119  # bytes
        os.symlink(path, links[-1])  # noqa: PTH211  # bytes
    ran = subprocess.run(["xargs", "-0", "rm"], input=b"\0".join(links), check=True, capture_output=True, timeout=60)
    assert ran.stderr == b""
    assert [*tmp_path.iterdir()] == []


def test_a_reader_that_has_enough_ends_the_command_without_a_word(made: Made) -> None:
    code = "import sys; sys.argv[0] = 'curate'; from curate.cli import main; main()"
    ran = subprocess.Popen(
        [sys.executable, "-c", code, "list", made.run.workdir, "--all", "--jsonl", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert ran.stdout is not None
    ran.stdout.close()
    _, stderr = ran.communicate(timeout=120)
    assert stderr == b""


def test_a_name_with_a_line_in_it_is_one_row_on_a_terminal(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    from curate.cli.answers import _show

    batches: Any = list_images(made.run.finished, Wanted.kept, ["key", "cluster"])
    _show(batches, listed_schema(["key", "cluster"]), 5, [made.run.workdir, "--kept"])
    told = capsys.readouterr().out
    assert r"a\nb.jpg" in told
    assert f"the first 5; all of them, in all columns: curate list {made.run.workdir} --kept --csv FILE" in told
    assert ODD[3] in told
