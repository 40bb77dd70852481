"""Progress where no terminal is: lines when they are due, none where another process shows them."""

import subprocess
import sys

import pytest

from curate import progress


def test_lines_are_printed_when_they_are_due_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, progress.PLAIN_INTERVAL, progress.PLAIN_INTERVAL + 1])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.track("embed", 10, done=4, unit="images") as advance:
        advance(1)
        advance(2, note="loss 3")
        advance(3)
    assert capsys.readouterr().err.splitlines() == ["embed: 7/10 images  loss 3", "embed: 10/10 images"]


def test_nothing_is_printed_where_another_process_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track("embed", 1, show=False) as advance:
        advance(1, note="done")
    assert capsys.readouterr().err == ""


def test_rich_is_imported_for_a_terminal_only() -> None:
    code = "import sys, curate.progress; sys.exit('rich' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
