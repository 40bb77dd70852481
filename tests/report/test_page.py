"""The page of a whole run: its sections and their order, and that nothing from outside gets into it."""

import base64
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

import curate
from curate.engine.store import UPDATE
from curate.report import page, pictures
from curate.report.explain import explain
from curate.report.page import write_page
from curate.report.render import anchor_of
from tests.report.test_markup import Reader, read
from tests.report.workdir import CAPTION, HOSTILE, Workdir, picture

SECTIONS = [
    "Look at this first",
    "From the pool to the result",
    "Go on",
    "What the selection is made of",
    "Cluster sizes before and after",
    "Kept out",
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
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert links[: len(names)] == [f"#{name}" for name in names]
    assert links[len(names) :] == ["../shards/data/", "../shards/README.md", "#contents"]


def test_thresholds_are_linked_where_their_page_is_there(workdir: Workdir) -> None:
    assert "sweep.html" not in report(workdir)
    workdir.store.write_bytes(page.SWEEP_FILE, b"")
    assert 'href="sweep.html"' in report(workdir)
    above = replace(workdir.run, store=workdir.store.over(UPDATE))
    assert "sweep.html" not in page.render_page(above, pictures.Pictures(above))


def test_the_command_is_the_one_that_was_typed_without_the_places_of_the_machine(workdir: Workdir) -> None:
    places = (
        "/data/mine/my cats",
        "sources.heldout=https://secret/a=b/val?key=k3y",
        "sources.curated=[/data/mine/x, {path: /data/mine/y}]",
    )
    words = ("dedup", "--pool", *places, "--update", "seed=1")
    text = page.render_page(replace(workdir.run, command=words), pictures.Pictures(workdir.run))
    lists = "&#x27;sources.curated=[.../x, {path: .../y}]&#x27;"
    assert f"curate run dedup --pool &#x27;.../my cats&#x27; sources.heldout=.../val {lists} --update seed=1" in text
    assert "/data/mine" not in text
    assert "secret" not in text
    assert "k3y" not in text


AFTER: list[tuple[int, set[str]]] = [
    (1, {"From the pool to the result", "Go on", "Timings"}),
    (2, {"From the pool to the result", "Go on", "Kept out", "Timings"}),
    (
        3,
        {
            "Look at this first",
            "From the pool to the result",
            "Go on",
            "Kept out",
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
    assert not [tag for tag, _ in found.tags if tag in ("iframe", "object", "link", "base", "form")]
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert CAPTION not in text


def test_its_own_script_alone_runs(workdir: Workdir) -> None:
    """A browser runs what has a digest of the policy; blocks of JSON are data, and hold nothing that ends them."""
    text = report(workdir)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert [bool(attributes) for attributes, _ in scripts].count(False) == 1
    for attributes, script in scripts:
        if attributes:
            assert 'type="application/json"' in attributes
            json.loads(script)
            assert not re.search("[<>&]", script)
        else:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"script-src 'sha256-{digest}'" in page.policy()
            assert script == Path(page.__file__).with_name("page.js").read_text()


def test_the_page_asks_for_nothing_outside_itself(workdir: Workdir) -> None:
    found = read(report(workdir))
    shown = [a["src"] or "" for _, a in found.tags if "src" in a]
    assert shown
    assert all(one.startswith("data:image/jpeg;base64,") for one in shown)
    assert all((a["href"] or "").startswith(("#", "../shards/")) for _, a in found.tags if "href" in a)
    assert page.policy() in [a.get("content") for _, a in found.tags]
    assert not Path(workdir.store.join(page.PICTURES)).exists()


def test_a_large_page_has_its_pictures_beside_it(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture that the page names is there, and of an earlier page none is left."""
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        picture(seed, (400, 300)).save(Path(workdir.sources.pool[0].path) / name, "JPEG")
    folder = Path(workdir.store.join(page.PICTURES))
    small = report(workdir)
    monkeypatch.setattr(pictures, "BUDGET", 4000)
    folder.mkdir(parents=True)
    (folder / "old.jpg").write_bytes(b"")
    found = read(report(workdir))
    beside = {a["src"] for _, a in found.tags if (a.get("src") or "").startswith("pictures/")}
    opened = {f"pictures/{a['data-picture']}" for _, a in found.tags if a.get("data-picture")}
    assert len(opened) == 2
    assert {f"pictures/{path.name}" for path in folder.iterdir()} == beside | opened
    assert report_again_is_equal(workdir, folder)
    monkeypatch.undo()
    assert report(workdir) == small
    assert not folder.exists()


def report_again_is_equal(workdir: Workdir, folder: Path) -> bool:
    """Pictures that are there are not written again."""
    before, times = report(workdir), {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    return report(workdir) == before and {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_settings_are_shown_without_the_places_of_the_machine(workdir: Workdir) -> None:
    config = {"seed": 3, "sources": {"pool": [{"path": "s3://mine/secret/cats"}]}, "weights": ["/home/me/w.pt"]}
    text = read(page.render_page(replace(workdir.run, config=config), pictures.Pictures(workdir.run))).text
    assert "path: '.../cats'" in text or "path: .../cats" in text
    assert ".../w.pt" in text
    assert "mine" not in text
    assert "/home" not in text
    assert f"curate {curate.__version__}" in text


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
    assert 'src="data:image' not in text
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
