"""What surrounds the work of a process: the workdir that it is for, and settings that change no table.

Sources read images and know no workdir; yet what they fetch from the web has to be kept somewhere, and how many
connections they may open is a matter of the whole run, which may change between two runs without any table being made
again. Neither belongs into a catalog or a fingerprint. So the engine says around each task which workdir it is for, a
run says its settings, and every task carries those to the process that performs it.

This is one value for a process and no context variable: the threads of a pass must see it, and a process performs one
task at a time.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, Protocol


class Workdir(Protocol):
    """Where files are kept; `curate.engine.store.Store` is one."""

    fs: Any
    """The fsspec file system."""

    def join(self, *names: str) -> str:
        """A path on that file system."""
        ...

    def publish(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that appears under `name` complete or not at all."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        ...


_workdir: list[Workdir | None] = [None]
_settings: list[Mapping[str, Any]] = [{}]


def current_workdir() -> Workdir | None:
    """The workdir that this process works for; None: nothing can be kept."""
    return _workdir[0]


def current_settings() -> dict[str, Any]:
    """The settings by name, as they can be sent to another process; whoever reads one has a default for it."""
    return dict(_settings[0])


@contextmanager
def surrounded(*, workdir: Workdir | None = None, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block, this workdir and these settings beside those that were there; None: as they were."""
    before = _workdir[0], _settings[0]
    _workdir[0], _settings[0] = workdir or before[0], {**before[1], **(settings or {})}
    try:
        yield
    finally:
        _workdir[0], _settings[0] = before
