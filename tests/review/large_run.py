"""A run whose tables hold 100,000 groups of copies, over few real pictures, so that a person's page can be tried on it.

The tables are written by hand, in the names and the order of a recipe; every number in them is known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.engine.figures import Figures
from curate.engine.finished import Finished, FinishedTable
from curate.engine.image_ids import CatalogFigures, ids_of_part
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.sources.config import Source, Sources
from curate.stages.copies.deduplicate import Deduplicate
from curate.stages.copies.exact import FindExact
from curate.stages.copies.judge_pairs import JudgePairs
from curate.stages.images.catalog import SOURCE, Catalog
from curate.stages.images.inspect import Inspect
from curate.tables import CATALOG, DUPLICATES, IMAGES, NEIGHBORS, REGISTERED

NUM_GROUPS = 100_000
PART_ROWS = 65_536
LARGE = 70
"""Images of the largest group."""
NUM_HELDOUT, NUM_REJECTED = 3, 120
FILES = ("a.jpg", "b.png", "c.webp", "d.bmp", "evil.svg", "empty.jpg")
THRESHOLD = 0.5
HOSTILE_GROUP, HOSTILE = 3, "<img src=x onerror=alert(1)>\x1b[31m\u202e"
"""A group whose names hold markup, a command of terminals and a turn of direction."""


def write_files(root: Path) -> None:
    """Pictures of each format that is shown as it is, one that must be decoded, and two that are none."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for name in FILES[:4]:
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((96, 72)).save(root / name)
    (root / "evil.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (root / "empty.jpg").write_bytes(b"")


class LargeRun:
    """The tables, and what is known of them.

    The pool: group 0 of `LARGE` images, then pairs, then a group that touches a held-out image, then rejected images.
    """

    def __init__(self, root: Path, *, num_groups: int = NUM_GROUPS) -> None:
        write_files(root / "pool")
        write_files(root / "heldout")
        self.store = Store(root / "run")
        self.sources = Sources.model_validate({"pool": str(root / "pool"), "heldout": str(root / "heldout")})
        self._stages: list[tuple[Stage, str]] = []
        sizes = np.array([LARGE, *[2] * (num_groups - 1), 3])
        self.num_grouped = int(sizes.sum())
        group = np.repeat(np.arange(len(sizes)), sizes)
        self.group = np.concatenate([group, -np.ones(NUM_REJECTED, np.int64)])
        """(N,) of each image of the pool; -1: rejected"""
        self.place = np.arange(len(self.group)) - np.concatenate([[0], np.cumsum(sizes)])[self.group]
        """(N,) within its group"""
        num = len(self.group)
        self.ids = np.concatenate(
            [ids_of_part(part, min(PART_ROWS, num - start)) for part, start in enumerate(range(0, num, PART_ROWS))]
        )
        self.heldout = ids_of_part(self.num_pool_parts, NUM_HELDOUT)
        self._write()

    @property
    def num_pool_parts(self) -> int:
        return -(-len(self.group) // PART_ROWS)

    @property
    def finished(self) -> Finished:
        tables = tuple(FinishedTable(stage, self.store.table(name)) for stage, name in self._stages)
        return Finished(self.store, "toy", {"seed": 3}, tables)

    def key(self, row: int) -> str:
        """Of an image of the pool, by its place in it."""
        if self.group[row] < 0:
            return f"rejected/{row}.jpg"
        hostile = HOSTILE if self.group[row] == HOSTILE_GROUP else ""
        return f"group-{self.group[row]:06d}/{self.place[row]}{hostile}.jpg"

    def first(self, group: int) -> int:
        """The place in the pool of the first image of a group."""
        return int(np.searchsorted(self.group[: self.num_grouped], group))

    def _write(self) -> None:
        rows = np.arange(len(self.group))
        spans = [slice(start, start + PART_ROWS) for start in range(0, len(rows), PART_ROWS)]
        pool, heldout = Source(name="pool", path=self.sources.pool[0].path), self.sources.heldout[0]
        keys = [self.key(row) for row in rows.tolist()]
        files = np.where(self.group < 0, 4 + rows % 2, rows % 4)
        catalog = [self._catalog(pool, "pool", self.ids[span], keys[span], files[span]) for span in spans]
        named = [f"bench/{number}.jpg" for number in range(NUM_HELDOUT)]
        catalog.append(self._catalog(heldout, "heldout", self.heldout, named, np.zeros(NUM_HELDOUT, np.int64)))
        counts = [("pool", "pool", len(part)) for part in catalog[:-1]] + [("heldout", "heldout", NUM_HELDOUT)]
        self._put("catalog", Catalog(sources=self.sources), catalog, CatalogFigures.of_parts(counts))
        images = [self._images(self.ids[span], files[span], self.group[span] < 0) for span in spans]
        images.append(self._images(self.heldout, np.zeros(NUM_HELDOUT, np.int64), np.zeros(NUM_HELDOUT, bool)))
        self._put("images", Inspect(), images, read={"catalog": ["catalog"]})
        self._put_pairs()
        first = self.ids[np.searchsorted(self.group[: self.num_grouped], np.maximum(self.group, 0))]
        judged = [self._duplicates(span, first[span]) for span in spans]
        names = ["internal/neighbors/aligned", "internal/exact"]
        self._put("duplicates", Deduplicate(), [*judged, DUPLICATES.empty_table()], read={"neighbors": names})

    def _put_pairs(self) -> None:
        """Of the pairs of groups 1 to 30: at a distance from the threshold that grows, every third one below it."""
        group = np.arange(1, 31)
        first = np.array([self.ids[self.first(int(one))] for one in group])
        below = group % 3 == 0
        score = (THRESHOLD + np.where(below, -1, 1) * group / 1000).astype(np.float32)
        tried = pa.table([first, first + 1, score, score, score, np.full(len(group), 4, np.int32)], schema=REGISTERED)
        aligned = pa.table(
            [first[~below], first[~below] + 1, score[~below], pa.array(["aligned"] * int((~below).sum()))],
            schema=NEIGHBORS,
        )
        judge = JudgePairs(threshold=THRESHOLD, heldout_threshold=THRESHOLD)
        self._put("internal/registered/copy", judge, [tried])
        self._stages.pop()  # read as an input alone
        self._put("internal/neighbors/aligned", judge, [aligned], read={"registered": ["internal/registered/copy"]})
        same = pa.table(
            [first[:1], first[:1] + 1, pa.array([1.0], pa.float32()), pa.array(["sha256"])], schema=NEIGHBORS
        )
        self._put("internal/exact", FindExact(), [same])

    def _catalog(self, source: Source, role: str, ids: np.ndarray, keys: Sequence[str], files: np.ndarray) -> pa.Table:
        uris = pa.array([f"{source.path}/{name}" for name in FILES]).take(pa.array(files))
        null = pa.nulls(len(ids), pa.int64())
        columns = [
            pa.array(ids), pa.array([source.name] * len(ids)), pa.array([role] * len(ids)), uris, null, null, null,
            pa.array(keys), null, pa.nulls(len(ids), CATALOG.field("sidecars").type),
        ]  # fmt: skip
        return pa.table(columns, schema=CATALOG.with_metadata({SOURCE: source.model_dump_json().encode()}))

    def _images(self, ids: np.ndarray, files: np.ndarray, bad: np.ndarray) -> pa.Table:
        known: dict[str, Any] = {
            "image_id": pa.array(ids),
            "sha256": pa.array([int(one).to_bytes(32, "big") for one in ids], pa.binary(32)),
            "num_bytes": pa.array(np.full(len(ids), 1234)),
            "width": pa.array(np.full(len(ids), 96, np.int32), mask=bad),
            "height": pa.array(np.full(len(ids), 72, np.int32), mask=bad),
            "reject": pa.array(np.where(files == 5, "empty", "unsupported"), mask=~bad),
            "detail": pa.array(np.where(files == 5, "holds no bytes", "SVG is not read"), mask=~bad),
        }
        return pa.table([known.get(f.name, pa.nulls(len(ids), f.type)) for f in IMAGES], schema=IMAGES)

    def _duplicates(self, span: slice, first: np.ndarray) -> pa.Table:
        good = self.group[span] >= 0
        group, place, ids = self.group[span][good], self.place[span][good], self.ids[span][good]
        first, last = first[good], self.group[self.num_grouped - 1]
        condemned = group == last
        kept = (place == 0) & ~condemned
        verdict = np.where(condemned, "benchmark", np.where(kept, "kept", "duplicate"))
        kind = np.where(group % 2 == 0, "embedding", "aligned")
        similarity = (0.6 + (group % 1000) / 2500).astype(np.float32)
        partner = np.where(condemned, self.heldout[1], first)
        size = np.where(group == 0, LARGE, np.where(condemned, 3, 2)).astype(np.int32)
        columns = [
            pa.array(ids), pa.array(first), pa.array(size), pa.array(verdict), pa.array(partner, mask=kept),
            pa.array(similarity, mask=kept), pa.array(kind, mask=kept), pa.array(np.ones(len(ids), bool), mask=kept),
        ]  # fmt: skip
        return pa.table(columns, schema=DUPLICATES)

    def _put(
        self,
        name: str,
        stage: Stage,
        parts: Sequence[pa.Table],
        figures: Figures | None = None,
        *,
        read: Mapping[str, list[str]] | None = None,
    ) -> None:
        table, told = self.store.table(name), (figures or Figures()).model_dump(mode="json")
        done = [table.commit(number, rows.schema, rows.to_batches()) for number, rows in enumerate(parts)]
        made = [part.__dict__ for part in done]
        total, inputs = sum(part.rows for part in done), dict(read or {})
        table.write_manifest(
            Manifest(type(stage).__name__, 1, {}, {}, {}, inputs, complete=True, parts=made, rows=total, figures=told)
        )
        self._stages.append((stage, name))
