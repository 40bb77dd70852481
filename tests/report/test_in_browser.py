"""The page in a browser: its script runs under its policy, from a file, by pointer and by keys.

Skipped where Playwright or Debian's Chromium is missing.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.show import Coloring, Gallery, Picture, PointMap, Section
from curate.report import page, pictures
from curate.report.page import write_page
from tests.report.workdir import Workdir, picture

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


class Opened:
    """A page that tells what went wrong in it."""

    def __init__(self, browser: Any, path: str, width: int) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800})
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(f"file://{path}")


def shown(monkeypatch: pytest.MonkeyPatch, workdir: Workdir) -> str:
    """A page with a gallery of two pages, the first picture larger than its thumbnail, and with a map; its path."""
    i = workdir.ids
    picture(1, (600, 450)).save(Path(workdir.sources.pool[0].path, "a.jpg"), "JPEG")
    images = [i["a.jpg"], *[i["b.jpg"], i["left.jpg"]] * 15]
    colorings = (
        Coloring("verdict", ("kept", "copy"), np.array([0, 1, 0])),
        Coloring("source", ("pool",), np.array([0, 0, -1])),
    )
    ids = np.array([i["a.jpg"], i["b.jpg"], i["left.jpg"]])
    points = PointMap(ids, np.array([0.0, 1, 2]), np.array([0.0, 2, 0]), colorings)
    sections = [Section("Gallery", (Gallery(tuple(map(Picture, images))),)), Section("Map", (points,))]
    monkeypatch.setattr(page, "sections", lambda run: sections)
    return write_page(workdir.run)


@pytest.mark.parametrize("large", [False, True])
def test_pictures_open_pages_turn_and_points_show_their_picture(
    browser: Any, workdir: Workdir, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(pictures, "BUDGET", 9000)
    opened = Opened(browser, shown(monkeypatch, workdir), 420 if large else 1400)
    view = opened.page
    assert view.evaluate("document.documentElement.scrollWidth") <= (420 if large else 1400)

    section = view.locator("#gallery")
    assert section.locator(".pager span").inner_text() == "1 to 24 of 31"
    section.get_by_label("next page").click()
    assert section.locator(".pager span").inner_text() == "25 to 31 of 31"
    assert section.locator("figure:visible").count() == 7
    section.get_by_label("next page").click()

    section.locator(".open").first.click()
    image = view.locator("dialog img")
    view.wait_for_function("document.querySelector('dialog img').naturalWidth == 600")
    assert ("pictures/" in image.get_attribute("src")) == large
    assert "a.jpg" in view.locator("dialog p").inner_text()
    view.keyboard.press("ArrowRight")
    assert "b.jpg" in view.locator("dialog p").inner_text()
    view.keyboard.press("Escape")
    assert not view.locator("dialog").is_visible()

    said, drawing = view.locator(".look p"), view.locator(".map svg")
    drawing.focus()
    seen = []
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        view.keyboard.press(key)
        seen.append(said.inner_text())
    assert all("verdict: " in text for text in seen)
    assert len(set(seen)) > 1
    box = drawing.bounding_box()
    drawing.hover(position={"x": box["width"] - 5, "y": box["height"] - 5})
    assert "left.jpg" in said.inner_text()
    assert "others" in said.inner_text()
    assert "url(" in view.locator(".tile").evaluate("tile => tile.style.backgroundImage")
    view.get_by_label("color by source").click()
    classes = [point.get_attribute("class") for point in drawing.locator("circle").all()]
    assert [one.split()[0] for one in classes] == ["c0", "c0", "c"]
    assert opened.wrong == []
    view.close()
