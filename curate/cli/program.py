"""What a program of this project does around its command: set up its process, and show errors in the user's terms."""

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from curate import interrupt, progress
from curate.errors import ConfigError, CurateError, TooManyUnavailable, TrainingInterrupted
from curate.logs import ToStandardError
from curate.text import indented, visible_text

SIGTERM_EXIT = 128 + 15
"""Exit status of a training that SIGTERM stopped: a scheduler must not take it for one that is done."""

UNAVAILABLE_EXIT = 3
"""Exit status of a run that made everything, but without more images than allowed: run the same command again."""

TABLES_MADE = "curate.engine.work"
"""Logs a line for every table, which on a terminal the display of progress stands for."""

NOISY = ("distributed", "PIL", "fsspec", "asyncio", "faiss", "timm", "onnxscript", "onnx_ir")
"""Libraries of which only warnings are logged."""


def set_up_process() -> None:
    """Choose how threads wait and what is logged; call it before torch or faiss is imported."""
    # Threads that wait for the next product must not spin: decoding runs beside them, and machines are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Python's tracker of shared resources cleans up after a process that a signal has ended, and complains about it.
    filters = [os.environ.get("PYTHONWARNINGS", ""), "ignore:resource_tracker"]
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, filters))
    logging.basicConfig(level=logging.INFO, handlers=[ToStandardError()])
    logging.captureWarnings(True)
    sys.excepthook = _print_traceback
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.WARNING)


def listen(*, quiet: bool, verbose: bool) -> None:
    """Choose how much a command says on its way: by default a line a table, or on a terminal a display in its place."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose: give one of the two")
    progress.be_silent(quiet)
    logging.getLogger("curate").setLevel(logging.WARNING if quiet else logging.INFO)
    shown = verbose or not _on_terminal()
    logging.getLogger(TABLES_MADE).setLevel(logging.NOTSET if shown else logging.WARNING)


def _on_terminal() -> bool:
    return sys.stderr.isatty()


def _print_traceback(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """A fault of ours, told as Python does, but visible."""
    sys.stderr.write(visible_text("".join(traceback.format_exception(kind, error, where))))


@contextmanager
def explained_errors() -> Iterator[None]:
    """Print a `CurateError` or an `OSError` without a traceback and exit with a status above 0; others pass, and all do
    once a signal ends the command."""
    try:
        yield
    except CurateError as error:
        if interrupt.came():
            raise
        _print(f"{type(error).__name__}: {error}", error)
        if isinstance(error, TooManyUnavailable):
            sys.exit(UNAVAILABLE_EXIT)
        sys.exit(SIGTERM_EXIT if isinstance(error, TrainingInterrupted) else 1)
    except OSError as error:  # a disk, a path or a network: the system's own words name it
        if interrupt.came():
            raise
        _print(str(error), error)
        sys.exit(1)


def _print(text: str, error: BaseException) -> None:
    from rich.console import Console
    from rich.text import Text

    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))  # what was being made when it happened
    told = indented(visible_text(text + notes))
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), told))
