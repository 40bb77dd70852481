"""Before the interpreter is taken down, threads have let go of the files that were read."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.sealing import SealedWriter

ROWS = pa.table({"number": range(100)})
READS = """
import os, sys, threading, time
from curate.sealing import open_parquet

def hold(readers):  # as a thread of Arrow does, which joins nothing at the end
    time.sleep(0.05)
    readers.clear()
    os.write(1, b"let go, ")

def read():
    with open(sys.argv[1], "rb") as file:
        reader = open_parquet(file)
        reader.read()
        threading.Thread(target=hold, args=[[reader]], daemon=True).start()

read()
os.write(1, b"read, ")
"""


def told(code: str, path: Path) -> str:
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    return found.stdout


@pytest.fixture(params=["sealed", "plain"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    if request.param == "plain":
        pq.write_table(ROWS, path)
    else:
        with path.open("wb") as file:
            writer = SealedWriter(file, ROWS.schema)
            writer.write_table(ROWS)
            writer.close()
    return path


def test_the_interpreter_waits_for_threads_that_hold_what_was_read(path: Path) -> None:
    assert told(READS, path) == "read, let go, "


def test_it_does_not_wait_for_ever(path: Path) -> None:
    assert told(READS.replace("0.05", "1e6"), path) == "read, "


def test_it_waits_for_no_file_that_nothing_holds(path: Path) -> None:
    code = (
        READS.replace("sleep(0.05)", "sleep(0)") + "time.sleep(0.3)\nfrom curate.late_files import _HELD\nprint(_HELD)"
    )
    assert told(code, path) == "read, let go, {}\n"
