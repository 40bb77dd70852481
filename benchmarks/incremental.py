"""Data that grow: what a second run reuses, and how far its result is from that of one run over everything.

Two runs over everything that differ in their seed are the peer: balanced draws and centroids of k-means are random, so
no two runs choose the same images, and an incremental run should differ from a full one no more than those do.
"""

import shutil
import tempfile
import time
from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from benchmarks.figures import Figure, show
from curate.cli.arguments import Json
from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.recipe import load_config
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.tables import ROLES

GROWTH = 0.25
"""New images, as a share of the old ones."""
PER_IMAGE = ("catalog", "images", "embeddings/copy", "internal/embeddings/within_border", "embeddings/clusters")
"""Tables of which a part is made once and for all."""


class Result(NamedTuple):
    """What a run found, by the names of the files, which do not depend on the order they came in."""

    component: dict[str, str]
    """Accepted pool image -> first name of its component."""
    benchmark: set[str]
    """Images whose component touches a held-out one."""
    selected: set[str]


def bench_incremental(num_images: int, *, workdir: Path | None = None, seed: int = 0) -> list[Figure]:
    """Curate a pool by `hierarchical`, let it grow, run again with `--rescan`, and compare with runs over everything.

    Args:
        num_images: of the grown pool, at least 100.
        workdir: a folder that does not exist yet; None: a temporary one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = workdir or Path(temporary) / "run"
        make_pool(root / "all", num_images=num_images, seed=seed)
        files = sorted(f for f in (root / "all" / "pool").rglob("*") if f.is_file())
        old = np.random.default_rng(seed).permutation(len(files)) < len(files) / (1 + GROWTH)
        _copy(files, old, root)
        _run(root, "growing", pool=root / "growing/pool")
        parts = _parts(root / "growing")
        _copy(files, ~old, root)
        seconds = _run(root, "growing", pool=root / "growing/pool", rescan=True)
        full = _run(root, "full", pool=root / "all/pool")
        _run(root, "other", pool=root / "all/pool", seed=1)
        return _figures(root, parts, int((~old).sum()), seconds=(seconds, full))


def _copy(files: list[Path], chosen: np.ndarray, root: Path) -> None:
    for file in (file for file, take in zip(files, chosen, strict=True) if take):
        target = root / "growing/pool" / file.relative_to(root / "all/pool")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _run(root: Path, name: str, *, pool: Path, seed: int = 0, rescan: bool = False) -> float:
    values = [f"sources.pool={pool}", f"sources.heldout={root}/all/heldout", f"workdir={root}/{name}/run"]
    start = time.perf_counter()
    run_config(load_config("hierarchical", [*values, f"seed={seed}", "executor.threads=1"]), Flags(rescan=rescan))
    return time.perf_counter() - start


def _parts(root: Path) -> dict[str, list[str]]:
    """Contents of the parts of the per-image tables."""
    store = Store(str(root / "run"))
    return {name: [part.content for part in store.table(name).parts()] for name in PER_IMAGE}


def _figures(root: Path, before: dict[str, list[str]], num_new: int, *, seconds: tuple[float, float]) -> list[Figure]:
    after, store = _parts(root / "growing"), Store(str(root / "growing/run"))
    reused = sum(after[name][: len(parts)] == parts for name, parts in before.items())
    made = sum(part.rows for part in store.table("images").parts()[len(before["images"]) :])
    found = {name: _result(root / name) for name in ("growing", "full", "other")}
    grown, full, other = found["growing"], found["full"], found["other"]
    return [
        Figure("tables whose old parts are all as before", reused, f"of {len(before)}"),
        Figure("images read and embedded again", made, "images", "new images", num_new, better="lower"),
        Figure("second run", seconds[0], "s", "full run", seconds[1], better="lower"),
        Figure("images with the same component", _jaccard(grown.component.items(), full.component.items()), "Jaccard"),
        Figure("images of components that touch held-out ones", _jaccard(grown.benchmark, full.benchmark), "Jaccard"),
        Figure(
            "components of the selected images",
            _jaccard(_chosen(grown, full), _chosen(full, full)),
            "Jaccard",
            "two full runs, other seed",
            _jaccard(_chosen(other, full), _chosen(full, full)),
            note=f"{len(grown.selected)} and {len(full.selected)} images selected",
        ),
    ]


def _result(root: Path) -> Result:
    store = Store(str(root / "run"))
    keys = {
        row["image_id"]: row["key"]
        for row in store.table("catalog").read_all(["image_id", "key", "role"]).to_pylist()
        if row["role"] == ROLES[0]
    }
    rows = store.table("duplicates").read_all(["image_id", "component_id", "verdict"]).to_pylist()
    members: dict[int, list[str]] = {}
    for row in rows:
        members.setdefault(row["component_id"], []).append(keys[row["image_id"]])
    component = {key: min(group) for group in members.values() for key in group}
    benchmark = {keys[row["image_id"]] for row in rows if row["verdict"] == "benchmark"}
    chosen = store.table("selection").read_all(["image_id"])["image_id"].to_pylist()
    return Result(component, benchmark, {keys[i] for i in chosen})


def _chosen(result: Result, by: Result) -> set[str]:
    """Components, of one run, of the images that another one selected: either image of a pair of copies will do."""
    return {by.component[key] for key in result.selected if key in by.component}


def _jaccard(a: Set[Any], b: Set[Any]) -> float:
    return len(a & b) / max(1, len(a | b))


def command(
    num_images: Annotated[int, typer.Option("-n", help="images of the grown pool")] = 400,
    seed: Annotated[int, typer.Option(help="seed of the pool")] = 0,
    json_: Json = False,
) -> None:
    """A pool that grows by a quarter: what the second run reuses, and how its result differs from a full run's."""
    show(bench_incremental(num_images, seed=seed), json_)
