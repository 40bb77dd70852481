"""Only regular files are opened, whatever takes their place, and nothing is waited for."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate import opening
from curate.opening import NotRegularFile, check_regular, open_of, open_regular, read_regular
from curate.retrying import is_damage, is_permanent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of what is no regular file, entered, since names of sockets are short."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        yield tmp_path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("pipe", "a pipe"),
        ("folder", "a folder"),
        ("socket", "a socket"),
        ("/dev/zero", "a device"),
        ("/proc/self/maps", "made up by the kernel"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_is_no_regular_file_is_never_opened(name: str, what: str) -> None:
    Path("link").symlink_to(name)
    for path in (name, "link", Path(name), os.fsencode(name)):
        for use in (open_regular, read_regular, check_regular):
            with pytest.raises(NotRegularFile) as caught:
                use(path)
            assert caught.value.strerror == f"not a regular file ({what})"
            assert caught.value.filename == os.fsdecode(path)
            assert is_permanent(caught.value)  # so nobody tries it again
            assert is_damage(caught.value)


@pytest.mark.parametrize("name", ["pipe", "socket", "/dev/null", "folder"])
def test_what_takes_the_place_of_a_file_between_look_and_open_is_closed_again(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_bytes(b"data")
    regular, open_now = (folder / "file").stat(), len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(opening.os, "stat", lambda path: regular)
    with pytest.raises(NotRegularFile, match="not a regular file"):
        open_regular(name)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_now


def test_regular_files_are_read_and_errors_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(tmp_path / "link") == b"data"
    with open_regular(tmp_path / "file") as file:
        assert (file.seek(2), file.read()) == (2, b"ta")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_file_systems_of_fsspec_open_local_files_alike(folder: Path) -> None:
    (folder / "file").write_bytes(b"data")
    local, memory = fsspec.filesystem("file"), fsspec.filesystem("memory")
    memory.pipe("/opening/file", b"memory")
    names: list[tuple[Any, str, bytes]] = [(local, f"{folder}/file", b"data"), (memory, "/opening/file", b"memory")]
    try:
        for filesystem, path, data in names:
            with open_of(filesystem, path) as file:
                assert file.read() == data
    finally:
        memory.rm("/opening", recursive=True)
    with pytest.raises(NotRegularFile):
        open_of(local, f"{folder}/pipe")
