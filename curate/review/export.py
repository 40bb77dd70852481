"""The page of `curate review` as files, which open in any browser without a server.

A page that is opened from a file may not read other files; it may load scripts and pictures that lie beside it. So each
page of a queue is a script that hands its items over. Decisions stay in the page until they are downloaded.
"""

import json
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

from curate.errors import WorkdirError
from curate.progress import track
from curate.review.items import PAGE_ITEMS, Item
from curate.review.originals import SUFFIXES, NotShown, Served
from curate.review.session import Session
from curate.surroundings import surrounded

Sizes = Literal["full", "small"]
MARK = "curate-review.json"
"""Lies in a folder that an export made, which a later one replaces."""
THREADS = 4
POLICY = "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file:"
"""Of the page where no server says one: it loads what lies beside it, and sends nothing."""


class Exported(NamedTuple):
    """What was written."""

    page: str
    items: int
    left_out: int
    """Items of long queues that were not wanted."""
    pictures: int
    missing: int
    """Pictures that cannot be shown; the page says why."""


def export(session: Session, folder: Path, *, sizes: Sizes, most_items: int) -> Exported:
    """Write the page into a folder.

    Args:
        sizes: full: pictures at full size and thumbnails; small: thumbnails alone.
        most_items: of each queue, rounded up to whole pages.

    Raises:
        WorkdirError: the folder holds something else.
    """
    _begin(folder)
    pictures = _Pictures(session, folder, sizes)
    summary, items, left_out = session.summary(), 0, 0
    with surrounded(workdir=session.workdir, settings={"offline": True}):
        for queue in summary["queues"]:
            pages = min(-(-queue["count"] // PAGE_ITEMS), -(-most_items // PAGE_ITEMS))
            with track(queue["title"], pages, unit="pages") as advance:
                for number in range(pages):
                    page = session.page(queue["name"], number)
                    pictures.write(page["items"])
                    items += len(page["items"])
                    _hand_over(folder / "data" / f"{queue['name']}-{number}.js", "page", page)
                    advance()
            queue["listed"], queue["count"] = queue["count"], min(queue["count"], pages * PAGE_ITEMS)
            left_out += queue["listed"] - queue["count"]
    about = {"sizes": sizes, "known": session.decisions(), "suffixes": pictures.suffixes, "missing": pictures.missing}
    _hand_over(folder / "data/run.js", "run", summary | about)
    _write_page(folder)
    written = len(pictures.suffixes) + len(pictures.thumbnails)
    return Exported(str(folder / "index.html"), items, left_out, written, len(pictures.missing))


class _Pictures:
    """Writes the pictures of items, each once."""

    def __init__(self, session: Session, folder: Path, sizes: Sizes) -> None:
        self._originals, self._folder, self._sizes = session.originals, folder, sizes
        self.thumbnails: set[str] = set()
        self.suffixes: dict[str, str] = {}
        """By image, of the pictures at full size."""
        self.missing: dict[str, str] = {}
        """By image, why there is no picture."""

    def write(self, items: Iterable[Item]) -> None:
        ids = dict.fromkeys(image["id"] for item in items for image in item["images"])
        new = [one for one in ids if one not in self.thumbnails and one not in self.missing]
        with ThreadPoolExecutor(THREADS, "review export") as pool:
            for one, why in zip(new, pool.map(self._write, new), strict=True):
                if why:
                    self.missing[one] = why
                else:
                    self.thumbnails.add(one)

    def _write(self, image_id: str) -> str:
        """Write the files of an image; returns why there are none, else nothing."""
        try:
            self._put("thumbnails", f"{image_id}.jpg", self._originals.thumbnail(int(image_id)))
            if self._sizes == "full":
                found = self._originals.picture(int(image_id))
                suffix = SUFFIXES[found.content_type]
                self._put("pictures", image_id + suffix, found)
                self.suffixes[image_id] = suffix
        except NotShown as error:
            return str(error)
        return ""

    def _put(self, place: str, name: str, found: Served) -> None:
        (self._folder / place / name).write_bytes(found.data)


def _begin(folder: Path) -> None:
    """An empty folder with its rooms; what an export wrote before is removed."""
    if folder.exists() and not folder.is_dir():
        raise WorkdirError(f"--export {folder}: is a file; choose a new folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise WorkdirError(f"--export {folder}: not empty, and not written by this command; choose a new folder")
        for name in ("data", "thumbnails", "pictures"):
            shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("data", "thumbnails", "pictures"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(json.dumps({"written_by": "curate review --export"}) + "\n")


def _hand_over(path: Path, kind: str, value: Any) -> None:
    """A script that gives the page a value; ASCII alone, so that nothing in it ends a line of JavaScript."""
    path.write_text(f"window.curateReview.receive({json.dumps(kind)}, {json.dumps(value)});\n", encoding="ascii")


def _write_page(folder: Path) -> None:
    files = resources.files("curate.review")
    for name in ("review.css", "review.js", "icon.png"):
        (folder / name).write_bytes(files.joinpath(name).read_bytes())
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    page = files.joinpath("page.html").read_text(encoding="utf-8")
    page = page.replace('<html lang="en">', '<html lang="en" data-mode="files">')
    page = page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}')
    (folder / "index.html").write_text(page, encoding="utf-8")
