"""How much of the true pairs each search found, measured on a sample of queries by brute force."""

from typing import Any

from curate.report.markup import Markup, el
from curate.report.run import Run


def section(run: Run) -> Markup | None:
    rows = [_row(run, name) for name in run.manifests if run.manifests[name].metrics.get("recall") is not None]
    if not rows:
        return None
    text = (
        "A seeded sample of images was compared with every other one. Half of them chose how many inverted lists a "
        "query looks into; the recall is that of the other half, above the threshold of the search."
    )
    head = el("tr", [el("th", name) for name in ("search", "lists a query looks into", "recall", "true pairs")])
    return el("div", el("p", text, class_="quiet"), el("table", head, rows))


def _row(run: Run, name: str) -> Markup:
    metrics: dict[str, Any] = run.manifests[name].metrics
    lists = next((t for t in run.manifests[name].inputs.get("lists", []) if t in run.manifests), None)
    probes = run.manifests[lists].resolved.get("num_probes", "") if lists else ""
    recall = f"{metrics['recall']:.4f} +- {metrics['recall_stderr']:.4f}"
    return el("tr", [el("td", str(cell)) for cell in (name, probes, recall, f"{metrics['recall_pairs']:,}")])
