"""Progress: a line a minute, one display on a terminal, and nothing where another process shows it."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from curate import progress


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No earlier line counts."""
    monkeypatch.setattr(progress._Shown, "last", None)
    yield
    progress.be_silent(False)


class Clock:
    """Time that a test sets."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_lines_are_a_minute_apart_over_all_work(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    for name in ("first", "second"):
        with progress.track(name, 10, unit="parts") as advance:
            for _ in range(10):
                clock.now += 10.0
                advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "first: 6/10 parts, 40 s left",
        "second: 2/10 parts, 80 s left",
        "second: 8/10 parts, 20 s left",
    ]


def test_what_is_done_inside_counts_as_a_part_of_a_step(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    names = list("abcdefgh")
    with progress.at_step(3, names), progress.track("images", 4, done=2, unit="parts") as advance:
        with progress.track("images part 2", 10, unit="images") as inner:
            clock.now = 60.0
            inner(5, note="busy")  # half a part in a minute; one and a half are left
        advance(1)
    assert capsys.readouterr().err == "[3/8] images: 2/4 parts, 3 min left in this step, busy\n"


def test_of_a_single_step_what_is_done_inside_is_counted(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress.track("pretrain", 1, unit="parts"), progress.track("train", 100, unit="iterations") as inner:
        clock.now = 60.0
        inner(25, note="loss 3")
    assert capsys.readouterr().err == "pretrain: 25/100 iterations, 3 min left, loss 3\n"


def test_the_time_left_of_all_steps_follows_the_pace_of_those_that_were_made(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    asked: list[float] = []

    def find() -> dict[str, float]:
        asked.append(clock.now)
        return {"list": 1.0, "there": 100.0, "embed": 30.0, "search": 30.0, "write": 60.0}

    names = ["list", "there", "embed", "search", "write"]
    with progress.expecting(find):
        with progress.at_step(1, names):
            clock.now = 5.0
        with progress.at_step(2, names):
            pass  # nothing to do there, which says nothing of the pace
        with progress.at_step(3, names), progress.track("embed", 4) as advance:
            clock.now = 65.0  # twice what was expected: one of four in all of its time
            advance(1)
            clock.now = 245.0
            advance(3)
        with progress.at_step(4, names), progress.track("search", 2) as advance:
            clock.now = 365.0  # half of it; the pace is eight times what was expected
            advance(1)
    assert asked == [5.0]  # not in the first step, nor in one that has nothing to do
    assert capsys.readouterr().err.splitlines() == [
        "[3/5] embed: 1/4, 4 min left",  # 180 s of its own, 90 s of the others
        "[3/5] embed: 4/4, 90 s left",
        "[4/5] search: 1/2, 10 min left",  # 120 s of its own, 8 x 60 s
    ]


def test_work_without_a_known_end_tells_no_time(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress.track("list", 0, unit="groups") as advance:
        clock.now = 61.0
        advance(1234)
    assert capsys.readouterr().err == "list: 1,234 groups\n"


def test_nothing_is_printed_where_another_process_shows_it(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress.track("embed", 1, show=False) as advance:
        clock.now = 100.0
        advance(1, note="done")
    progress.be_silent()
    with progress.track("embed", 1) as advance:
        clock.now = 200.0
        advance(1)
    assert capsys.readouterr().err == ""


def test_rich_is_imported_for_a_terminal_only() -> None:
    code = "import sys, curate.progress; sys.exit('rich' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_terminal_has_one_display_that_goes_when_the_work_is_done() -> None:
    code = """
from curate import progress
name = "a table of a rather long name that does not fit here"
with progress.at_step(2, list("abcdefghi")), progress.track(name, 2, unit="parts") as outer:
    with progress.track("part 0", 4, unit="images") as inner:
        inner(2)
    outer(2, note="[red]")
"""
    main, other = pty.openpty()
    env = os.environ | {"COLUMNS": "70", "TERM": "xterm"}
    ran = subprocess.Popen([sys.executable, "-c", code], stderr=other, stdout=subprocess.PIPE, env=env)
    os.close(other)
    shown = b""
    try:
        while block := os.read(main, 1 << 16):
            shown += block
    except OSError:  # the end of a terminal
        pass
    out, _ = ran.communicate(timeout=60)
    assert (ran.returncode, out) == (0, b"")
    text = shown.decode()
    assert "[2/9] a table of a …" in text
    assert "left" in text
    assert "2/2 parts" in text
    assert "[red]" in text
    assert "part 0" not in text  # it moves the one bar
    assert text.rstrip().endswith("\x1b[2K")  # nothing of the display stays
