"""A command that we print can be copied: it begins as the program was called."""

import sys
from pathlib import Path

import pytest

from curate import command


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    script = tmp_path / ".venv/bin/curate"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [".venv/bin/curate", "run"])
    return tmp_path


def test_a_script_below_here_is_named_by_its_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command.line("list", "runs/a b", "--dropped") == ".venv/bin/curate list 'runs/a b' --dropped"
    monkeypatch.setattr(sys, "argv", [str(here / ".venv/bin/curate")])
    assert command.program() == [".venv/bin/curate"]


def test_a_script_elsewhere_is_named_whole_and_one_on_the_path_by_its_name(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = here / ".venv/bin/curate"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert command.program() == [str(script)]
    monkeypatch.setenv("PATH", str(script.parent))
    assert command.program() == ["curate"]


def test_modules_and_torchrun_are_named_as_they_were_called(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/curate/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(here / ".venv/bin/python"))
    assert command.program() == [".venv/bin/python", "-m", "curate"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command.program() == ["torchrun", "...", "--no-python", "curate"]


def test_another_program_names_the_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/pytest"])
    assert command.program() == ["curate"]
