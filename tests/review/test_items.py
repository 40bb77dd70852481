"""Pages of items: what is read, filtered and said."""

from curate.decisions import Decision
from curate.review.items import MOST_IMAGES, PAGE_ITEMS
from curate.review.session import Session
from tests.review.large_run import HOSTILE_GROUP, LARGE, NUM_GROUPS, LargeRun


def test_pages_hold_fifty_and_cover_the_queue(session: Session, large_run: LargeRun) -> None:
    last = NUM_GROUPS // PAGE_ITEMS - 1
    for number in (0, 7, last):
        page = session.page("groups", number)
        assert [item["number"] for item in page["items"]] == list(range(number * 50, number * 50 + 50))
    assert (page["pages"], page["total"]) == (last + 1, NUM_GROUPS)
    assert session.page("groups", last + 100) == page
    first = large_run.first(NUM_GROUPS - 1)
    assert [image["key"] for image in page["items"][-1]["images"]] == [large_run.key(first), large_run.key(first + 1)]


def test_large_groups_come_in_pieces(session: Session, large_run: LargeRun) -> None:
    item = session.page("groups", 0)["items"][0]
    assert (len(item["images"]), item["more"]) == (MOST_IMAGES, LARGE - MOST_IMAGES)
    rest = session.members("groups", 0, MOST_IMAGES)
    assert [image["key"] for image in (*item["images"], *rest)] == [large_run.key(row) for row in range(LARGE)]
    assert session.members("groups", NUM_GROUPS, 0) == []


def test_dropped_images_come_beside_what_stays(session: Session) -> None:
    for item in session.page("dropped-embedding", 3)["items"]:
        kept, gone = item["images"]
        assert (kept["verdict"], gone["verdict"]) == ("kept", "dropped")
        assert gone["partner"] == kept["id"]
        assert item["title"] == f"{gone['similarity']:.3f} embedding"


def test_titles_of_doubtful_pairs_say_the_side(session: Session) -> None:
    titles = [item["title"] for item in session.page("doubtful-aligned", 0)["items"][:2]]
    assert titles == ["A copy by 0.002: 0.502 aligned", "Not a copy by 0.003: 0.497 aligned"]


def test_filter_finds_names_and_reasons_in_any_case(session: Session) -> None:
    found = session.page("groups", 0, "GROUP-09999")
    assert [item["images"][0]["key"] for item in found["items"]] == [f"group-09999{n}/0.jpg" for n in range(10)]
    assert session.page("groups", 0, "no such name")["items"] == []
    assert session.page("rejected-unsupported", 0, "svg is not")["total"] == 60
    assert session.page("rejected-empty", 0, "svg is not")["total"] == 0
    assert session.page("contamination", 0, "bench/1")["total"] == 1
    second = session.page("groups", 1, "group-0000")
    assert (second["page"], second["pages"], second["items"][0]["number"]) == (1, 2, 50)


def test_decisions_are_found_by_each_name_of_an_image(session: Session, large_run: LargeRun) -> None:
    image = session.page("groups", 1)["items"][0]["images"][0]
    sha256 = int(image["id"]).to_bytes(32, "big").hex()
    for name in (image["key"], f"pool/{image['key']}", sha256, f"sha256:{sha256.upper()}"):
        session.marks.write([Decision(name, "keep")])
        (mark,) = session.page("groups", 1)["items"][0]["images"][0]["marks"]
        assert (mark["decision"], mark["image"]) == ("keep", name)
        session.undo([])


def test_names_of_strangers_are_visible_and_decisions_name_such_images_by_their_bytes(session: Session) -> None:
    (image, _) = session.page("groups", 0)["items"][HOSTILE_GROUP]["images"]
    assert image["key"] == "group-000003/0<img src=x onerror=alert(1)>\\x1b[31m\\u202e.jpg"
    session.decide("keep", int(image["id"]), None)
    sha256 = int(image["id"]).to_bytes(32, "big").hex()
    assert [decision.image for decision in session.marks.all()] == [sha256]
    (again, _) = session.page("groups", 0)["items"][HOSTILE_GROUP]["images"]
    assert [mark["decision"] for mark in again["marks"]] == ["keep"]
