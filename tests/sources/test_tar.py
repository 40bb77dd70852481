import io
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from curate.errors import SourceError
from curate.sources import tar
from curate.sources.listing import list_source
from curate.sources.reading import read_bytes, read_part
from tests.fuzz.properties import with_checksums
from tests.sources.helpers import catalog, keys, source, write_files, write_tar

LONG = "d" * 90 + "/" + "e" * 90 + "/é" + "n" * 120 + ".jpg"


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_offsets_lead_to_the_bytes_in_every_tar_format(tmp_path: Path, tar_format: int) -> None:
    members = {f"{i}.jpg": bytes([i]) * (i * 300) for i in range(8)}
    if tar_format != tarfile.USTAR_FORMAT:
        members[LONG] = b"long"
    path = write_tar(tmp_path / "a.tar", members, format=tar_format)
    archive = path.read_bytes()
    found = list(list_source(source(path)))
    assert {f.key: archive[f.offset : f.offset + f.length] for f in found} == {
        f"a.tar/{name}": data for name, data in members.items()
    }
    assert [f.key for f in found] == [f"a.tar/{name}" for name in members]


def test_sidecars_become_own_columns(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        {
            "x/1.txt": b" a cat\n",
            "x/1.jpg": b"one",
            "x/1.json": b'{"url": "u", "score": NaN}',
            "x/2.jpg": b"two",
            "x/3.png": b"three",
            "x/3.seg.png": b"mask",
            "x/3.cls": b"7",
            "x/4.v1.jpg": b"four",
            "x/4.v1.txt": b"v1",
            "x/4.v2.jpg": b"five",
            "x/4.v2.txt": b"v2",
            "x/5.jpg": b"six",
            "x/5.json": b"{broken",
        },
    )
    table = catalog(list_source(source(path)))
    reads = list(read_part(table, source(path)))
    assert [r.data for r in reads] == [b"one", b"two", b"three", b"four", b"five", b"six"]
    assert [r.extra for r in reads] == [
        {"url": "u", "score": None, "caption": "a cat"},
        None,
        {"label": 7},
        {"caption": "v1"},
        {"caption": "v2"},
        None,
    ]
    chosen = list(read_part(table, source(path, columns=("url",))))
    assert [r.extra for r in chosen] == [{"url": "u"}, None, None, None, None, None]


def test_selected_members_are_read_alone(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{i}.jpg": str(i).encode() for i in range(9)})
    table = catalog(list_source(source(path))).take([1, 4, 8])
    assert [r.data for r in read_part(table, source(path))] == [b"1", b"4", b"8"]
    assert [r.data for r in read_bytes(table, source(path))] == [b"1", b"4", b"8"]


def test_unsafe_members_are_refused_and_counted(tmp_path: Path) -> None:
    secret = write_files(tmp_path, {"secret.jpg": b"secret"}) / "secret.jpg"
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../up.jpg", "a/../../up.jpg", "/etc/abs.jpg", "good.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
        for name, kind in (("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE), ("f.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
    skipped: Counter[str] = Counter()
    found = list(list_source(source(path), skipped=skipped))
    assert [f.key for f in found] == ["a.tar/good.jpg"]
    assert skipped == {
        "tar member with an unsafe name": 3,
        "tar member that is a link": 2,
        "tar member that is a device or pipe": 1,
    }
    assert [r.data for r in read_part(catalog(found), source(path))] == [b"data"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "secret.jpg"]


def test_sparse_members_are_refused_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        sparse = tarfile.TarInfo("sparse.jpg")
        sparse.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": "4096", "GNU.sparse.numblocks": "1"}
        for info in (sparse, tarfile.TarInfo("plain.jpg")):
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
    skipped: Counter[str] = Counter()
    assert [f.key for f in list_source(source(path), skipped=skipped)] == ["a.tar/plain.jpg"]
    assert skipped == {"sparse tar member": 1}


def test_undecodable_member_names_are_escaped(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"./a\udcff.jpg": b"1"}, format=tarfile.GNU_FORMAT, errors="surrogateescape")
    assert keys(path) == [r"a.tar/a\xff.jpg"]


@pytest.mark.parametrize("cut", [1536 + 200, 1536 + 512 + 100])
def test_truncated_archive_is_an_error_that_names_file_and_offset(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1" * 600, "2.jpg": b"2" * 600, "3.jpg": b"3"})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SourceError, match=r"a\.tar: damaged or truncated at offset \d+"):
        keys(path)


def test_broken_header_in_the_middle_is_an_error_not_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1", "2.jpg": b"2"})
    data = bytearray(path.read_bytes())
    data[1024:1536] = b"\x55" * 512
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"offset 1024 \(a broken header: invalid header\)"):
        keys(path)


def test_archive_without_end_mark_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    path.write_bytes(path.read_bytes()[:1024])
    assert keys(path) == ["a.tar/1.jpg"]
    assert "no end mark at offset 1024" in caplog.text


def test_picture_under_a_wrong_suffix_is_found(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar", {"1.txt": b"\xff\xd8\xff\xe0 jpeg", "2.jpg": b"2", "2.txt": b"two", "3.csv": b""}
    )
    assert keys(path) == ["a.tar/1.txt", "a.tar/2.jpg"]


def test_archives_put_one_behind_the_other_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    keys(path)
    assert caplog.text == ""
    path.write_bytes(path.read_bytes() * 4)
    assert keys(path) == ["a.tar/1.jpg"]
    assert "bytes behind the end mark at offset 1024 are not read" in caplog.text


def test_what_is_no_tar_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.tar": b"<html>" * 200, "b.tar": b""})
    for name in ("a.tar", "b.tar"):
        with pytest.raises(SourceError, match="damaged or truncated at offset 0"):
            keys(tmp_path / name)


def test_compressed_archives_are_refused_with_the_command_that_unpacks_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "a b.tar", {"1.jpg": b"1"})
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "a b.tar", "x.jpg")
    with pytest.raises(SourceError, match=r"compressed archives cannot be read in place.*gunzip -k .*c\.tar\.gz"):
        keys(tmp_path / "c.tar.gz")
    with pytest.raises(SourceError, match=r"gunzip -k .*c\.tar\.gz"):
        keys(tmp_path, format="tar")
    (tmp_path / "c.tar.gz").rename(tmp_path / "d.tar")
    with pytest.raises(SourceError, match=r"its content is compressed \(gz\); unpack it: mv .*d\.tar\.gz && gunzip"):
        keys(tmp_path / "d.tar")
    for name, command in (("e.tar.zst", "unzstd"), ("f.zip", "unzip -n"), ("g.tar.xz", "unxz -k")):
        write_files(tmp_path, [name])
        with pytest.raises(SourceError, match=command):
            keys(tmp_path / name)


def test_archive_that_changed_since_listing_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1", "2.jpg": b"2" * 2000})
    table = catalog(list_source(source(path)))
    write_tar(path, {"1.jpg": b"1"})
    with pytest.raises(SourceError, match=r"no image at offset 1536 any more.*restore it, or start anew"):
        list(read_part(table, source(path)))
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(SourceError, match=r"damaged or truncated at offset 1536 \(64 of 2000 bytes\)"):
        list(read_bytes(table, source(path)))
    path.unlink()
    assert [(r.reject, r.error) for r in read_bytes(table, source(path))] == [
        ("unreadable", "a.tar: No such file or directory")
    ] * 2


def test_too_long_member_is_not_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"1" * 11, "2.jpg": b"2"})
    table = catalog(list_source(source(path)))
    for read in (read_part, read_bytes):
        first, second = read(table, source(path), max_bytes=10)
        assert (first.data, first.reject, first.error) == (None, "too_large", "11 bytes, at most 10 are read")
        assert second.data == b"2"


def header_with(archive: bytes, start: int, field: bytes) -> bytes:
    """An archive whose first header has other bytes at `start`, and a right checksum."""
    return with_checksums(archive[:start] + field + archive[start + len(field) :])


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (124, b"\xff" * 12),  # size -1: the next header would be this one
        (124, b"\xff" * 10 + b"\xfe\x00"),  # size -512
        (124, b"\x80" + b"\x7f" * 11),  # size beyond 64 bits
    ],
)
def test_sizes_of_headers_that_lead_in_a_circle_or_nowhere_are_damage(start: int, field: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * 100, "b.jpg": b"y"}, format=tarfile.GNU_FORMAT)
    path.write_bytes(header_with(path.read_bytes(), start, field))
    with pytest.raises(SourceError, match=r"a\.tar: damaged or truncated at offset"):
        list(list_source(source(path)))


def test_extended_headers_take_bounded_memory_and_no_stack(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.jpg": b"x" * (tar.MAX_HEADER_BYTES + 1)}, format=tarfile.GNU_FORMAT)
    path.write_bytes(header_with(path.read_bytes(), 156, b"L"))
    with pytest.raises(SourceError, match="an extended header of 131073 bytes, more than 131072 are not read"):
        list(list_source(source(path)))
    name = header_with(write_tar(path, {"a": b"n" * 512}, format=tarfile.GNU_FORMAT).read_bytes()[:1024], 156, b"L")
    path.write_bytes(name * 5000)
    with pytest.raises(SourceError, match=r"a\.tar: damaged or truncated"):
        list(list_source(source(path)))


def test_member_whose_name_begins_as_compressed_files_do_is_a_member(tmp_path: Path) -> None:
    (key,) = keys(write_tar(tmp_path / "a.tar", {"BZhang.jpg": b"x"}))
    assert key.removeprefix("a.tar/") == "BZhang.jpg"
