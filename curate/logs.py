"""Lines of a log, with names of strangers made visible."""

import copy
import logging
import os
import sys
from typing import Any, TextIO

from curate.text import indented, visible, visible_text


class VisibleFormatter(logging.Formatter):
    """Lines of a log in which names of strangers neither command the terminal nor pass for lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, with its arguments on one line each and everything visible."""
        plain = copy.copy(record)
        if isinstance(record.args, tuple) and record.name != "py.warnings":  # these are several lines by themselves
            plain.args = tuple(map(_on_one_line, record.args))
        return indented(visible_text(super().format(plain).rstrip()))


class ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error now: while a display of progress is on the terminal, lines go above it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(VisibleFormatter("%(message)s"))

    @property  # type: ignore[override]
    def stream(self) -> TextIO:
        """Standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        pass  # what was standard error when this was made


def _on_one_line(argument: Any) -> Any:
    return visible(str(argument), keep="") if isinstance(argument, str | BaseException | os.PathLike) else argument


def show_warnings_visibly() -> None:
    """In a process that nobody told where to log, such as a Dask worker, Python prints warnings by itself: so too."""
    if logging.lastResort is not None and not isinstance(logging.lastResort.formatter, VisibleFormatter):
        logging.lastResort.setFormatter(VisibleFormatter("%(message)s"))
