"""`python -m curate` is the command line, and so is the console script `curate`."""

import os
import signal
import sys


def main() -> None:
    """Run the command line; a Ctrl-C is answered before the first slow import."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the import that follows
    from curate.interrupt import ending_by_signals

    with ending_by_signals([*_program(), *sys.argv[1:]]):
        from curate.cli import main as run_command

        run_command()


def _program() -> list[str]:
    """The words before those of the command, as they were typed."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ["torchrun", "...", "--no-python", "curate"]
    return ["python", "-m", "curate"] if sys.argv[0].endswith("__main__.py") else ["curate"]


if __name__ == "__main__":
    main()
