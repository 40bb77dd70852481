"""Data and wishes that grow: what each further run costs, and how far its result is from that of one over everything.

One workdir goes through what happens to a pool: its copies are found, a benchmark is added, a balanced sample is
wanted, images come in, a threshold is changed, the pool moves. Each run should read and embed what is new to it. Two
runs over everything that differ in their seed are the peer of the result: balanced draws and centroids of k-means are
random, so no two runs choose the same images, and an incremental run should differ from a full one no more than those.
"""

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
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
from curate.stages.copies.extract_features import ExtractFeatures
from curate.stages.images.embed import Embed
from curate.stages.images.inspect import Inspect
from curate.tables import ROLES

PER_IMAGE = ("catalog", "images", "embeddings/copy", "internal/embeddings/within_border", "embeddings/clusters")
"""Tables of which a row is made once and for all."""
LOOSER = "copies.hash_neighbors.threshold=0.2"
"""Hashes that differ in 102 bits, and not 31, count: fewer images stay, and others than before."""


class Result(NamedTuple):
    """What a run found, by the names of the files, which do not depend on the order they came in."""

    component: dict[str, str]
    """Accepted pool image -> first name of its component."""
    benchmark: set[str]
    """Images whose component touches a held-out one."""
    selected: set[str]


class Cost(NamedTuple):
    """What a run did for its images."""

    seconds: float
    inspected: int
    """Images that were read by the first pass."""
    matched: int
    """Images that were read for their local features."""
    embedded: int
    """Images that were read and embedded by the second pass, for the clusters."""


class Looked:
    """Counts the images that stages look at, in this process."""

    def __init__(self) -> None:
        self.images = Counter[str]()
        self._lock = threading.Lock()

    def counting(self, key: str, make: Callable[..., Any], *, size: Callable[..., int]) -> Callable[..., Any]:
        """A method of a stage that counts beside."""

        def counted(stage: Any, given: Any) -> Any:
            with self._lock:
                self.images[key.format(stage=stage)] += size(given)
            return make(stage, given)

        return counted


@contextmanager
def looking() -> Iterator[Counter[str]]:
    """Images by what they are looked at for meanwhile: `inspect`, `features`, or the model that embeds them."""
    looked = Looked()
    methods = (
        (Inspect, "prepare", "inspect", lambda seen: 1),
        (ExtractFeatures, "prepare", "features", lambda seen: 1),
        (Embed, "embed", "{stage.model}", len),
    )
    before = [getattr(stage, name) for stage, name, _, _ in methods]
    try:
        for (stage, name, key, size), make in zip(methods, before, strict=True):
            setattr(stage, name, looked.counting(key, make, size=size))
        yield looked.images
    finally:
        for (stage, name, _, _), make in zip(methods, before, strict=True):
            setattr(stage, name, make)


def bench_incremental(
    num_images: int, *, num_new: int | None = None, workdir: Path | None = None, seed: int = 0
) -> list[Figure]:
    """Let a pool and what is wanted of it grow in one workdir; compare with runs over everything.

    Args:
        num_images: of the pool before it grows, at least 80.
        num_new: images by which it grows; None: a quarter as many.
        workdir: a folder that does not exist yet; None: a temporary one.
    """
    new = num_images // 4 if num_new is None else num_new
    with tempfile.TemporaryDirectory() as temporary:
        root = workdir or Path(temporary) / "run"
        make_pool(root / "all", num_images=num_images + new, seed=seed)
        files = sorted(f for f in (root / "all" / "pool").rglob("*") if f.is_file())
        old = np.random.default_rng(seed).permutation(len(files)) >= new
        num_heldout = sum(1 for f in (root / "all" / "heldout").rglob("*") if f.is_file())
        pool = root / "growing/pool"
        _copy(files, old, root)
        costs: list[Figure] = []

        def step(what: str, new: int, *args: Any, embeds: bool = True, **options: Any) -> Cost:
            before = _kept(root / "growing") if embeds else set()
            cost = _run(root, "growing", *args, **options)
            kept = _kept(root / "growing")
            costs.extend(_cost_figures(what, cost, new, len(kept - before) if embeds else 0, num_kept=len(kept)))
            return cost

        step("deduplication", num_images, "dedup", pool=pool, heldout=False, embeds=False)
        step("a held-out set is added", num_heldout, "dedup", pool=pool, embeds=False)
        balanced = _run(root, "growing", pool=pool, rebuild=["selection"])
        stay = len(_kept(root / "growing"))
        costs += _cost_figures("a balanced sample is wanted", balanced, 0, stay, num_kept=stay)
        parts = _parts(root / "growing")
        _copy(files, ~old, root)
        grown = step(f"the pool grows by {new}", new, pool=pool, flags=Flags(rescan=True))
        full = _run(root, "full", pool=root / "all/pool")
        _run(root, "other", pool=root / "all/pool", seed=1)
        figures = _figures(root, parts, seconds=(grown.seconds, full.seconds))
        rebuild = [f"internal/{name}/pdq" for name in ("truth", "neighbors", "trusted")]
        step("a hash threshold is changed", 0, pool=pool, more=[LOOSER], rebuild=rebuild)
        shutil.move(pool, root / "moved")
        step("the pool moves", 0, pool=root / "moved", more=[LOOSER])
        return costs + figures


def _cost_figures(what: str, cost: Cost, new: int, first_kept: int, *, num_kept: int) -> Iterator[Figure]:
    note = f"{cost.matched} opened for local features, {cost.seconds:.1f} s"
    yield Figure(f"{what}: inspected", cost.inspected, "images", "new images", new, better="lower", note=note)
    peer, stay = "kept for the first time", f"{num_kept} images of the pool stay"
    yield Figure(f"{what}: embedded", cost.embedded, "images", peer, first_kept, better="lower", note=stay)


def _copy(files: list[Path], chosen: np.ndarray, root: Path) -> None:
    for file in (file for file, take in zip(files, chosen, strict=True) if take):
        target = root / "growing/pool" / file.relative_to(root / "all/pool")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _run(
    root: Path,
    name: str,
    recipe: str = "hierarchical",
    *,
    pool: Path,
    heldout: bool = True,
    seed: int = 0,
    more: list[str] | None = None,
    rebuild: list[str] | None = None,
    flags: Flags | None = None,
) -> Cost:
    values = [f"sources.pool={pool}", f"workdir={root}/{name}/run", f"seed={seed}", "executor.threads=1", *(more or ())]
    values += [f"sources.heldout={root}/all/heldout"] if heldout else []
    start = time.perf_counter()
    with looking() as looked:
        run_config(load_config(recipe, values), flags or Flags(rebuild=frozenset(rebuild or ())))
    return Cost(time.perf_counter() - start, looked["inspect"], looked["features"], looked["lite0"])


def _kept(root: Path) -> set[int]:
    """Images of the pool that deduplication keeps."""
    rows = Store(str(root / "run")).table("duplicates").read_all(["image_id", "verdict"]).to_pylist()
    return {row["image_id"] for row in rows if row["verdict"] == "kept"}


def _parts(root: Path) -> dict[str, list[str]]:
    """Contents of the parts of the per-image tables."""
    store = Store(str(root / "run"))
    return {name: [part.content for part in store.table(name).parts()] for name in PER_IMAGE}


def _figures(root: Path, before: dict[str, list[str]], *, seconds: tuple[float, float]) -> list[Figure]:
    after = _parts(root / "growing")
    first = [name for name in PER_IMAGE if name != "embeddings/clusters"]  # whose rows depend on verdicts too
    reused = sum(after[name][: len(before[name])] == before[name] for name in first)
    found = {name: _result(root / name) for name in ("growing", "full", "other")}
    grown, full, other = found["growing"], found["full"], found["other"]
    return [
        Figure("tables of the first pass whose old parts are all as before", reused, f"of {len(first)}"),
        Figure("run over the grown pool", seconds[0], "s", "full run", seconds[1], better="lower"),
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
    num_images: Annotated[int, typer.Option("-n", help="images of the pool before it grows")] = 320,
    num_new: Annotated[int | None, typer.Option("--new", help="images by which it grows; default: a quarter")] = None,
    seed: Annotated[int, typer.Option(help="seed of the pool")] = 0,
    json_: Json = False,
) -> None:
    """A pool and what is wanted of it grow in one workdir: what each run reads, and how far the result is off."""
    show(bench_incremental(num_images, num_new=num_new, seed=seed), json_)
