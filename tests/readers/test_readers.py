"""Shards, read by the oldest and the newest `datasets` and DuckDB that are promised, in environments without torch.

`make test` names their Pythons in READERS (`make readers` makes them); without it the tests' own Python reads.
"""

import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.version import Version

import curate
from curate.samples.bundled import photos_by_category
from tests.readers import read

ROOT = Path(__file__).parents[2]
READERS = [str(Path(python).absolute()) for python in os.environ.get("READERS", sys.executable).split()]
PHOTOS = [path for paths in photos_by_category().values() for path in paths[:1]][:12]
NOON = datetime.datetime(2026, 2, 3, 12, 30, 15, 250_000)
OWN: dict[str, pa.Array] = {
    "caption": pa.array(["Grüße, 世界 🦊", "", None]),
    "score": pa.array([0.1, float(2**53), None]),
    "weight": pa.array([0.1, -1e-30, None], pa.float32()),
    "count": pa.array([2**62, -1, None], pa.int64()),
    "small": pa.array([255, 0, None], pa.uint8()),
    "safe": pa.array([True, False, None]),
    "day": pa.array([NOON.date(), datetime.date(1969, 12, 31), None]),
    "taken": pa.array([NOON, NOON.replace(year=1950), None], pa.timestamp("us")),
    "crawled": pa.array([NOON, NOON.replace(year=2100), None], pa.timestamp("ms", "UTC")),
    "tags": pa.array([["a", "b"], [], None]),
    "boxes": pa.array([[[0.5, 1.0], []], [], None], pa.list_(pa.list_(pa.float32()))),
    "camera": pa.array([{"make": "x", "lens": {"mm": 35}}, {"make": None, "lens": None}, None]),
    "objects": pa.array([[{"name": "cat", "at": [1, 2]}, {"name": "dog", "at": []}], [], None]),
    "label": pa.array([0, 2, 1]),
}
"""Columns of a source: each type that travels to the shards, with its null; nested ones travel as JSON."""
LABELS = {"info": {"features": {"label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}}}}


def write_source(path: Path, numbers: range) -> None:
    """A Parquet file with some photographs and every column of `OWN`."""
    repeated = [number % 3 for number in range(len(numbers))]
    pictures = [{"bytes": PHOTOS[number].read_bytes(), "path": f"{number:02d}.jpg"} for number in numbers]
    table = pa.table({"image": pictures} | {name: values.take(pa.array(repeated)) for name, values in OWN.items()})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(LABELS)}), path)


class Reader:
    """The Python of an environment of readers, with one cache for everything that it loads."""

    def __init__(self, python: str, cache: Path) -> None:
        self.python, self.cache = python, cache

    def read(self, *runs: curate.Run) -> list[dict[str, Any]]:
        """What `read.py` prints of the shards of each run."""
        folders = [str(Path(run.workdir) / "shards") for run in runs]
        environment = os.environ | {"HF_HOME": str(self.cache), "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)
        command = [self.python, read.__file__, str(self.cache), *folders]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pools")
    numbers = {"one": range(6), "other": range(6, 12)}
    for name, of_pool in numbers.items():
        write_source(folder / f"{name}.parquet", of_pool)
    return {name: str(folder / f"{name}.parquet") for name in numbers}


def curated(workdir: Path, pool: str, **more: Any) -> curate.Run:
    return curate.run("dedup", workdir=str(workdir), sources={"pool": pool}, **more)


@pytest.fixture(scope="module")
def whole(pools: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> curate.Run:
    return curated(tmp_path_factory.mktemp("whole"), pools["one"])


def written(run: curate.Run) -> dict[str, dict[str, Any]]:
    """The rows by key as this environment's Arrow reads them, pictures as digests of their bytes."""
    rows = {}
    for row in pq.read_table(run.shards).to_pylist():
        row["image"] = hashlib.sha256(row["image"]["bytes"]).hexdigest()
        rows[row["key"]] = json.loads(json.dumps(row, default=read.spelled))
    return rows


@pytest.mark.parametrize("python", READERS)
def test_every_column_of_a_source_reaches_every_reader(python: str, whole: curate.Run, tmp_path: Path) -> None:
    (found,) = Reader(python, tmp_path / "cache").read(whole)
    assert found["rows"] == written(whole)
    assert len(found["rows"]) == 6
    assert {"origins", "repeats", "image", *OWN} <= set(found["features"])
    assert "ClassLabel(names=['cat', 'dog', 'fox']" in found["features"]["label"]
    by_picture = {row["image"]: row for row in found["rows"].values()}
    for number in range(6):
        row = by_picture[hashlib.sha256(PHOTOS[number].read_bytes()).hexdigest()]
        for name, values in OWN.items():
            value = values[number % 3].as_py()
            given = json.loads(row[name]) if pa.types.is_nested(values.type) and value is not None else row[name]
            assert given == json.loads(json.dumps(value, default=read.spelled)), name


def test_one_cache_of_each_reader_serves_every_run_and_what_was_taken_down(
    pools: dict[str, str], tmp_path: Path
) -> None:
    readers = [Reader(python, tmp_path / f"cache_{number}") for number, python in enumerate(READERS)]

    def agree(*runs: curate.Run) -> None:
        for reader in readers:
            assert [found["rows"] for found in reader.read(*runs)] == [written(run) for run in runs]

    one, other = (curated(tmp_path / name, pools[name]) for name in ("one", "other"))
    third = curated(tmp_path / "third", pools["other"], seed=7)  # the same pictures in another order
    agree(one, other, third, one)
    before = written(one)
    assert set(before) != set(written(other))
    removed = min(before)
    (tmp_path / "removed.txt").write_text(before[removed]["sha256"] + "\n")
    removal: dict[str, Any] = {"removal_list": str(tmp_path / "removed.txt")}
    less = curated(tmp_path / "one", pools["one"], write=removal, rebuild=["shards/data"])
    assert set(written(less)) == set(before) - {removed}
    agree(less, other)
    again = curated(tmp_path / "one", pools["one"], rebuild=["shards/data"])
    assert written(again) == before
    agree(again)


@pytest.mark.skipif("READERS" not in os.environ, reason="`make test` names the readers")
@pytest.mark.parametrize("name", ["datasets", "duckdb"])
def test_the_oldest_of_the_readers_is_the_oldest_that_is_promised(name: str) -> None:
    code = f"import sys, importlib.metadata as m; print(m.version({name!r})); import torch"
    answers = [subprocess.run([python, "-c", code], capture_output=True, text=True, check=False) for python in READERS]
    assert all("No module named 'torch'" in answer.stderr for answer in answers)
    pins = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints/floors.txt").read_text(), re.MULTILINE))
    oldest, *newer = sorted(Version(answer.stdout.strip()) for answer in answers)
    assert oldest == Version(pins[name])
    assert newer
    assert all(version > oldest for version in newer)
