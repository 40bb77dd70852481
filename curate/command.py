"""The command as the person typed it, so that a line that we print can be copied and run."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def program() -> list[str]:
    """The words before those of the command: `curate`, `.venv/bin/curate`, `python -m curate`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return ["torchrun", "...", "--no-python", "curate"]
    script = Path(sys.argv[0])
    if (script.parent.name, script.name) == ("curate", "__main__.py"):
        return [_typed(sys.executable, ("python", "python3")), "-m", "curate"]
    return [_typed(str(script), ("curate",))] if script.name.startswith("curate") else ["curate"]


def line(*words: str) -> str:
    """A command of ours for a shell: what `words` say, after the program as it was called."""
    return shlex.join([*program(), *words])


def _typed(path: str, names: tuple[str, ...]) -> str:
    """The shortest way to write a program: a name on PATH, else a path from here, else the whole path."""
    for name in names:
        found = shutil.which(name)
        if found is not None and Path(found).absolute() == Path(path).absolute():
            return name
    absolute = Path(path).absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)
