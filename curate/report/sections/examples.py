"""Random pictures: what was selected, and what was dropped for each reason."""

import numpy as np
import pyarrow as pa

from curate.report.markup import Markup, el
from curate.report.numbers import plural
from curate.report.pictures import Pictures, short_name
from curate.report.run import Run, pick
from curate.tables import REJECT_REASONS

NUM_SELECTED, NUM_DROPPED, NUM_TEXTS = 40, 10, 6
MEANING = {
    "unreadable": "could not be had from its source",
    "empty": "no bytes",
    "not_an_image": "no known image format",
    "too_large": "more pixels or bytes than allowed",
    "truncated": "the data end early",
    "corrupt": "the data do not decode",
    "extreme_aspect": "far taller than wide, or wider than tall",
    "too_small": "too few pixels on the short side",
    "uniform": "one colour all over",
    "noise": "neighbouring pixels are unrelated",
}


def selected_section(run: Run, pictures: Pictures) -> Markup | None:
    ids = selected_ids(run)
    if ids is None:
        return None
    by = "were selected" if run.has("selection") else "deduplication kept"
    chosen = pick(ids, NUM_SELECTED, run.rng("selected"))
    text = f"Random images of the pool that {by}."
    return el("div", el("p", text, class_="quiet"), pictures.grid(chosen.tolist()))


def selected_ids(run: Run) -> np.ndarray | None:
    """image_ids of the pool that were selected, or else that deduplication kept; None: neither has happened."""
    if run.has("selection"):
        ids: np.ndarray = run.sample("selection", ["image_id"], role="pool").rows["image_id"].to_numpy()
        return ids
    if run.has("duplicates"):
        rows = run.sample("duplicates", ["image_id", "verdict"]).rows
        kept: np.ndarray = rows["image_id"].to_numpy()[rows["verdict"].to_numpy() == "kept"]
        return kept
    return None


def dropped_section(run: Run, pictures: Pictures) -> Markup | None:
    rejects, others = _rejects(run, pictures), _passed_over(run, pictures)
    return el("div", el("div", rejects, class_="reasons"), others) if rejects or others else None


def _rejects(run: Run, pictures: Pictures) -> list[Markup]:
    if not run.has("images"):
        return []
    total = run.metrics("images").get("rejected", {})
    rows = run.sample("images", ["image_id", "reject", "detail"]).rows
    rows = rows.filter(rows["reject"].is_valid())
    blocks = []
    for reason in REJECT_REASONS:
        ids = rows["image_id"].to_numpy()[rows["reject"].to_numpy() == reason] if len(rows) else np.empty(0, np.int64)
        if len(ids):
            details = dict(zip(rows["image_id"].to_pylist(), rows["detail"].to_pylist(), strict=True))
            chosen = pick(ids, NUM_DROPPED, run.rng(f"dropped {reason}")).tolist()
            blocks.append(_reason(pictures, reason, int(total.get(reason, len(ids))), chosen, details))
    return blocks


def _reason(pictures: Pictures, reason: str, number: int, ids: list[int], details: dict[int, str | None]) -> Markup:
    """Pictures where there is something to see, else a line that says what was found."""
    pictures.load(ids)
    seen = [i for i in ids if pictures.is_shown(i)]
    unseen = [i for i in ids if not pictures.is_shown(i)][:NUM_TEXTS]
    figures = [pictures.figure(i, details[i], short_name(pictures[i].key)) for i in seen]
    lines = [
        el("li", el("b", short_name(pictures[i].key, 40)), f" {details[i] or pictures[i].missing}") for i in unseen
    ]
    return el(
        "div",
        el("h3", f"{reason.replace('_', ' ')}: {plural(number, 'image')}"),
        el("p", MEANING[reason], class_="label"),
        el("div", figures, class_="grid detailed") if figures else None,
        el("ul", lines, class_="details") if lines else None,
    )


def _passed_over(run: Run, pictures: Pictures) -> list[Markup]:
    """Images that deduplication kept and no route chose."""
    if not run.has("selection", "duplicates"):
        return []
    rows = run.sample("duplicates", ["image_id", "verdict"]).rows
    kept = rows["image_id"].to_numpy()[rows["verdict"].to_numpy() == "kept"]
    parts = np.unique(kept >> 32)
    chosen = [run.table("selection").read(int(part), ["image_id"]) for part in parts]
    left = np.setdiff1d(kept, pa.concat_tables(chosen)["image_id"].to_numpy()) if chosen else kept
    if not len(left):
        return []
    number = int(run.metrics("duplicates")["kept"]) - int(run.metrics("selection").get("roles", {}).get("pool", 0))
    title = el("h3", f"not selected: {plural(number, 'image')}")
    text = "good pictures that no route chose, or that a cap or the balance left out"
    grid = pictures.grid(pick(left, 3 * NUM_DROPPED, run.rng("not selected")).tolist())
    return [el("div", title, el("p", text, class_="label"), grid)]
