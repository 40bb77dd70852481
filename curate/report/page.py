"""The report: one page that opens anywhere from its file, and asks nothing of any other place.

What it shows comes from the stages of the recipe (`Stage.show`, `flow`, `facts`, `warn`): none is known here by name.
Its one script is our own, allowed by its digest, so that nothing that a file name might smuggle in ever runs.
"""

import base64
import hashlib
from functools import cache
from importlib import resources

from curate.engine.cleaning import WORKING
from curate.engine.finished import Finished
from curate.engine.show import Section, images_of, without_empty
from curate.report import flow
from curate.report.markup import Content, Markup, el
from curate.report.pictures import Pictures
from curate.report.render import anchor_of, render_section
from curate.report.sections import facts, headline, sections, warnings
from curate.report.settings import SWEPT, further, settings

FILE = "report/index.html"
PICTURES = "report/pictures"
"""Folder of the pictures that the page cannot hold."""
SWEEP_FILE = SWEPT
"""The page of `curate sweep`; named here, since that module takes torch."""
SCORE_SWEEPS = "report/thresholds"
"""Folder of the pages of `curate sweep --score`."""
UNSCRIPTED = ".page[hidden] { display: flex !important; } .switch { display: none; }"
"""Style of a page whose script does not run: everything is seen at once."""


def write_page(run: Finished) -> str:
    """Write `report/index.html` of a workdir from the tables that are finished; returns its path."""
    pictures = Pictures(run, beside=PICTURES)
    page = render_page(run, pictures)
    pictures.finish()
    run.store.write_bytes(FILE, page.encode())
    pictures.remove_others()
    return run.store.join(FILE)


def render_page(run: Finished, pictures: Pictures) -> str:
    """The whole page."""
    blocks: list[tuple[str, Markup]] = []
    said = warnings(run)
    if said:
        blocks.append(("Look at this first", el("ul", [el("li", text) for text in said], class_="warnings")))
    steps = run.flow()
    if steps:
        blocks.append(("From the pool to the result", flow.render_flow(steps)))
    blocks.append(("Go on", further(run)))
    shown = _shown(run)
    pictures.load(image for section in shown for block in section.blocks for image in images_of(block))
    blocks += [(section.title, render_section(section, pictures)) for section in shown]
    main = [el("section", el("h2", title), content, id=anchor_of(title)) for title, content in blocks]
    titles = [title for title, _ in blocks]
    body = el("body", _header(run, titles), el("main", main), _upwards(), id="top")
    return document(f"{run.name}: report of {run.recipe}", body, pictures)


def _shown(run: Finished) -> list[Section]:
    """The sections that have something to show."""
    found = (Section(section.title, without_empty(section.blocks), section.first) for section in sections(run))
    return [section for section in found if section.blocks]


@cache
def _resource(name: str) -> str:
    return resources.files("curate.report").joinpath(name).read_text(encoding="utf-8")


def policy() -> str:
    """The page asks for nothing but the pictures beside it, and runs nothing but its own script."""
    digest = base64.b64encode(hashlib.sha256(_resource("page.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data: 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def document(title: str, body: Markup, pictures: Pictures) -> str:
    """A page that asks for nothing from outside."""
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy()),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Markup(_resource("style.css"))),
        el("noscript", el("style", Markup(UNSCRIPTED))),
    ]
    script = el("script", Markup(_resource("page.js")))
    return f"<!doctype html>\n{el('html', el('head', head), body, pictures.data(), script, lang='en')}\n"


def _header(run: Finished, titles: list[str]) -> Markup:
    links: Content = [el("a", title, href=f"#{anchor_of(title)}") for title in titles]
    steps = run.flow()
    return el(
        "header",
        el("p", f"Report of recipe {run.recipe}", class_="label"),
        el("h1", run.name),
        el("p", headline(run), class_="lead"),
        flow.render_numbers(steps) if steps else None,
        settings(run, facts(run) | {"Tables made": [dates(run)]}),
        el("nav", links, id="contents", aria_label="Contents"),
    )


def _upwards() -> Markup:
    """A way back from anywhere."""
    return el("a", "↑ Contents", href="#contents", class_="up")


def dates(run: Finished) -> str:
    """From the first finished result to the last; `curate clean` writes to the working tables again."""
    tables = [table for _, table in run.tables]
    found = []
    for table in [table for table in tables if not table.name.startswith(WORKING)] or tables:
        try:
            found.append(run.store.fs.modified(run.store.find(f"{table.name}/_table.json")))
        except (NotImplementedError, OSError):  # some file systems keep no dates
            return "unknown: the file system keeps no dates"
    first, last = (f"{date:%Y-%m-%d %H:%M}" for date in (min(found), max(found)))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"
