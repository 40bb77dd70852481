"""What a person should look at before trusting the result."""

import numpy as np

from curate.report.markup import Markup, el
from curate.report.numbers import plural
from curate.report.run import Run


def section(run: Run) -> Markup | None:
    found = warnings(run)
    return el("ul", [el("li", text) for text in found], class_="warnings") if found else None


def warnings(run: Run) -> list[str]:
    """What the tables warn of themselves, then what only several of them together show."""
    found = []
    for table in run.manifests:
        said = run.metrics(table).get("warning")
        found += [f"{table}: {text}" for text in ([said] if isinstance(said, str) else said or [])]
    contaminated = num_contaminated(run)
    if contaminated:
        found.append(
            f"{plural(contaminated, 'curated image')} of this run resemble held-out images as closely as contamination "
            "does. Curated images are added as they are, and these with them: see the section on held-out images."
        )
    return found


def num_contaminated(run: Run) -> int:
    """Curated images that resemble held-out ones: of those selected, or of all where nothing was selected yet."""
    selected = run.metrics("selection").get("contaminated")
    found = run.metrics("duplicates").get("curated_heldout", 0) if selected is None else selected["curated"]
    return int(found)


def curated_matches(run: Run) -> np.ndarray:
    """(M, 2) int64: (curated, held-out) pairs among the copies, the most similar of each curated image first."""
    pairs, similarity = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for table in copy_tables(run):
        rows = run.sample(table, ["query_id", "image_id", "similarity"]).rows
        query, image = rows["query_id"].to_numpy(), rows["image_id"].to_numpy()
        mask = run.has_role(query, "heldout") & run.has_role(image, "curated")
        pairs.append(np.stack([image[mask], query[mask]], axis=1))
        similarity.append(rows["similarity"].to_numpy()[mask])
    order = np.argsort(-np.concatenate(similarity), kind="stable")
    ordered = np.concatenate(pairs)[order]
    _, first = np.unique(ordered[:, 0], return_index=True)
    found: np.ndarray = ordered[np.sort(first)]
    return found


def copy_tables(run: Run) -> list[str]:
    """Tables of neighbours that deduplication read."""
    if not run.has("duplicates") or run.parts is None:
        return []
    return [name for name in run.manifests["duplicates"].inputs.get("neighbors", []) if run.has(name)]
