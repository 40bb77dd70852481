"""Signals end a command in whatever it does, with how to go on; what runs here is the real command line."""

import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.interrupts import HOLDING, PROGRAM, RELEASING, Phase, interrupt
from curate.interrupt import SIGNALS

SLEEPING = "import time; work = lambda *_: time.sleep(60)"
DEAF = """
import time
def work(*_):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""
"""As a library does that catches everything."""
THREADS = """
import time
from concurrent.futures import ThreadPoolExecutor
def work(*_):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 60).result()
"""
CHILD = """
import subprocess, sys, time
def work(*_):
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(60)"])
    time.sleep(60)
"""
"""A process of the command that does not hear."""
FAILING = """
import time
from curate.errors import CurateError
def work(*_):
    try:
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise CurateError("a worker died") from error
"""
"""What the signal does to others looks like a fault of theirs."""


def explained(name: str, code: str, *, after: float = 0.05) -> Phase:
    """`curate explain`, which takes little to start, with other work in its place."""
    return Phase(name, ["explain", "a run", "0"], "curate.workdir:open_tables", after=after, instead=code)


def test_a_signal_ends_a_command_by_itself_and_says_how_to_go_on(tmp_path: Path) -> None:
    for signum in SIGNALS:
        ended = interrupt(explained("sleeping", SLEEPING), folder=tmp_path, signum=signum)
        assert ended.status == -signum
        assert ended.told == "interrupted: what was finished stays; to go on, run: curate explain 'a run' 0"


@pytest.mark.parametrize("code", [DEAF, THREADS, HOLDING, RELEASING, FAILING])
def test_no_code_keeps_a_command_alive(tmp_path: Path, code: str) -> None:
    ended = interrupt(explained("stubborn", code), folder=tmp_path)
    assert ended.status == -signal.SIGINT
    assert ended.told.startswith("interrupted: ")
    told = (tmp_path / "stderr").read_text()
    assert "Traceback" not in told
    assert "error" not in told


def test_processes_of_a_command_end_with_it(tmp_path: Path) -> None:
    ended = interrupt(explained("with a child", CHILD, after=0.5), folder=tmp_path)  # waits until none is left
    assert ended.status == -signal.SIGINT


def test_callbacks_are_called_before_the_process_is_gone(tmp_path: Path) -> None:
    code = (
        DEAF
        + """
from pathlib import Path
from curate.interrupt import on_hard_end
on_hard_end(lambda: 1 / 0)
on_hard_end(lambda: Path("called").touch())
on_hard_end(lambda: Path("taken back").touch())()
"""
    )
    interrupt(explained("with callbacks", code), folder=tmp_path)
    assert (tmp_path / "called").exists()
    assert not (tmp_path / "taken back").exists()


def test_a_run_says_that_committed_parts_stay(tmp_path: Path) -> None:
    pool = Path(__file__).parent.parent.parent / "curate/samples"
    photo = next(pool.rglob("*.jpg"))
    (tmp_path / "pool").mkdir()
    for number in range(3):
        shutil.copy(photo, tmp_path / "pool" / f"{number}.jpg")
    words = ["run", "dedup", "sources=pool", "workdir=run"]
    ended = interrupt(Phase("a pass", words, "curate.engine.tasks:_rows_together"), folder=tmp_path)
    assert ended.status == -signal.SIGINT
    assert ended.told == f"interrupted: every committed part stays; to go on, run: curate {' '.join(words)}"
    assert (tmp_path / "run/catalog/_table.json").exists()


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(f"{DEAF}\n{PROGRAM.replace('endless(getattr(owner, name))', 'endless(work)')}")
    command = [sys.executable, str(script), "curate.workdir:open_tables", "explain", "run", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        watched = f"/proc/{process.pid}/stat"
        process.send_signal(signal.SIGINT)
        while _pending(process.pid):  # the first one is delivered
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT, watched
        assert "interrupted: " in process.stderr.read()


def _pending(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd")))


def test_a_terminal_gets_its_cursor_back(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        (tmp_path / "command.py").write_text(
            f"{SLEEPING}\n{PROGRAM.replace('endless(getattr(owner, name))', 'endless(work)')}"
        )
        os.execv(sys.executable, [sys.executable, "command.py", "curate.workdir:open_tables", "explain", "run", "0"])
    told = b""
    while b"has begun" not in told:
        told += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    try:
        while data := os.read(terminal, 4096):
            told += data
    except OSError:  # the terminal closes with its last process
        pass
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGINT
    assert b"\x1b[?25h\r\ninterrupted: what was finished stays" in told


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    code = "from curate.cli.consoles import say, say_json; {}"
    for call in ("say('a')", "say_json('[]')"):
        ended = subprocess.run(
            [sys.executable, "-c", code.format(call)], stdout=writes, stderr=subprocess.PIPE, check=False
        )
        assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
    os.close(writes)
