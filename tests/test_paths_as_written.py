"""Every name is taken as it is written; patterns only where nothing has that name."""

from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from curate.filesystems import list_parquet, open_filesystem

NAMES = pytest.mark.parametrize("name", ["a[1]", "a*b?", "with space", "ü#%20", "x::y", "file::z", "~"])


@NAMES
def test_folders_and_files_of_any_name_are_found(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    files = [folder / f"{name}.parquet", folder / "b.parquet"]
    for file in [*files, folder / "c.txt", folder / ".tmp-1.parquet"]:
        file.touch()
    filesystem, path = open_filesystem(str(folder))
    assert isinstance(filesystem, LocalFileSystem)
    assert list_parquet(filesystem, path) == sorted(map(str, files))
    assert list_parquet(*open_filesystem(str(files[0]))) == [str(files[0])]


def test_patterns_hold_where_nothing_has_the_name(tmp_path: Path) -> None:
    for name in ("a1.parquet", "a2.parquet", "b.parquet"):
        (tmp_path / name).touch()
    found = list_parquet(*open_filesystem(f"{tmp_path}/a[0-9].parquet"))
    assert found == [f"{tmp_path}/a1.parquet", f"{tmp_path}/a2.parquet"]
    assert list_parquet(*open_filesystem(f"{tmp_path}/absent")) == []
    assert list_parquet(*open_filesystem(f"{tmp_path}/none[1]")) == []


def test_urls_are_fsspecs() -> None:
    filesystem, path = open_filesystem("memory://places/x.parquet")
    assert isinstance(filesystem, MemoryFileSystem)
    filesystem.pipe(path, b"")
    assert list_parquet(filesystem, "/places") == [path]
