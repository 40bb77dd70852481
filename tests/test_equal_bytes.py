"""Tables, card and page are equal in two runs that share nothing but the pool."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from curate.engine.store import Store
from curate.tables import REJECT_REASONS
from tests.equal_bytes import FORMATS, write_broken_pool

ROOT = Path(__file__).parent.parent
UNLIKE = (
    {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "LC_ALL": "C"},
    {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "2"},
)
"""Environments of the two runs."""


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs over one broken pool: other workdir, current directory, threads, hash seed, locale, temporary folder."""
    root = tmp_path_factory.mktemp("equal")
    write_broken_pool(root / "pool")
    found = []
    for number, unlike in enumerate(UNLIKE):
        place = root / f"place{'-elsewhere' * number}"
        place.mkdir()
        env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(place), "TZ": f"UTC{3 * number}"} | unlike
        command = [sys.executable, "-W", "ignore", "-m", "tests.equal_bytes", str(root / "pool"), str(place / "run")]
        subprocess.run(command, check=True, env=env, cwd=place)
        found.append(place / "run")
    return found


def contents(workdir: Path) -> dict[str, list[str]]:
    manifests = {path.parent.relative_to(workdir).as_posix(): path for path in workdir.rglob("_table.json")}
    return {
        name: [part["content"] for part in json.loads(path.read_text())["parts"]] for name, path in manifests.items()
    }


def test_two_runs_over_every_kind_of_broken_file_give_equal_tables(workdirs: list[Path]) -> None:
    first, second = map(contents, workdirs)
    made = {"internal/exact", "internal/contaminated", "internal/own_columns"}
    made |= {"shards/data", "shards/.rows", "internal/origins"}
    assert first.keys() == {"catalog", "images", "duplicates", "selection", *made}
    assert first == second
    for name in first:
        for part in (workdirs[0] / name).glob("part-*.parquet"):
            assert part.read_bytes() == (workdirs[1] / name / part.name).read_bytes()


def test_two_runs_give_equal_cards_and_pages_but_for_times(workdirs: list[Path]) -> None:
    cards = [(workdir / "shards/README.md").read_bytes() for workdir in workdirs]
    assert cards[0] == cards[1]
    pages = [(workdir / "report/index.html").read_text() for workdir in workdirs]
    times = re.compile(r"<dt>(?:Made|Tables made)</dt>.*?</dd>|<section[^>]*id=\"timings\".*?</section>")
    timeless = [times.sub("", page) for page in pages]
    assert len(timeless[0]) > 10_000
    assert timeless[0] == timeless[1]


def test_the_pool_holds_every_kind_of_broken_file_and_no_text_names_a_process_or_place(workdirs: list[Path]) -> None:
    rows = Store(workdirs[0]).table("images").read_all(["format", "reject", "detail"])
    assert set(pc.unique(rows["reject"].drop_null()).to_pylist()) >= set(REJECT_REASONS) - {"unavailable", "too_slow"}
    damaged = rows.filter(rows["reject"].is_valid())
    assert set(FORMATS) <= set(damaged["format"].to_pylist())
    for detail in rows["detail"].drop_null().to_pylist():
        assert not re.search(r"0x[0-9a-f]{5}|object at|/tmp|/home|\n", detail), detail
