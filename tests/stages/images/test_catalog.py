import logging
from pathlib import Path

import pytest

from curate import workdir
from curate.config import Settings
from curate.engine.executors import InProcess
from curate.engine.finished import Finished
from curate.engine.freshness import Flags
from curate.engine.image_ids import CatalogFigures
from curate.engine.pipeline import Pipeline
from curate.engine.show import Numbers
from curate.engine.store import Store
from curate.sources.config import Source, Sources
from curate.stages.images.catalog import Catalog
from tests.sources.helpers import write_files, write_tar
from tests.stages.planted import opened


def run(root: Path, *sources: Source, rescan: bool = False) -> list[str]:
    """List the sources into a workdir; returns the tables that changed."""
    stage = Catalog(sources=Sources(pool=sources))
    p = Pipeline(Store(root), seed=0)
    p.add("catalog", stage)
    return p.run(InProcess(threads=1), Flags(rescan=rescan))


def seen(root: Path) -> Finished:
    return opened(root, {"catalog": Catalog(sources=Sources(pool=(Source(name="a", path="."),)))})


def told(root: Path) -> list[tuple[str, str, int, str]]:
    """What the report shows as left out."""
    run = seen(root)
    (catalog,) = run.tables
    return [
        row
        for section in catalog.stage.show(catalog.table, run)
        for block in section.blocks
        if isinstance(block, Numbers)
        for row in block.rows
    ]


def warned(root: Path) -> list[str]:
    run = seen(root)
    return [text for stage, table in run.tables for text in stage.warn(table, run)]


def test_what_is_left_out_is_told_by_source_and_kind_with_an_example(tmp_path: Path) -> None:
    write_files(tmp_path / "a", ["1.jpg", "notes.md", "truth.csv", "x/more.csv", "2.seg.png", "README.txt", ".h"])
    (tmp_path / "b").mkdir()
    write_tar(tmp_path / "b/b.tar", {"1.jpg": b"1", "9.txt": b"", "8.txt": b"", "a.pdf": b""})
    run(tmp_path / "run", Source(name="a", path=str(tmp_path / "a")), Source(name="b", path=str(tmp_path / "b")))
    assert told(tmp_path / "run") == [
        ("a", "description without an image", 1, "README.txt"),
        ("a", "hidden file", 1, ".h"),
        ("a", "mask (.seg.png)", 1, "2.seg.png"),
        ("a", "other file (.csv)", 2, "truth.csv"),
        ("a", "other file (.md)", 1, "notes.md"),
        ("b", "description without an image", 2, "b.tar/9.txt"),
        ("b", "other file (.pdf)", 1, "b.tar/a.pdf"),
    ]
    assert warned(tmp_path / "run") == ["source b: left out: 2 x description without an image, such as b.tar/9.txt"]


def test_a_rescan_tells_what_is_left_out_by_now(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Source(name="a", path=str(write_files(tmp_path / "a", ["1.jpg", "x.md"])))
    assert run(tmp_path / "run", source) == ["catalog"]
    write_files(tmp_path / "a", ["y.md"])
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path / "run", source, rescan=True) == []
    assert caplog.text == ""
    assert told(tmp_path / "run") == [("a", "other file (.md)", 2, "x.md")]
    write_files(tmp_path / "a", ["2.jpg", "1.txt"])
    assert run(tmp_path / "run", source, rescan=True) == ["catalog"]
    assert "1 images or what lies beside them changed and 0 images vanished" in caplog.text
    assert told(tmp_path / "run") == [("a", "other file (.md)", 2, "x.md")]


def test_the_catalog_names_what_lies_beside_each_image(tmp_path: Path) -> None:
    write_files(tmp_path / "a", ["1.jpg", "1.txt", "2.jpg", "2.jpg.json"])
    path = write_tar(tmp_path / "b.tar", {"1.json": b"{}", "1.jpg": b"1"})
    (tmp_path / "list").write_text("a/1.jpg\n")
    run(
        tmp_path / "run",
        Source(name="a", path=str(tmp_path / "a")),
        Source(name="b", path=str(path)),
        Source(name="c", path=str(tmp_path / "list"), format="list"),
    )
    beside = {"offset": None, "length": None}
    assert [rows["sidecars"].to_pylist() for rows in Store(tmp_path / "run").table("catalog").scan()] == [
        [[{"kind": "caption", "name": ".txt", **beside}], [{"kind": "json", "name": ".jpg.json", **beside}]],
        [[{"kind": "json", "name": ".json", "offset": 512, "length": 2}]],
        [None],
    ]


def test_a_source_that_holds_its_own_workdir_leaves_it_out_in_every_run(tmp_path: Path) -> None:
    write_files(tmp_path, ["1.jpg"])
    root, source = tmp_path / "runs/mine", Source(name="a", path=str(tmp_path))
    workdir.record(Store(root), "toy", Settings(), ["catalog"])
    write_files(root, ["report/page.jpg"])
    run(root, source)
    assert told(root) == [("a", "workdir of curate", 1, "runs/mine/")]
    assert run(root, source, rescan=True) == []
    assert CatalogFigures.of(Store(root).table("catalog")).part_rows == (1,)
