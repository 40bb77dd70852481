"""The example of an own stage and recipe, as its README says, in a copy of the folder outside the checkout."""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.stages.images.test_pictures import write_photos

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples/own_stage"
MAX_LINES = 120
NUM_SOURCES, EACH = 6, 20
"""Sources of the larger pool, whose images are a part each, and their images."""
CURATE = [sys.executable, "-m", "curate"]


def here(folder: Path, *command: str) -> str:
    """What a command prints that runs in a folder, where the checkout is found as an installed package is."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def commands() -> list[str]:
    """Lines of the README's block of shell, without comments."""
    (block,) = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's files."""
    copy = tmp_path_factory.mktemp("example") / "mine"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", ".*", "runs"))
    return copy


@pytest.fixture(scope="module")
def pool(folder: Path) -> Path:
    """A dark picture and three bright ones."""
    made = folder.parent / "pool"
    made.mkdir()
    gradient = np.asarray(Image.linear_gradient("L"), np.float64)
    for name, low in (("night", 0), ("morning", 90), ("noon", 120), ("evening", 110)):
        Image.fromarray((low + gradient / 4).astype(np.uint8)).save(made / f"{name}.png")
    return made


@pytest.fixture(scope="module")
def told(folder: Path, pool: Path) -> dict[str, str]:
    """What each command of the README prints, in their order."""
    found = {}
    for line in commands():
        program, *arguments = shlex.split(
            line.replace("POOL", str(pool)).replace("WORKDIR", str(folder.parent / "run"))
        )
        found[line] = here(folder, sys.executable, "-m", program, *arguments)
    return found


def said_by(told: dict[str, str], start: str, end: str = "") -> str:
    (text,) = (text for line, text in told.items() if line.startswith(start) and line.endswith(end))
    return text


def test_the_example_is_short() -> None:
    files = [path for path in EXAMPLE.iterdir() if path.suffix in (".py", ".yaml", ".md")]
    assert len(files) == 4
    assert sum(len(path.read_text().splitlines()) for path in files) <= MAX_LINES


def test_a_run_makes_the_table_of_the_own_stage(told: dict[str, str], folder: Path) -> None:
    catalog, images, measured = (
        pq.read_table(folder.parent / "run" / name) for name in ("catalog", "images", "brightness")
    )
    values = dict(zip(catalog["key"].to_pylist(), measured["brightness"].to_pylist(), strict=True))
    expected = {"night": 0.125, "morning": 0.478, "noon": 0.596, "evening": 0.556}
    assert images["reject"].null_count == 4
    assert values == pytest.approx({f"{name}.png": value for name, value in expected.items()}, abs=0.01)


def test_the_report_has_the_section_of_the_stage(told: dict[str, str], folder: Path) -> None:
    page = (folder.parent / "run/report/index.html").read_text()
    section = page.split("<h2>Brightness</h2>")[1].split("</section>")[0]
    assert "Images darker than 0.3: 1." in section
    assert "<svg" in section


def test_plan_status_and_explain_know_the_stage(told: dict[str, str]) -> None:
    def row(text: str) -> str:
        (line,) = (line for line in text.splitlines() if re.search(r"\bbrightness\b", line))
        return line

    assert "kept" in row(said_by(told, "curate run", "--dry-run"))
    assert "Brightness" in row(said_by(told, "curate plan"))
    assert "1/1" in row(said_by(told, "curate status"))
    assert re.search(r"brightness +0\.1\d, dark", said_by(told, "curate explain"))
    assert "1 passed" in said_by(told, "pytest")


# -- many parts: other processes, and a kill -----------------------------------------------------------------


@pytest.fixture(scope="module")
def larger(folder: Path) -> str:
    """The override that names several sources."""
    sources = []
    for number in range(NUM_SOURCES):
        place = folder.parent / f"source{number}"
        write_photos(place, EACH)
        sources.append(f"{{name: s{number}, path: {place}}}")
    return f"sources.pool=[{', '.join(sources)}]"


def run_of(larger: str, workdir: Path, *more: str) -> list[str]:
    return [*CURATE, "run", "dark.yaml", larger, f"workdir={workdir}", *more]


def contents(workdir: Path) -> dict[str, str]:
    files = sorted(workdir.rglob("part-*.parquet"))
    return {str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def whole(folder: Path, larger: str) -> Path:
    """A run that nothing stopped, in one process."""
    workdir = folder.parent / "whole"
    here(folder, *run_of(larger, workdir))
    assert len(list((workdir / "brightness").glob("part-*.parquet"))) == NUM_SOURCES
    return workdir


def test_workers_of_dask_find_the_file_of_the_recipe(whole: Path, folder: Path, larger: str) -> None:
    workdir = folder.parent / "dask"
    here(folder, *run_of(larger, workdir, "executor.kind=local", "executor.workers=2"))
    assert contents(workdir) == contents(whole)


def test_a_killed_run_goes_on_to_equal_tables(whole: Path, folder: Path, larger: str) -> None:
    workdir = folder.parent / "killed"
    begun = subprocess.Popen(
        run_of(larger, workdir, "executor.threads=1"),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (workdir / "brightness/part-00001.parquet").exists():
        assert begun.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(begun.pid, signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    assert len(contents(workdir)) < len(contents(whole))
    assert "brightness (" in here(folder, *CURATE, "status", str(workdir))
    here(folder, *run_of(larger, workdir))
    assert contents(workdir) == contents(whole)
