"""Removal lists: which images an entry names, counted."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.sources.entries import Entries, shown_entry
from curate.stages.selection.removal import PartRows, RemovalFigures, read_removal_list, removal_figures

SOURCES = {
    "web": ["shard-0.tar/000003.jpg", "shard-1.tar/000003.jpg", "shard-1.tar/000004.jpg"],
    "own": ["000003.jpg", "x/000004.jpg"],
    "more": ["000003.jpg"],
}


def digest(source: str, key: str) -> bytes:
    """Pictures of one name have one content, but for those of `more`."""
    return hashlib.sha256(f"{source if source == 'more' else ''}{key.rsplit('/', 1)[-1]}".encode()).digest()


def parts() -> list[PartRows]:
    """A part for each source; images named 000004.jpg were not selected, nor was what the second archive holds."""
    found = []
    for source, names in SOURCES.items():
        uris = [f"/pool/{source}/{key.rsplit('.tar', 1)[0] + '.tar' if '.tar' in key else key}" for key in names]
        catalog = pa.table({"source": [source] * len(names), "key": names, "uri": uris})
        images = pa.table({"sha256": pa.array([digest(source, key) for key in names], pa.binary(32))})
        selected = np.array([not key.endswith("4.jpg") and "shard-1" not in key for key in names])
        found.append(PartRows(catalog, images, selected))
    return found


def counted(*entries: str) -> RemovalFigures:
    wanted = Entries(frozenset(entries))
    return removal_figures(wanted, parts)


@pytest.mark.parametrize(
    ("entry", "images", "selected"),
    [
        ("shard-0.tar/000003.jpg", 1, 1),
        ("000003.jpg", 2, 2),  # of two folders; never those in archives
        ("own/000003.jpg", 1, 1),
        ("web/shard-1.tar/000003.jpg", 1, 0),
        ("/pool/web/shard-1.tar", 2, 0),
        ("/pool/own/x/000004.jpg", 1, 0),
        (digest("web", "000003.jpg").hex(), 3, 2),
        ("000004.jpg", 0, 0),
        ("shard-0.tar", 0, 0),
    ],
)
def test_an_entry_names_what_it_says_and_nothing_else(entry: str, images: int, selected: int) -> None:
    figures = counted(entry)
    found = figures.entries[shown_entry(entry)]
    assert (found.images, found.selected, figures.removed) == (images, selected, selected)
    assert (figures.none, figures.several) == (int(images == 0), int(images > 1))


def test_masks_agree_with_brute_force_over_all_four_ways_to_name_an_image() -> None:
    entries = ["own/000003.jpg", digest("own", "000004.jpg").hex(), "shard-0.tar/000003.jpg", "/pool/more/000003.jpg"]
    wanted = Entries(frozenset(entries))
    for part in parts():
        rows = zip(*(part.catalog[name].to_pylist() for name in ("source", "key", "uri")), strict=True)
        names = [{key, uri, f"{source}/{key}", digest(source, key).hex()} for source, key, uri in rows]
        assert wanted.named(part.catalog, part.images).tolist() == [bool(n & set(entries)) for n in names]


def test_a_name_that_is_no_whole_key_is_told_where_it_occurs() -> None:
    (warning,) = counted("000004.jpg").warnings()
    assert warning == (
        "removal_list: 1 of 1 entries match no image: 000004.jpg (give the whole key: "
        "shard-1.tar/000004.jpg, x/000004.jpg)"
    )


def test_entries_that_match_several_images_and_equal_bytes_that_stay_are_told() -> None:
    several, left = counted("000003.jpg").warnings()
    assert several == "removal_list: 1 of 1 entries match several images, and remove all: 000003.jpg (2)"
    assert left.startswith("removal_list: 1 image left in the shards with the same bytes as one that was removed")
    assert list(counted(digest("own", "000003.jpg").hex(), "more/000003.jpg").warnings())[1:] == []


def test_few_of_many_entries_are_named() -> None:
    (warning,) = counted(*(f"{number}.png" for number in range(9))).warnings()
    assert warning.endswith("9 of 9 entries match no image: 0.png, 1.png, 2.png, 3.png, 4.png, ...")


def test_a_list_is_read_with_comments_blanks_and_hashes_in_any_form(tmp_path: Path) -> None:
    upper = "AB" * 32
    text = f'\ufeff# by request\r\n\r\n  {upper}  \r\nsha256:{"cd" * 32}\r\n"{"ef" * 32}"\r\na b.jpg\r\n'
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert read_removal_list(tmp_path / "list.txt").entries == {"ab" * 32, "cd" * 32, "ef" * 32, "a b.jpg"}


def test_a_perceptual_hash_removes_what_looks_like_it() -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (6, 32), np.uint8)
    per_part, start = [], 0
    for part in parts():
        mine = [row.tobytes() for row in hashes[start : start + len(part.catalog)]]
        start += len(mine)
        columns = {"pdq": pa.array(mine, pa.binary(32)), "pdq_within_border": pa.nulls(len(mine), pa.binary(32))}
        images = part.images
        for name, column in columns.items():
            images = images.append_column(name, column)
        per_part.append(part._replace(images=images))
    near = hashes[3].copy()
    near[0] ^= 0b111
    figures = removal_figures(Entries.of([f"pdq:{near.tobytes().hex()}"]), lambda: per_part)
    (found,) = figures.entries.values()
    assert (found.images, found.selected, figures.removed, figures.none) == (1, 1, 1, 0)
