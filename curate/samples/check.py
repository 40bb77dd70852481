"""A finished run on a generated pool against the pool's truth: what was found, missed and wrongly taken."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.errors import TableError, first_line
from curate.ops.entropy import normalized_entropy
from curate.samples.truth import TruthRow, read_truth
from curate.sealing import open_parquet

EXPECTED_REJECTS = {
    "junk_uniform": "uniform",
    "junk_noise": "noise",
    "junk_tiny": "too_small",
    "junk_truncated": "truncated",
    "junk_text": "not_an_image",
    "junk_empty": "empty",
    "junk_aspect": "extreme_aspect",
}
"""The reason for which each kind of junk should be rejected."""


@dataclass
class ImageResult:
    """What the run made of one image."""

    image_id: int
    role: str
    reject: str | None = None
    component_id: int | None = None
    verdict: str | None = None
    selected: bool = False

    @property
    def group(self) -> int:
        """Its component; an image without a row in `duplicates` is alone."""
        return -1 - self.image_id if self.component_id is None else self.component_id


Truth = dict[str, TruthRow]
"""Rows of the truth by file."""
Results = dict[str, ImageResult]
"""What the run made of each file."""


def check_against_truth(workdir: Path, truth_csv: Path) -> dict[str, Any]:
    """Compare the tables of a run with the truth of its pool.

    A near or exact copy is found when it lies in one component with the image it was made from. Precision and
    recall of pairs are those of components, without exact copies: two copies of one picture are a true pair,
    two photographs a false one; two views of one photograph, or two frames of one scene, count neither way.

    Args:
        workdir: holds `catalog/`, `images/` and `duplicates/`; what needs `selection/` is None without it.
        truth_csv: as the pool generator writes it; cataloged files are matched by the end of their `uri`.

    Returns:
        JSON-ready facts: `near` (by kind of change), `near_recall`, `exact`, `pairs`, `junk`, `contamination`,
        `frames` (by scene), `entropy`, `accepted`, and `unmatched` (cataloged files the truth does not name).

    Raises:
        ConfigError: the truth is absent or lacks columns.
        TableError: a table of the run is absent, or none of its images is in the truth.
    """
    truth = read_truth(truth_csv)
    results, unmatched = _read_results(workdir, truth)
    pool = {file: found for file, found in results.items() if found.role == "pool"}
    if not pool:
        raise TableError(f"{workdir}/catalog: no pool image is named in {truth_csv}; is it the truth of another pool?")
    accepted = {file: found for file, found in pool.items() if found.reject is None}
    near = _links(truth, accepted, sorted({row.kind for row in truth.values() if row.kind.startswith("near_")}))
    return {
        "accepted": len(accepted),
        "unmatched": unmatched,
        "near": near,
        "near_recall": _share(*(sum(counts[name] for counts in near.values()) for name in ("found", "planted"))),
        "exact": _links(truth, accepted, ["exact_copy"])["exact_copy"],
        "pairs": _pairs(truth, accepted),
        "junk": _junk(truth, pool),
        "contamination": _contamination(truth, accepted),
        "frames": _frames(truth, accepted),
        "entropy": _entropy(truth, accepted, results) if _has_table(workdir, "selection") else None,
    }


def _read_results(workdir: Path, truth: Truth) -> tuple[Results, int]:
    """Results by file of the truth, and the number of cataloged images that the truth does not name."""
    catalog = _read_table(workdir, "catalog", ["image_id", "role", "uri"])
    results, by_id, unmatched = {}, {}, 0
    for row in catalog:
        file = _match(row["uri"], truth)
        if file is None:
            unmatched += 1
            continue
        results[file] = by_id[row["image_id"]] = ImageResult(row["image_id"], row["role"])
    for row in _read_table(workdir, "images", ["image_id", "reject"]):
        if row["image_id"] in by_id:
            by_id[row["image_id"]].reject = row["reject"]
    for row in _read_table(workdir, "duplicates", ["image_id", "component_id", "verdict"]):
        if row["image_id"] in by_id:
            found = by_id[row["image_id"]]
            found.component_id, found.verdict = row["component_id"], row["verdict"]
    if _has_table(workdir, "selection"):
        for row in _read_table(workdir, "selection", ["image_id"]):
            if row["image_id"] in by_id:
                by_id[row["image_id"]].selected = True
    return results, unmatched


def _match(uri: str, truth: Truth) -> str | None:
    """The longest end of `uri`, cut at slashes, that the truth names."""
    steps = uri.split("/")
    ends = ("/".join(steps[i:]) for i in range(len(steps)))
    return next((end for end in ends if end in truth), None)


def _has_table(workdir: Path, name: str) -> bool:
    return any((workdir / name).glob("part-*.parquet"))


def _read_table(workdir: Path, name: str, columns: list[str]) -> list[dict[str, Any]]:
    files = sorted((workdir / name).glob("part-*.parquet"))
    if not files:
        raise TableError(f"{workdir / name}: holds no part-*.parquet; run the pipeline to its end first")
    return [row for file in files for row in _read_part(file, columns)]


def _read_part(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file, open_parquet(file) as part:
            rows: list[dict[str, Any]] = part.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise TableError(
            f"{path}: cannot be read ({first_line(error)}); remove this file and run its config again"
        ) from error
    return rows


def _together(accepted: Results, left: str, right: str) -> bool:
    a, b = accepted.get(left), accepted.get(right)
    return a is not None and b is not None and a.group == b.group


def _links(truth: Truth, accepted: Results, kinds: list[str]) -> dict[str, dict[str, Any]]:
    """By kind: copies planted, those found with the image they were made from, recall, and the files missed."""
    report = {}
    for kind in kinds:
        rows = [row for row in truth.values() if row.kind == kind]
        missed = [row.file for row in rows if not _together(accepted, row.file, row.copy_of)]
        found = len(rows) - len(missed)
        report[kind] = {"planted": len(rows), "found": found, "recall": _share(found, len(rows)), "missed": missed}
    return report


def _pairs(truth: Truth, accepted: Results) -> dict[str, Any]:
    """Pairs within components, without counting each: a key that n images share stands for n (n - 1) / 2."""
    rows = [(truth[file], found) for file, found in accepted.items() if truth[file].kind != "exact_copy"]
    roots = [_root(truth, row) for row, _ in rows]
    subjects = [row.subject for row, _ in rows]
    components = [found.group for _, found in rows]
    planted = _num_pairs(roots)
    true = _num_pairs(zip(components, roots, strict=True))
    false = _num_pairs(components) - _num_pairs(zip(components, subjects, strict=True))
    precision, recall = _share(true, true + false), _share(true, planted)
    mixed = defaultdict(set)
    for component, subject in zip(components, subjects, strict=True):
        mixed[component].add(subject)
    return {
        "planted": planted,
        "true": true,
        "false": false,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision and recall else 0.0,
        "mixed_components": [sorted(subjects) for subjects in mixed.values() if len(subjects) > 1],
    }


def _root(truth: Truth, row: TruthRow) -> str:
    """The file that a chain of copies began with."""
    while row.is_copy and row.copy_of in truth:
        row = truth[row.copy_of]
    return row.file


def _num_pairs(keys: Iterable[Hashable]) -> int:
    return sum(n * (n - 1) // 2 for n in Counter(keys).values())


def _junk(truth: Truth, pool: Results) -> dict[str, Any]:
    """Reject reasons by kind of junk (None: accepted), the share that is right, and good images rejected."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    good_rejected = {}
    right = total = 0
    for file, found in pool.items():
        kind = truth[file].kind
        if kind in EXPECTED_REJECTS:
            reasons[kind][found.reject or "accepted"] += 1
            right += found.reject == EXPECTED_REJECTS[kind]
            total += 1
        elif found.reject is not None:
            good_rejected[file] = found.reject
    return {
        "planted": total,
        "right": right,
        "share_right": _share(right, total),
        "reasons": {kind: dict(counts) for kind, counts in sorted(reasons.items())},
        "good_rejected": good_rejected,
    }


def _contamination(truth: Truth, accepted: Results) -> dict[str, Any]:
    """Components that hold a copy of a held-out picture, those that are gone whole, and clean images lost."""
    members = defaultdict(list)
    for file, found in accepted.items():
        members[found.group].append(file)
    dirty = {c: files for c, files in members.items() if any(truth[f].kind == "heldout_copy" for f in files)}
    alive = {
        c: [f for f in files if accepted[f].verdict != "benchmark" or accepted[f].selected]
        for c, files in dirty.items()
    }
    copies = [file for files in dirty.values() for file in files if truth[file].kind == "heldout_copy"]
    lost = [f for c, files in members.items() if c not in dirty for f in files if accepted[f].verdict == "benchmark"]
    return {
        "copies": len(copies),
        "components": len(dirty),
        "components_gone": sum(not files for files in alive.values()),
        "left": sorted(file for files in alive.values() for file in files),
        "clean_lost": sorted(lost),
    }


def _frames(truth: Truth, accepted: Results) -> dict[str, dict[str, int]]:
    """Frames by scene: accepted, kept by deduplication, selected."""
    report: dict[str, dict[str, int]] = {}
    for file, found in accepted.items():
        if truth[file].kind == "frame":
            scene = report.setdefault(truth[file].category, {"accepted": 0, "kept": 0, "selected": 0})
            scene["accepted"] += 1
            scene["kept"] += found.verdict == "kept"
            scene["selected"] += found.selected
    return dict(sorted(report.items()))


def _entropy(truth: Truth, accepted: Results, results: Results) -> dict[str, Any]:
    """Normalized entropy of categories, over those of the accepted pool and the selection together.

    Video scenes count as categories of their own, and under `video_as_one` as a single one: a scene ends as one
    or few images however good the curation is, so that each scene of its own bounds the entropy from above.
    """
    chosen = [file for file, found in results.items() if found.selected]
    from_pool = [file for file in chosen if results[file].role == "pool"]
    groups = {"pool": list(accepted), "selection": chosen, "selection_from_pool": from_pool}
    apart = {name: [truth[file].category for file in files] for name, files in groups.items()}
    as_one = {name: ["video" if c.startswith("video_") else c for c in found] for name, found in apart.items()}
    return {**_entropies(apart), "video_as_one": _entropies(as_one)}


def _entropies(groups: dict[str, list[str]]) -> dict[str, float | None]:
    """Of each group of category names, and the gain of the selection over the pool."""
    categories = sorted({category for found in groups.values() for category in found})
    report: dict[str, float | None] = {}
    for name, found in groups.items():
        counts = Counter(found)
        report[name] = normalized_entropy(np.array([counts[c] for c in categories])) if found else None
    pool, selection = report["pool"], report["selection"]
    return {**report, "gain": None if selection is None or pool is None else selection - pool}


def _share(part: int, whole: int) -> float | None:
    """None where there was nothing to find."""
    return part / whole if whole else None


def format_check(report: dict[str, Any]) -> str:
    """The report as text, one line a fact."""
    pairs, junk, dirty, entropy = (report[name] for name in ("pairs", "junk", "contamination", "entropy"))
    lines = [f"accepted pool images {report['accepted']}; files that the truth does not name {report['unmatched']}"]
    shares = ", ".join(f"{name} {_ratio(pairs[name])}" for name in ("precision", "recall", "f1"))
    lines.append(f"pairs within components: {shares}")
    lines += [f"  joined wrongly: {' + '.join(subjects)}" for subjects in pairs["mixed_components"]]
    lines.append(f"copies found with their original; all near-copies {_ratio(report['near_recall'])}")
    for kind, counts in {**report["near"], "exact_copy": report["exact"]}.items():
        lines.append(f"  {kind:<14} {counts['found']:>5} of {counts['planted']:<5} {_ratio(counts['recall'])}")
    lines.append(f"junk rejected for the right reason: {junk['right']} of {junk['planted']}")
    for kind, reasons in junk["reasons"].items():
        lines.append(f"  {kind:<14} " + ", ".join(f"{name} {count}" for name, count in sorted(reasons.items())))
    lines.append(f"good images rejected: {len(junk['good_rejected'])}")
    lines.append(
        f"contaminated components gone: {dirty['components_gone']} of {dirty['components']} "
        f"({dirty['copies']} copies of held-out pictures); clean images lost with them: {len(dirty['clean_lost'])}"
    )
    lines.append("frames by scene")
    for scene, counts in report["frames"].items():
        lines.append(f"  {scene:<18} {counts['accepted']} -> {counts['kept']} kept, {counts['selected']} selected")
    if entropy is not None:
        for label, found in (("each scene apart", entropy), ("video as one", entropy["video_as_one"])):
            lines.append(
                f"normalized category entropy, {label}: pool {_ratio(found['pool'])}, selection "
                f"{_ratio(found['selection'])} (of pool images {_ratio(found['selection_from_pool'])})"
            )
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
