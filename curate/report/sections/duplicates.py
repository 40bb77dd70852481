"""Groups of copies: the image that stays first, then what went."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report.markup import Markup, el
from curate.report.numbers import count, plural
from curate.report.pictures import Pictures, short_name
from curate.report.run import Run, Sample, pick

NUM_BIGGEST, NUM_RANDOM = 6, 12
SHOWN_BIG, SHOWN_RANDOM = 12, 6
"""Pictures of a group."""
COLUMNS = ["image_id", "component_id", "verdict", "partner_id", "similarity", "kind"]


def section(run: Run, pictures: Pictures) -> Markup | None:
    if not run.has("duplicates"):
        return None
    sample = run.sample("duplicates", COLUMNS)
    groups = _groups(sample.rows)
    if not len(groups.sizes):
        return el("p", "No copies were found.", class_="quiet")
    biggest = np.argsort(-groups.sizes, kind="stable")[:NUM_BIGGEST]
    others = np.setdiff1d(np.arange(len(groups.sizes)), biggest)
    random = pick(others, NUM_RANDOM, run.rng("duplicate groups"))
    blocks = [el("p", _summary(run, sample, len(groups.sizes)), class_="quiet"), el("h3", "The biggest groups")]
    blocks += [_group(groups.rows_of(i), pictures, SHOWN_BIG) for i in biggest.tolist()]
    if len(random):
        shown = [_group(groups.rows_of(i), pictures, SHOWN_RANDOM) for i in random.tolist()]
        blocks += [el("h3", "Random groups"), el("div", shown, class_="pairs")]
    return el("div", blocks)


class _Groups(NamedTuple):
    """Components that lost an image to another, one after the other."""

    rows: pa.Table
    starts: np.ndarray
    """(G,) int64, first row of each"""
    sizes: np.ndarray
    """(G,) int64"""

    def rows_of(self, group: int) -> pa.Table:
        return self.rows.slice(self.starts[group], self.sizes[group])


def _groups(rows: pa.Table) -> _Groups:
    """The groups by ascending component, each sorted by falling similarity."""
    rows = rows.filter(pc.not_equal(rows["verdict"], "benchmark"))
    component = rows["component_id"].to_numpy()
    lost = np.unique(component[rows["verdict"].to_numpy() == "duplicate"])
    rows = rows.filter(pa.array(np.isin(component, lost)))
    rows = rows.sort_by([("component_id", "ascending"), ("similarity", "descending"), ("image_id", "ascending")])
    starts = np.flatnonzero(np.diff(rows["component_id"].to_numpy(), prepend=-1, append=-1))
    return _Groups(rows, starts[:-1], np.diff(starts))


def _summary(run: Run, sample: Sample, number: int) -> str:
    dropped = int(run.metrics("duplicates")["duplicate"])
    largest = run.metrics("duplicates").get("largest_component")
    found = f"{plural(dropped, 'image')} left as copies. " if sample.whole else ""
    size = f" The largest has {count(largest)} images." if largest else ""
    where = "" if sample.whole else " in the sample"
    return f"{found}{plural(number, 'group')} of copies{where}.{size} {sample.note}"


def _group(rows: pa.Table, pictures: Pictures, limit: int) -> Markup:
    members = rows.to_pylist()
    kept = [m["image_id"] for m in members if m["verdict"] == "kept"]
    gone = [m for m in members if m["verdict"] == "duplicate"]
    first = kept[0] if kept else gone[0]["partner_id"]
    shown = gone[: limit - 1]
    pictures.load([first, *(m["image_id"] for m in shown)])
    stays = pictures[first]
    label = "kept" if stays.role == "pool" else f"stays: {stays.role}"
    figures = [pictures.figure(first, el("b", label), short_name(stays.key), mark="kept")]
    figures += [pictures.figure(m["image_id"], evidence(m), short_name(pictures[m["image_id"]].key)) for m in shown]
    more = el("span", f"+ {count(len(gone) - len(shown))} more", class_="more") if len(gone) > len(shown) else None
    return el("div", figures, more, class_="grid group evidence")


def evidence(row: dict[str, object]) -> str:
    """`0.953 embedding`; equal bytes need no number."""
    return "same bytes" if row["kind"] == "sha256" else f"{row['similarity']:.3f} {row['kind']}"
