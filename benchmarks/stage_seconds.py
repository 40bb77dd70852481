"""`python -m benchmarks.stage_seconds OUT ARGUMENTS...`: `curate ARGUMENTS...`, and the CPU seconds of each table.

Seconds count from the end of the table before, threads and finished child processes included. A pass makes several
tables at once: they count for the first of them.
"""

import json
import logging
import sys
from pathlib import Path

from benchmarks.figures import cpu_seconds
from curate.cli import main

FINISHED = "%s: %d rows in"
"""How the log line of a finished table begins."""


class StageSeconds(logging.Handler):
    """Reads the process's clock whenever a table is finished."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.found: dict[str, float] = {}
        self._last = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Notes the table that a line of the log tells of."""
        if str(record.msg).startswith(FINISHED) and isinstance(record.args, tuple):
            self.note(str(record.args[0]))

    def note(self, name: str) -> None:
        """Gives the seconds since the last note to a name."""
        now = cpu_seconds()
        self.found[name] = self.found.get(name, 0.0) + now - self._last
        self._last = now


if __name__ == "__main__":
    _, out, *arguments = sys.argv
    seconds, sys.argv = StageSeconds(), ["curate", *arguments]
    logging.getLogger("curate").addHandler(seconds)
    try:
        main()
    finally:
        seconds.note("report")
        Path(out).write_text(json.dumps(seconds.found), encoding="utf-8")
