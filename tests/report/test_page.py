"""The page of a whole run: its sections and their order, and that nothing from outside gets into it."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from curate.report import page
from curate.report.explain import explain
from curate.report.page import write_page
from curate.report.render import anchor_of
from tests.report.test_markup import Reader, read
from tests.report.workdir import CAPTION, HOSTILE, Workdir

SECTIONS = [
    "Look at this first",
    "From the pool to the result",
    "What the selection is made of",
    "Cluster sizes before and after",
    "Dropped",
    "Similarity of the pairs",
    "Recall of the searches",
    "Copies",
    "Held-out images",
    "Levels of the clusters",
    "Clusters",
    "Retrieved",
    "Selected",
    "Taken down",
    "Pretraining",
    "What the backbone looks at",
    "Timings",
]
"""Titles of the page of a full run, those of the result as a whole first."""


def report(workdir: Workdir) -> str:
    return Path(write_page(workdir.run)).read_text(encoding="utf-8")


def anchors(found: Reader) -> list[str]:
    return [attributes["id"] or "" for tag, attributes in found.tags if tag == "section"]


def test_a_full_run_has_every_section_and_links_to_it(workdir: Workdir) -> None:
    text = report(workdir)
    found, names = read(text), [anchor_of(title) for title in SECTIONS]
    assert re.findall("<h2>(.*?)</h2>", text) == SECTIONS
    assert anchors(found) == names
    assert [a["href"] for tag, a in found.tags if tag == "a"] == [f"#{name}" for name in names]


AFTER: list[tuple[int, set[str]]] = [
    (1, {"From the pool to the result", "Timings"}),
    (2, {"From the pool to the result", "Dropped", "Timings"}),
    (
        3,
        {
            "Look at this first",
            "From the pool to the result",
            "Dropped",
            "Similarity of the pairs",
            "Recall of the searches",
            "Copies",
            "Held-out images",
            "Timings",
        },
    ),
]


@pytest.mark.parametrize(("steps", "titles"), AFTER)
def test_sections_without_their_tables_are_left_out(tmp_path: Path, steps: int, titles: set[str]) -> None:
    workdir = Workdir(tmp_path)
    for step in (Workdir.catalog, Workdir.images, Workdir.copies)[:steps]:
        step(workdir)
    assert anchors(read(report(workdir))) == [anchor_of(title) for title in SECTIONS if title in titles]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("images", None),  # later steps tell of what was dropped too
        ("internal/neighbors/copy", "Similarity of the pairs"),
        ("duplicates", "Copies"),
        ("internal/centroids/clusters", "Levels of the clusters"),
        ("assignments", "Clusters"),
        ("internal/retrieved", "Retrieved"),
        ("selection", "Selected"),
        ("shards/data", "What the backbone looks at"),
    ],
)
def test_a_table_that_is_made_again_is_left_out(workdir: Workdir, name: str, title: str | None) -> None:
    manifest = workdir.store.table(name).complete_manifest()
    workdir.store.table(name).write_manifest(replace(manifest, complete=False))
    found = re.findall("<h2>(.*?)</h2>", report(workdir))
    assert title not in found
    assert set(found) < set(SECTIONS) or title is None
    assert "image" in explain(workdir.run, "b.jpg")


def test_hostile_names_stay_text(workdir: Workdir) -> None:
    text = report(workdir)
    found = read(text)
    assert HOSTILE in found.text  # the warning of the shards carries the whole name
    assert not [tag for tag, _ in found.tags if tag in ("script", "iframe", "object", "link", "base", "form")]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert CAPTION not in text


def test_the_page_asks_for_nothing_outside_itself(workdir: Workdir) -> None:
    found = read(report(workdir))
    sources = [a[name] or "" for _, a in found.tags for name in ("src", "href") if name in a]
    assert sources
    assert all(s.startswith(("data:image/jpeg;base64,", "#")) for s in sources)
    assert "url(" not in found.text
    assert page.POLICY in [a.get("content") for _, a in found.tags]


def test_the_page_names_no_place_on_the_machine(workdir: Workdir, tmp_path: Path) -> None:
    assert str(tmp_path) not in report(workdir)


def test_a_page_made_twice_is_the_same(workdir: Workdir) -> None:
    assert report(workdir) == report(workdir)


def test_dates_are_those_of_the_tables(workdir: Workdir) -> None:
    for path in Path(workdir.store.root).rglob("_table.json"):
        os.utime(path, (0, time.mktime((2021, 2, 3, 4, 5, 6, 0, 0, 0)) - time.timezone))
    assert "2021-02-03" in read(report(workdir)).text


def test_vanished_pictures_leave_a_whole_page(workdir: Workdir) -> None:
    for source in (*workdir.sources.pool, *workdir.sources.curated, *workdir.sources.heldout):
        for path in Path(source.path).iterdir():
            path.unlink()
    text = report(workdir)
    assert anchors(read(text)) == [anchor_of(title) for title in SECTIONS]
    assert "data:image" not in text
    assert "No such file" in text


def test_facts_of_the_run_are_on_the_page(workdir: Workdir) -> None:
    text = read(report(workdir)).text
    for fact in ("toy", "pool: 9 images", "copies from 0.9 on, of held-out images from 0.85 on", "Seed3"):
        assert fact in text


def test_groups_show_the_evidence_under_each_copy(workdir: Workdir) -> None:
    text = report(workdir)
    start, end = text.index('id="copies"'), text.index('id="held-out-images"')
    assert re.findall(r"<span>([\d.]+ embedding)</span>", text[start:end]) == ["0.950 embedding"]
    assert "curated, stays" in text[end:]  # q2.jpg resembles h.jpg and is added nevertheless
    assert "1 curated image of this run" in read(text).text


def test_the_evaluation_stands_beside_the_initialization(workdir: Workdir) -> None:
    text = read(report(workdir)).text
    assert "pretrained" in text
    assert "initialization" in text
    assert "found from a part of it" in text
