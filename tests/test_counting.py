"""What is counted below the stages: files, requests, bytes, CPU time, memory."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from curate.config import parse
from curate.counting import Counts, count_children, metered, note
from curate.counting import _children as counted_children
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.filesystems import open_filesystem
from curate.opening import open_regular
from curate.running import run_config
from tests.engine.test_pipeline import InProcess, build
from tests.equal_bytes import EqualBytes, encode, picture

needs_proc = pytest.mark.skipif(not os.access("/proc/self/io", os.R_OK), reason="the system tells no counters")


def test_each_read_and_write_of_a_store_is_counted_as_it_was_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with metered() as meter:
        store.write_bytes("a/file", bytes(1000))
        assert store.read_bytes("a/file") == bytes(1000)
        with store.fs.open(store.join("a/file"), "rb") as file:
            file.seek(900)
            assert (len(file.read(60)), len(file.read(60)), file.read(60)) == (60, 40, b"")
        assert store.read_bytes("a/none") is None
        store.remove("a/file")
        found = meter.counts()
    # a put, a whole file, two reads that find something, and a removal
    assert found == Counts(2, 5, 1100, 1000, found.cpu_seconds, found.peak_task_bytes)


def test_small_reads_of_a_regular_file_reach_the_system_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    with metered() as meter, open_regular(tmp_path / "file") as file:
        for _ in range(1000):
            file.read(4)
        found = meter.counts()
    assert (found.opens, found.requests, found.bytes_read) == (1, 1, 5000)


def test_outer_meter_leaves_out_what_an_inner_one_counts() -> None:
    with metered() as outer:
        note(requests=1)
        with metered() as middle:
            note(requests=10)
            with metered() as inner:
                note(requests=100)
                assert inner.counts().requests == 100
            note(requests=10)
            assert middle.counts().requests == 20
        note(requests=1)
        assert outer.counts().requests == 2


def test_counts_add_up_but_for_peaks_of_which_the_highest_stays() -> None:
    total = Counts.sum([Counts(1, 2, 3, 4, 0.5, 6), Counts(10, 20, 30, 40, 5.0, 5)])
    assert total == Counts(11, 22, 33, 44, 5.5, 6)
    assert Counts.of_json(json.loads(json.dumps(total.as_json()))) == total
    assert Counts.of_json(None) == Counts.of_json({"opens": "many", "else": 1}) == Counts()


@needs_proc
def test_peak_is_what_was_held_at_once_beside_what_was_there() -> None:
    code = """
import numpy as np
from curate.counting import metered
before = np.ones(24 << 17)  # 24 MiB
with metered() as outer:
    for _ in range(2):
        with metered() as meter:
            for _ in range(3):
                np.ones(40 << 17)  # one after the other: 40 MiB
            print(meter.counts().peak_task_bytes)
    print(outer.counts().peak_task_bytes)
"""  # in a process of its own, in which nothing else gives memory back meanwhile
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    first, second, outer = map(int, told.split())
    assert all(36 << 20 <= peak <= 56 << 20 for peak in (first, second))
    assert outer < 16 << 20


@needs_proc
def test_cpu_time_of_children_counts_while_they_live_and_after() -> None:
    code = "import os\nwhile sum(os.times()[:2]) < 0.3: sum(range(9999))\nprint(flush=True)\ninput()"
    with metered() as meter:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        pids = [child.pid]
        count_children(lambda: pids)
        try:
            child.stdout.readline()
            assert meter.counts().cpu_seconds >= 0.28
            child.communicate(b"\n")
            pids.clear()
            assert meter.counts().cpu_seconds >= 0.28
        finally:
            counted_children.pop()


def test_manifest_sums_what_its_tasks_counted_by_phase(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), Flags())
    store = Store(tmp_path)
    for manifest in (store.table(name).complete_manifest() for name in build(tmp_path).names):
        phases = {"Count": set(), "ByParity": {"scatter", "run"}, "Total": {"partial", "combine", "run"}}
        phases |= {"Fit": phases["Total"], "Median": phases["Total"]}
        assert manifest.counted.keys() == phases.get(manifest.stage, {"run"}) | {"driver"}
        run = manifest.counted.get("run", manifest.counted["driver"])
        assert run.bytes_written >= sum(part["num_bytes"] for part in manifest.parts)
        assert manifest.counts().requests == sum(counts.requests for counts in manifest.counted.values())
        assert manifest.counts().cpu_seconds > 0


def test_manifest_of_a_version_that_did_not_count_is_read(tmp_path: Path) -> None:
    build(tmp_path).run(InProcess(1), Flags())
    store = Store(tmp_path)
    table = store.table(build(tmp_path).names[0])
    manifest = table.complete_manifest()
    old = {name: value for name, value in manifest.as_json().items() if name != "counted"}
    store.write_json(f"{table.name}/_table.json", old)
    read = store.table(table.name).complete_manifest()
    assert (read.counted, read.counts(), read.parts) == ({}, Counts(), manifest.parts)


@needs_proc
def test_counters_of_the_process_agree_with_a_whole_run(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / "pool").mkdir(exist_ok=True)
        (tmp_path / f"pool/{number:02d}.png").write_bytes(encode(picture(number)) + bytes(100_000))

    def config(name: str) -> EqualBytes:
        values = {
            "recipe": "tests.equal_bytes:equal_bytes",
            "workdir": str(tmp_path / name),
            "sources": {"pool": str(tmp_path / "pool")},
            "executor": {"threads": 1},
            "rows_per_part": 16,
        }
        return parse(EqualBytes, values, where="test")

    run_config(config("first"), Flags())  # imports what a run imports
    before = _process_counters()
    with metered() as beside:
        run_config(config("second"), Flags())
        report = beside.counts()
    after = _process_counters()
    store = Store(tmp_path / "second")
    tables = ["catalog", "images", "internal/exact", "duplicates", "selection", "shards/data", "shards/.rows"]
    tables.append("internal/origins")
    counts = Counts.sum([report, *(store.table(name).complete_manifest().counts() for name in tables)])
    read, written = after["rchar"] - before["rchar"], after["wchar"] - before["wchar"]
    assert counts.bytes_read > 2 * 60 * 100_000  # the pictures, for `images` and for the shards
    assert 0.97 * read < counts.bytes_read <= read
    assert 0.97 * written < counts.bytes_written <= written
    assert counts.requests < after["syscr"] + after["syscw"] - before["syscr"] - before["syscw"]


def _process_counters() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}


def test_requests_to_a_web_server_are_counted(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(bytes(5000))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        fs, path = open_filesystem(f"http://127.0.0.1:{server.server_address[1]}/picture.jpg")
        with metered() as meter:
            assert [len(fs.cat_file(path)) for _ in range(3)] == [5000] * 3
            assert (meter.counts().requests, meter.counts().bytes_read) == (3, 15_000)
    finally:
        server.shutdown()
        server.server_close()
