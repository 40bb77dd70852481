"""The report: one self-contained page that opens anywhere, without scripts and without requests.

What it shows comes from the stages of the recipe (`Stage.show`, `flow`, `facts`, `warn`): none is known here by name.
"""

from importlib import resources

from curate.engine.finished import Finished
from curate.engine.show import Section
from curate.report import flow
from curate.report.markup import Content, Markup, el
from curate.report.pictures import Pictures
from curate.report.render import anchor_of, render_section
from curate.report.sections import facts, headline, sections, warnings

FILE = "report/index.html"
SWEEP_FILE = "report/sweep.html"
"""The page of `curate sweep`; named here, since that module takes torch."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page asks for nothing, and runs nothing that a file name might smuggle in."""


def write_page(run: Finished) -> str:
    """Write `report/index.html` of a workdir from the tables that are finished; returns its path."""
    run.store.write_bytes(FILE, render_page(run, Pictures(run)).encode())
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
    blocks += [(section.title, render_section(section, pictures)) for section in _shown(run)]
    main = [el("section", el("h2", title), content, id=anchor_of(title)) for title, content in blocks]
    titles = [title for title, _ in blocks]
    return document(f"{run.name}: report of {run.recipe}", el("body", _header(run, titles), el("main", main)))


def _shown(run: Finished) -> list[Section]:
    return [section for section in sections(run) if section.blocks]


def document(title: str, body: Markup) -> str:
    """A page that asks for nothing from outside."""
    style = resources.files("curate.report").joinpath("style.css").read_text(encoding="utf-8")
    head = [
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", title),
        el("style", Markup(style)),
    ]
    return f"<!doctype html>\n{el('html', el('head', head), body, lang='en')}\n"


def _header(run: Finished, titles: list[str]) -> Markup:
    links: Content = [el("a", title, href=f"#{anchor_of(title)}") for title in titles]
    return el(
        "header",
        el("p", f"Report of recipe {run.recipe}", class_="label"),
        el("h1", run.name),
        el("p", headline(run), class_="lead"),
        _facts(run),
        el("nav", links),
    )


def _facts(run: Finished) -> Markup:
    known = facts(run) | {"Made": [dates(run)]}
    rows: list[Content] = [
        [el("dt", title), el("dd", el("ul", [el("li", line) for line in lines]))] for title, lines in known.items()
    ]
    return el("dl", rows, class_="facts")


def dates(run: Finished) -> str:
    """From the first finished table to the last."""
    found = []
    for _, table in run.tables:
        try:
            found.append(run.store.fs.modified(run.store.find(f"{table.name}/_table.json")))
        except (NotImplementedError, OSError):  # some file systems keep no dates
            return "unknown: the file system keeps no dates"
    first, last = (f"{date:%Y-%m-%d %H:%M}" for date in (min(found), max(found)))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"
