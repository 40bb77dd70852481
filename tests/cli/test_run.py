"""`curate run`: how pools, workdirs and configs are named, and what is said about those that are not there."""

import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curate.cli import app, program
from curate.cli import run as command
from curate.engine.open_rows import OpenRows
from curate.errors import ConfigError
from curate.recipe import RecipeConfig, check_config, default_workdir, load_config
from curate.running import Outcome


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RecipeConfig]:
    """The configs of runs that are asked for; none is made."""
    asked: list[RecipeConfig] = []

    def note(config: RecipeConfig, _flags: Any, **_recorded: Any) -> Outcome:
        asked.append(config)
        return Outcome(config, [], "report/index.html", 1.0, OpenRows(0, 0, ()))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("curate.running.run_config", note)
    monkeypatch.setattr(command, "say_outcome", lambda *_args, **_kwargs: None)
    return asked


def run(*words: str) -> None:
    assert CliRunner().invoke(app, ["run", *words], catch_exceptions=False).exit_code == 0


def paths(config: RecipeConfig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for role, source in config.sources.by_role():
        found.setdefault(role, []).append(source.path)
    return found


def test_options_are_the_sources_of_the_config(configs: list[RecipeConfig], tmp_path: Path) -> None:
    run("dedup", "--pool", "photos", "--heldout", "a/val", "--heldout", "b/val2", "--curated", "seeds", "seed=3")
    (config,) = configs
    assert paths(config) == {
        "pool": [str(tmp_path / "photos")],
        "curated": [str(tmp_path / "seeds")],
        "heldout": [str(tmp_path / "a/val"), str(tmp_path / "b/val2")],
    }
    assert (config.seed, config.workdir) == (3, str(tmp_path / "runs/dedup-photos"))


def test_options_go_with_keys_and_with_a_config_whose_sources_are_one_path(
    configs: list[RecipeConfig], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: dedup\nsources: old\ncopies: {embed: {model: lite0-copy}}\n")
    run("mine.yaml", "--heldout", "val")
    run("mine.yaml", "--pool", "[new]", "--workdir", "elsewhere", "sources.max_unavailable=0.5")
    assert paths(configs[0]) == {"pool": [str(tmp_path / "old")], "heldout": [str(tmp_path / "val")]}
    assert paths(configs[1]) == {"pool": [str(tmp_path / "[new]")]}  # a path, and no YAML
    assert (configs[1].workdir, configs[1].sources.max_unavailable) == (str(tmp_path / "elsewhere"), 0.5)


@pytest.mark.parametrize(
    ("sources", "workdir"),
    [
        ("photos", "runs/dedup-photos"),
        ({"pool": "/data/My photos (2019)/"}, "runs/dedup-My-photos-2019"),
        ({"pool": [{"name": "a", "path": "s3://bucket/web/part-{000..999}.tar"}, "other"]}, "runs/dedup-web"),
        ({"pool": {"path": "https://host/list.txt?signature=secret"}}, "runs/dedup-list.txt"),
        ({"pool": "../../etc/.."}, None),
        ({"pool": "x" * 300}, f"runs/dedup-{'x' * 60}"),
        (None, "runs/dedup"),
    ],
)
def test_a_workdir_is_named_after_recipe_and_pool(sources: Any, workdir: str | None) -> None:
    found = default_workdir("dedup", sources)
    assert workdir is None or found == workdir
    assert found.count("/") == 1
    assert ".." not in found
    assert default_workdir("./my.py:mine", sources).startswith("runs/mine")


def test_python_gets_the_same_workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"recipe": "dedup", "sources": {"pool": "photos"}, "copies": {"embed": {"model": "lite0-copy"}}}
    assert check_config(values, where="config").workdir == str(tmp_path / "runs/dedup-photos")
    assert load_config("dedup", ["sources=photos", "workdir=w"]).workdir == str(tmp_path / "w")


def test_a_folder_or_a_workdir_in_the_place_of_a_config_is_told(configs: list[RecipeConfig], tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    with pytest.raises(ConfigError, match=r"a folder, no config; .* curate run dedup --pool 'my photos'$"):
        run("my photos")
    (tmp_path / "made").mkdir()
    (tmp_path / "made/run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"a workdir, no config; .* curate status made$"):
        run("made")
    with pytest.raises(ConfigError, match=r"did you mean hierarchical\?"):
        run("hierachical", "--pool", "x")


def test_a_bundled_config_without_pictures_asks_for_them(configs: list[RecipeConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dedup: of which pictures\? run: .*curate run dedup --pool FOLDER$"):
        run("dedup", "seed=1")
    (tmp_path / "pool").mkdir()
    run("dedup")
    assert paths(configs[0]) == {"pool": [str(tmp_path / "pool")]}


def test_what_is_said_on_the_way_is_chosen(configs: list[RecipeConfig]) -> None:
    tables = logging.getLogger(program.TABLES_MADE)
    run("dedup", "--pool", "x", "--quiet")
    assert not tables.isEnabledFor(logging.INFO)
    assert not logging.getLogger("curate.workdir").isEnabledFor(logging.INFO)
    assert tables.isEnabledFor(logging.WARNING)
    run("dedup", "--pool", "x")
    assert tables.isEnabledFor(logging.INFO)  # where no terminal shows a display
    with pytest.raises(ConfigError, match="--quiet and --verbose"):
        run("dedup", "--pool", "x", "-q", "-v")


def test_on_a_terminal_the_display_stands_for_the_lines(
    configs: list[RecipeConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_on_terminal", lambda: True)
    tables = logging.getLogger(program.TABLES_MADE)
    run("dedup", "--pool", "x")
    assert not tables.isEnabledFor(logging.INFO)
    assert logging.getLogger("curate.workdir").isEnabledFor(logging.INFO)
    run("dedup", "--pool", "x", "--verbose")
    assert tables.isEnabledFor(logging.INFO)


def test_the_words_that_a_run_records_ask_for_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recorded: list[tuple[RecipeConfig, tuple[str, ...]]] = []

    def note(config: RecipeConfig, _flags: Any, *, command: tuple[str, ...]) -> Outcome:
        recorded.append((config, command))
        return Outcome(config, [], "report/index.html", 1.0, OpenRows(0, 0, ()))

    monkeypatch.setattr("curate.running.run_config", note)
    monkeypatch.setattr(command, "say_outcome", lambda *_args, **_kwargs: None)
    run("dedup", "--pool", "a b", "--heldout", "val", "--workdir", "runs/x", "seed=3", "--rescan")
    run(*recorded[0][1])
    assert recorded[0] == recorded[1]
    assert "--rescan" not in recorded[0][1]
