"""What the benchmark of object stores counts, and what it says of a run."""

import json
import os
from pathlib import Path

import pytest

from benchmarks.store import (
    BESIDE,
    RUNS,
    SOURCES,
    TARS,
    Asked,
    Ran,
    as_json,
    format_runs,
    make_config,
    object_store,
    pack_half,
    point_at,
)
from curate.counting import Counts
from curate.filesystems import open_filesystem, read_range
from curate.samples.pool import make_pool
from curate.sources.listing import list_source


def test_store_tells_kind_object_and_bytes_of_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with object_store() as (url, taken):
        point_at(url)
        fs, _ = open_filesystem(f"s3://{RUNS}")
        taken()
        fs.pipe_file(f"{RUNS}/a/b c", bytes(1000))
        assert read_range(fs, f"{RUNS}/a/b c", 100, 350) == bytes(250)
        assert fs.size(f"{RUNS}/a/b c") == 1000
        assert fs.ls(f"{RUNS}/a") == [f"{RUNS}/a/b c"]
        with pytest.raises(FileNotFoundError):
            read_range(fs, f"{RUNS}/none", 0, 10)
        fs.rm_file(f"{RUNS}/a/b c")
        found = taken()
        assert taken() == []
    objects = [one for one in found if one.kind not in ("LIST", "HEAD")]
    assert objects == [
        Asked("PUT", f"/{RUNS}/a/b c", 1000),
        Asked("GET", f"/{RUNS}/a/b c", 250),
        Asked("GET", f"/{RUNS}/none", 0),
        Asked("DELETE", f"/{RUNS}/a/b c", 0),
    ]
    assert {one.kind for one in found} == {"LIST", "HEAD", *(one.kind for one in objects)}


def test_pool_is_the_same_half_in_tars(tmp_path: Path) -> None:
    make_pool(tmp_path / "samples", num_images=40)
    plain = make_config("local", tmp_path)
    files = [path.name for path in (tmp_path / "samples/pool").iterdir()]
    pack_half(tmp_path / "samples")
    config = make_config("local", tmp_path, tars=True)
    listed = {source.name: [one.key for one in list_source(source)] for source in config.sources.pool}
    assert (len(listed["pool"]), len(listed[TARS])) == (20, 20)
    names = [key.rsplit("/", 1)[-1] for keys in listed.values() for key in keys]
    assert sorted(names) == sorted(files)
    beside = [*plain.sources.curated, *plain.sources.heldout]
    assert sum(1 for source in beside for _ in list_source(source)) == BESIDE
    assert make_config("sources", tmp_path).sources.pool[0].path == f"s3://{SOURCES}/pool"
    assert make_config("all", tmp_path).workdir == f"s3://{RUNS}/run"


def test_requests_and_bytes_are_told_an_image_and_beside_what_is_needed() -> None:
    stages = {"images": Counts(requests=7, bytes_read=300)}
    asked = [Asked("GET", f"/{SOURCES}/pool/{number}", 110) for number in range(20)]
    asked += [Asked("GET", f"/{RUNS}/run/images/part", 50), Asked("PUT", f"/{RUNS}/run/images/part", 90)]
    runs = [Ran("local", 10, stages, [], 2000), Ran("all", 10, stages, asked, 2000)]
    found = json.loads(as_json(runs))["runs"][1]
    assert (found["requests"], found["requests_an_image"], found["kinds"]) == (22, 2.2, {"GET": 21, "PUT": 1})
    assert (found["image_bytes"], found["needed_image_bytes"], found["table_bytes"]) == (2200, 2000, 50)
    text = format_runs(runs)
    assert "local: 10 images, nothing on the store" in text
    assert "22 requests (21 GET, 1 PUT), 2.20 an image (at most 3); images: 2 kB read, 1.10 times" in text
