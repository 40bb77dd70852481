"""Held-out images, beside what was dropped from the pool because of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report.markup import Markup, el
from curate.report.numbers import count, plural
from curate.report.pictures import Pictures, short_name
from curate.report.run import Run, pick
from curate.report.sections.duplicates import COLUMNS, evidence
from curate.report.sections.warnings import curated_matches

NUM_GROUPS, SHOWN = 12, 6
NUM_MATCHES = 12


def section(run: Run, pictures: Pictures) -> Markup | None:
    if not run.has("duplicates") or run.parts is None or not run.parts.num_images(["heldout"]):
        return None
    sample = run.sample("duplicates", COLUMNS)
    rows = sample.rows.filter(pc.equal(sample.rows["verdict"], "benchmark"))
    components = np.unique(rows["component_id"].to_numpy())
    dropped = int(run.metrics("duplicates")["benchmark"])
    text = (
        f"{plural(dropped, 'image')} of the pool left: the whole group of copies goes when one of them resembles a "
        f"held-out image. {sample.note}"
    )
    chosen = pick(components, NUM_GROUPS, run.rng("contamination"))
    blocks = [_group(rows.filter(pc.equal(rows["component_id"], c)), pictures) for c in chosen.tolist()]
    return el("div", el("p", text, class_="quiet"), el("div", blocks, class_="pairs"), _curated(run, pictures))


def _group(rows: pa.Table, pictures: Pictures) -> Markup:
    members = rows.sort_by([("similarity", "descending"), ("image_id", "ascending")]).to_pylist()
    shown = members[: SHOWN - 1]
    partner = members[0]["partner_id"]
    pictures.load([partner, *(m["image_id"] for m in shown)])
    figures = [pictures.figure(partner, el("b", "held out"), short_name(pictures[partner].key), mark="heldout")]
    for member in shown:
        figures.append(
            pictures.figure(member["image_id"], evidence(member), short_name(pictures[member["image_id"]].key))
        )
    left = len(members) - len(shown)
    return el(
        "div",
        figures,
        el("span", f"+ {count(left)} more", class_="more") if left else None,
        class_="grid group evidence",
    )


def _curated(run: Run, pictures: Pictures) -> Markup | None:
    """Curated images that resemble held-out ones: they stay, so they must be seen."""
    matches = curated_matches(run)[:NUM_MATCHES].tolist()
    if not matches:
        return None
    pictures.load([i for pair in matches for i in pair])
    pairs = [
        el(
            "div",
            pictures.figure(heldout, el("b", "held out"), mark="heldout"),
            pictures.figure(curated, el("b", "curated, stays"), mark="curated"),
            class_="grid group evidence",
        )
        for curated, heldout in matches
    ]
    return el("div", el("h3", "Curated images that resemble held-out ones"), el("div", pairs, class_="pairs"))
