"""Paths in lists and links in folders lead to where the user pointed, and nowhere else; keys tell no folder of his."""

import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from curate.errors import SourceError
from curate.sources.config import Source
from curate.sources.left_out import LONG_KEY, OUTSIDE, LeftOut
from curate.sources.listing import list_source
from curate.sources.reading import read_part
from curate.sources.roots import Roots
from tests.sources.helpers import catalog, keys, source, write_files, write_tar


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """`home` is the user's, `pool` came from a stranger."""
    write_files(tmp_path, ["home/anna/secret.jpg", "home/anna/more/b.jpg", "pool/a.jpg", "pool/sub/c.jpg"])
    return tmp_path / "pool"


def write_list(path: Path, *lines: object) -> Path:
    path.write_bytes(b"\n".join(os.fsencode(str(line)) for line in lines) + b"\n")
    return path


def listed(place: Path, skipped: Counter[str] | None = None, **fields: object) -> list[str]:
    return [found.key for found in list_source(source(place, **fields), skipped=skipped)]


# -- lists


def test_lines_of_a_list_that_lead_elsewhere_are_left_out_with_a_name(pool: Path) -> None:
    home = pool.parent / "home/anna"
    (pool / "link.jpg").symlink_to(home / "secret.jpg")
    (pool / "more").symlink_to(home / "more")
    place = write_list(
        pool / "list.txt",
        "a.jpg",
        "/etc/passwd",
        home / "secret.jpg",
        f"file://{home}/secret.jpg",
        f"local://{home}/secret.jpg",
        "../home/anna/secret.jpg",
        "sub/../../home/anna/secret.jpg",
        "link.jpg",
        "more",
        "more/b.jpg",
        pool.parent / "pool2/x.jpg",  # a name that only begins as the folder's does
        "/nowhere/at/all.jpg",
        "/proc/self/environ",
        "FILE:///etc/passwd",
        "Local:///etc/passwd",
        pool / "sub",
        f"file://{pool}/sub/./c.jpg",
    )
    skipped = LeftOut()
    assert listed(place, skipped) == ["a.jpg", "sub/c.jpg", "sub/c.jpg"]
    assert skipped == {OUTSIDE: 14}
    assert skipped.example == {OUTSIDE: "/etc/passwd"}


def test_a_list_of_the_web_names_no_file_of_this_machine(pool: Path) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/roots/list.txt", f"{pool}/a.jpg\nfile://{pool}/a.jpg\nx.jpg\n".encode())
    try:
        skipped = LeftOut()
        place = "memory://roots/list.txt"
        assert [found.uri for found in list_source(source(place), skipped=skipped)] == ["memory://roots/x.jpg"]
        assert skipped == {OUTSIDE: 2}
        assert [f.key for f in list_source(source(place, roots=(str(pool),)))] == ["a.jpg", "a.jpg", "x.jpg"]
    finally:
        fs.rm("/roots", recursive=True)


def test_a_list_of_paths_elsewhere_works_by_the_setting_that_its_error_names(pool: Path) -> None:
    lists = write_files(pool.parent, ["lists/x"]) / "lists"
    place = write_list(lists / "list.txt", pool / "a.jpg", pool / "sub/c.jpg", pool / "gone.jpg")
    with pytest.raises(SourceError) as caught:
        keys(place)
    setting = f"{{name: s, path: {place}, roots: [{pool}]}}"
    assert "no image was found" in str(caught.value)
    assert str(caught.value).endswith(
        f"; 3 paths or links lead out of it, such as {pool}/a.jpg; if they are yours, allow the folders they lead to, "
        f"by giving the source as {setting}"
    )
    assert keys(place, roots=(str(pool),)) == ["a.jpg", "sub/c.jpg", "gone.jpg"]


def test_a_part_that_leads_elsewhere_is_told_when_the_listing_ends(
    pool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = write_list(pool / "list.txt", "a.jpg", pool.parent / "home/anna/secret.jpg", "/etc/passwd")
    with caplog.at_level(logging.WARNING):
        assert keys(place) == ["a.jpg"]
    assert "2 paths or links lead out of it" in caplog.text
    assert f"roots: [{pool.parent}/home/anna]" in caplog.text  # what they have in common is the whole machine


def test_keys_hold_neither_users_nor_folders_and_do_not_move_when_a_list_grows(pool: Path) -> None:
    home = pool.parent / "home/anna"
    lines = [home / "secret.jpg", home / "more/b.jpg", "a.jpg", f"file://{home}/more/b.jpg"]
    expected = ["secret.jpg", "more/b.jpg", "a.jpg", "more/b.jpg"]
    for number in range(1, 5):
        place = write_list(pool / "list.txt", *lines[:number])
        assert keys(place, roots=(str(home),)) == expected[:number]
    expected = ["anna/secret.jpg", "more/b.jpg", "a.jpg", "more/b.jpg"]  # of two roots each has its name
    assert keys(place, roots=(str(home), str(home / "more"))) == expected


def test_a_root_that_is_a_link_holds_its_files_by_both_names(pool: Path) -> None:
    (pool.parent / "data").symlink_to("home/anna")
    place = write_list(pool / "list.txt", pool.parent / "data/secret.jpg", pool.parent / "home/anna/more/b.jpg")
    assert keys(place, roots=(str(pool.parent / "data"),)) == ["secret.jpg", "more/b.jpg"]
    assert keys(place, roots=(str(pool.parent / "home"),)) == ["anna/secret.jpg", "anna/more/b.jpg"]


def test_equal_paths_below_two_roots_of_one_name_stay_apart(pool: Path) -> None:
    write_files(pool.parent, ["x/img/a.jpg", "y/img/a.jpg"])
    roots = tuple(str(pool.parent / name) for name in ("x/img", "y/img"))
    place = write_list(pool / "list.txt", *(f"{root}/a.jpg" for root in roots), roots[1], "a.jpg")
    assert keys(place, roots=roots) == ["img/a.jpg", "img-2/a.jpg", "img-2/a.jpg", "a.jpg"]


def test_archives_and_tables_of_a_list_stay_inside_too(pool: Path) -> None:
    write_tar(pool.parent / "home/private.tar", {"x.jpg": b"1"})
    write_tar(pool / "own.tar", {"y.jpg": b"2"})
    place = write_list(pool / "list.txt", pool.parent / "home/private.tar", "own.tar")
    assert keys(place) == ["own.tar/y.jpg"]
    assert keys(place, roots=(str(pool.parent / "home"),)) == ["private.tar/x.jpg", "own.tar/y.jpg"]
    (pool.parent / "home/urls.csv").write_text("url\nhttps://example.com/1.jpg\n")
    place = write_list(pool / "tables.txt", pool.parent / "home/urls.csv")
    with pytest.raises(SourceError, match=r"roots: \[.*/home\]\}"):
        keys(place, format="urls")
    assert keys(place, format="urls", roots=(str(pool.parent / "home"),)) == ["urls.csv#0"]


def test_two_tables_of_one_key_are_refused(pool: Path) -> None:
    for name in ("pool/urls.csv", "home/urls.csv"):
        (pool.parent / name).write_text("url,caption\nhttps://example.com/1.jpg,x\n")
    given = source(write_list(pool / "list.txt", "urls.csv", "../home/urls.csv"), roots=(str(pool.parent / "home"),))
    table = catalog(list_source(given))
    with pytest.raises(SourceError, match=r"pool/urls\.csv and .*/urls\.csv have the same key urls\.csv"):
        list(read_part(table, given))


def test_names_without_an_end_are_left_out(pool: Path) -> None:
    skipped = LeftOut()
    assert listed(write_list(pool / "list.txt", "a.jpg", "n" * 5000), skipped) == ["a.jpg"]
    assert skipped[LONG_KEY] == 1
    assert len(skipped.example[LONG_KEY]) < 300


# -- links


def test_links_out_of_a_folder_are_left_out_and_told_with_the_setting(
    pool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = pool.parent / "home/anna"
    (pool / "linked.jpg").symlink_to(home / "secret.jpg")
    (pool / "linked").symlink_to(home / "more")
    (pool / "relative.jpg").symlink_to("../home/anna/secret.jpg")
    (pool / "inner.jpg").symlink_to("sub/c.jpg")
    (pool / "gone.jpg").symlink_to("nowhere.jpg")
    skipped = LeftOut()
    with caplog.at_level(logging.WARNING):
        assert listed(pool, skipped) == ["a.jpg", "gone.jpg", "inner.jpg", "sub/c.jpg"]
    assert skipped == {OUTSIDE: 3}
    assert "3 paths or links lead out of it, such as linked" in caplog.text
    assert f"{{name: s, path: {pool}, roots: [{home}]}}" in caplog.text
    allowed = ["a.jpg", "gone.jpg", "inner.jpg", "linked/b.jpg", "linked.jpg", "relative.jpg", "sub/c.jpg"]
    assert sorted(keys(pool, roots=(str(home),))) == sorted(allowed)


def test_a_pool_of_links_alone_works_by_the_setting_that_its_error_names(pool: Path) -> None:
    links = pool.parent / "links"
    links.mkdir()
    for number in range(3):
        (links / f"{number}.jpg").symlink_to(pool / "sub/c.jpg")
    with pytest.raises(SourceError, match=rf"no image was found.*roots: \[{pool}/sub\]\}}$"):
        keys(links)
    assert keys(links, roots=(str(pool / "sub"),)) == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_source_that_is_a_link_itself_is_what_the_user_named(pool: Path) -> None:
    (pool.parent / "way").symlink_to("pool")
    (pool.parent / "one.jpg").symlink_to("pool/a.jpg")
    (pool / "inner.jpg").symlink_to(pool / "sub/c.jpg")
    assert keys(pool.parent / "way") == ["a.jpg", "inner.jpg", "sub/c.jpg"]
    assert keys(pool.parent / "one.jpg") == ["one.jpg"]
    for place in (pool.parent / "way", pool.parent / "one.jpg"):
        assert all(read.data for read in read_part(catalog(list_source(source(place))), source(place)))


def test_matches_of_patterns_stay_below_their_fixed_part(pool: Path) -> None:
    (pool / "out.jpg").symlink_to("../home/anna/secret.jpg")
    (pool / "in.jpg").symlink_to("sub/c.jpg")
    (pool / "folder").symlink_to("../home")
    assert keys(f"{pool}/*.jpg") == ["a.jpg", "in.jpg"]
    assert keys(f"{pool}/*") == ["a.jpg", "in.jpg", "sub/c.jpg"]
    assert keys(f"{pool.parent}/{{pool,home}}") == [
        *("pool/a.jpg", "pool/in.jpg", "pool/sub/c.jpg"),
        *("home/anna/more/b.jpg", "home/anna/secret.jpg"),
    ]


@pytest.mark.parametrize("path", ["pool", "pool/*.jpg", "{pool,home/anna}", "pool/list.txt"])
def test_a_picture_that_became_a_link_out_after_listing_is_not_read(path: str, pool: Path) -> None:
    write_files(pool.parent, {"outside/x.jpg": b"outside"})
    write_list(pool / "list.txt", "a.jpg")
    given = source(pool.parent / path)
    table = catalog(list_source(given))
    before = {key: read.data for key, read in zip(table["key"].to_pylist(), read_part(table, given), strict=True)}
    assert all(before.values())
    (pool / "a.jpg").unlink()
    (pool / "a.jpg").symlink_to(pool.parent / "outside/x.jpg")
    for key, read in zip(table["key"].to_pylist(), read_part(table, given), strict=True):
        refused = key.endswith("a.jpg") and "more" not in key
        assert (read.data, read.error) == ((None, OUTSIDE) if refused else (before[key], None))
    allowing = source(pool.parent / path, roots=(str(pool.parent / "outside"),))
    assert b"outside" in {read.data for read in read_part(table, allowing)}


def test_a_root_is_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Source(name="s", path="x", roots=("data", "file:///mnt")).roots == (f"{tmp_path}/data", "/mnt")
    with pytest.raises(ValueError, match="s3://b/x: only local folders need to be allowed"):
        Source(name="s", path="x", roots=("s3://b/x",))


def test_folders_hold_what_lies_below_them_by_whole_names() -> None:
    roots = Roots([b"/a/b/"], ["/c"])
    assert [roots.hold(path) for path in (b"/a/b", b"/a/b/x", b"/a/bc", b"/a", b"/c/x", b"/cx", b"/")] == [
        *(True, True, False, False, True, False, False)
    ]
    assert Roots([b"/"]).hold(b"/etc/passwd")
    assert not Roots([]).hold(b"/etc/passwd")


def test_the_setting_that_is_told_is_yaml_whatever_the_names_are(pool: Path) -> None:
    import yaml

    odd = write_files(pool.parent / "odd, [é]: #1", ["x.jpg"])
    place = write_list(pool / "my list.txt", odd / "x.jpg")
    with pytest.raises(SourceError) as caught:
        keys(place)
    told = yaml.safe_load(str(caught.value).rpartition("the source as ")[2])
    assert told == {"name": "s", "path": str(place), "roots": [str(odd)]}
    assert keys(told["path"], roots=tuple(told["roots"])) == ["x.jpg"]
