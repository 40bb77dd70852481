import errno
import io
import os
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import retrying
from curate.errors import SourceError
from curate.sources import files, folder, parquet, tar
from curate.sources.folder import read_folder_file
from curate.sources.listing import list_source
from curate.sources.read import unavailable
from curate.sources.reading import is_loose, read_bytes, read_part
from tests.sources.helpers import catalog, source, write_files, write_tar


def test_folder_files_are_read_in_order_with_their_sidecars(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "a.jpg": b"a",
            "a.json": b'{"url": "u", "caption": "json wins"}',
            "a.txt": b"text",
            "b.png": b"b",
            "b.txt": "größe".encode(),
            "c.jpg": b"",
        },
    )
    table = catalog(list_source(source(tmp_path)))
    assert is_loose(table, source(tmp_path))
    reads = list(read_part(table, source(tmp_path)))
    assert [r.data for r in reads] == [b"a", b"b", b""]
    assert [r.extra for r in reads] == [{"url": "u", "caption": "json wins"}, {"caption": "größe"}, None]
    assert [r.extra for r in read_bytes(table, source(tmp_path))] == [None] * 3


def test_tar_rows_are_not_loose(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    assert not is_loose(catalog(list_source(source(path))), source(path))


def test_files_that_cannot_be_had_are_told_apart_and_do_not_stop_the_others(tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(("dir.jpg", "gone.jpg", "long.jpg", "loop.jpg", "ok.jpg", "pipe.jpg"), b"123"))
    table = catalog(list_source(source(tmp_path)))
    for name in ("dir.jpg", "gone.jpg", "loop.jpg", "pipe.jpg"):
        (tmp_path / name).unlink()
    (tmp_path / "dir.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "long.jpg").write_bytes(b"12345")
    reads = list(read_part(table, source(tmp_path), max_bytes=4))
    assert [(r.data, r.reject, r.error) for r in reads] == [
        (None, "unreadable", "not a regular file (a folder)"),
        (None, "unreadable", "No such file or directory"),
        (None, "too_large", "5 bytes, at most 4 are read"),
        (None, "unreadable", "Too many levels of symbolic links"),
        (b"123", None, None),
        (None, "unreadable", "not a regular file (a pipe)"),
    ]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: OSError, times: int) -> list[int]:
    """Make `times` opens of folder files fail; returns the list that counts the opens."""
    opened: list[int] = []

    def opening(path: bytes) -> Any:
        opened.append(1)
        if len(opened) <= times:
            raise error
        return Path(os.fsdecode(path)).open("rb")

    monkeypatch.setattr(folder, "open_regular", opening)
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    return opened


def test_permission_denied_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a.jpg"])
    opened = fail_with(monkeypatch, PermissionError(errno.EACCES, "Permission denied"), 1)
    read = read_folder_file(str(tmp_path / "a.jpg"), max_bytes=99)
    assert (read.error, read.reject, len(opened)) == ("Permission denied", "unreadable", 1)


def test_passing_error_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a.jpg"])
    fail_with(monkeypatch, OSError(errno.EIO, "Input/output error"), 3)
    assert read_folder_file(str(tmp_path / "a.jpg"), max_bytes=99).data == b"a.jpg"


class Flaky(io.FileIO):
    """A file whose every fourth read fails."""

    num_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        Flaky.num_reads += 1
        if Flaky.num_reads % 4 == 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_passing_errors_in_the_middle_of_an_archive_lose_and_repeat_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images = [b"%04d" % i * 500 for i in range(300)]
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        write_tar(path, {f"{i}.jpg": image for i, image in enumerate(images)})
    else:
        pq.write_table(pa.table({"jpg": images}), path, row_group_size=100, write_batch_size=8, data_page_size=4096)
    table = catalog(list_source(source(path)))
    monkeypatch.setattr(tar if kind == "tar" else parquet, "open_file", lambda uri, spans: Flaky(uri))
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    before = Flaky.num_reads
    assert [r.data for r in read_part(table, source(path))] == images
    assert Flaky.num_reads > before + 4


def test_disk_that_keeps_failing_leaves_the_image_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a.jpg"])
    opened = fail_with(monkeypatch, OSError(errno.EIO, "Input/output error"), 99)
    assert read_folder_file(str(tmp_path / "a.jpg"), max_bytes=99) == unavailable("Input/output error")
    assert len(opened) == retrying.ATTEMPTS


def test_remote_files_tars_and_the_missing_are_read() -> None:
    fs = fsspec.filesystem("memory")
    try:
        fs.pipe("/reading/a.jpg", b"abc")
        fs.pipe("/reading/b.jpg", b"abcdef")
        fs.pipe("/reading/c.jpg", b"")
        table = catalog(list_source(source("memory://reading")))
        fs.rm("/reading/c.jpg")
        reads = list(read_part(table, source("memory://reading"), max_bytes=4))
        assert [(r.data, r.reject) for r in reads] == [(b"abc", None), (None, "too_large"), (None, "unreadable")]
    finally:
        fs.rm("/reading", recursive=True)


def test_remote_tar_is_streamed(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    members = {"1.jpg": b"1", "1.txt": b"one", "2.jpg": b"2"}
    try:
        fs.pipe("/tars/a.tar", write_tar(tmp_path / "a.tar", members).read_bytes())
        table = catalog(list_source(source("memory://tars")))
        reads = list(read_part(table, source("memory://tars")))
        assert [(r.data, r.extra) for r in reads] == [(b"1", {"caption": "one"}), (b"2", None)]
    finally:
        fs.rm("/tars", recursive=True)


def test_archive_that_became_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(SourceError, match=r"not a regular file \(a pipe\); leave it out"):
        files.open_file(str(tmp_path / "a.tar"))
