"""Whole runs whose workdir and source lie on an object store that fails: equal tables, and sentences that help."""

import io
import logging
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
from typer.testing import CliRunner

from curate.cli import app
from curate.config import parse
from curate.counting import metered
from curate.engine.freshness import Flags
from curate.engine.store import Store as Workdir
from curate.errors import ConfigError, SourceError, StaleTable, WorkdirError
from curate.filesystems import open_filesystem
from curate.report.status import status
from curate.running import run_config, write_report
from curate.workdir import open_tables
from tests.equal_bytes import EqualBytes, encode, picture
from tests.object_store import Fault, Request, Store, object_store

ROOT = Path(__file__).parent.parent
NUM_IMAGES = 20
TABLES = (
    *("catalog", "images", "internal/exact", "internal/contaminated", "duplicates", "selection"),
    *("internal/own_columns", "shards/data", "shards/.rows", "internal/origins"),
)


@pytest.fixture(scope="module")
def stores() -> Iterator[Store]:
    """The S3, with twenty pictures in a bucket; known to this process and those that it starts."""
    with object_store(["pool", "many", "runs", "closed"]) as made, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "http_proxy", "HTTP_PROXY"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", made.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()  # those of other tests keep the address of a store that is gone
        fs, _ = open_filesystem("s3://pool")
        for number in range(NUM_IMAGES):
            fs.pipe_file(f"pool/{number // 10}/{number:02d}.png", encode(picture(number % 17)))
        fs.pipe_file("pool/0/damaged.png", encode(picture(1))[:100])
        yield made


@pytest.fixture
def s3(stores: Store) -> Iterator[Store]:
    stores.forget()
    yield stores
    stores.forget()


def values(workdir: object, **changes: Any) -> dict[str, Any]:
    given = {
        "recipe": "tests.equal_bytes:equal_bytes",
        "workdir": str(workdir),
        "sources": {"pool": "s3://pool", "network": {"first_wait": 0.01}},
        "executor": {"threads": 1},
        "inspect": {"max_reject_fraction": 1},
        "rows_per_part": 8,
    }
    return given | changes


def run(workdir: object, **changes: Any) -> Workdir:
    run_config(parse(EqualBytes, values(workdir, **changes), where="test"), Flags())
    return Workdir(str(workdir))


def parts(workdir: Workdir) -> dict[str, bytes]:
    """The bytes of every part of every table."""
    tables = {name: workdir.table(name) for name in TABLES}
    return {
        table.file_name(part.number): workdir.read_bytes(table.file_name(part.number)) or b""
        for table in tables.values()
        for part in table.parts()
    }


@pytest.fixture(scope="module")
def local(stores: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run makes in a local workdir, without a failure."""
    stores.forget()
    return parts(run(tmp_path_factory.mktemp("local") / "run"))


def by_number(faults: dict[int, Fault]) -> Any:
    """Each request of a number that is a multiple meets the fault, where that fits its method."""

    def fault(request: Request) -> Fault | None:
        for every, found in faults.items():
            if request.number % every == every - 1 and (isinstance(found, int) or request.method == "GET"):
                return found
        return None

    return fault


def test_run_on_a_failing_store_gives_the_tables_of_a_local_one(s3: Store, local: dict[str, bytes]) -> None:
    s3.fault = by_number({73: 503, 31: "break", 7: "slow", 61: 500})
    workdir = run("s3://runs/plain")
    assert min(s3.faults[kind] for kind in (500, 503, "slow", "break")) >= 2
    s3.fault = lambda request: None
    assert parts(workdir) == local
    assert workdir.read_bytes("report/index.html")
    assert workdir.read_bytes("shards/README.md")
    told = CliRunner().invoke(app, ["status", workdir.root], catch_exceptions=False).output
    assert "shards/data" in told
    assert "s3://runs/plain/shards/data/part-00000.parquet" in workdir.table("shards/data").part_path(0)
    assert write_report(workdir) == "s3://runs/plain/report/index.html"
    rows = status(workdir, list(TABLES))
    assert [row.complete for row in rows] == [True] * len(TABLES)
    assert rows[1].seconds > 0.01
    assert run("s3://runs/plain").table("images").manifest() == workdir.table("images").manifest()


def test_counted_are_the_requests_that_the_store_saw_and_the_bytes_of_objects(s3: Store) -> None:
    fs, _ = open_filesystem("s3://runs")
    workdir = Workdir("s3://runs/counted")
    s3.fault = lambda request: 503 if request.number == 1 else None
    with metered() as meter:
        workdir.write_bytes("file", bytes(300_000))
        assert workdir.read_bytes("file") == bytes(300_000)
        assert workdir.read_bytes("none") is None
        assert fs.cat_file("runs/counted/file", start=10, end=1010) == bytes(1000)
        found = meter.counts()
    assert s3.faults[503] == 1
    assert (found.requests, found.bytes_read, found.bytes_written) == (len(s3.requests), 301_000, 300_000)
    s3.forget()
    with metered() as beside:
        made = run("s3://runs/counted")
        tables = [made.table(name).complete_manifest().counts() for name in TABLES]
        left = beside.counts().requests
    assert 0.9 * len(s3.requests) < sum(counts.requests for counts in tables) + left <= len(s3.requests)


def test_run_over_tars_and_loose_files_takes_few_requests_and_hardly_a_byte_too_many(s3: Store, tmp_path: Path) -> None:
    """The bytes that a run needs: each picture for its facts, the chosen ones for the shards, the tables it reads."""
    fs, _ = open_filesystem("s3://pool")
    pictures = [encode(picture(number)) + np.random.default_rng(number).bytes(20_000) for number in range(300)]
    for number in range(0, 100):
        fs.pipe_file(f"many/loose/{number:03d}.png", pictures[number])
    for first in range(100, 300, 100):
        with tarfile.open(tmp_path / "some.tar", "w") as tar:
            for number in range(first, first + 100):
                member = tarfile.TarInfo(f"{number:03d}.png")
                member.size = len(pictures[number])
                tar.addfile(member, io.BytesIO(pictures[number]))
        fs.put_file(str(tmp_path / "some.tar"), f"many/tars/{first}.tar")
    s3.forget()
    named = [{"name": name, "path": f"s3://many/{name}"} for name in ("loose", "tars")]
    made = run("s3://runs/budget", sources={"pool": named}, rows_per_part=150)
    during = s3.requests.copy()
    assert made.table("selection").num_rows() > 290
    assert len(during) < 3 * len(pictures)
    num_bytes = sum(map(len, pictures))
    for table, phase in (("images", "run"), ("shards/data", "scatter")):
        counts = made.table(table).complete_manifest().counted[phase]
        assert 0.95 * num_bytes < counts.bytes_read < 1.2 * num_bytes
    assert not [path for path in made.fs.find(made.path) if "/_" in path and not path.endswith("/_table.json")]
    assert {path for path in read_again(during) if "/shards/data/" not in path} == set()  # these are large
    run_again = len(s3.requests)
    run("s3://runs/budget", sources={"pool": named}, rows_per_part=150)
    assert len(s3.requests) - run_again < 50


def read_again(requests: list[Request]) -> Iterator[str]:
    """Objects that were got after they were put."""
    put = set()
    for request in requests:
        path = request.path.partition("?")[0]
        if request.method == "PUT":
            put.add(path)
        elif request.method == "GET" and path in put:
            yield path


KILLED = """
import json, sys
from curate.config import parse
from curate.counting import metered
from curate.engine.freshness import Flags
from curate.running import run_config
from tests.equal_bytes import EqualBytes
if __name__ == "__main__":
    run_config(parse(EqualBytes, json.loads(sys.argv[1]), where="test"), Flags())
"""


def test_two_workers_whose_driver_is_killed_resume_to_the_tables_of_a_local_run(
    s3: Store, local: dict[str, bytes], tmp_path: Path
) -> None:
    import json

    (tmp_path / "killed.py").write_text(KILLED)
    two = {"kind": "local", "workers": 2, "threads": 1}
    given = json.dumps(values("s3://runs/two", executor=two))
    faults = by_number({173: 503, 71: "break", 7: "slow"})
    killed: list[str] = []

    def kill(request: Request) -> Fault | None:
        if request.method == "PUT" and "images/part-00001" in request.path and not killed:
            killed.append(request.path)
            os.killpg(process.pid, signal.SIGKILL)
            return "hang"
        return faults(request)

    s3.fault = kill
    command = [sys.executable, "-W", "ignore", str(tmp_path / "killed.py"), given]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=env, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        assert process.wait(300) == -signal.SIGKILL
    assert killed
    before = s3.puts()
    assert not Workdir("s3://runs/two").table("images").is_complete()
    s3.fault = faults
    workdir = run("s3://runs/two", executor=two)
    s3.fault = lambda request: None
    assert parts(workdir) == local
    catalog = {name: times for name, times in before.items() if "/catalog/part-" in name}
    assert catalog
    assert {name: s3.puts()[name] for name in catalog} == catalog  # what was committed was not made again


def test_refused_workdir_says_which_bucket_and_what_to_do(s3: Store) -> None:
    s3.fault = lambda request: 403 if request.path.startswith("/closed") and request.method == "PUT" else None
    with pytest.raises(WorkdirError, match=r"s3://closed/run: .*403.*credentials \(AWS_PROFILE.* in s3://closed; then"):
        run("s3://closed/run")
    assert s3.faults[403] <= 5


def test_training_on_a_store_is_refused_before_anything_is_made(s3: Store, tmp_path: Path) -> None:
    from curate.api import train_values
    from curate.recipe import load_config

    config = load_config("quickstart", ["sources.pool=s3://pool", "workdir=s3://runs/trained"])
    with pytest.raises(
        ConfigError, match=r"workdir=s3://runs/trained: pretrain: the trainer keeps its checkpoints on a"
    ):
        run_config(config, Flags())
    assert not any(request.method == "PUT" for request in s3.requests)
    with pytest.raises(ConfigError, match=r"output=s3://runs/x: a URL, .* give a local folder, then copy it"):
        train_values({"shards": "s3://runs/x", "output": "s3://runs/x"}, where="test")


def test_part_that_is_refused_in_the_middle_of_reading_is_told_in_a_sentence(s3: Store) -> None:
    workdir = run("s3://runs/short", sources={"pool": "s3://pool/1"}, write=None)
    s3.fault = lambda request: 403 if request.method == "GET" and "/part-" in request.path else None
    with pytest.raises(WorkdirError, match=r"s3://runs/short: HTTP 403 Forbidden; check that the credentials"):
        workdir.table("images").read_all()
    assert s3.faults[403] == 1


def test_bucket_that_is_not_there_is_named(s3: Store) -> None:
    with pytest.raises(WorkdirError, match=r"s3://nowhere/run: no such bucket or container; make it first"):
        run("s3://nowhere/run")


def test_refused_source_is_asked_a_few_times_and_named(s3: Store, tmp_path: Path) -> None:
    s3.fault = lambda request: 403 if request.path.startswith("/closed") else None
    with pytest.raises(SourceError, match=r"s3://closed/a: HTTP 403 Forbidden, .*the credentials for s3://closed"):
        run(tmp_path / "run", sources={"pool": "s3://closed/a", "network": {"first_wait": 0.01}})
    assert 1 <= s3.faults[403] <= 20


def test_store_that_does_not_answer_says_so_and_is_given_up(
    s3: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from curate import filesystems

    monkeypatch.setattr(filesystems, "SAY_SECONDS", 0.1)
    filesystems._watched.clear()
    fs, path = open_filesystem("s3://runs/x", limits=filesystems.Limits(1, 0.4))
    fs.exists(path)  # the library reads its models of services first, for as long as a request may take here
    s3.fault = lambda request: "hang"
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match=r".") as told:
        filesystems.Explained(fs, "s3://runs/x").info(path, timeout=1)
    assert isinstance(told.value, WorkdirError)
    assert "s3://runs/x: timed out, at every attempt" in str(told.value)
    assert "has not answered for 0 s; still waiting" in caplog.text


def test_an_update_stopped_while_its_files_move_is_seen_whole_and_ended_by_the_next_run(
    s3: Store, tmp_path: Path
) -> None:
    one: dict[str, Any] = {"write": {"num_shards": 1}, "inspect": {"max_reject_fraction": 1, "limits": {"min_side": 8}}}
    before, wanted = parts(run("s3://runs/updated")), parts(run(tmp_path / "run", **one))
    changed = parse(EqualBytes, values("s3://runs/updated", **one), where="test")
    with pytest.raises(StaleTable, match="images was made(.|\n)*shards/data was made(.|\n)*--update"):
        run_config(changed, Flags())
    s3.fault = lambda request: 403 if request.method == "PUT" and "updated/shards/data/part" in request.path else None
    with pytest.raises(WorkdirError, match="HTTP 403 Forbidden"):
        run_config(changed, Flags(update=True))
    s3.forget()
    seen = open_tables(Workdir("s3://runs/updated"))
    assert not seen.outdated
    assert parts(seen.store) == wanted != before
    assert run_config(changed, Flags()).changed == []
    assert parts(Workdir("s3://runs/updated")) == wanted
    fs, _ = open_filesystem("s3://runs")
    assert not fs.find("runs/updated/.update")
    assert len(fs.find("runs/updated/shards/data")) == 2  # a part and the manifest, where there were two parts
