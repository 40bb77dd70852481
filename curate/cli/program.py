"""What a program of this project does around its command: set up its process, and show errors in the user's terms."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import CurateError, TooManyUnavailable, TrainingInterrupted

SIGTERM_EXIT = 128 + 15
"""Exit status of a training that SIGTERM stopped: a scheduler must not take it for one that is done."""

UNAVAILABLE_EXIT = 3
"""Exit status of a run that made everything, but without more images than allowed: run the same command again."""

NOISY = ("distributed", "PIL", "fsspec", "asyncio", "faiss", "timm", "onnxscript", "onnx_ir")
"""Libraries of which only warnings are logged."""


def set_up_process() -> None:
    """Choose how threads wait and what is logged; call it before torch or faiss is imported."""
    # Threads that wait for the next product must not spin: decoding runs beside them, and machines are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.WARNING)


@contextmanager
def explained_errors() -> Iterator[None]:
    """Print a `CurateError` or an `OSError` without a traceback and exit with a status above 0; others pass."""
    try:
        yield
    except CurateError as error:
        _print(f"{type(error).__name__}: {error}", error)
        if isinstance(error, TooManyUnavailable):
            sys.exit(UNAVAILABLE_EXIT)
        sys.exit(SIGTERM_EXIT if isinstance(error, TrainingInterrupted) else 1)
    except OSError as error:  # a disk, a path or a network: the system's own words name it
        _print(str(error), error)
        sys.exit(1)


def _print(text: str, error: BaseException) -> None:
    from rich.console import Console
    from rich.text import Text

    notes = [f"\n  {note}" for note in getattr(error, "__notes__", [])]  # what was being made when it happened
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), text, *notes))
