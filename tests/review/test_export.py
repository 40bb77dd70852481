"""The page as files: what is written, replaced, and left alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from curate.decisions import Decision
from curate.errors import WorkdirError
from curate.review.export import export
from curate.review.session import Session
from tests.review.large_run import LargeRun


def handed_over(path: Path) -> Any:
    text, call = path.read_text(encoding="ascii"), "window.curateReview.receive("
    assert text.startswith(call)
    return json.loads("[" + text.removeprefix(call).removesuffix(");\n") + "]")[1]


@pytest.fixture
def session_of_few(tmp_path: Path) -> Session:
    return Session(LargeRun(tmp_path / "run", num_groups=60).finished, apply="")


def test_pages_pictures_and_reasons_are_written(session_of_few: Session, tmp_path: Path) -> None:
    session_of_few.marks.write([Decision("pool/group-000001/0.jpg", "keep")])
    made = export(session_of_few, tmp_path / "site", sizes="full", most_items=50)
    about = handed_over(tmp_path / "site/data/run.js")
    groups = about["queues"][0]
    assert (groups["listed"], groups["count"]) == (60, 50)
    assert made.left_out == sum(queue["listed"] - queue["count"] for queue in about["queues"]) > 0
    page = handed_over(tmp_path / "site/data/groups-0.js")
    assert page == json.loads(json.dumps(session_of_few.page("groups", 0)))
    assert [row["image"] for row in about["known"]] == ["pool/group-000001/0.jpg"]
    for image in (image for item in page["items"] for image in item["images"]):
        suffix = about["suffixes"][image["id"]]
        assert (tmp_path / f"site/pictures/{image['id']}{suffix}").read_bytes() == (
            session_of_few.originals.picture(int(image["id"])).data
        )
        assert (tmp_path / f"site/thumbnails/{image['id']}.jpg").is_file()
    assert set(about["suffixes"].values()) == {".jpg", ".png", ".webp"}
    assert len(about["missing"]) == made.missing == 100
    assert not [path for path in (tmp_path / "site").rglob("*") if path.suffix == ".svg"]


def test_small_pictures_alone_and_an_older_export_replaced(session_of_few: Session, tmp_path: Path) -> None:
    export(session_of_few, tmp_path / "site", sizes="full", most_items=100)
    export(session_of_few, tmp_path / "site", sizes="small", most_items=50)
    assert list((tmp_path / "site/pictures").iterdir()) == []
    assert not (tmp_path / "site/data/groups-1.js").exists()
    assert handed_over(tmp_path / "site/data/run.js")["suffixes"] == {}


def test_the_page_sends_nothing(session_of_few: Session, tmp_path: Path) -> None:
    export(session_of_few, tmp_path / "site", sizes="small", most_items=1)
    page = (tmp_path / "site/index.html").read_text()
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert 'data-mode="files"' in page


def test_folders_of_others_are_left_alone(session_of_few: Session, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/data.txt").write_text("x")
    with pytest.raises(WorkdirError, match="not written by this command"):
        export(session_of_few, tmp_path / "mine", sizes="small", most_items=1)
    with pytest.raises(WorkdirError, match="is a file"):
        export(session_of_few, tmp_path / "mine/data.txt", sizes="small", most_items=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["data.txt"]
