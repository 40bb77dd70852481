"""What a run in one process need not ask of an object store again."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from curate.engine.held_files import FILE_BYTES, HeldFiles
from curate.engine.store import Store


def held(files: HeldFiles, names: str) -> str:
    return "".join(name for name in names if files.get(name) is not None)


def test_the_file_that_was_not_asked_for_the_longest_goes_first(tmp_path: Path) -> None:
    files, local = HeldFiles(file_bytes=4, all_bytes=10), tmp_path / "file"
    local.write_bytes(b"four")
    for name in "ab":
        files.hold(name, local)
    assert files.get("a") == b"four"
    files.hold("c", local)
    assert held(files, "abc") == "ac"
    files.hold("c", local)  # counts once
    local.write_bytes(b"")
    files.hold("d", local)
    assert held(files, "abcd") == "acd"
    local.write_bytes(b"longer")
    files.hold("e", local)
    assert files.get("e") is None


@pytest.fixture
def store() -> Iterator[Store]:
    """A workdir that others can write to behind its back."""
    yield Store("memory://held/run")
    fsspec.filesystem("memory").rm("/held", recursive=True)


def write_behind(name: str, data: bytes) -> None:
    fsspec.filesystem("memory").pipe_file(f"/held/run/{name}", data)


def test_what_a_process_alone_published_is_not_read_again(store: Store) -> None:
    task = Store(store.root)  # tasks open the workdir anew
    with store.keeping(alone=True):
        task.write_bytes("a/part", b"written")
        write_behind("a/part", b"changed")
        assert store.read_bytes("a/part") == task.read_bytes("a/part") == b"written"
        with store.fs.open(store.join("a/part")) as file:
            assert file.read() == b"written"
        assert [store.fs.exists(store.join(name)) for name in ("a/part", "b")] == [True, False]
        assert store.list_files("a") == {"part": 7}
        write_behind("a/part", b"of another length")
        assert store.list_files("a") == {"part": 17}
        assert store.read_bytes("a/part") == b"of another length"
    assert task.read_bytes("a/part") == b"of another length"


def test_what_is_removed_moved_or_written_anew_is_not_held_as_it_was(store: Store) -> None:
    with store.keeping(alone=True):
        for name in ("a/_x/part", "b", "c", "d/part"):
            store.write_bytes(name, b"one")
        store.write_bytes("b", b"two")
        store.move("c", "e")
        store.remove("d")
        assert store.remove_folders("a", ["_x"])
        found = {name: store.read_bytes(name) for name in ("a/_x/part", "b", "c", "d/part", "e")}
    assert found == {"a/_x/part": None, "b": b"two", "c": None, "d/part": None, "e": b"one"}


def test_without_that_every_read_is_the_stores(store: Store) -> None:
    with store.keeping():
        store.write_bytes("part", b"written")
        write_behind("part", b"changed")
        assert store.read_bytes("part") == b"changed"
    with store.keeping(alone=True):
        store.write_bytes("large", bytes(FILE_BYTES + 1))
        write_behind("large", b"changed")
        assert store.read_bytes("large") == b"changed"
