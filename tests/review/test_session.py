"""Decisions through the page: what is written, refused, taken back."""

from pathlib import Path

import pytest

from curate.decisions import Decision, append_decisions, read_decisions
from curate.errors import TableError
from curate.review.session import Refused, Session
from tests.review.large_run import LARGE, LargeRun


def written(session: Session) -> list[tuple[str, str, str]]:
    return [(one.image, one.decision, one.other) for one in read_decisions(session.marks.path)]


@pytest.fixture
def pair(large_run: LargeRun) -> tuple[int, int]:
    first = large_run.first(5)
    return int(large_run.ids[first]), int(large_run.ids[first + 1])


def test_every_decision_is_in_the_file_at_once(session: Session, pair: tuple[int, int], large_run: LargeRun) -> None:
    keys = [f"pool/group-000005/{place}.jpg" for place in range(2)]
    done = session.decide("keep", pair[1], None)
    assert written(session) == [(keys[1], "keep", "")]
    assert (done["decisions"], done["undo"], [mark["decision"] for mark in done["marks"][str(pair[1])]]) == (
        1,
        1,
        ["keep"],
    )
    session.decide("not-copies", pair[1], pair[0])
    session.decide("drop", pair[0], None)
    session.decide("represent", pair[1], None)
    assert written(session) == [(keys[1], "not-copies", keys[0]), (keys[0], "drop", ""), (keys[1], "represent", "")]


def test_undo_brings_back_what_the_file_said(session: Session, pair: tuple[int, int]) -> None:
    append_decisions(session.marks.path, [Decision("pool/group-000005/1.jpg", "drop", note="mine")])
    before = Path(session.marks.path).read_bytes()
    session.decide("keep", pair[1], None)
    session.decide("not-copies", pair[1], None)
    assert written(session) == [("pool/group-000005/1.jpg", "not-copies", "")]
    session.undo([])
    assert written(session) == [("pool/group-000005/1.jpg", "keep", "")]
    assert session.undo([pair[1]])["marks"][str(pair[1])][0]["note"] == "mine"
    assert Path(session.marks.path).read_bytes() == before
    assert session.undo([])["undo"] == 0


def test_a_group_is_parted_in_one_step(session: Session, large_run: LargeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    session.decide("drop", int(large_run.ids[2]), None)
    done = session.part("contamination", 0)
    keys = [large_run.key(row) for row in range(large_run.num_grouped - 3, large_run.num_grouped)]
    assert written(session)[1:] == [(f"pool/{key}", "not-copies", "") for key in keys]
    assert [len(marks) for marks in done["marks"].values()] == [0, 1, 1, 1]
    session.undo([])
    assert [row[1] for row in written(session)] == ["drop"]
    monkeypatch.setattr("curate.review.session.MOST_PARTED", LARGE - 1)
    with pytest.raises(Refused, match="a group of 70 images is too large"):
        session.part("groups", 0)
    with pytest.raises(Refused, match="no image of the pool"):
        session.part("rejected-empty", 0)


def test_a_decision_that_is_removed_can_be_brought_back(session: Session, pair: tuple[int, int]) -> None:
    session.decide("not-copies", pair[0], pair[1])
    (row,) = session.decisions()
    session.forget((row["about"][0], row["about"][1]), [])
    assert written(session) == []
    session.undo([])
    assert len(written(session)) == 1


def test_what_decisions_cannot_mean_is_refused(session: Session, large_run: LargeRun, pair: tuple[int, int]) -> None:
    heldout, rejected = int(large_run.heldout[0]), int(large_run.ids[-1])
    with pytest.raises(Refused, match="heldout images stay as they are"):
        session.decide("drop", heldout, None)
    with pytest.raises(Refused, match="a rejected image stays out"):
        session.decide("keep", rejected, None)
    with pytest.raises(Refused, match="no such decision or image"):
        session.decide("burn", pair[0], None)
    with pytest.raises(Refused, match="no such decision or image"):
        session.decide("keep", 1 << 62, None)
    with pytest.raises(Refused, match="no pair with itself"):
        session.decide("not-copies", pair[0], pair[0])
    with pytest.raises(Refused, match="choose one of them"):
        session.decide("not-copies", heldout, None)
    assert not Path(session.marks.path).exists()
    session.decide("not-copies", heldout, pair[0])
    assert written(session) == [("pool/group-000005/0.jpg", "not-copies", "heldout/bench/0.jpg")]


def test_verdicts_that_are_made_anew_are_told(tmp_path: Path) -> None:
    run = LargeRun(tmp_path, num_groups=3)
    session = Session(run.finished, apply="")
    session.page("groups", 0)
    manifest = run.store.table("duplicates").complete_manifest()
    run.store.write_json("duplicates/_table.json", manifest.as_json() | {"seconds": 7.0})
    with pytest.raises(TableError, match="made anew meanwhile"):
        session.page("groups", 0)
