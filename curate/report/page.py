"""The report: one self-contained page that opens anywhere, without scripts and without requests."""

from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

from curate.engine.store import Store
from curate.report.markup import Content, Markup, el
from curate.report.pictures import Pictures
from curate.report.run import Run
from curate.report.sections import (
    attention,
    calibration,
    clusters,
    contamination,
    duplicates,
    examples,
    funnel,
    levels,
    overview,
    recall,
    retrieval,
    screening,
    semdedup,
    set_figures,
    shares,
    similarity,
    timings,
    training,
    warnings,
)

FILE = "report/index.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The page asks for nothing, and runs nothing that a file name might smuggle in."""


class Section(NamedTuple):
    """A titled part of the page; `anchor` is its name in links."""

    anchor: str
    title: str
    content: Markup


def write_report(store: Store) -> str:
    """Write `report/index.html` of a workdir from the tables that are finished.

    Returns:
        Its path.

    Raises:
        TableError: the workdir holds no finished table.
    """
    run = Run.open(store)
    store.write_bytes(FILE, render(run, Pictures(store)).encode())
    return store.join(FILE)


def render(run: Run, pictures: Pictures) -> str:
    """The whole page."""
    found = list(sections(run, pictures))
    return document(
        f"{run.name}: report of {run.recipe}", el("body", _header(run, found), el("main", map(_block, found)))
    )


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


def sections(run: Run, pictures: Pictures) -> Iterator[Section]:
    """The sections whose tables are there, in the order of the page."""
    made: list[tuple[str, str, Markup | None]] = [
        ("warnings", "Look at this first", warnings.section(run)),
        ("funnel", "From the pool to the shards", funnel.section(run)),
        ("shares", "What the selection is made of", shares.section(run)),
        ("figures", "The selection beside the pool", set_figures.section(run)),
        ("balance", "Cluster sizes before and after", clusters.sizes_section(run)),
        ("levels", "Levels of the clusters", levels.section(run)),
        ("screening", "Kept out of the balanced draw", screening.section(run, pictures)),
        ("duplicates", "Copies", duplicates.section(run, pictures)),
        ("heldout", "Held-out images", contamination.section(run, pictures)),
        ("similarity", "Similarity of the pairs", similarity.section(run)),
        ("calibration", "Thresholds, measured", calibration.section(run)),
        ("recall", "Recall of the searches", recall.section(run)),
        ("semdedup", "Images alike to the backbone", semdedup.section(run)),
        ("retrieved", "Retrieved", retrieval.section(run, pictures)),
        ("selected", "Selected", examples.selected_section(run, pictures)),
        ("dropped", "Dropped", examples.dropped_section(run, pictures)),
        ("clusters", "Clusters", clusters.examples_section(run, pictures)),
        ("training", "Pretraining", training.section(run)),
        ("attention", "What the backbone looks at", attention.section(run, pictures)),
        ("timings", "Timings", timings.section(run)),
    ]
    for anchor, title, content in made:
        if content is not None:
            yield Section(anchor, title, content)


def _header(run: Run, found: list[Section]) -> Markup:
    links: Content = [el("a", section.title, href=f"#{section.anchor}") for section in found]
    return el(
        "header",
        el("p", f"Report of recipe {run.recipe}", class_="label"),
        el("h1", run.name),
        el("p", overview.headline(run), class_="lead"),
        overview.section(run),
        el("nav", links),
    )


def _block(section: Section) -> Markup:
    return el("section", el("h2", section.title), section.content, id=section.anchor)
