"""What a new user does, one command after the other: each comes from the help or from what the one before printed."""

import csv
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate.api import open_run
from curate.cli import COMMANDS, app
from curate.cli.expecting import seconds_by_table
from curate.engine.store import Store
from curate.errors import StaleTable
from curate.recipe import load_config
from curate.running import declare
from curate.samples.pool import make_pool

SERVES = ("review",)
"""Commands that wait for a browser: they are walked in tests of their own."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which a user sits, with pictures below."""
    folder = tmp_path_factory.mktemp("home")
    make_pool(folder / "samples", num_images=40)
    (folder / "samples/pool").rename(folder / "photos")
    (folder / "photos/notes.md").write_text("no picture")
    benchmark = sorted((folder / "samples/heldout").rglob("*.jpg"))
    for number, path in enumerate(benchmark[:24]):
        place = folder / f"classes/{number % 2}/{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for path in benchmark[8:]:
        path.unlink()
    shutil.copy(benchmark[0], folder / "photos/leak.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def curate(*words: str) -> str:
    found = CliRunner().invoke(app, words, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def printed(home: Path) -> str:
    """What the first command of a new user prints."""
    return curate("run", "dedup", "--pool", "photos", "--heldout", "samples/heldout")


def next_commands(printed: str) -> list[list[str]]:
    """The commands that are printed under `Next:`, without their comments, from the word after `curate` on."""
    lines = printed[printed.index("\nNext:\n") :].splitlines()[2:]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("  ")]
    return [line[line.index("curate") + 1 :] if "curate" in line else line[1:] for line in words]


def test_a_run_says_what_became_of_the_images(printed: str, home: Path) -> None:
    facts = dict(re.findall(r"(?m)^  (\w+) +(.+)$", printed[: printed.index("\nNext:\n")]))
    summary = open_run("runs/dedup-photos").summary
    assert facts["listed"] == f"{summary.listed} images of the pool; 8 held-out"
    assert facts["unavailable"] == "none"
    assert facts["rejected"].split()[0] == str(sum(summary.rejected.values()))
    assert sum(int(one) for one in re.findall(r"[(;] ?(\d+)", facts["rejected"])) == sum(summary.rejected.values())
    assert facts["copies"].split()[0] == str(summary.duplicates)
    assert facts["contaminated"].startswith(f"{summary.contaminated} kept out")
    left = summary.listed - sum(summary.rejected.values()) - summary.duplicates - summary.contaminated
    assert facts["kept"] == f"{left} images"
    assert facts["selected"] == f"{summary.selected} images"
    assert Path(facts["shards"].split(": ")[1]).is_dir()
    assert Path(facts["report"]).is_file()
    assert facts["report"].startswith("runs/")
    assert printed.startswith("runs/dedup-photos\n")
    assert "duplicates" not in printed  # names of tables are for --verbose


def test_every_next_command_works_as_it_is_printed(printed: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    found = next_commands(printed)
    assert {"report", "sweep", "train"} <= {words[0] for words in found}
    assert {words[0] for words in found} >= {"list", "review"} & COMMANDS.keys()
    said = {words[0]: curate(*words, *fast(words)) for words in found if words[0] not in SERVES}
    assert opened == [(home / "runs/dedup-photos/report/index.html").as_uri()]
    assert "runs/dedup-photos/report/sweep.html" in said["sweep"]
    (export,) = re.findall(r"export: (\S+)", said["train"])
    assert Path(export).is_file()
    then = next_commands(said["train"])
    assert [words[0] for words in then] == ["eval", "visualize"]
    for words in then:
        curate(*[{"FOLDER": "classes"}.get(word, word) for word in words], *fast(words))


def fast(words: list[str]) -> list[str]:
    """What makes a command of minutes one of seconds."""
    return {"train": ["iterations=2"], "eval": ["--measures=knn"], "visualize": ["--most=1"]}.get(words[0], [])


def test_which_files_were_dropped_can_be_asked(printed: str, home: Path) -> None:
    found = [words for words in next_commands(printed) if words[0] == "list"]
    for words in found:
        told = curate(*words)
        rows = open_run("runs/dedup-photos").tables["duplicates"].to_pandas()
        dropped = rows[rows["verdict"] == "duplicate"]["image_id"]
        keys = open_run("runs/dedup-photos").tables["catalog"].to_pandas().set_index("image_id")["key"]
        assert [key for key in keys[dropped] if key not in told] == []
    name = sorted(path.name for path in Path("photos").glob("*.jpg"))[0]
    assert name in curate("explain", "runs/dedup-photos", name)


def test_a_second_run_has_nothing_to_do(printed: str, home: Path) -> None:
    again = curate("run", "dedup", "--pool", "photos", "--heldout", "samples/heldout")
    assert again.startswith("runs/dedup-photos: nothing to do, every table is there\n")
    assert next_commands(again) == next_commands(printed)
    quiet = curate("run", "dedup", "--pool", "photos", "--heldout", "samples/heldout", "--quiet")
    assert quiet == "runs/dedup-photos/report/index.html\n"


def test_another_pool_of_the_same_name_asks_for_a_workdir(printed: str, home: Path) -> None:
    Path("other/photos").mkdir(parents=True)
    shutil.copy(next(Path("photos").glob("*.jpg")), "other/photos/one.jpg")
    with pytest.raises(StaleTable, match=r"choose another workdir \(--workdir DIR\)"):
        curate("run", "dedup", "--pool", "other/photos", "--heldout", "samples/heldout")


def test_shards_are_found_by_every_name_of_theirs(printed: str, home: Path) -> None:
    from curate.feed.shards import read_index

    places = ["", "/", "/shards", "/shards/data", "/shards/data/*.parquet"]
    found = {read_index(f"runs/dedup-photos{place}").fingerprint for place in places}
    assert len(found) == 1


def test_the_time_that_is_left_is_expected_of_what_there_is_to_do(printed: str, home: Path) -> None:
    config = load_config("dedup", changes={"sources": {"pool": "photos", "heldout": "samples/heldout"}})
    steps = [next(iter(step.stages)) for step in declare(config, Store(config.workdir)).steps]
    whole = seconds_by_table(config, anew=True)
    assert set(steps) <= whole.keys()
    assert min(whole.values()) > 0
    assert max(whole, key=lambda name: whole[name]) in ("images", "internal/features/copy")
    assert set(seconds_by_table(config, anew=False).values()) == {0.0}


def copied(home: Path, name: str) -> str:
    """A copy of the finished run, so that other tests meet it as it was."""
    shutil.copytree(home / "runs/dedup-photos", home / "runs" / name)
    return f"runs/{name}"


def keys_in_shards(workdir: str) -> set[str]:
    return set(open_run(workdir).tables["shards/data"].read_all(["key"])["key"].to_pylist())


def test_copies_of_a_benchmark_are_listed_and_a_picture_is_taken_down(printed: str, home: Path) -> None:
    workdir = copied(home, "public")
    curate("list", workdir, "--contaminated", "--csv", "leaks.csv")
    with Path("leaks.csv").open(newline="") as file:
        leaks = {row["key"]: row["partner_key"] for row in csv.DictReader(file)}
    assert len(leaks) == open_run(workdir).summary.contaminated > 0
    assert "leak.jpg" in leaks
    assert any((home / "samples/heldout" / partner).is_file() for partner in leaks.values())
    before = keys_in_shards(workdir)
    assert not before & leaks.keys()

    gone = min(before)
    Path("gone.txt").write_text(f"{gone}\n")
    run = ("run", "dedup", "--pool", "photos", "--heldout", "samples/heldout", "--workdir", workdir)
    told = curate(*run, "write.removal_list=gone.txt", "--update")
    assert "0 images to read" in told or "no image" in told
    assert keys_in_shards(workdir) == before - {gone}
    assert gone not in curate("list", workdir, "--selected", "--jsonl", "-")


def test_a_run_grows_into_a_balanced_set_a_training_and_an_export(printed: str, home: Path) -> None:
    workdir = copied(home, "even")
    pictures = ("--pool", "photos", "--heldout", "samples/heldout", "--workdir", workdir)
    curate("run", "hierarchical", *pictures, "select.balance.target=8", "--update")
    assert len(keys_in_shards(workdir)) == 8
    told = curate("train", "train/tiny", "--shards", workdir, "--output", "runs/tiny", "iterations=2")
    (export,) = re.findall(r"export: (\S+)", told)
    curate("export", export, "--to", "timm", "--output", "runs/tiny/for_timm.safetensors")
    assert Path("runs/tiny/for_timm.safetensors").is_file()
