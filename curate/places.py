"""Where files lie: paths and URLs as file systems, every name taken as it is written.

`[1]`, `*` or `::` are good names of folders; a path is a pattern only where nothing lies under it as a name.
"""

from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PATTERN_SIGNS = "*?["


def find_filesystem(place: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path there."""
    if "://" not in place:  # fsspec would take `::` for a chain of file systems
        local = LocalFileSystem()
        return local, local._strip_protocol(place)
    filesystem, path = fsspec.core.url_to_fs(place)
    return filesystem, path


def list_parquet(filesystem: Any, path: str) -> list[str]:
    """Parquet files in order of name: those of a folder, one file, or what a pattern finds; empty: nothing is there."""
    if filesystem.isdir(path):
        inside = filesystem.ls(path, detail=False)
        return sorted(name for name in inside if name.endswith(".parquet") and not _file_name(name).startswith("."))
    if filesystem.exists(path):
        return [path]
    return sorted(filesystem.glob(path)) if any(sign in path for sign in PATTERN_SIGNS) else []


def _file_name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
