"""Errors that a user can act on, as a program shows them: one line on standard error, without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import CurateError, TrainingInterrupted

SIGTERM_EXIT = 128 + 15
"""Exit status of a training that SIGTERM stopped: a scheduler must not take it for one that is done."""


@contextmanager
def explained_errors() -> Iterator[None]:
    """Print a `CurateError` or an `OSError` and exit with a status that is not zero; other errors pass."""
    try:
        yield
    except CurateError as error:
        _print(f"{type(error).__name__}: {error}", error)
        sys.exit(SIGTERM_EXIT if isinstance(error, TrainingInterrupted) else 1)
    except OSError as error:  # a disk, a path or a network: the system's own words name it
        _print(str(error), error)
        sys.exit(1)


def _print(text: str, error: BaseException) -> None:
    from rich.console import Console
    from rich.text import Text

    notes = [f"\n  {note}" for note in getattr(error, "__notes__", [])]  # what was being made when it happened
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), text, *notes))
