"""Lines of a log, with names of strangers made visible."""

import copy
import logging
import os
from typing import Any

from curate.text import indented, visible, visible_text


class VisibleFormatter(logging.Formatter):
    """Lines of a log in which names of strangers neither command the terminal nor pass for lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, with its arguments on one line each and everything visible."""
        plain = copy.copy(record)
        if isinstance(record.args, tuple) and record.name != "py.warnings":  # these are several lines by themselves
            plain.args = tuple(map(_on_one_line, record.args))
        return indented(visible_text(super().format(plain).rstrip()))


def _on_one_line(argument: Any) -> Any:
    return visible(str(argument), keep="") if isinstance(argument, str | BaseException | os.PathLike) else argument


def show_warnings_visibly() -> None:
    """In a process that nobody told where to log, such as a Dask worker, Python prints warnings by itself: so too."""
    if logging.lastResort is not None and not isinstance(logging.lastResort.formatter, VisibleFormatter):
        logging.lastResort.setFormatter(VisibleFormatter("%(message)s"))
