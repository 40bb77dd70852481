"""`python -m curate` is the command line, and so is the console script `curate`."""

import os
import sys

from curate.interrupt import ending_by_signals


def main() -> None:
    """Run the command line; a Ctrl-C is answered before the first slow import."""
    with ending_by_signals([*_program(), *sys.argv[1:]]):
        from curate.cli import main as run_command

        run_command()


def _program() -> list[str]:
    """The words before those of the command, as they were typed."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ["torchrun", "...", "-m", "curate"]
    return ["python", "-m", "curate"] if sys.argv[0].endswith("__main__.py") else ["curate"]


if __name__ == "__main__":
    main()
