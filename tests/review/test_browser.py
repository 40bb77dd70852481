"""The page in a browser, by keys and clicks, on a wide screen and on a phone, with 100,000 groups behind it."""

import csv
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curate.api import Run
from curate.cli import app
from curate.cli.review import apply
from curate.engine.store import Store
from curate.review.export import export
from curate.review.session import Session
from curate.workdir import open_record, open_tables
from tests.review.large_run import HOSTILE_GROUP, LARGE, LargeRun
from tests.review.running import Running

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("no chromium on this machine: apt-get install chromium", allow_module_level=True)

WIDE, PHONE = (1400, 900), (420, 860)
MILLISECONDS = 60_000
"""That a busy machine may take for one step."""
sizes = pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    expect.set_options(timeout=MILLISECONDS)
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, timeout=MILLISECONDS)
        yield found
        found.close()


class Seen:
    """A page of the browser, and what it asked for and complained about."""

    def __init__(self, browser: Any, size: tuple[int, int], address: str) -> None:
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
        self.context.set_default_timeout(MILLISECONDS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        expect(self.page.locator("#tiles .tile").first).to_be_visible()

    def __getitem__(self, selector: str) -> Any:
        return self.page.locator(selector)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def says(self, text: str) -> None:
        expect(self["#said"]).to_contain_text(text)

    def chosen(self, key: str) -> None:
        """The chosen picture is the one of this key."""
        expect(self["figure.chosen .key"]).to_have_text(key)

    def place(self, text: str) -> None:
        expect(self["#place"]).to_have_text(text)

    def queue(self, size: tuple[int, int], name: str) -> None:
        if size == PHONE:
            self["#queue-choice"].select_option(name)
        else:
            self[f"[data-queue={name}]"].click()
        expect(self[f"[data-queue={name}]"]).to_have_attribute("aria-current", "page")

    def fits(self) -> None:
        """Nothing has to be scrolled sideways."""
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert self.page.evaluate("document.body.scrollWidth <= innerWidth")

    def close(self, address: str) -> None:
        """Nothing was asked of another origin, and nothing went wrong."""
        self.context.close()
        assert [url for url in self.requests if not url.startswith((address, "blob:"))] == []
        assert self.complaints == []


@pytest.fixture
def seen(browser: Any, running: Running, session: Session, size: tuple[int, int]) -> Iterator[Seen]:
    found = Seen(browser, size, running.address)
    yield found
    found.close(running.address)


def rows(session: Session) -> list[tuple[str, str, str]]:
    """What the file of decisions holds, read as any program would."""
    path = Path(session.marks.path)
    return read(path) if path.exists() else []


def read(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="") as file:
        return [(row["image"], row["decision"], row["other"]) for row in csv.DictReader(file)]


def key(group: int, place: int) -> str:
    return f"group-{group:06d}/{place}.jpg"


@sizes
def test_keys_alone_lead_through_everything(seen: Seen, session: Session, large_run: LargeRun) -> None:
    seen.place("1 to 50 of 100,000")
    seen.chosen(key(0, 1))
    seen.press("ArrowDown", "ArrowDown", "ArrowUp")
    seen.chosen(key(1, 1))
    seen.press("k")
    seen.says(f"Written: keep, pool/{key(1, 1)}")
    expected = [(f"pool/{key(1, 1)}", "keep", "")]
    assert rows(session) == expected
    expect(seen["figure.chosen .badge"]).to_have_text("keep")
    expect(seen[".tile[aria-current=true] .badge"]).to_have_text("keep")
    seen.press("ArrowDown", "ArrowLeft")
    seen.chosen(key(2, 0))
    seen.press("d")
    seen.says(f"Written: drop, pool/{key(2, 0)}")
    assert rows(session) == (expected := [*expected, (f"pool/{key(2, 0)}", "drop", "")])
    seen.press("n")
    seen.place("51 to 100 of 100,000")
    seen.chosen(key(50, 1))
    seen.press("x")
    seen.says("Written: not copies")
    assert rows(session) == (expected := [*expected, (f"pool/{key(50, 1)}", "not-copies", f"pool/{key(50, 0)}")])
    expect(seen["figure .badge"]).to_have_count(2)
    seen.press("ArrowUp")
    seen.place("1 to 50 of 100,000")
    seen.chosen(key(49, 1))
    seen.press("r")
    seen.says("Written: represent")
    assert rows(session) == [*expected, (f"pool/{key(49, 1)}", "represent", "")]
    seen.press("u")
    seen.says("Taken back")
    assert rows(session) == expected
    seen.press("?")
    expect(seen["#help"]).to_be_visible()
    seen.press("Escape", "/")
    seen.page.keyboard.type("GROUP-05432")
    seen.press("Enter")
    seen.place("1 to 10 of 10 that fit")
    seen.chosen(key(54320, 1))
    seen.press("f")
    expect(seen["#viewer img"]).to_have_count(1)
    seen.press("Escape", "l")
    expect(seen["#decision-rows li"]).to_have_count(3)
    expect(seen["#apply"]).to_have_text("curate run dedup workdir=run --update")
    seen.press("Escape", "]")
    expect(seen["[data-queue=contamination]"]).to_have_attribute("aria-current", "page")
    expect(seen["#tiles"]).to_contain_text("Nothing fits the filter")
    seen.press("k")
    seen.says("there is no picture")
    assert rows(session) == expected


def test_a_decision_is_applied_by_the_command_that_the_page_shows(
    browser: Any, dedup_run: Path, tmp_path: Path
) -> None:
    """A real run: look, keep a copy after all, run what the page says, and it stays."""
    workdir = tmp_path / "run"
    shutil.copytree(dedup_run, workdir)
    store = Store(workdir)
    command = apply(open_record(store), str(workdir)).replace(str(dedup_run), str(workdir))
    running = Running(Session(open_tables(store), apply=command))
    try:
        seen = Seen(browser, WIDE, running.address)
        name = seen["figure.chosen .key"].text_content()
        seen.press("k")
        seen.says(f"Written: keep, pool/{name}")
        seen.press("l")
        expect(seen["#apply"]).to_contain_text("--update")
        words = shlex.split(seen["#apply"].text_content())
        seen.close(running.address)
    finally:
        running.stop()

    ran = CliRunner().invoke(app, words[1:], catch_exceptions=False)

    assert ran.exit_code == 0, ran.output
    with Run(store).list("kept", columns=["key", "reason"]) as listed:
        kept = dict(zip(*(column.to_pylist() for column in listed.read_all().columns), strict=True))
    assert kept[name] == "decision"


@sizes
def test_clicks_lead_through_everything(seen: Seen, session: Session, size: tuple[int, int]) -> None:
    seen.fits()
    seen[".tile"].nth(4).click()
    seen.chosen(key(4, 1))
    seen["figure .shot"].first.click()
    seen.chosen(key(4, 0))
    for name, word in (("Keep", "keep"), ("Drop", "drop"), ("Represent", "represent")):
        seen[f"#actions button:has-text('{name}')"].click()
        seen.says(f"Written: {word}, pool/{key(4, 0)}")
        assert rows(session) == [(f"pool/{key(4, 0)}", word, "")]
    seen["#actions button:has-text('Not copies')"].click()
    seen.says("Written: not copies")
    assert rows(session)[1:] == [(f"pool/{key(4, 0)}", "not-copies", f"pool/{key(4, 1)}")]
    seen["#undo"].click()
    seen.says("Taken back")
    assert rows(session) == [(f"pool/{key(4, 0)}", "represent", "")]
    seen["#next-page"].click()
    seen.place("51 to 100 of 100,000")
    seen["#next-item"].click()
    seen.chosen(key(51, 1))
    seen["#previous-page"].click()
    seen.place("1 to 50 of 100,000")
    seen["#show-decisions"].click()
    seen["#decision-rows button:has-text('Remove')"].click()
    expect(seen["#decisions-more"]).to_have_text("None yet.")
    assert rows(session) == []
    seen["#decisions .close"].click()
    seen["#undo"].click()
    seen.says("Taken back")
    assert rows(session) == [(f"pool/{key(4, 0)}", "represent", "")]
    seen.queue(size, "rejected-unsupported")
    expect(seen["#item-title"]).to_have_text("SVG is not read")
    expect(seen["#actions [data-decide]:enabled"]).to_have_count(0)
    seen.place("1 to 50 of 60")
    seen.fits()


@sizes
def test_pictures_are_seen_and_compared_at_full_size(seen: Seen, size: tuple[int, int]) -> None:
    seen.queue(size, "doubtful-aligned")
    expect(seen["#item-title"]).to_have_text("A copy by 0.002: 0.502 aligned")
    expect(seen["#pictures img"]).to_have_count(2)
    for number in range(2):
        expect(seen["#pictures img"].nth(number)).to_have_js_property("naturalWidth", 96)
    seen["#show-compare"].click()
    stage = seen["#stage"]
    for number, mode in enumerate(("one", "beside", "overlay", "flicker", "difference"), start=1):
        seen.press(str(number))
        expect(stage).to_have_attribute("data-mode", mode)
        expect(seen["#stage img"]).to_have_count(1 if mode == "one" else 2)
    seen.press("4", "Space")
    seen["#opacity-label"].wait_for(state="hidden")
    seen.press("3")
    seen["#opacity"].fill("100")
    assert seen["#stage img"].last.evaluate("(one) => getComputedStyle(one).opacity") == "1"
    seen["#stage"].focus()
    seen.press("z")
    expect(seen["#zoom-value"]).to_have_text("100 %")
    expect(seen["#stage img"].first).to_have_js_property("width", 96)
    seen["#zoom-in"].click()
    expect(seen["#zoom-value"]).to_have_text("150 %")
    seen["#close-viewer"].click()
    expect(seen["#viewer"]).to_be_hidden()
    seen.fits()


@pytest.mark.parametrize("size", [WIDE], ids=["wide"])
def test_large_groups_filters_and_places_in_the_address(seen: Seen, session: Session) -> None:
    expect(seen["#pictures figure"]).to_have_count(48)
    seen["#more-pictures"].click()
    expect(seen["#pictures figure"]).to_have_count(LARGE)
    expect(seen["#more-pictures"]).to_be_hidden()
    seen.press("x")
    seen.says("Written: not copies, pool/group-000000/48.jpg.")
    assert rows(session) == [("pool/group-000000/48.jpg", "not-copies", "")]
    seen.press("Shift+X")
    seen.says(f"Written: not copies, {LARGE} images")
    assert sorted(rows(session)) == sorted((f"pool/{key(0, place)}", "not-copies", "") for place in range(LARGE))
    seen.press("u")
    seen.says("Taken back")
    assert rows(session) == [("pool/group-000000/48.jpg", "not-copies", "")]
    seen["#filter"].fill("group-0123")
    seen["#filter"].press("Enter")
    seen.place("1 to 50 of 100 that fit")
    seen.press("n", "ArrowDown")
    seen.place("51 to 100 of 100 that fit")
    seen.chosen(key(12351, 1))
    seen.page.reload()
    seen.place("51 to 100 of 100 that fit")
    seen.chosen(key(12351, 1))


@pytest.mark.parametrize("size", [WIDE], ids=["wide"])
def test_names_of_strangers_are_text(seen: Seen) -> None:
    seen[".tile"].nth(HOSTILE_GROUP).click()
    expect(seen["figure.chosen .key"]).to_have_text("group-000003/1<img src=x onerror=alert(1)>\\x1b[31m\\u202e.jpg")
    assert seen["img[src='x']"].count() == 0


@sizes
def test_an_export_works_from_files(
    browser: Any, session: Session, tmp_path: Path, size: tuple[int, int], small_export: Path
) -> None:
    address = small_export.as_uri()
    seen = Seen(browser, size, f"{address}/index.html")
    seen.fits()
    seen.place("1 to 50 of 100")
    expect(seen["#pictures img"].first).to_have_js_property("naturalWidth", 96)
    seen.press("ArrowDown", "k", "n", "x")
    seen.says("Written: not copies")
    expect(seen["#num-decisions"]).to_have_text("2")
    seen.press("ArrowDown", "d", "u")
    seen.says("Taken back")
    seen["#filter"].fill("group-00007")
    seen["#filter"].press("Enter")
    seen.place("1 to 10 of 10 that fit")
    seen["#show-decisions"].click()
    with seen.page.expect_download() as download:
        seen["#download"].click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "decisions.csv"
    assert read(saved) == [
        (f"pool/{key(1, 1)}", "keep", ""),
        (f"pool/{key(50, 1)}", "not-copies", f"pool/{key(50, 0)}"),
    ]
    seen.close(address)


@pytest.fixture(scope="module")
def small_export(large_session: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pages of each queue."""
    folder = tmp_path_factory.mktemp("export") / "site"
    export(large_session, folder, sizes="full", most_items=100)
    return folder
