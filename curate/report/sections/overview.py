"""What was run: recipe, sources, models with their licenses, thresholds, dates."""

from collections.abc import Iterator

from curate.errors import CurateError
from curate.models.backbones.load import describe
from curate.report.markup import Content, Markup, el
from curate.report.numbers import count, plural
from curate.report.run import Run
from curate.tables import ROLES


def section(run: Run) -> Markup:
    facts = [
        ("Sources", el("ul", [el("li", line) for line in sources(run)])),
        ("Models", el("ul", [el("li", line) for line in models(run)]) if run.under("embeddings") else None),
        ("Thresholds", el("ul", [el("li", line) for line in thresholds(run)]) if run.under("neighbors") else None),
        ("Seed", str(run.config.get("seed", "unknown"))),
        ("Made", dates(run)),
    ]
    rows: list[Content] = [[el("dt", name), el("dd", value)] for name, value in facts if value]
    return el("dl", rows, class_="facts")


def sources(run: Run) -> list[str]:
    """A line a source."""
    if run.parts is None:
        return ["no catalog"]
    sizes: dict[tuple[str, str], int] = {}
    for name, role, rows in zip(run.parts.source, run.parts.role, run.parts.rows, strict=True):
        key = (name, ROLES[role])
        sizes[key] = sizes.get(key, 0) + int(rows)
    return [
        f"{name}{'' if name == role else f' ({role})'}: {plural(rows, 'image')}" for (name, role), rows in sizes.items()
    ]


def models(run: Run, *, digits: int = 12) -> Iterator[str]:
    """A line a table of embeddings: model, license, precision, the first `digits` of the hash of its weights."""
    for table in run.under("embeddings"):
        manifest = run.manifests[table]
        resolved, pins = manifest.resolved, manifest.pins
        if "model" not in resolved:  # made of other vectors
            origin = ", ".join(name for names in manifest.inputs.values() for name in names)
            yield f"{table.removeprefix('embeddings/')}: {manifest.stage} of {origin}"
            continue
        model = str(resolved["model"])
        details = [
            f"weights {pins['weights'][:digits]}" if pins.get("weights") else "",
            str(resolved.get("precision", "")),
        ]
        text = ", ".join(part for part in details if part)
        yield f"{table.removeprefix('embeddings/')}: {model}, license {license_of(model)}{f' ({text})' if text else ''}"


def license_of(model: str) -> str:
    """License of the weights of a known model."""
    try:
        return describe(model).license
    except CurateError:
        return "unknown"


def thresholds(run: Run) -> Iterator[str]:
    """A line a join: the least similarity that makes two images copies."""
    for table in run.under("neighbors"):
        resolved = run.manifests[table].resolved
        own, heldout = resolved.get("threshold"), resolved.get("heldout_threshold")
        if own is None or own <= -1:  # the nearest of each query, however far
            yield f"{table.removeprefix('neighbors/')}: the {resolved.get('max_neighbors')} nearest of each query"
        else:
            yield f"{table.removeprefix('neighbors/')}: copies from {own:g} on, of held-out images from {heldout:g} on"


def dates(run: Run) -> str:
    """From the first finished table to the last."""
    found = []
    for table in run.manifests:
        try:
            found.append(run.store.fs.modified(run.store.join(table, "_table.json")))
        except (NotImplementedError, OSError):  # some file systems keep no dates
            return "unknown: the file system keeps no dates"
    first, last = (f"{date:%Y-%m-%d %H:%M}" for date in (min(found), max(found)))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def headline(run: Run) -> str:
    """The run in one sentence."""
    listed = run.manifests["catalog"].rows if run.has("catalog") else 0
    for table, verb in (("shards/data", "in the shards"), ("selection", "selected"), ("duplicates", "judged")):
        if run.has(table):
            rows = run.manifests[table].rows
            kept = run.metrics(table).get("kept", rows)
            return f"{count(listed)} images listed, {count(kept)} {'kept' if table == 'duplicates' else verb}."
    return f"{count(listed)} images listed."
