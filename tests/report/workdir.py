"""A small finished workdir over real pictures, every table written by hand, so that every number is known.

Tables have the names and the order of the recipe `pretrain`; the figures of each are those of its stage.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.engine.figures import Figures
from curate.engine.finished import Finished, FinishedTable
from curate.engine.image_ids import CatalogFigures
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.engine.table import Manifest, Table
from curate.ops.clusters.balance import level_figures, size_figures
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.sources.config import Sources
from curate.sources.reading import read_part
from curate.stages.clusters.assign import Assign, AssignFigures
from curate.stages.clusters.fit_clusters import FitClusters, TreeFigures
from curate.stages.clusters.levels import LevelFigures, SizeFigures
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures
from curate.stages.images.catalog import Catalog, source_of
from curate.stages.images.inspect import Inspect, InspectFigures, image_row
from curate.stages.search.measure_recall import MeasureRecall, RecallFigures
from curate.stages.search.neighbors import FindNeighbors
from curate.stages.selection.removal import EntryFigures, RemovalFigures
from curate.stages.selection.retrieve import Retrieve, RetrieveFigures, RouteCount
from curate.stages.selection.select import Select
from curate.stages.selection.selection_figures import ContaminationCount, RouteShare, SelectFigures
from curate.stages.selection.write_shards import ShardFigures, WriteShards
from curate.stages.training.evaluate import Evaluate
from curate.stages.training.pretrain import Pretrain, PretrainFigures
from curate.tables import (
    ASSIGNMENTS,
    CATALOG,
    DUPLICATES,
    EVALUATION,
    IMAGES,
    NEIGHBORS,
    RECALL,
    RETRIEVED,
    SELECTION,
    TRAINING_LOG,
    clusters_schema,
    shards_schema,
)

HOSTILE = "<script>alert(1)<!--&quot;'\"><img src=x onerror=alert(2)>.jpg"
CAPTION = "</td><script>alert(3)</script> | `x`"
POOL = ["a.jpg", "a_copy.jpg", "b.jpg", "bench.jpg", "bench_copy.jpg", "empty.jpg", "left.jpg", "noise.png", HOSTILE]
CURATED, HELDOUT = ["q1.jpg", "q2.jpg"], ["h.jpg"]


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A smooth random picture."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def write_pictures(root: Path) -> Sources:
    for number, name in enumerate(sorted([*POOL, *CURATED, *HELDOUT])):
        role = "curated" if name in CURATED else "heldout" if name in HELDOUT else "pool"
        (root / role).mkdir(parents=True, exist_ok=True)
        picture(number).save(root / role / name, "JPEG" if name.endswith("jpg") else "PNG")
    (root / "pool/empty.jpg").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    Image.fromarray(noise).save(root / "pool/noise.png")
    (root / "pool/b.json").write_text(json.dumps({"caption": CAPTION, "license|<b>": "CC0"}))
    return Sources.model_validate({role: str(root / role) for role in ("pool", "curated", "heldout")})


def rows(schema: pa.Schema, *values: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, v, strict=True)) for v in values], schema=schema)


class Workdir:
    """Makes tables step by step; `ids` are the image_ids by file name."""

    def __init__(self, root: Path) -> None:
        self.sources = write_pictures(root / "pictures")
        self.store = Store(root / "run")
        self.stages: dict[str, Stage] = {}
        """By table, in the order of the recipe."""
        self.ids: dict[str, int] = {}

    @property
    def run(self) -> Finished:
        """The complete tables, as those who look see them."""
        tables = ((stage, self.store.table(name)) for name, stage in self.stages.items())
        found = tuple(FinishedTable(stage, table) for stage, table in tables if table.is_complete())
        return Finished(self.store, "toy", {"seed": 3}, found)

    def put(
        self,
        name: str,
        stage: Stage,
        parts: Iterable[pa.Table],
        figures: Figures | None = None,
        *,
        inputs: dict[str, list[str]] | None = None,
        seconds: float = 1.0,
    ) -> Table:
        """Commit the parts of a table and the manifest that makes it complete."""
        told, read = figures or Figures(), inputs or {}
        given: dict[str, Any] = {key: [self.store.table(one) for one in names] for key, names in read.items()}
        for key, spec in stage.inputs.items():
            given[key] = given.get(key, []) if spec.many else next(iter(given.get(key, [])), None)
        table = self.store.table(name)
        done = [table.commit(i, t.schema, t.to_batches(max_chunksize=2)) for i, t in enumerate(parts)]
        manifest = Manifest(
            type(stage).__name__,
            1,
            {},
            {},
            {},
            read,
            complete=True,
            parts=[part.__dict__ for part in done],
            rows=sum(part.rows for part in done),
            seconds=seconds,
            figures=told.model_dump(mode="json"),
            rows_in=stage.rows_in(told, **given),
        )
        table.write_manifest(manifest)
        self.stages[name] = stage
        return table

    def tell(self, name: str, figures: Figures) -> None:
        """Let a table have other figures."""
        manifest = self.store.table(name).complete_manifest()
        self.store.table(name).write_manifest(replace(manifest, figures=figures.model_dump(mode="json")))

    def everything(self) -> "Workdir":
        return self.catalog().images().copies().clusters().selection().shards().training()

    def catalog(self) -> "Workdir":
        stage = Catalog(sources=self.sources)
        parts = [part for _, part in stage.scan(None)]
        rows = [(part["source"][0].as_py(), part["role"][0].as_py(), len(part)) for part in parts]
        self.put("catalog", stage, parts, CatalogFigures.of_parts(rows))
        for part in parts:
            self.ids |= {row["key"]: row["image_id"] for row in part.select(["key", "image_id"]).to_pylist()}
        return self

    def images(self) -> "Workdir":
        parts = []
        for listed in self.store.table("catalog").scan():
            found = []
            for image_id, read in zip(
                listed["image_id"].to_pylist(), read_part(listed, source_of(listed)), strict=True
            ):
                assert read.data is not None
                seen = inspect_image(read.data, ImageLimits())
                found.append(image_row(read, seen, None) | {"image_id": image_id})
            parts.append(pa.Table.from_pylist(found, schema=IMAGES))
        figures = InspectFigures(accepted=10, rejected={"pool": {"empty": 1, "noise": 1}})
        self.put("images", Inspect(), parts, figures, inputs={"catalog": ["catalog"]})
        return self

    def copies(self) -> "Workdir":
        i = self.ids
        pairs = [
            (i["a_copy.jpg"], i["a.jpg"], 0.95, "embedding"),
            (i["h.jpg"], i["bench.jpg"], 0.875, "embedding"),
            (i["bench_copy.jpg"], i["bench.jpg"], 0.99, "embedding"),
            (i["h.jpg"], i["q2.jpg"], 0.875, "embedding"),
        ]
        search = FindNeighbors(threshold=0.9, heldout_threshold=0.85)
        found = [rows(NEIGHBORS, *pairs)]
        self.put("internal/neighbors/copy", search, found, inputs={"catalog": ["catalog"]})
        recall = RecallFigures(recall=0.75, recall_stderr=0.125, recall_pairs=4)
        measured = [rows(RECALL, (0.75, 0.125, 4))]
        searched = {"neighbors": ["internal/neighbors/copy"]}
        self.put("internal/recall/copy", MeasureRecall(), measured, recall, inputs=searched)
        verdicts = [
            (i["a.jpg"], i["a.jpg"], 2, "kept", None, None, None, None),
            (i["a_copy.jpg"], i["a.jpg"], 2, "duplicate", i["a.jpg"], 0.95, "embedding", True),
            (i["b.jpg"], i["b.jpg"], 1, "kept", None, None, None, None),
            (i["bench.jpg"], i["bench.jpg"], 2, "benchmark", i["h.jpg"], 0.875, "embedding", True),
            (i["bench_copy.jpg"], i["bench.jpg"], 2, "benchmark", i["h.jpg"], 0.99, "embedding", True),
            (i["left.jpg"], i["left.jpg"], 1, "kept", None, None, None, None),
            (i[HOSTILE], i[HOSTILE], 1, "kept", None, None, None, None),
        ]
        parts = [rows(DUPLICATES, *sorted(verdicts)), rows(DUPLICATES), rows(DUPLICATES)]
        figures = DeduplicateFigures(
            kept=4,
            duplicate=1,
            benchmark=2,
            copies_by_evidence={"pool": {"embedding": 1}},
            component_sizes={1: 3, 2: 2},
            largest_component=2,
            largest_direct=1,
            curated_heldout=1,
        )
        inputs = {"catalog": ["catalog"], "images": ["images"], "neighbors": ["internal/neighbors/copy"]}
        self.put("duplicates", Deduplicate(), parts, figures, inputs=inputs)
        return self

    def clusters(self) -> "Workdir":
        i = self.ids
        pool = sorted([(i["a.jpg"], 0, 0.8), (i["b.jpg"], 0, 0.7), (i["left.jpg"], 0, 0.6), (i[HOSTILE], 1, 0.5)])
        curated = sorted([(i["q1.jpg"], 1, 0.9), (i["q2.jpg"], 0, 0.9)])
        sizes = [(np.array([3, 1]), 3), (np.array([4]), 1)]
        tree = TreeFigures(levels=tuple(LevelFigures(**level_figures(n, np.ones(len(n)), k)) for n, k in sizes))
        empty = [clusters_schema(8, model="toy", weights="").empty_table()]
        self.put("internal/centroids/clusters", FitClusters(levels=(3, 1)), empty, tree)
        parts = [rows(ASSIGNMENTS, *pool), rows(ASSIGNMENTS, *curated), rows(ASSIGNMENTS)]
        leaves = AssignFigures(leaves=SizeFigures(**size_figures(np.array([3, 1]), 2)))
        self.put("assignments", Assign(), parts, leaves, inputs={"centroids": ["internal/centroids/clusters"]})
        found = [
            (i["q1.jpg"], i[HOSTILE], 0.7, "sample", "curated"),
            (i["q2.jpg"], i["b.jpg"], 0.6, "sample", "curated"),
            (i["q2.jpg"], i["a.jpg"], 0.8, "cluster", "curated"),
            (i["q2.jpg"], i["b.jpg"], 0.7, "cluster", "curated"),
        ]
        two = RouteCount(retrieved=2, unique=2)
        figures = RetrieveFigures(unique=3, sets={"curated/cluster": two, "curated/sample": two})
        parts = [rows(RETRIEVED, *found), rows(RETRIEVED), rows(RETRIEVED)]
        inputs = {"catalog": ["catalog"], "assignments": ["assignments"]}
        self.put("internal/retrieved", Retrieve(route="both"), parts, figures, inputs=inputs)
        return self

    def selection(self) -> "Workdir":
        i = self.ids
        pool = [(i[name], [leaf], [_origin("sample", i["q1.jpg"])], 1) for name, leaf in (("b.jpg", 0), (HOSTILE, 1))]
        curated = [(i[name], [0], [_origin("curated", None)], 2) for name in CURATED]
        parts = [rows(SELECTION, *sorted(pool)), rows(SELECTION, *curated), rows(SELECTION)]
        inputs = {name: [name] for name in ("catalog", "images", "duplicates", "assignments")}
        inputs |= {"neighbors": ["internal/neighbors/copy"], "retrieved": ["internal/retrieved"]}
        inputs |= {"centroids": ["internal/centroids/clusters"]}
        self.put("selection", Select(), parts, self.selected(), inputs=inputs)
        return self

    def selected(self, **changes: Any) -> SelectFigures:
        """The figures of the selection."""
        values: dict[str, Any] = {
            "kept": 4,
            "roles": {"pool": 2, "curated": 2, "heldout": 0},
            "routes": {"sample": 2, "curated": 2},
            "shares": {"retrieval": RouteShare(images=2, shown=2), "curated": RouteShare(images=2, shown=4)},
            "contaminated": ContaminationCount(pool=0, curated=1, routes={"curated": 1}),
        }
        return SelectFigures(**values | changes)

    def shards(self) -> "Workdir":
        listed = self.store.table("catalog").read_all().select(CATALOG.names).to_pylist()
        places = {row["image_id"]: row for row in listed}
        own = {"caption": pa.string(), "license|<b>": pa.string()}
        schema = shards_schema(own)
        found = []
        reads = {}
        for part in self.store.table("catalog").scan():
            reads |= zip(part["image_id"].to_pylist(), read_part(part, source_of(part)), strict=True)
        for chosen in self.store.table("selection").read_all().to_pylist():
            place, read = places[chosen["image_id"]], reads[chosen["image_id"]]
            picture = {"bytes": read.data, "path": place["key"]}
            facts = {"width": 96, "height": 72, "sha256": "00", "image": picture}
            found.append({**dict.fromkeys(schema.names), **place, **chosen, **facts, **(read.extra or {})})
        shard = pa.Table.from_pylist([{n: row[n] for n in schema.names} for row in reversed(found)], schema=schema)
        stage = WriteShards(columns=dict.fromkeys(own, "string"))
        removal = RemovalFigures(entries={HOSTILE: EntryFigures()}, num_entries=1, none=1)
        figures = ShardFigures(num_bytes=2**20, removed=0, removal=removal)
        inputs = {name: [name] for name in ("selection", "catalog", "images")}
        self.put("shards/data", stage, [shard], figures, inputs=inputs)
        return self

    def training(self) -> "Workdir":
        log = [
            (step, name, 9.0 - step / 10) for step in range(1, 11) for name in ("loss", "loss_dino", "learning_rate")
        ]
        exports = PretrainFigures(export="pretrain/run/backbone.safetensors", initial="pretrain/run/initial")
        inputs = {"shards": ["shards/data"]}
        self.put("pretrain", Pretrain(), [rows(TRAINING_LOG, *log)], exports, inputs=inputs)
        scores = [
            (name, metric, k, 100, value, 0.05)
            for metric, k in (("parts", None), ("knn", 5))
            for name, value in (("pretrained", 0.5), ("initial", 0.25), ("gain", 0.25))
        ]
        inputs = {"pretrain": ["pretrain"]}
        self.put("internal/evaluation", Evaluate(), [rows(EVALUATION, *scores)], inputs=inputs)
        return self


def _origin(route: str, query: int | None) -> dict[str, Any]:
    return {"route": route, "set": "curated", "query_id": query}
