"""The funnel: images at each step, and why they left."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from curate.report.markup import Markup, el
from curate.report.numbers import count, plural, share
from curate.report.run import Run
from curate.tables import ROLES

EVIDENCE = {
    "sha256": "same bytes",
    "embedding": "by embedding",
    "aligned": "by embedding, verified by alignment",
    "hash": "by perceptual hash",
}


@dataclass(frozen=True)
class Step:
    """One bar of the funnel."""

    name: str
    pool: int
    curated: int | None = None
    """Trusted images beside the pool's; None: this step does not concern them."""
    drops: list[tuple[str, int]] = field(default_factory=list)
    """Why images of the pool left before this step."""
    note: str = ""


def section(run: Run) -> Markup | None:
    if run.parts is None:
        return None
    found = steps(run)
    widest = max(step.pool + (step.curated or 0) for step in found)
    names = el("div", el("span", el("i", class_="swatch a"), "pool"), class_="legend")
    if any(step.curated for step in found):
        names = el(
            "div",
            el("span", el("i", class_="swatch a"), "pool"),
            el("span", el("i", class_="swatch b"), "curated, added as they are"),
            class_="legend",
        )
    return el("div", names, el("ol", [_bar(step, found[0].pool, widest) for step in found], class_="funnel"))


def steps(run: Run) -> list[Step]:
    """Every step that the workdir has tables for."""
    assert run.parts is not None
    listed = {role: run.parts.num_images([role]) for role in ROLES}
    curated: int | None = listed["curated"] or None
    found = [Step("listed", listed["pool"], curated)]
    if run.has("images"):
        rejects = rejects_by_role(run)
        gone = rejects["pool"].pop("unreadable", 0)
        found.append(Step("read", listed["pool"] - gone, curated, [("unreadable", gone)]))
        if curated:
            curated -= rejects["curated"].total()
        accepted = found[-1].pool - rejects["pool"].total()
        found.append(Step("accepted", accepted, curated, rejects["pool"].most_common()))
    if run.has("duplicates"):
        found += _deduplicated(run)
    if run.has("semdedup/verdicts"):
        judged = run.metrics("semdedup/verdicts")
        drops = [("alike to a preferred one of its cluster", int(judged["similar"]))]
        found.append(Step("one of those alike", int(judged["kept"]), None, drops))
    routes = run.metrics("selection").get("routes", {})
    if run.has("retrieved") and "balance" not in routes:  # with a second route, retrieval drops nobody
        unique = int(run.metrics("retrieved").get("unique", 0))
        drops = [("resemble no curated image", found[-1].pool - unique)]
        found.append(Step("retrieved", unique, None, drops))
    return found + _chosen(run, found[-1].pool)


def rejects_by_role(run: Run) -> dict[str, Counter[str]]:
    """Reason to images, by role. The pool is what the other, smaller roles leave of the table's own figures."""
    assert run.parts is not None
    found = {role: Counter[str]() for role in ROLES}
    for part in run.table("images").parts():
        role = ROLES[run.parts.role[part.number]]
        if role != "pool":
            reasons = run.table("images").read(part.number, ["reject"])["reject"].drop_null()
            found[role].update(reasons.to_pylist())
    total = Counter(run.metrics("images").get("rejected", {}))
    found["pool"] = total - found["curated"] - found["heldout"]
    return found


def _deduplicated(run: Run) -> list[Step]:
    metrics = run.metrics("duplicates")
    kept, benchmark = int(metrics["kept"]), int(metrics["benchmark"])
    steps = [Step("one of each copy", kept + benchmark, None, duplicate_kinds(run))]
    if run.parts is not None and run.parts.num_images(["heldout"]):
        steps.append(Step("clean of held-out images", kept, None, [("in a group that touches a benchmark", benchmark)]))
    return steps


def duplicate_kinds(run: Run) -> list[tuple[str, int]]:
    """How many duplicates each kind of evidence gave; of a sample, scaled to the whole."""
    sample = run.sample("duplicates", ["verdict", "kind", "partner_id"])
    rows = sample.rows.filter(np.asarray(sample.rows["verdict"].to_numpy() == "duplicate"))
    total = int(run.metrics("duplicates")["duplicate"])
    outside = run.has_role(rows["partner_id"].to_numpy().astype(np.int64), "curated")
    labels = [
        f"copy of a {'curated' if other else 'pool'} image, {EVIDENCE.get(kind, kind)}"
        for kind, other in zip(rows["kind"].to_pylist(), outside, strict=True)
    ]
    scale = total / max(1, len(labels))
    return [(label, round(n * scale)) for label, n in Counter(labels).most_common()]


def _chosen(run: Run, before: int) -> list[Step]:
    if not run.has("selection"):
        return []
    metrics = run.metrics("selection")
    roles = metrics.get("roles", {})
    pool, curated = int(roles.get("pool", 0)), int(roles.get("curated", 0)) or None
    routes = ", ".join(f"{route} {count(n)}" for route, n in metrics.get("routes", {}).items())
    note = f"routes: {routes}" if routes else ""
    found = [Step("selected", pool, curated, [("chosen by no route, or above a cap", max(0, before - pool))], note)]
    if run.has("shards/data"):
        rows, selected = run.manifests["shards/data"].rows, run.manifests["selection"].rows
        removed = selected - rows
        shards = plural(len(run.manifests["shards/data"].parts), "shard")
        step = Step("in the shards", pool, curated, [], shards)
        if removed:  # which roles the removal list hit is not recorded
            step = Step("in the shards", rows, None, [("on the removal list", removed)], f"{shards}, curated included")
        found.append(step)
    return found


def _bar(step: Step, first: int, widest: int) -> Markup:
    widths = [(step.pool, "a"), (step.curated or 0, "b")]
    bars = [el("i", class_=f"bar {style}", style=f"width:{100 * n / widest:.2f}%") for n, style in widths if n]
    value = [el("b", count(step.pool)), f" {share(step.pool, first)} of the pool"]
    curated = el("span", f" + {count(step.curated)} curated") if step.curated else None
    drops = [el("li", el("b", f"-{count(n)}"), f" {reason.replace('_', ' ')}") for reason, n in step.drops if n]
    return el(
        "li",
        el("div", el("span", step.name, class_="step"), el("span", value, curated, class_="value"), class_="head"),
        el("div", bars, class_="track"),
        el("ul", drops, el("li", step.note) if step.note else None, class_="drops") if drops or step.note else None,
    )
