"""A small finished workdir over real pictures, every table written by hand, so that every number is known."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.engine.store import Manifest, Store
from curate.ops.clusters.balance import level_figures, size_figures
from curate.ops.images.inspect import ImageLimits, inspect_image
from curate.sources.config import Sources
from curate.sources.folder import read_folder_file
from curate.stages.images.catalog import Catalog
from curate.stages.images.inspect import image_row
from curate.tables import (
    ASSIGNMENTS,
    CATALOG,
    DUPLICATES,
    EVALUATION,
    IMAGES,
    NEIGHBORS,
    RETRIEVED,
    SELECTION,
    TRAINING_LOG,
    clusters_schema,
    shards_schema,
)
from curate.workdir import RUN

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
    (root / "pool/b.json").write_text(json.dumps({"caption": CAPTION, "licence|<b>": "CC0"}))
    return Sources.model_validate({role: str(root / role) for role in ("pool", "curated", "heldout")})


def put(
    store: Store,
    name: str,
    parts: Mapping[int, pa.Table] | list[pa.Table],
    *,
    stage: str,
    inputs: dict[str, list[str]] | None = None,
    resolved: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    seconds: float = 1.0,
) -> None:
    """Commit the parts of a table and the manifest that makes it complete."""
    table = store.table(name)
    rows = list(parts.values()) if isinstance(parts, Mapping) else parts
    done = [table.commit(i, t.schema, t.to_batches(max_chunksize=2)) for i, t in enumerate(rows)]
    manifest = Manifest(stage, 1, {}, resolved or {}, {}, inputs or {})
    listed, total = [p.__dict__ for p in done], sum(p.rows for p in done)
    made = replace(manifest, complete=True, parts=listed, rows=total, seconds=seconds, metrics=metrics or {})
    table.write_manifest(made)


def rows(schema: pa.Schema, *values: tuple[Any, ...]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, v, strict=True)) for v in values], schema=schema)


class Workdir:
    """Makes tables step by step; `ids` are the image_ids by file name."""

    def __init__(self, root: Path) -> None:
        self.sources = write_pictures(root / "pictures")
        self.store = Store(root / "run")
        config = {"seed": 3, "sources": self.sources.model_dump(mode="json")}
        self.store.write_json(RUN, {"recipe": "toy", "config": config})
        self.ids: dict[str, int] = {}

    def everything(self) -> "Workdir":
        return self.catalog().images().copies().clusters().selection().shards().training()

    def catalog(self) -> "Workdir":
        stage = Catalog(sources=self.sources)
        parts = [part for _, part in stage.scan(None)]
        put(self.store, "catalog", parts, stage="Catalog")
        manifest = self.store.table("catalog").manifest()
        assert manifest is not None
        metrics = stage.summarize(self.store.table("catalog"))
        self.store.table("catalog").write_manifest(replace(manifest, metrics=metrics))
        for part in parts:
            self.ids |= {row["key"]: row["image_id"] for row in part.select(["key", "image_id"]).to_pylist()}
        return self

    def images(self) -> "Workdir":
        parts = []
        for listed in self.store.table("catalog").scan(["image_id", "uri"]):
            found = []
            for row in listed.to_pylist():
                read = read_folder_file(row["uri"], max_bytes=1 << 30)
                assert read.data is not None
                seen = inspect_image(read.data, ImageLimits())
                found.append(image_row(read, seen, None) | {"image_id": row["image_id"]})
            parts.append(pa.Table.from_pylist(found, schema=IMAGES))
        metrics = {"accepted": 10, "rejected": {"empty": 1, "noise": 1}}
        put(self.store, "images", parts, stage="Inspect", inputs={"catalog": ["catalog"]}, metrics=metrics)
        return self

    def copies(self) -> "Workdir":
        i = self.ids
        pairs = [
            (i["a_copy.jpg"], i["a.jpg"], 0.95, "embedding"),
            (i["h.jpg"], i["bench.jpg"], 0.875, "embedding"),
            (i["bench_copy.jpg"], i["bench.jpg"], 0.99, "embedding"),
            (i["h.jpg"], i["q2.jpg"], 0.875, "embedding"),
        ]
        put(
            self.store,
            "neighbors/copy",
            [rows(NEIGHBORS, *pairs)],
            stage="FindNeighbors",
            inputs={"catalog": ["catalog"]},
            resolved={"threshold": 0.9, "heldout_threshold": 0.85},
        )
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
        metrics = {"kept": 4, "duplicate": 1, "benchmark": 2, "largest_component": 2, "warning": f"look: {HOSTILE}"}
        metrics["curated_heldout"] = 1
        inputs = {"catalog": ["catalog"], "images": ["images"], "neighbors": ["neighbors/copy"]}
        put(self.store, "duplicates", parts, stage="Deduplicate", inputs=inputs, metrics=metrics)
        return self

    def clusters(self) -> "Workdir":
        i = self.ids
        pool = sorted([(i["a.jpg"], 0, 0.8), (i["b.jpg"], 0, 0.7), (i["left.jpg"], 0, 0.6), (i[HOSTILE], 1, 0.5)])
        curated = sorted([(i["q1.jpg"], 1, 0.9), (i["q2.jpg"], 0, 0.9)])
        parts = [rows(ASSIGNMENTS, *pool), rows(ASSIGNMENTS, *curated), rows(ASSIGNMENTS)]
        levels = [level_figures(np.array(n), np.ones(len(n)), k) for n, k in (([3, 1], 3), ([4], 1))]
        empty = [clusters_schema(8, model="toy", weights="").empty_table()]
        put(self.store, "centroids", empty, stage="FitClusters", metrics={"clusters": [2, 1], "levels": levels})
        leaves = {"leaves": size_figures(np.array([3, 1]), 2)}
        put(self.store, "assignments", parts, stage="Assign", inputs={"centroids": ["centroids"]}, metrics=leaves)
        found = [
            (i["q1.jpg"], i[HOSTILE], 0.7, "sample", "curated"),
            (i["q2.jpg"], i["b.jpg"], 0.6, "sample", "curated"),
            (i["q2.jpg"], i["a.jpg"], 0.8, "cluster", "curated"),
            (i["q2.jpg"], i["b.jpg"], 0.7, "cluster", "curated"),
        ]
        sets = {"curated/sample": {"retrieved": 2, "unique": 2}, "curated/cluster": {"retrieved": 2, "unique": 2}}
        parts = [rows(RETRIEVED, *found), rows(RETRIEVED), rows(RETRIEVED)]
        put(self.store, "retrieved", parts, stage="Retrieve", metrics={"unique": 3, "sets": sets})
        return self

    def selection(self) -> "Workdir":
        i = self.ids
        pool = [(i[name], [leaf], [_origin("sample", i["q1.jpg"])], 1) for name, leaf in (("b.jpg", 0), (HOSTILE, 1))]
        curated = [(i[name], [0], [_origin("curated", None)], 2) for name in CURATED]
        parts = [rows(SELECTION, *sorted(pool)), rows(SELECTION, *curated), rows(SELECTION)]
        roles = {"pool": 2, "curated": 2, "heldout": 0}
        shares = {"retrieval": {"images": 2, "shown": 2}, "curated": {"images": 2, "shown": 4}}
        metrics = {"selected": 4, "routes": {"sample": 2, "curated": 2}, "roles": roles, "shares": shares, "shown": 6}
        metrics["contaminated"] = {"pool": 0, "curated": 1, "routes": {"curated": 1}}
        put(self.store, "selection", parts, stage="Select", metrics=metrics)
        return self

    def shards(self) -> "Workdir":
        listed = self.store.table("catalog").read_all().select(CATALOG.names).to_pylist()
        places = {row["image_id"]: row for row in listed}
        own = {"caption": pa.string(), "licence|<b>": pa.string()}
        found = []
        for chosen in self.store.table("selection").read_all().to_pylist():
            place = places[chosen["image_id"]]
            read = read_folder_file(place["uri"], max_bytes=1 << 30)
            picture = {"bytes": read.data, "path": place["key"]}
            facts = {"width": 96, "height": 72, "sha256": "00", "image": picture}
            found.append({**place, **chosen, **facts, **dict.fromkeys(own), **(read.extra or {})})
        schema = shards_schema(own)
        shard = pa.Table.from_pylist([{n: row[n] for n in schema.names} for row in reversed(found)], schema=schema)
        columns = {"columns": dict.fromkeys(own, "string")}
        put(self.store, "shards/data", [shard], stage="WriteShards", resolved=columns, metrics={"bytes": 2**20})
        return self

    def training(self) -> "Workdir":
        log = [
            (step, name, 9.0 - step / 10) for step in range(1, 11) for name in ("loss", "loss_dino", "learning_rate")
        ]
        put(self.store, "pretrain", [rows(TRAINING_LOG, *log)], stage="Pretrain")
        scores = [("pretrained", "knn", 5, 100, 0.5, 0.05), ("initial", "knn", 5, 100, 0.25, 0.0433)]
        put(self.store, "evaluation", [rows(EVALUATION, *scores)], stage="Evaluate")
        return self


def _origin(route: str, query: int | None) -> dict[str, Any]:
    return {"route": route, "set": "curated", "query_id": query}
