"""The story of one image: where it came from, which stage kept or dropped it, and why."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.store import Store
from curate.errors import CurateError
from curate.report.numbers import count, plural
from curate.report.run import Run
from curate.report.sections.warnings import copy_tables
from curate.sources.uri import encode_uri

ALIGNED = ("screened", "semdedup/verdicts")
"""More tables in the parts of the catalog."""
MAX_NAMED = 10
"""Candidates, copies or queries that are named; of more, the number."""


def explain(store: Store, image: str) -> str:
    """Tell the story of one image, in lines of text.

    Args:
        image: image_id, key, uri, path, or the last steps of one of these.

    Raises:
        CurateError: no image or more than one fits; the message names candidates.
    """
    run = Run.open(store)
    if run.parts is None:
        raise CurateError(f"{store.root}: has no catalog yet; run a pipeline with workdir={store.root} first")
    return "\n".join(_Story(run, find_image(run, image)).lines())


def find_image(run: Run, image: str) -> int:
    """The image_id that `image` means."""
    if image.isdecimal() and image == str(int(image)) and _exists(run, int(image)):
        return int(image)
    exact, partial = _matches(run, image)
    found = exact or partial
    if not found:
        raise CurateError(
            f"{image}: none of the {plural(run.manifests['catalog'].rows, 'image')} of {run.store.root} has this "
            f"image_id, key or path; see the columns key and uri of {run.store.root}/catalog"
        )
    if len(found) > 1:
        names = [f"  {i}  {_place(run, i)['source']}: {_place(run, i)['key']}" for i in found[:MAX_NAMED]]
        more = f"\n  and {count(len(found) - MAX_NAMED)} more" if len(found) > MAX_NAMED else ""
        raise CurateError(f"{image}: {len(found)} images fit; name one by its id:\n" + "\n".join(names) + more)
    return found[0]


def _exists(run: Run, image_id: int) -> bool:
    assert run.parts is not None
    part, row = divmod(image_id, 1 << 32)
    return part < len(run.parts.rows) and row < run.parts.rows[part]


def _matches(run: Run, image: str) -> tuple[list[int], list[int]]:
    """Ids of the images that have exactly this key or uri, and of those whose key or uri ends in it."""
    absolute = encode_uri(os.fsencode(os.path.abspath(image)))  # noqa: PTH100  # keeps symlinks, as listing does
    exact: list[int] = []
    partial: list[int] = []
    for rows in run.table("catalog").scan(["image_id", "key", "uri"]):
        whole = pc.is_in(rows["key"], pa.array([image]))
        whole = pc.or_(whole, pc.is_in(rows["uri"], pa.array([image, absolute])))
        ends = pc.or_(pc.ends_with(rows["key"], f"/{image}"), pc.ends_with(rows["uri"], f"/{image}"))
        exact += rows.filter(whole)["image_id"].to_pylist()
        partial += rows.filter(ends)["image_id"].to_pylist()
    return exact, partial


def _place(run: Run, image_id: int) -> dict[str, Any]:
    part, row = divmod(image_id, 1 << 32)
    place: dict[str, Any] = run.table("catalog").read(part).slice(row, 1).to_pylist()[0]
    return place


class _Story:
    """What each table says of one image."""

    def __init__(self, run: Run, image_id: int) -> None:
        self.run, self.image_id = run, image_id
        self.part, self.row = divmod(image_id, 1 << 32)
        self.place = _place(run, image_id)
        self.role = self.place["role"]

    def lines(self) -> Iterator[str]:
        yield f"image {self.image_id} (part {self.part}, row {self.row})"
        yield from self._told("listed", self._listed())
        yield from self._told("inspected", self._inspected())
        yield from self._told("copies", self._copies())
        yield from self._told("cluster", self._cluster())
        yield from self._told("screened", self._screened())
        yield from self._told("similar", self._similar())
        yield from self._told("retrieved", self._retrieved())
        yield from self._told("selected", self._selected())
        yield from self._told("shards", self._shards())

    def _told(self, title: str, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines):
            yield f"  {title if number == 0 else '':<10} {line}"

    def _mine(self, table: str, column: str = "image_id") -> list[dict[str, Any]]:
        """Rows of this image: in its own part where the table has the catalog's parts, else in all."""
        aligned = column == "image_id" and table in ("duplicates", "selection", "assignments", "retrieved", *ALIGNED)
        scan = [self.run.table(table).read(self.part)] if aligned else self.run.table(table).scan()
        return [row for rows in scan for row in rows.filter(pc.equal(rows[column], self.image_id)).to_pylist()]

    def _name(self, image_id: int) -> str:
        return f"{_place(self.run, image_id)['key']} (image {image_id})"

    def _listed(self) -> Iterator[str]:
        place = self.place
        yield f"{self.role} source {place['source']}: {place['key']}"
        where = place["uri"]
        if place["offset"] is not None:
            where += f", at byte {count(place['offset'])}"
        if place["row"] is not None:
            where += f", row {count(place['row'])}"
        yield where

    def _inspected(self) -> Iterator[str]:
        if not self.run.has("images"):
            return
        image = self.run.table("images").read(self.part).slice(self.row, 1).to_pylist()[0]
        if image["reject"] is not None:
            yield f"rejected: {image['reject']}: {image['detail']}"
        else:
            yield "accepted"
        size = f"{image['width']} x {image['height']}" if image["width"] is not None else "size unknown"
        length = f"{count(image['num_bytes'])} bytes" if image["num_bytes"] is not None else "no bytes"
        yield f"{image['format'] or 'format unknown'}, {size}, {length}"
        if image["sha256"] is not None:
            yield f"sha256 {image['sha256'].hex()}"
        if image["extra"] is not None:
            yield f"own columns {image['extra']}"

    def _copies(self) -> Iterator[str]:
        if not self.run.has("duplicates"):
            return
        if self.role != "pool":
            yield from self._outside()
            return
        for row in self._mine("duplicates"):
            yield from self._verdict(row)

    def _outside(self) -> Iterator[str]:
        """Of a curated or held-out image: the pool images that went because of it."""
        ids = [row["image_id"] for row in self._mine("duplicates", "partner_id")]
        verb = "touch it" if self.role == "heldout" else "are copies of it"
        yield f"{plural(len(ids), 'pool image')} dropped, as their groups {verb}"
        yield from self._names(ids)

    def _verdict(self, row: dict[str, Any]) -> Iterator[str]:
        if row["verdict"] == "kept":
            yield "kept"
        else:
            because = "a copy of" if row["verdict"] == "duplicate" else "its group touches the held-out image"
            yield f"dropped as {row['verdict']}: {because} {self._name(row['partner_id'])}"
            yield self._evidence(row)
        group = self._mine_of("duplicates", "component_id", row["component_id"])
        others = [i for i in group if i != self.image_id]
        if others:
            yield f"its group has {plural(len(group), 'image')}; the others are"
            yield from self._names(others)

    def _mine_of(self, table: str, column: str, value: int) -> list[int]:
        found = [t.filter(pc.equal(t[column], value))["image_id"] for t in self.run.table(table).scan()]
        return [i for ids in found for i in ids.to_pylist()]

    def _names(self, ids: list[int]) -> Iterator[str]:
        yield from (f"  {self._name(i)}" for i in ids[:MAX_NAMED])
        if len(ids) > MAX_NAMED:
            yield f"  and {count(len(ids) - MAX_NAMED)} more"

    def _evidence(self, row: dict[str, Any]) -> str:
        if row["kind"] == "sha256":
            return "the bytes are the same"
        limit = threshold(self.run, row["kind"], heldout=row["verdict"] == "benchmark")
        needed = "" if limit is None else f", the threshold is {limit:g}"
        return f"similarity {row['similarity']:.4f} by {row['kind']}{needed}"

    def _cluster(self) -> Iterator[str]:
        if not self.run.has("assignments"):
            return
        for row in self._mine("assignments"):
            yield f"{row['cluster_id']}, similarity {row['similarity']:.4f} to its centroid"

    def _screened(self) -> Iterator[str]:
        """Whether its neighbours are as near as is usual in the pool."""
        if not self.run.has("screened") or self.role != "pool":
            return
        bounds = self.run.metrics("screened")
        for row in self._mine("screened"):
            verdict = "left out of the balanced draw as junk" if row["junk"] else "like the pool"
            means = [row["density"], row["coherence"]]
            density, coherence = ("unknown" if mean is None else f"{mean:.3f}" for mean in means)
            yield f"{verdict}: mean cosine to its neighbours {density}, in its cluster {coherence}"
            yield f"usual is {bounds['low']:.3f} to {bounds['high']:.3f}"

    def _similar(self) -> Iterator[str]:
        """What SemDeDup did to an image that deduplication kept."""
        if not self.run.has("semdedup/verdicts") or self.role != "pool":
            return
        for row in self._mine("semdedup/verdicts"):
            if row["verdict"] == "similar":
                yield f"dropped: alike to {self._name(row['partner_id'])}, cosine {row['similarity']:.4f}"

    def _retrieved(self) -> Iterator[str]:
        if not self.run.has("retrieved"):
            return
        if self.role == "curated":
            rows = [row for row in self._mine("retrieved", "query_id") if row["origin"] == "sample"]
            yield f"asked for {plural(len(rows), 'pool image')} by sample"
            yield from self._names([row["image_id"] for row in rows])
            return
        for row in self._mine("retrieved"):
            how = "to it" if row["origin"] == "sample" else "to the centroid of their cluster"
            yield f"by {row['origin']}, set {row['set']}: {self._name(row['query_id'])}, {row['similarity']:.4f} {how}"

    def _selected(self) -> Iterator[str]:
        if not self.run.has("selection"):
            return
        rows = self._mine("selection")
        if not rows:
            yield "no" if self.role != "heldout" else "no: held-out images are only compared with"
            return
        routes = [o["route"] if o["set"] is None else f"{o['route']} ({o['set']})" for o in rows[0]["origins"]]
        path = " > ".join(map(str, rows[0]["clusters"]))
        again = f", shown {rows[0]['repeats']} times an epoch" if rows[0]["repeats"] > 1 else ""
        yield f"yes, by {', '.join(dict.fromkeys(routes))}{f'; cluster path {path}' if path else ''}{again}"

    def _shards(self) -> Iterator[str]:
        if not self.run.has("shards/data"):
            return
        table = self.run.table("shards/data")
        for part in table.parts():
            ids = table.read(part.number, ["image_id"])["image_id"].to_numpy()
            for row in np.flatnonzero(ids == self.image_id).tolist():
                yield f"{table.file_name(part.number)}, row {row}"
                return
        chosen = self.run.has("selection") and bool(self._mine("selection"))
        yield "left out by the removal list" if chosen else "not in the shards"


def threshold(run: Run, kind: str, *, heldout: bool) -> float | None:
    """The least similarity of a pair of this kind; None: no table of such pairs was read."""
    for table in copy_tables(run):
        kinds = run.sample(table, ["kind"], max_rows=1).rows["kind"].to_pylist()
        if kind in kinds[:1]:
            found: float | None = run.manifests[table].resolved.get("heldout_threshold" if heldout else "threshold")
            return found
    return None
