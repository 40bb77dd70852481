"""Archives whose headers lie: each listing ends after a few reads, and says where, what was found and what to do."""

import io
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from curate.errors import SourceDamaged
from curate.sources import tar
from curate.sources.listing import list_source
from curate.sources.reading import read_bytes, read_part
from tests.fuzz.properties import with_checksums
from tests.sources.helpers import catalog, keys, source, write_tar

BLOCK = tarfile.BLOCKSIZE
ADVICE = r"; fetch or write the archive again, or leave it out of the source"


class CountedFile(io.BytesIO):
    """A file that may be read so often and no oftener."""

    left = 2000

    def read(self, size: int | None = -1, /) -> bytes:
        CountedFile.left -= 1
        assert CountedFile.left, "the listing goes on and on"
        return super().read(size)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_counted(uri: str, **options: Any) -> Any:
        return CountedFile(Path(uri).read_bytes())

    monkeypatch.setattr(CountedFile, "left", 2000)
    monkeypatch.setattr(tar, "open_file", open_counted)


def header(name: str = "a.jpg", *, size: bytes | int = 0, kind: bytes = tarfile.REGTYPE, tail: bytes = b"") -> bytes:
    """A header with a right checksum, whatever its fields hold."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if isinstance(size, int):
        size = b"\x80" + size.to_bytes(11, "big", signed=True) if size >= 0 else size.to_bytes(12, "big", signed=True)
    block[124:136] = size
    block[BLOCK - len(tail) :] = tail
    return with_checksums(bytes(block))


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % BLOCK)


def member(name: str, data: bytes) -> bytes:
    return header(name, size=len(data)) + padded(data)


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", size=len(data), kind=kind) + padded(data)


def record(keyword: str, value: str) -> bytes:
    text = f" {keyword}={value}\n".encode()
    return next(str(n).encode() + text for n in range(len(text) + 10) if n == len(str(n)) + len(text))


GOOD = member("good.jpg", b"good")
SPARSE_MAP = b"\0" * 504 + b"\1" + b"\0" * 7


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("bad", "offset", "what"),
    [
        (header(size=-512), 1024, "a member of -512 bytes"),
        (header(size=-1024), 1024, "a member of -1024 bytes"),
        (header(size=b"-0000001000\0"), 1024, "a member of -512 bytes"),
        (header(size=-512, kind=tarfile.DIRTYPE), 1024, "a member of -512 bytes"),
        (header(size=2**60), 1024, f"a member of {2**60} bytes, of which 1024 are there"),
        (header(size=2**70), 1024, f"a member of {2**70} bytes, of which 1024 are there"),
        (header(size=1025), 1024, "a member of 1025 bytes, of which 1024 are there"),
        (header(size=2**60, kind=b"Q"), 1024, f"a member of {2**60} bytes, of which 1024 are there"),
        (header(size=b"zzzzzzzzzzzz"), 1024, "a broken header: invalid header"),
        (header()[:150] + b"7" + header()[151:], 1024, "a broken header: bad checksum"),
        (header(size=2**30, kind=tarfile.GNUTYPE_LONGNAME), 1024, f"an extended header of {2**30} bytes, more than"),
        (extended(b"\0" * 200_000), 1024, "an extended header of 200000 bytes, more than 131072 are not read"),
        (extended(b"\0" * 10_000_000), 1024, "an extended header of 10000000 bytes, more than"),
        (extended(b"\0" * 200_000, tarfile.XGLTYPE), 1024, "an extended header of 200000 bytes, more than"),
        (header(size=-512, kind=tarfile.XHDTYPE), 1024, "a member of -512 bytes"),
        (extended(b"99999999999999999999 a=b\n"), 1024, ""),
        (extended(record("size", "-512")) + header(), 1024, ""),
        (extended(record("size", "-2048")) + header(), 1024, ""),
        (extended(record("size", str(2**60))) + header(), 1024, f"a member of {2**60} bytes, of which 1024 are there"),
        (extended(b"") * 17 + header(), 1024 + 16 * 512, "more than 16 extended headers in a row"),
        (header(size=9, kind=tarfile.GNUTYPE_LONGNAME) + padded(b"n"), 1024, ""),
        (header(size=2**60, kind=tarfile.GNUTYPE_SPARSE), 1024, f"a member of {2**60} bytes, of which 1024 are there"),
    ],
)
def test_a_lying_header_is_damage_with_archive_offset_and_what_was_found(
    bad: bytes, offset: int, what: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD + bad + b"\0" * 2 * BLOCK)
    with pytest.raises(SourceDamaged) as caught:
        list(list_source(source(path)))
    assert re.search(
        rf"a\.tar: damaged or truncated at offset {offset} \(.*{re.escape(what)}.*\){ADVICE}", str(caught.value)
    )


@pytest.mark.usefixtures("counted")
def test_a_map_of_a_sparse_file_that_never_ends_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    sparse = header(kind=tarfile.GNUTYPE_SPARSE, tail=b"\1" + b"\0" * 29)
    path.write_bytes(GOOD + sparse + SPARSE_MAP * 50)
    with pytest.raises(SourceDamaged, match="offset 1024.*a map of a sparse file that is cut off"):
        list(list_source(source(path)))


@pytest.mark.usefixtures("counted")
def test_sparse_files_of_every_form_are_refused_whatever_their_maps_say(tmp_path: Path) -> None:
    path, skipped = tmp_path / "a.tar", Counter[str]()
    newest = record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.realsize", "9")
    path.write_bytes(
        header(kind=tarfile.GNUTYPE_SPARSE, tail=b"\1" + b"\0" * 29)
        + SPARSE_MAP * 20
        + b"\0" * BLOCK
        + extended(newest)
        + member("b.jpg", b"99999999999\n" * 100)
        + extended(record("GNU.sparse.map", "0,4") + record("GNU.sparse.size", str(2**40)))
        + member("c.jpg", b"data")
        + GOOD
    )
    assert [f.key for f in list_source(source(path), skipped=skipped)] == ["a.tar/good.jpg"]
    assert skipped == {"sparse tar member": 3}


@pytest.mark.usefixtures("counted")
def test_a_member_of_two_sizes_and_one_of_an_endless_name_are_refused_and_counted(tmp_path: Path) -> None:
    path, skipped = tmp_path / "a.tar", Counter[str]()
    long = b"n" * 4093 + b".jpg\0"
    path.write_bytes(
        extended(record("size", "3"))
        + member("two.jpg", b"four")
        + extended(long, tarfile.GNUTYPE_LONGNAME)
        + member("cut", b"long")
        + extended(record("path", "n" * 100_000 + ".jpg"))
        + member("cut", b"long")
        + extended(long[1:], tarfile.GNUTYPE_LONGNAME)
        + member("cut", b"just")
        + GOOD
    )
    found = list(list_source(source(path), skipped=skipped))
    assert [f.key for f in found] == [f"a.tar/{'n' * 4092}.jpg", "a.tar/good.jpg"]
    assert skipped == {
        "tar member of which two headers tell different sizes": 1,
        "tar member with a name longer than 4096 bytes": 2,
    }
    table = catalog(found)
    assert [r.data for r in read_part(table, source(path))] == [b"just", b"good"]
    assert [r.data for r in read_bytes(table, source(path))] == [b"just", b"good"]


def test_defaults_of_global_headers_neither_pile_up_nor_move_a_member(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    defaults = [extended(record(f"comment{n}", "c" * 1000) + record("size", "99"), tarfile.XGLTYPE) for n in range(40)]
    path.write_bytes(b"".join(one + member(f"{n}.jpg", b"data") for n, one in enumerate(defaults)))
    with tar.open_file(str(path)) as file:
        archive = tar._BoundedTar(str(path), file)
        while archive.next_member() is not None:
            assert archive.pax_headers == {}
            assert archive.members == []
    assert keys(path) == [f"a.tar/{n}.jpg" for n in range(40)]


@pytest.mark.usefixtures("counted")
def test_each_of_many_empty_members_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(header(f"{n}.jpg") for n in range(900)))
    CountedFile.left = 2 * 900 + 10
    assert len(keys(path)) == 900


def test_an_archive_of_the_web_is_bounded_alike(tmp_path: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/hostile/a.tar", GOOD + header(size=2**60) + b"\0" * 2 * BLOCK)
    fs.pipe("/hostile/b.tar", GOOD + header(size=-512) + b"\0" * 2 * BLOCK)
    try:
        for name, what in (("a", f"a member of {2**60} bytes"), ("b", "a member of -512 bytes")):
            with pytest.raises(SourceDamaged, match=rf"memory:///hostile/{name}\.tar: .*offset 1024 \({what}"):
                keys(f"memory://hostile/{name}.tar")
    finally:
        fs.rm("/hostile", recursive=True)


def test_bombs_of_packed_archives_are_refused_unopened(tmp_path: Path) -> None:
    bomb = write_tar(tmp_path / "a.tar.gz", {"a.tar.gz": b"\0" * 1_000_000}, format=tarfile.GNU_FORMAT)
    with tarfile.open(bomb, "w:gz") as packed:
        info = tarfile.TarInfo("inner.tar.gz")
        info.size = 5_000_000
        packed.addfile(info, io.BytesIO(b"\0" * info.size))
    with pytest.raises(Exception, match=r"compressed archives cannot be read in place.*gunzip -k"):
        keys(bomb)
    bomb.rename(tmp_path / "b.tar")
    with pytest.raises(Exception, match=r"its content is compressed \(gz\)"):
        keys(tmp_path / "b.tar")
