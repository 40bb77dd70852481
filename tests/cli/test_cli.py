"""The command line: what it loads, how it names errors, and the commands of `curate samples`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from curate import progress
from curate.cli import COMMANDS, app
from curate.cli.consoles import say, show_table
from curate.cli.inspect import status
from curate.cli.program import SIGTERM_EXIT, explained_errors
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.errors import ConfigError, SourceError, TrainingInterrupted
from curate.progress import track
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.verifying import verify
from curate.workdir import record

HEAVY = ("torch", "timm", "open_clip", "dask", "transformers", "faiss", "scipy")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples") / "out"
    make_pool(out, num_images=40)
    return out


@pytest.fixture(scope="module")
def workdir(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dedup") / "run"
    run_config(load_config("dedup", [f"sources.pool={samples / 'pool'}", f"workdir={out}"]), Flags())
    return out


def loaded(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints in a process of its own, and the modules of `HEAVY` that it loads."""
    told = "print(*sys.modules, file=sys.stderr)"
    code = f"import sys\nfrom curate.cli import main\ntry:\n    main()\nfinally:\n    {told}"
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=300
    )
    return found.stdout, set(HEAVY) & set(found.stderr.split())


def test_help_and_status_load_no_heavy_library(workdir: Path) -> None:
    told, heavy = loaded("--help")
    assert heavy == set()
    assert all(name in told for name in (*COMMANDS, "samples"))
    told, heavy = loaded("status", str(workdir))
    assert heavy == set()
    assert "shards/data" in told


def test_every_command_says_the_same_after_a_clean(workdir: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(workdir, root)
    for path in root.rglob("_table.json"):
        os.utime(path, (1.7e9, 1.7e9))  # long ago, so that a date of the cleaning is seen
    image = str(Store(root).table("catalog").read(0)["image_id"][7])

    def told(*arguments: str) -> str:
        found = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert found.exit_code == 0
        return found.output

    def said() -> list[str]:
        told("report", str(root))
        pages = [(root / name).read_text() for name in ("report/index.html", "shards/README.md")]
        return [*pages, told("explain", str(root), image), told("sweep", str(root), "--json")]

    told("sweep", str(root))  # the report links its page where there is one
    before, there = said(), set(root.rglob("*.parquet"))
    assert "would be removed" in told("clean", str(root), "--dry-run")
    assert set(root.rglob("*.parquet")) == there
    cleaned = told("clean", str(root))
    gone = there - set(root.rglob("*.parquet"))
    assert gone
    assert all("internal" in path.relative_to(root).parts for path in gone)
    assert "internal/features/copy" in cleaned
    assert "within_border" not in cleaned  # of the pass over the pool
    assert said() == before
    assert "internal/features/copy (cleaned)" in told("status", str(root))
    assert verify(str(root)).damaged == {}
    config = load_config("dedup", [f"sources.pool={samples_of(root)}", f"workdir={root}"])
    changed = run_config(config, Flags()).changed
    assert changed == []
    costs = told("status", str(root), "--costs")
    assert "peak MB of a task" in costs
    assert "embeddings/copy (with images)" in costs


def samples_of(root: Path) -> str:
    """The pool that the catalog of a workdir lists."""
    return str(Path(Store(root).table("catalog").read(0)["uri"][0].as_py()).parent)


def test_errors_of_a_training_name_its_config() -> None:
    with pytest.raises(ConfigError, match=r"(?s)^train/tiny:.* iteration: .*did you mean 'iterations'"):
        CliRunner().invoke(app, ["train", "train/tiny", "iteration=3"], catch_exceptions=False)


def test_errors_of_the_user_are_one_line_and_an_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("dim: -1")
    error.add_note("table images")
    with pytest.raises(SystemExit, match=r"^1$"), explained_errors():
        raise error
    assert capsys.readouterr().err == "error: ConfigError: dim: -1\n  table images\n"
    with pytest.raises(SystemExit, match=r"^1$"), explained_errors():
        raise FileNotFoundError(2, "No such file or directory", "here")
    assert capsys.readouterr().err == "error: [Errno 2] No such file or directory: 'here'\n"
    with pytest.raises(SystemExit, match=f"^{SIGTERM_EXIT}$"), explained_errors():
        raise TrainingInterrupted("stopped")
    with pytest.raises(ZeroDivisionError), explained_errors():
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "words",
    [
        ["run", "nowhere.yaml"],
        ["run", "dedup", "--pool", "nowhere"],
        ["run", "dedup", "--pool", "locked", "--workdir", "locked/run"],
        ["run", "dedup", "--pool", "nowhere", "copies.hashs=1"],
        ["run", "dedup", "--pool", "nowhere", "no_value"],
        ["plan", "dedpu", "--images", "10"],
        ["status", "nowhere"],
        ["report", "nowhere", "--open"],
        ["sweep", "locked"],
        ["explain", "nowhere", "0"],
        ["clean", "nowhere"],
        ["verify", "nowhere"],
        ["config", "dedup", "nothing"],
        ["init", "dedup", "locked/dedup.yaml"],
        ["train", "train/tiny"],
        ["train", "train/tiny", "--shards", "nowhere", "--output", "out"],
        ["eval", "nothing", "--data", "bundled"],
        ["eval", "lite0", "--data", "nowhere"],
        ["visualize", "lite0", "nowhere", "--output", "looks"],
        ["export", "nowhere", "--to", "hub"],
        ["samples", "check", "nowhere", "nowhere.csv"],
    ],
    ids=" ".join,
)
def test_what_a_user_gets_wrong_is_told_without_a_traceback(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").write_text("a file where a folder should be")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended, explained_errors():
        app(words, prog_name="curate")
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert told.startswith("error: ")
    assert any(word.strip("-") in told for word in words)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert "no run of curate here; make one with" in str(found.exception)


def test_samples_make_their_pool_with_and_without_the_word_make(tmp_path: Path) -> None:
    for arguments in (
        ["samples", str(tmp_path / "a"), "-n", "20"],
        ["samples", "make", "-n", "20", str(tmp_path / "b")],
    ):
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    made = [sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")) for name in "ab"]
    assert made[0] == made[1]
    assert len(list((tmp_path / "a" / "pool").iterdir())) == 20


def test_samples_check_prints_text_or_json(workdir: Path, samples: Path) -> None:
    asked = ["samples", "check", str(workdir), str(samples / "truth.csv")]
    text = CliRunner().invoke(app, asked, catch_exceptions=False).stdout
    found = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout)
    assert f"accepted pool images {found['accepted']}" in text
    assert found["unmatched"] == 0


def test_status_tells_what_is_kept_from_the_web(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(Store(tmp_path), "dedup", load_config("dedup", ["sources=/a", f"workdir={tmp_path}"]), [])
    status(str(tmp_path))
    assert "fetched from the web" not in capsys.readouterr().out
    chunk = tmp_path / "internal/objects/pool/part-00000/chunk-000000.parquet"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"x" * 2_500_000)
    status(str(tmp_path))
    told = " ".join(capsys.readouterr().out.split())
    assert "internal/objects: 2.5 MB fetched from the web, which may be deleted" in told


NAME = "a\x1b]0;owned\x07[red]b[/red][link=file:///etc]c\u202e\nerror: fake"
SHOWN = r"a\x1b]0;owned\x07[red]b[/red][link=file:///etc]c\u202e"
"""A name as a stranger may choose it, and how its first line is shown."""


def test_names_of_strangers_do_not_command_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(f"{NAME}: kept")
    assert capsys.readouterr().out == f"{SHOWN}\nerror: fake: kept\n"
    show_table(("name",), [(NAME,)])
    assert rf"{SHOWN}\nerror: fake" in capsys.readouterr().out
    error = SourceError(f"{NAME}: damaged")
    error.add_note(f"while reading {NAME}")
    with pytest.raises(SystemExit), explained_errors():
        raise error
    told = capsys.readouterr().err
    assert told.startswith(f"error: SourceError: {SHOWN}\n  error: fake: damaged\n  while reading {SHOWN}")
    assert not [line for line in told.splitlines()[1:] if not line.startswith("  ")]
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    with track(NAME, 1) as advance:
        advance(1, note=NAME)
    assert rf"{SHOWN}\nerror: fake: 1/1, 0 s left, {SHOWN}\nerror: fake" + "\n" == capsys.readouterr().err


def test_faults_of_ours_are_told_as_python_does_but_visible() -> None:
    code = "from curate.cli.program import set_up_process; set_up_process(); raise ValueError('\\x1b[2J')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert told.returncode == 1
    assert told.stderr.startswith("Traceback (most recent call last):")
    assert told.stderr.endswith("ValueError: \\x1b[2J\n")
