"""What curated images brought in: each query, then the pool images it retrieved."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report.markup import Markup, el
from curate.report.numbers import count, plural
from curate.report.pictures import Pictures, short_name
from curate.report.run import Run, pick

NUM_QUERIES, SHOWN = 8, 9
TITLES = {
    "sample": ("By sample", "The nearest pool images of a query, with their cosine to it."),
    "cluster": (
        "By cluster",
        "Images of a cluster that enough queries fell into, with their cosine to its centroid. The query shown is the "
        "one nearest to that centroid.",
    ),
}


def section(run: Run, pictures: Pictures) -> Markup | None:
    if not run.has("retrieved"):
        return None
    sample = run.sample("retrieved", ["query_id", "image_id", "similarity", "origin", "set"])
    blocks = [_route(run, pictures, sample.rows, origin) for origin in TITLES]
    return el("div", _sets(run), el("p", sample.note, class_="quiet") if sample.note else None, blocks)


def _sets(run: Run) -> Markup:
    """Unique images beside their multiplicity, by curated set and route."""
    head = el("tr", [el("th", name) for name in ("curated set, route", "retrieved", "unique", "times each was found")])
    rows = [
        el(
            "tr",
            el("td", name),
            el("td", count(found["retrieved"]), class_="number"),
            el("td", count(found["unique"]), class_="number"),
            el("td", f"{found['retrieved'] / max(1, found['unique']):.2f}", class_="number"),
        )
        for name, found in run.metrics("retrieved").get("sets", {}).items()
    ]
    return el("div", el("table", el("thead", head), el("tbody", rows), class_="figures"), class_="scroll")


def _route(run: Run, pictures: Pictures, rows: pa.Table, origin: str) -> Markup | None:
    rows = rows.filter(pc.equal(rows["origin"], origin))
    if len(rows) == 0:
        return None
    queries = pick(np.unique(rows["query_id"].to_numpy()), NUM_QUERIES, run.rng(f"retrieved {origin}"))
    title, text = TITLES[origin]
    groups = [_query(pictures, rows.filter(pc.equal(rows["query_id"], q)), q) for q in queries.tolist()]
    return el("div", el("h3", title), el("p", text, class_="quiet"), groups)


def _query(pictures: Pictures, rows: pa.Table, query: int) -> Markup:
    rows = rows.sort_by([("similarity", "descending"), ("image_id", "ascending")])
    shown = rows.slice(0, SHOWN - 1).to_pylist()
    pictures.load([query, *(row["image_id"] for row in shown)])
    first = pictures[query]
    figures = [pictures.figure(query, el("b", "query"), short_name(first.key), mark="query")]
    figures += [pictures.figure(row["image_id"], f"{row['similarity']:.3f}") for row in shown]
    left = len(rows) - len(shown)
    more = el("span", f"+ {plural(left, 'more', 'more')}", class_="more") if left else None
    return el("div", figures, more, class_="grid group")
