"""`python -m benchmarks.hostile.worker`: runs commands of `curate` one after the other, as the command line does.

Starting Python and importing costs a second, a command on a few pictures half of one, so several hundred commands share
a process until one of them breaks it. It reads a JSON line for each from its standard input and writes one back.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any


def main() -> None:
    """Run what is asked for until the input ends."""
    asked, told = _keep(0, os.O_RDONLY), _keep(1, os.O_WRONLY)
    for line in asked:
        json.dump(serve(json.loads(line)), told)
        told.write("\n")
        told.flush()


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """The exit status of a command, whose output goes to a file, and the traceback of an error that none expected."""
    with Path(request["output"]).open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        try:
            return {"exit": call(request["arguments"]), "crash": ""}
        except BaseException:
            return {"exit": 1, "crash": traceback.format_exc()}
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()


def call(arguments: list[str]) -> int:
    """What `curate ARGUMENTS...` exits with; errors that it does not expect come as they are."""
    from curate.cli import app
    from curate.cli.program import explained_errors

    try:
        with explained_errors():
            app(arguments, prog_name="curate")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _keep(number: int, flags: int) -> IO[str]:
    """A standard stream for ourselves; whoever asks for it afterwards gets the null device."""
    ours = os.dup(number)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, number)
    os.close(null)
    return os.fdopen(ours, "r" if flags == os.O_RDONLY else "w", encoding="utf-8")


if __name__ == "__main__":
    from curate.cli.program import set_up_process

    set_up_process()
    main()
