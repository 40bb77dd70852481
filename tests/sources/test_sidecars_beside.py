"""What lies beside an image reaches it whatever the order, the place and the protocol; what does not is told."""

import functools
import http.server
import os
import random
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from curate.sources import remote, tar
from curate.sources.left_out import LeftOut
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from tests.sources.helpers import catalog, keys, source, write_files, write_tar

DESCRIBED = {
    "a.jpg": b"a",
    "a.txt": b"caption a",
    "b.v2.jpg": b"b",
    "b.v2.caption": b"caption b",
    "b.txt": b"not b.v2's",
    "c.jpg": b"c",
    "c.json": b'{"url": "general"}',
    "c.jpg.json": b'{"url": "telling"}',
    "c.cls": b"7",
    "d.JPG": b"d",
    "d.TXT": b"upper case",
    "sub/e.jpg": b"e",
    "sub/e.text": b"caption e",
    "f.jpg": b"f",
}
EXPECTED = {
    "a.jpg": {"caption": "caption a"},
    "b.v2.jpg": {"caption": "caption b"},
    "c.jpg": {"url": "telling", "label": 7},
    "d.JPG": {"caption": "upper case"},
    "sub/e.jpg": {"caption": "caption e"},
    "f.jpg": None,
}


def extras(path: object, *, skipped: LeftOut | None = None, **fields: Any) -> dict[str, Any]:
    """The own columns of every image by the last part of its key."""
    mine = source(path, **fields)
    found = list(list_source(mine, skipped=skipped))
    reads = list(read_part(catalog(found), mine))
    assert all(read.data is not None for read in reads)
    return {f.key: read.extra for f, read in zip(found, reads, strict=True)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that gives the files of `tmp_path`, with pages that list folders."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()


def test_sidecars_of_a_folder_do_not_depend_on_the_protocol(tmp_path: Path) -> None:
    write_files(tmp_path / "d", DESCRIBED)
    fs = fsspec.filesystem("memory")
    for name, data in DESCRIBED.items():
        fs.pipe(f"/beside/{name}", data)
    try:
        for place in (tmp_path / "d", f"file://{tmp_path}/d", "memory://beside"):
            skipped = LeftOut()
            assert extras(place, skipped=skipped) == EXPECTED, place
            assert skipped == {"description without an image": 1}
            assert skipped.example == {"description without an image": "b.txt"}
    finally:
        fs.rm("/beside", recursive=True)


def test_sidecars_of_a_web_folder_are_read(tmp_path: Path, server: str) -> None:
    pytest.importorskip("aiohttp")
    write_files(tmp_path / "d", DESCRIBED)
    write_tar(tmp_path / "d.tar", {"1.jpg": b"1", "1.txt": b"one"})
    assert extras(f"{server}/d/") == EXPECTED
    assert extras(f"{server}/{{d,d}}.tar") == {"d.tar/1.jpg": {"caption": "one"}}


def test_pages_of_a_web_folder_lead_nowhere_but_below_it() -> None:
    root = "http://host/data/"
    pages = {
        root: [
            "a.jpg",
            "s/",
            "?C=N;O=D",
            "http://host/data/",
            "http://host/",
            "http://other/x.jpg",
            "http://host/database/y.jpg",
        ],
        f"{root}s/": ["b.jpg", "http://host/data/", "http://host/data/s/"],
    }

    class Pages:
        def ls(self, url: str, *, detail: bool) -> list[dict[str, str]]:
            return [{"name": name if "://" in name else url + name} for name in pages.pop(url)]

    assert sorted(remote._find_on_web(Pages(), root)) == [f"{root}a.jpg", f"{root}s/b.jpg"]


@pytest.mark.parametrize("held", [65_536, 2])
def test_sidecars_of_a_tar_do_not_depend_on_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(tar, "IMAGES_HELD", held)  # of larger archives the headers are walked twice
    members = dict(DESCRIBED)
    members.pop("b.txt")  # in a tar it would be of the key `b`, and so of `b.v2.jpg`
    members["left.over.txt"] = b"?"
    rng = random.Random(0)
    for _ in range(5):
        order = rng.sample(sorted(members), len(members))
        path = write_tar(tmp_path / "a.tar", [(name, members[name]) for name in order])
        skipped = LeftOut()
        assert extras(path, skipped=skipped) == {f"a.tar/{name}": own for name, own in EXPECTED.items()}
        assert skipped == {"description without an image": 1}
        assert skipped.example == {"description without an image": "a.tar/left.over.txt"}


def test_reading_looks_for_nothing_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a.jpg", "b.jpg", "b.txt"])
    table = catalog(list_source(source(tmp_path)))
    looked: list[str] = []
    stat = os.stat

    def noted(path: Any, *args: Any, **options: Any) -> os.stat_result:
        looked.append(os.fsdecode(path).rsplit("/", 1)[-1])
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", noted)
    list(read_part(table, source(tmp_path)))
    assert set(looked) == {"a.jpg", "b.jpg", "b.txt"}


def test_sidecars_of_a_list_and_of_a_glob_are_looked_for(tmp_path: Path) -> None:
    write_files(tmp_path, {name: data for name, data in DESCRIBED.items() if "/" not in name})
    (tmp_path / "list").write_text("a.jpg\nc.jpg\n")
    assert list(extras(tmp_path / "list", format="list").values()) == [EXPECTED["a.jpg"], EXPECTED["c.jpg"]]
    found = extras(tmp_path / "*.jpg")
    assert found == {name: EXPECTED[name] for name in ("a.jpg", "b.v2.jpg", "c.jpg", "f.jpg")}
    fs = fsspec.filesystem("memory")
    fs.pipe({"/globbed/a.jpg": b"1", "/globbed/a.txt": b"one"})
    try:
        assert extras("memory://globbed/*.jpg") == {"a.jpg": {"caption": "one"}}
    finally:
        fs.rm("/globbed", recursive=True)


def test_archives_one_behind_the_other_keep_their_own_captions(tmp_path: Path) -> None:
    members = [
        (f"{i}.{end}", f"{end} {i} of {part}".encode()) for part in "xy" for i in range(3) for end in ("jpg", "txt")
    ]
    path = write_tar(tmp_path / "a.tar", members)
    found = list(list_source(source(path)))
    captions = [read.extra for read in read_part(catalog(found), source(path))]
    assert captions == [{"caption": f"txt {i} of {part}"} for part in "xy" for i in range(3)]


def test_many_images_of_one_webdataset_key_take_linear_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 300
    names = [f"img.{i:05}.{end}" for i in range(number) for end in ("jpg", "txt")]
    path = write_tar(tmp_path / "a.tar", {name: name.encode() for name in names})
    table = catalog(list_source(source(path)))
    seeks: list[int] = []
    read = tar._seek_and_read
    monkeypatch.setattr(tar, "_seek_and_read", lambda *args: seeks.append(1) or read(*args))
    reads = list(read_part(table, source(path)))
    assert [r.extra for r in reads] == [{"caption": f"img.{i:05}.txt"} for i in range(number)]
    assert len(seeks) == 4 * number  # header and bytes of each image and of each caption


def test_sidecars_far_behind_the_images_are_read_by_a_second_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{i}.{end}": f"{end}{i}".encode() for end in ("jpg", "txt") for i in range(4)}
    path = write_tar(tmp_path / "a.tar", members)
    opened: list[str] = []
    open_file = tar.open_file
    table = catalog(list_source(source(path)))
    monkeypatch.setattr(tar, "open_file", lambda uri, **options: opened.append(uri) or open_file(uri, **options))
    for near, times in ((4 << 20, 1), (1, 2)):
        opened.clear()
        monkeypatch.setattr(tar, "NEAR", near)
        assert [r.extra for r in read_part(table, source(path))] == [{"caption": f"txt{i}"} for i in range(4)]
        assert len(opened) == times


# -- suffixes


def test_masks_are_no_pictures_and_what_counts_is_a_setting(tmp_path: Path) -> None:
    members = dict.fromkeys(("1.jpg", "1.seg.png", "1.left.jpg", "1.right.jpg", "1.depth.png", "1.cap", "1.txt"), b"x")
    for place in (write_tar(tmp_path / "a.tar", members), write_files(tmp_path / "d", members)):
        skipped = LeftOut()
        listed = {found.key for found in list_source(source(place, caption_suffixes=["cap", "txt"]), skipped=skipped)}
        before = "a.tar/" if place.suffix else ""
        assert listed == {f"{before}1.{rest}" for rest in ("jpg", "left.jpg", "right.jpg", "depth.png")}
        assert skipped["mask (.seg.png)"] == 1
        assert set(keys(place, mask_suffixes=["depth.png"])) >= {f"{before}1.seg.png", f"{before}1.left.jpg"}
        told = set(keys(place, image_suffixes=["left.jpg", "seg.png"], mask_suffixes=[]))
        assert told == {f"{before}1.left.jpg", f"{before}1.seg.png"}
    write_files(tmp_path / "e", {"holiday.v2.jpg": b"1", "mask.png": b"2"})
    assert keys(tmp_path / "e") == ["holiday.v2.jpg", "mask.png"]


def test_further_captions_and_labels_are_columns_of_their_name(tmp_path: Path) -> None:
    files = {"a.jpg": b"a", "a.txt": b"first", "a.caption": b"second", "a.cls": b"1", "a.cls2": b"2"}
    for place in (write_tar(tmp_path / "a.tar", files), write_files(tmp_path / "d", files)):
        (read,) = extras(place).values()
        assert read == {"caption": "second", "txt": "first", "label": 1, "cls2": 2}
        (named,) = extras(place, caption_suffixes=["txt", "caption"]).values()
        assert (named["caption"], named["caption_2"]) == ("first", "second")
        (few,) = extras(place, columns=("label", "cls2")).values()
        assert few == {"label": 1, "cls2": 2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mask_suffixes": ["jpg"], "image_suffixes": ["jpg"]},
            "'jpg' is listed by image_suffixes and by mask_suffixes",
        ),
        ({"caption_suffixes": ["a/b"]}, "'a/b' is no suffix; write for example jpg or seg.png"),
        ({"label_suffixes": [""]}, "'' is no suffix"),
    ],
)
def test_suffixes_that_cannot_be_meant_are_errors(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        source("x", **fields)


# -- links


def test_links_of_descriptions_out_of_the_source_are_refused_and_counted(tmp_path: Path) -> None:
    secret = write_files(tmp_path, {"home/id_rsa": b"secret"}) / "home/id_rsa"
    place = write_files(tmp_path / "pool", ["a.jpg", "b.jpg", "c.jpg", "texts/inside.txt"])
    (place / "a.txt").symlink_to(secret)
    (place / "b.txt").symlink_to("texts/inside.txt")
    (place / "c.jpg.json").symlink_to("../pool2/c.json")  # a name that only begins as the source's does
    write_files(tmp_path / "pool2", {"c.json": b'{"secret": 1}'})
    skipped = LeftOut()
    assert extras(place, skipped=skipped) == {
        "a.jpg": None,
        "b.jpg": {"caption": "texts/inside.txt"},
        "c.jpg": None,
    }
    assert skipped["description that is a link out of the source"] == 2
    assert skipped.example["description that is a link out of the source"] == "a.txt"


def test_a_sidecar_that_became_a_link_after_listing_is_not_read(tmp_path: Path) -> None:
    secret = write_files(tmp_path, {"id_rsa": b"secret"}) / "id_rsa"
    place = write_files(tmp_path / "pool", ["a.jpg", "a.txt", "b.jpg", "b.txt"])
    table = catalog(list_source(source(place)))
    (place / "a.txt").unlink()
    (place / "a.txt").symlink_to(secret)
    (place / "b.txt").unlink()
    os.mkfifo(place / "b.txt")
    assert [read.extra for read in read_part(table, source(place))] == [None, None]
    (place / "list").write_text("a.jpg\n")
    assert extras(place / "list", format="list") == {"a.jpg": None}


def test_a_metadata_table_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, {"private.csv": b"file_name,password\na.jpg,1234\n", "pool/a.jpg": b"1"})
    (tmp_path / "pool/metadata.csv").symlink_to(tmp_path / "private.csv")
    skipped = LeftOut()
    assert extras(tmp_path / "pool", skipped=skipped) == {"a.jpg": None}
    assert skipped["description that is a link out of the source"] == 1


def test_descriptions_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    files = {"a.jpg": b"1", "a.txt": b"x" * (1 << 20), "b.jpg": b"1", "b.txt": b"x" * ((1 << 20) + 1)}
    for place in (write_files(tmp_path / "d", files), write_tar(tmp_path / "a.tar", files)):
        skipped = LeftOut()
        assert [extra is None for extra in extras(place, skipped=skipped).values()] == [False, True]
        assert skipped == {"description longer than 1 MiB": 1}


def test_a_large_archive_costs_24_bytes_a_description() -> None:
    index = tar._MemberIndex()
    member = tarfile.TarInfo("x.txt")
    for number in range(1000):
        member.offset_data = 512 * number
        index.add(f"{number % 700}", "caption", "txt", number, member)
    index.sort()
    arrays = (index._hashes, index._ordinals, index._offsets, index._lengths)
    assert sum(values.itemsize * len(values) for values in arrays) == 24 * 1000
    assert [s.offset for s in index.find("650", 650)] == [512 * 650]
    assert [s.offset for s in index.find("5", 700)] == [512 * 705]  # nearer than 5
    assert index.unused() == (998, 0)
