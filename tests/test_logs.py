"""Lines of a log show what is in a name, and carry it out nowhere."""

import logging
import subprocess
import sys
from pathlib import Path

from curate.logs import VisibleFormatter

NAME = "a\x1b]0;owned\x07[red]b[/red]\u202e\nerror: fake"
SHOWN = r"a\x1b]0;owned\x07[red]b[/red]\u202e"
"""A name as a stranger may choose it, and how its first line is shown."""


def test_lines_of_the_log_show_names_and_keep_their_arguments() -> None:
    def formatted(message: str, *arguments: object, logger: str = "curate") -> str:
        record = logging.LogRecord(logger, logging.INFO, "", 0, message, arguments, None)
        return VisibleFormatter("%(message)s").format(record)

    assert formatted("%s: %d rows, %.1f s", NAME, 3, 0.25) == rf"{SHOWN}\nerror: fake: 3 rows, 0.2 s"
    assert formatted("%s", Path(NAME)).endswith(r"\nerror: fake")
    assert formatted("%s", ValueError(NAME)) == rf"{SHOWN}\nerror: fake"
    assert formatted(f"{NAME}: kept") == f"{SHOWN}\n  error: fake: kept"
    assert formatted("%(a)s", {"a": 1}) == "1"
    assert formatted("%s", "warned\n  here\n", logger="py.warnings") == "warned\n  here"


def test_a_worker_that_nobody_told_where_to_log_shows_names_too() -> None:
    code = """
import logging
from curate.logs import show_warnings_visibly
show_warnings_visibly()
logging.getLogger("curate.x").warning("%s: left out", "a\\x1b[2J")
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stderr == "a\\x1b[2J: left out\n"
