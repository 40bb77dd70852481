"""The harness of the hostile inputs finds what is planted in it, and the inputs are what their names say."""

import io
import json
import sys
import tarfile
import urllib.request
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.hostile import archives, pictures, tables
from benchmarks.hostile.bench import Outcome, Result, bench, judge
from benchmarks.hostile.case import ACCEPTED, GOOD, Case, Picture, good_pictures, rng_of
from benchmarks.hostile.families import FAMILIES, choose
from benchmarks.hostile.server import serving
from benchmarks.hostile.watch import Watched
from curate.errors import ConfigError

WORKER = """
import json, os, sys, time
from pathlib import Path
for line in sys.stdin:
    request = json.loads(line)
    pool = [word.partition("=")[2] for word in request["arguments"] if word.startswith("sources.pool=")]
    files = [file for folder in pool for file in Path(folder).iterdir()]
    words = [*request["arguments"], *(file.read_text(errors="replace") for file in files)]
    trace = ""
    if "abort" in words:
        os.abort()
    if "hang" in words:
        time.sleep(600)
    if "write" in words:
        Path(os.environ["FOLDER"], "large").write_bytes(b"x" * (3 << 20))
        time.sleep(600)
    if "raise" in words:
        trace = "Traceback (most recent call last):\\n  File\\nZeroDivisionError: planted"
    if "print" in words:
        Path(request["output"]).write_text("error: \\x1b[2J s3cret\\n")
    print(json.dumps({"exit": int("fail" in words or "print" in words), "crash": trace}), flush=True)
"""
"""Behaves as it is told, by an argument or by a file of the pool."""


@pytest.fixture
def watched() -> Watched:
    return Watched((sys.executable, "-c", WORKER))


def _outcome(case: Case, watched: Watched) -> Outcome:
    (outcome,) = judge("family", case, seed=0, watched=watched)
    return outcome


def _case(*words: str, **how: object) -> Case:
    return Case(" ".join(words), lambda folder: [words], **how)  # type: ignore[arg-type]


def test_planted_signal_and_traceback_are_crashes_and_the_next_command_runs(watched: Watched) -> None:
    with watched:
        aborted, raised, after = (_outcome(_case(word), watched) for word in ("abort", "raise", "well"))
    assert (aborted.how, raised.how, after.how) == ("crashed", "crashed", "ended")
    assert "SIGABRT" in aborted.wrong[0]
    assert "ZeroDivisionError: planted" in raised.wrong[0]
    assert not after.wrong


def test_planted_hang_is_killed_with_its_worker(watched: Watched, tmp_path: Path) -> None:
    with watched:
        hung = watched.run(["hang"], tmp_path, limit=0.5)
        assert hung.how == "hung"
        assert watched.run(["well"], tmp_path).how == "ended"


def test_command_that_fills_the_disk_is_killed(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.hostile.watch.KILL_WRITTEN", 1 << 20)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    with watched:
        assert watched.run(["write"], tmp_path).how == "grew"


def test_wrong_exit_words_secret_control_characters_and_deeds_are_found(watched: Watched) -> None:
    with watched:
        failed = _outcome(_case("fail"), watched)
        missed = _outcome(_case("well", exits=frozenset({1})), watched)
        unsaid = _outcome(_case("fail", exits=frozenset({1}), said=("a.tar",)), watched)
        printed = _outcome(_case("print", exits=frozenset({1}), secret="s3cret"), watched)
        done = _outcome(_case("well", untouched=lambda: False), watched)
    assert "exit status 1, not 0" in failed.wrong[0]
    assert "exit status 0, not 1" in missed.wrong[0]
    assert "does not say 'a.tar'" in unsaid.wrong[0]
    assert printed.wrong == ("printed control characters: U+001B", "printed the secret")
    assert done.wrong == ("did what it must not",)


def test_one_bad_picture_of_a_group_is_found_and_the_others_end(watched: Watched) -> None:
    group = [Picture(f"picture {n}", lambda n=n: b"abort" if n == 5 else b"fine", GOOD) for n in range(8)]  # type: ignore[misc]
    with watched:
        result = bench({"pictures": group}, seed=0, watched=watched)
    assert [outcome.name for outcome in result.crashes()] == ["picture 5"]
    assert result.inputs() == 8
    assert result.as_json()["crashes"] == 1
    assert "pictures/picture 5: crashed" in result.as_text()


def test_verdicts_and_good_pictures_of_a_real_run_are_judged() -> None:
    group = [
        Picture("right", lambda: b"<html>", frozenset({"not_an_image"})),
        Picture("wrong", lambda: b"", frozenset({ACCEPTED})),
        Picture("good-lost", lambda: b"\xff\xd8\xff\xe0 cut", frozenset({"truncated", "corrupt"})),
    ]
    with Watched() as watched:
        (outcome,) = bench({"pictures": group}, seed=0, watched=watched).outcomes
    assert outcome.how == "ended"
    assert sorted(found.partition(" (")[0] for found in outcome.wrong) == [
        "5 good pictures are listed, not 4",
        "the good picture good-lost.jpg is truncated",
        "wrong.jpg is empty",
    ]
    assert outcome.peak_bytes > 100 << 20  # a worker that has torch


def test_json_has_the_promised_keys() -> None:
    outcome = Outcome("names", "x", 3, "hung", ("hung: killed",), 31.0, 7)
    made = json.loads(json.dumps(Result([outcome]).as_json()))
    assert {key: made[key] for key in ("inputs", "crashes", "hangs", "wrong", "peak_bytes")} == {
        "inputs": 3,
        "crashes": 0,
        "hangs": 1,
        "wrong": ["names: hung: killed"],
        "peak_bytes": 7,
    }


def test_inputs_have_names_of_their_own_and_are_several_hundred() -> None:
    with choose([], seed=0) as families:
        counts = {}
        for family, inputs in families.items():
            found = list(inputs)
            assert max(Counter(one.name for one in found).values()) == 1, family
            counts[family] = sum(one.inputs if isinstance(one, Case) else 1 for one in found)
    assert counts.keys() == FAMILIES.keys()
    assert sum(counts.values()) > 600
    with (
        pytest.raises(ConfigError, match="--only nothing: no such family; there are: pictures, names"),
        choose(["nothing"], seed=0),
    ):
        pass


def test_pictures_follow_from_the_seed_and_the_untouched_ones_are_whole() -> None:
    first, other = ([one for one in list(pictures.pictures(seed))[::40] if not one.alone] for seed in (0, 1))
    made = [one.make() for one in first]
    assert made == [one.make() for one in first]
    assert made != [one.make() for one in other]
    for form, make in pictures.FORMATS.items():
        if form not in ("HEIF", "JXL"):
            Image.open(io.BytesIO(make(rng_of(0, form)))).load()


@pytest.mark.parametrize("size", [-512, -1, -(2**62), 0, 8**11 - 1, 8**11, 2**60, 2**70])
def test_tar_header_says_the_size_that_it_is_given(size: int) -> None:
    assert tarfile.TarInfo.frombuf(archives.header("x.jpg", size), "utf-8", "strict").size == size


def test_archive_and_table_of_good_pictures_are_readable() -> None:
    block = archives.extended((b"path", b"long" * 40 + b".jpg")) + archives.member("x", b"data")
    with tarfile.open(fileobj=io.BytesIO(archives.members(0) + block + archives.END)) as tar:
        names = tar.getnames()
        assert tar.extractfile(names[-1]).read() == b"data"  # type: ignore[union-attr]
    assert [*names[:2], names[-1]] == ["good-own-0.jpg", "good-own-1.jpg", "long" * 40 + ".jpg"]
    table = pq.read_table(io.BytesIO(tables.parquet(tables.good_table(0))))
    assert table["image"].to_pylist() == [{"bytes": data, "path": name} for name, data in good_pictures(0)]


def test_servers_serve_and_the_guarded_one_tells_that_it_was_asked() -> None:
    with serving(0) as hosts:
        with urllib.request.urlopen(f"{hosts.web.url}/gzip") as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
        assert not hosts.asked()
        with urllib.request.urlopen(f"{hosts.web.url}/redirect-by-way-of-one") as answer:
            assert answer.read() == next(data for _, data in good_pictures(1))
        assert hosts.asked()
        assert not hosts.asked()
