import inspect
import os
import sys
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from curate import retrying
from curate.errors import SourceError
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from curate.sources.uri import decode_uri
from tests.sources.helpers import catalog, keys, source, write_files, write_tar


def test_folder_is_listed_in_bytewise_order_of_paths(tmp_path: Path) -> None:
    names = ["a.jpg", "a/z.jpg", "a-b/x.jpg", "A.jpg", "é.jpg", "a/b/c.jpg", "a0.jpg"]
    write_files(tmp_path, names)
    assert keys(tmp_path) == sorted(names, key=str.encode)


def test_every_row_tells_path_length_and_time(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/b.jpg": b"12345"})
    (found,) = list_source(source(tmp_path))
    assert found.uri == str(tmp_path / "a/b.jpg")
    assert (found.length, found.offset, found.row, found.container) == (5, None, None, None)
    assert found.modified == (tmp_path / "a/b.jpg").stat().st_mtime_ns


def test_names_of_any_bytes_are_listed_and_lead_back_to_the_file(tmp_path: Path) -> None:
    names = [b"new\nline.jpg", b"100%41.jpg", b"bad\xff.jpg", b"back\\xff.jpg", "ünï 画.jpg".encode(), b" .jpg"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(name)  # noqa: PTH118
    uris = [found.uri for found in list_source(source(tmp_path))]
    assert [Path(os.fsdecode(decode_uri(uri))).read_bytes() for uri in uris] == sorted(names)


def test_what_counts_as_an_image_follows_the_rule(tmp_path: Path) -> None:
    images = ["no_suffix", "page.html.jpg", "photo.xyz", "photo.JPEG", "x.webp"]
    others = ["truth.csv", "x.json", "x.txt", "x.cls", ".hidden.jpg", ".git/a.jpg", "README.md", "clip.mp4", "a.tar.gz"]
    write_files(tmp_path, images + others)
    skipped: Counter[str] = Counter()
    assert [found.key for found in list_source(source(tmp_path), skipped=skipped)] == sorted(images)
    assert skipped["other file (.csv)"] == 1
    assert skipped["hidden file"] == skipped["hidden folder"] == 1
    beside = ["x.json", "x.txt", "x.cls"]  # they describe x.webp
    assert skipped.total() == len(others) - len(beside)


def test_picture_under_any_wrong_suffix_is_found_and_is_no_sidecar(tmp_path: Path) -> None:
    for name, kind in (("a.txt", "JPEG"), ("b.csv", "PNG"), ("c.pdf", "WEBP"), ("d.json", "GIF"), ("e.bin", "TIFF")):
        Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    Image.new("RGB", (8, 8)).save(tmp_path / "f.html", "BMP")
    write_files(tmp_path, {"a.jpg": b"1", "g.txt": b"BMW is a word", "h.json": b"{}", "i.csv": b""})
    found = list(list_source(source(tmp_path)))
    assert [f.key for f in found] == ["a.jpg", "a.txt", "b.csv", "c.pdf", "d.json", "e.bin", "f.html"]
    assert [read.extra for read in read_part(catalog(found), source(tmp_path))] == [None] * 7


def test_folders_may_be_nested_deeper_than_the_stack_of_calls(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 150)
    deep.mkdir(parents=True)
    (deep / "x.jpg").write_bytes(b"1")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 80)
    try:
        listed = keys(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert [key.count("/") for key in listed] == [150]


def test_linked_files_are_followed_and_dangling_links_are_left_to_reading(tmp_path: Path) -> None:
    write_files(tmp_path, {"elsewhere/a.jpg": b"123", "here/b.jpg": b"1"})
    (tmp_path / "here/link.jpg").symlink_to(tmp_path / "elsewhere/a.jpg")
    (tmp_path / "here/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = {f.key: f.length for f in list_source(source(tmp_path / "here", roots=(str(tmp_path),)))}
    assert found == {"b.jpg": 1, "link.jpg": 3, "gone.jpg": None}


def test_folder_cycles_are_not_followed(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/b/x.jpg"])
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/b/self").symlink_to(".")
    (tmp_path / "a/b/root").symlink_to(tmp_path)
    skipped: Counter[str] = Counter()
    assert [f.key for f in list_source(source(tmp_path), skipped=skipped)] == ["a/b/x.jpg"]
    assert skipped == {"link to a folder around it": 3}


def test_linked_folder_is_followed_once(tmp_path: Path) -> None:
    write_files(tmp_path, ["out/x.jpg", "in/y.jpg"])
    for name in ("l1", "l2"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "out")
    assert keys(tmp_path / "in", roots=(str(tmp_path / "out"),)) == ["l1/x.jpg", "y.jpg"]


def test_folders_that_all_link_to_each_other_end_soon(tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(8)]
    write_files(tmp_path, [f"{name}/x.jpg" for name in names])
    for name in names:
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    listed = keys(tmp_path)
    assert set(listed) >= {f"{name}/x.jpg" for name in names}
    assert len(listed) <= len(names) * (len(names) + 1)


def test_pipes_are_left_out_and_never_opened(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg"])
    os.mkfifo(tmp_path / "pipe.jpg")
    skipped: Counter[str] = Counter()
    assert [f.key for f in list_source(source(tmp_path), skipped=skipped)] == ["a.jpg"]
    assert skipped["pipe, socket or device"] == 1


def test_unreadable_folder_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a/x.jpg", "locked/x.jpg"])
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(
        SourceError, match=r"locked: the folder cannot be listed \(Permission denied\); make it readable"
    ):
        keys(tmp_path)


def test_passing_error_of_a_folder_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["x.jpg"])
    scandir, failures = os.scandir, [OSError(5, "Input/output error")] * 2

    def flaky(path: bytes) -> object:
        if failures:
            raise failures.pop()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", flaky)
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
    assert keys(tmp_path) == ["x.jpg"]


def test_missing_path_empty_folder_and_no_images_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: No such file or directory; give the path of a folder"):
        keys(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no image was found .*nothing was there; give a folder"):
        keys(tmp_path)
    write_files(tmp_path, ["a.md", "b.md", "c.txt"])
    with pytest.raises(SourceError, match=r"left out: 2 x other file \(\.md\), 1 x description without an image"):
        keys(tmp_path)


def test_device_is_no_source() -> None:
    with pytest.raises(SourceError, match="/dev/null: neither a folder nor a regular file"):
        keys("/dev/null")


def test_single_image_file_is_a_source(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg"])
    assert keys(tmp_path / "a.jpg") == ["a.jpg"]


def test_glob_of_tars_and_of_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", {"2.jpg": b"2"})
    write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    write_files(tmp_path, ["s1/x.jpg", "s2/d/y.jpg", "t/z.jpg"])
    assert keys(tmp_path / "*.tar") == ["a.tar/1.jpg", "b.tar/2.jpg"]
    assert keys(tmp_path / "s*") == ["s1/x.jpg", "s2/d/y.jpg"]
    with pytest.raises(SourceError, match="nothing matches"):
        keys(tmp_path / "*.parquet")
    with pytest.raises(SourceError, match=r"\*\* is not supported; give the folder"):
        keys(tmp_path / "**" / "*.jpg")


def test_folder_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    write_files(tmp_path / "a[1]", ["x.jpg"])
    assert keys(tmp_path / "a[1]") == ["x.jpg"]


def test_list_keeps_its_order_and_is_relative_to_itself(tmp_path: Path) -> None:
    write_files(tmp_path, ["b.jpg", "d/a.jpg", "d/c.png"])
    (tmp_path / "list.txt").write_text(f"b.jpg\r\n\n{tmp_path}/gone.jpg\nd\ns3://bucket/x.jpg\n")
    found = list(list_source(source(tmp_path / "list.txt")))
    assert [f.uri for f in found] == [
        str(tmp_path / "b.jpg"),
        str(tmp_path / "gone.jpg"),
        str(tmp_path / "d/a.jpg"),
        str(tmp_path / "d/c.png"),
        "s3://bucket/x.jpg",
    ]
    assert [f.length for f in found] == [5, None, 7, 7, None]


def test_list_of_tars(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", {"2.jpg": b"2"})
    write_tar(tmp_path / "a.tar", {"1.jpg": b"1"})
    write_files(tmp_path, {"shards.lst": b"b.tar\na.tar\n"})
    assert keys(tmp_path / "shards.lst", format="list") == ["b.tar/2.jpg", "a.tar/1.jpg"]


def test_mixture_is_refused_until_the_format_is_said(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg"])
    write_tar(tmp_path / "b.tar", {"1.jpg": b"1"})
    with pytest.raises(
        SourceError, match=r"b\.tar: a tar archive among image files; say which to read: .*format: folder"
    ):
        keys(tmp_path)
    assert keys(tmp_path, format="folder") == ["a.jpg"]
    assert keys(tmp_path, format="tar") == ["b.tar/1.jpg"]


def test_folder_of_files_without_suffix_is_a_folder_of_images(tmp_path: Path) -> None:
    write_files(tmp_path, ["1", "2"])
    assert keys(tmp_path) == ["1", "2"]


def test_remote_folder_is_listed_as_a_local_one() -> None:
    fs = fsspec.filesystem("memory")
    for name in ("b.jpg", "a/x y%.jpg", "a/.h.jpg", "note.txt"):
        fs.pipe(f"/listing/{name}", name.encode())
    try:
        found = list(list_source(source("memory://listing")))
        assert [f.key for f in found] == ["a/x y%.jpg", "b.jpg"]
        assert [f.uri for f in found] == ["memory:///listing/a/x y%.jpg", "memory:///listing/b.jpg"]
        assert [f.length for f in found] == [10, 5]
        assert keys("memory://listing/*.jpg") == ["b.jpg"]
    finally:
        fs.rm("/listing", recursive=True)


def test_remote_paths_that_cannot_be_used_are_errors() -> None:
    with pytest.raises(SourceError, match="nothing is there; check the URL"):
        keys("memory://nowhere")
    with pytest.raises(SourceError, match="chained URLs are not supported"):
        keys("memory://a::memory://b")
    with pytest.raises(SourceError, match="install the fsspec package"):
        keys("nosuchprotocol://a")


def test_link_to_itself_is_listed_and_stops_nothing(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    found = keys(tmp_path)
    assert found == ["a.jpg", "self.jpg"]  # reading then rejects it


def encoded(text: str, encoding: str) -> bytes:
    return (text if encoding == "utf-8" else "\ufeff" + text).encode(encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_list_of_any_system_names_the_same_files(encoding: str, end: str, tmp_path: Path) -> None:
    names = ["größe.jpg", "b b.jpg", "#c.jpg", '"d".jpg', "e,f.jpg"]
    write_files(tmp_path, names)
    text = end.join([*names, "", "  ", ""])
    (tmp_path / "list.txt").write_bytes(encoded(text.removeprefix("\ufeff"), encoding.replace("-sig", "")))
    found = list(list_source(source(tmp_path / "list.txt")))
    assert [f.key for f in found] == names
    assert all(f.length for f in found), "each is there"


def test_name_in_a_list_is_taken_with_its_blanks_where_such_a_file_is(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg", "b.jpg ", "b.jpg"])
    (tmp_path / "list.txt").write_text("a.jpg \t\nb.jpg \nb.jpg\n gone.jpg \nhttp://h/c.jpg \n")
    assert keys(tmp_path / "list.txt") == ["a.jpg", "b.jpg ", "b.jpg", "gone.jpg", "http://h/c.jpg"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PAR1\x15\x04", "it is a Parquet file"),
        (b"\x1f\x8b\x08\x00", r"its content is compressed \(gz\)"),
        (b"BZh91AY&SY", r"its content is compressed \(bz2\)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "it is a picture"),
        (b"\r\n<!DOCTYPE html><html>", "it is a page of HTML or XML"),
        (b'{"url": "http://h/a.jpg"}\n', "it is JSON"),
        (b"file,label\na.jpg,cat\n", "its first line, 'file,label', is the header of a table"),
        (b'\xef\xbb\xbf"Image_Path"\tn\na.jpg\t1\n', "is the header of a table"),
        (b"a.jpg\nb.jpg\0\n", "line 2 holds a NUL byte"),
        ("a.jpg\n".encode("utf-16-le"), "line 1 holds a NUL byte"),
        (b"\xff\xfea\0\n", "begins with the mark of utf-16-le, but is none"),
        (b"x" * 100_000, "line 1 is longer than"),
    ],
)
def test_what_is_no_list_is_refused_by_name(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(SourceError, match=rf"list\.txt: not a list of paths: .*{what}"):
        keys(tmp_path / "list.txt")


def test_names_that_look_like_something_else_are_names(tmp_path: Path) -> None:
    names = ["BZhang.jpg", "path", "PK.jpg", "key,label.jpg"]
    write_files(tmp_path, names)
    (tmp_path / "list.txt").write_text("path\n" + "".join(f"{name}\n" for name in names))
    assert keys(tmp_path / "list.txt") == ["path", *names]
    (tmp_path / "other.txt").write_text("BZhang.jpg\nfile\n")
    assert keys(tmp_path / "other.txt") == ["BZhang.jpg", "file"]


def test_line_that_is_no_url_costs_its_image_alone(tmp_path: Path) -> None:
    write_files(tmp_path, ["a.jpg"])
    bad = [b"http://[::1", b"javascript://x", b"http://h/\xff.jpg", b"memory::http://h/a.jpg", b"http://h/a\tb.jpg"]
    (tmp_path / "list.txt").write_bytes(b"\n".join([*bad[:3], b"a.jpg", *bad[3:]]))
    found = list(list_source(source(tmp_path / "list.txt")))
    reads = list(read_part(catalog(found), source(tmp_path / "list.txt")))
    assert [read.reject for read in reads] == ["unreadable"] * 3 + [None] + ["unreadable"] * 2
    assert [read.error for read in reads if read.error] == [
        "not a URL: Invalid IPv6 URL",
        "not a URL: the protocol 'javascript' is not known",
        "not a URL: 'utf-8' codec can't decode byte 0xff in position 9: invalid start byte",
        "No such file or directory",
        "not a URL: it holds control characters",
    ]
