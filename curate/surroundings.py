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
from dataclasses import dataclass, field, replace
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


@dataclass(frozen=True)
class Surroundings:
    """What the code of a process may ask for."""

    workdir: Workdir | None = None
    """None: nothing can be kept."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By name; whoever reads one has a default for it."""


_current: list[Surroundings] = [Surroundings()]


def surroundings() -> Surroundings:
    """Those of this process now."""
    return _current[0]


def current_settings() -> dict[str, Any]:
    """A copy of the settings, to be sent to another process."""
    return dict(surroundings().settings)


@contextmanager
def surrounded(*, workdir: Workdir | None = None, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Within the block, this workdir and these settings beside those that were there; None: as they were."""
    before = surroundings()
    merged = {**before.settings, **(settings or {})}
    _current[0] = replace(before, workdir=workdir or before.workdir, settings=merged)
    try:
        yield
    finally:
        _current[0] = before
