"""`python -m curate` is the command line, and so is the console script `curate`."""

import signal
import sys


def main() -> None:
    """Run the command line; a Ctrl-C is answered before the first slow import."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of the import that follows
    from curate.command import program
    from curate.interrupt import ending_by_signals

    with ending_by_signals([*program(), *sys.argv[1:]]):
        from curate.cli import main as run_command

        run_command()


if __name__ == "__main__":
    main()
