"""Files appear whole or not at all: they are written beside their place, flushed to disk, then renamed."""

import filecmp
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.errors import WeightsError


@contextmanager
def publishing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary place for a file or folder; what lies there at the end replaces `path`.

    Files that were made beside it, such as external data, move too, and before it. After an error all is as it was.

    Raises:
        WeightsError: there is other content already, and `overwrite` is False; or a folder there has other files,
            which would be lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        partial = Path(scratch) / path.name
        yield partial
        probe = Path(scratch) / ".mode"
        probe.touch()
        mode = (
            probe.stat().st_mode
        )  # what the umask of the user gives: safetensors makes files that nobody else may read
        probe.unlink()
        made = [*sorted(entry for entry in Path(scratch).iterdir() if entry != partial), partial]
        for entry in made:
            target = path.parent / entry.name
            if not overwrite and target.exists() and not same_content(entry, target):
                raise WeightsError(f"{target}: exists and differs; choose another output, or give --overwrite")
            others = sorted(_entry_names(target) - _entry_names(entry))
            if others:
                raise WeightsError(f"{target}: holds other files too ({', '.join(others[:4])}); choose another output")
            _flush(entry, mode=mode)
        for entry in made:
            _take_place(entry, path.parent / entry.name, aside=Path(scratch) / "old")


def same_content(first: Path, second: Path) -> bool:
    """Whether two files, or two flat folders, hold the same bytes."""
    if first.is_dir() and second.is_dir():
        names = _entry_names(first)
        return names == _entry_names(second) and all(same_content(first / name, second / name) for name in names)
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def _entry_names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _take_place(entry: Path, target: Path, *, aside: Path) -> None:
    if target.exists() and (target.is_dir() or entry.is_dir()):  # a rename replaces nothing but a file by a file
        target.rename(aside)
    entry.replace(target)


def _flush(entry: Path, *, mode: int) -> None:
    for file in [entry] if entry.is_file() else entry.iterdir():
        file.chmod(mode)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
