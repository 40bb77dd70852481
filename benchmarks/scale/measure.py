"""Runs of a recipe over faked pools: what each table cost, as its manifest tells, beside what the plan says."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scale.pool import BORDERED, CONTAINER_IMAGES, NAME_BYTES, OWN_BYTES
from benchmarks.scale.recipes import Scale, make_config
from benchmarks.scale.stages import unfaked
from curate.counting import Counts
from curate.engine.cost import Assumptions, Demand
from curate.engine.freshness import resolved_stage
from curate.engine.pipeline import Pipeline
from curate.engine.stage import SharedMap
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.engine.work import Step
from curate.recipe import RecipeConfig, find_recipe
from curate.scale.estimate import plan_demands
from curate.stages.selection.write_shards import WriteShards

DRIVER = "driver"
"""The phase of a manifest's counts that no task did."""
LOG = "run.log"
"""What the commands of a run said, beside its workdir."""
COMPARED_IMAGES = 50_000
"""Images of a pool up to which a run that was killed is compared with one that was not."""
POLL_SECONDS = 0.05
"""Between two looks at a driver."""


@dataclass(frozen=True)
class Row:
    """One step of one run; of a pass, all its tables."""

    recipe: str
    table: str
    stage: str
    images: int
    """Of the pool."""
    seconds: float
    """Of tasks, by the clock."""
    counts: Counts
    """Of tasks and driver."""
    driver_bytes: int
    """Memory that the driver held for it beside what it holds anyway."""
    input_bytes: int
    """Of all that it reads from, once."""
    planned: Demand
    """What its laws say, for the counted numbers of images and pairs."""

    @property
    def amplification(self) -> float:
        """Bytes read for each byte that had to be: of its inputs once, and of what it wrote."""
        return self.counts.bytes_read / max(1, self.counts.bytes_written + self.input_bytes)

    def as_json(self) -> dict[str, Any]:
        """What a program reads."""
        return {
            "recipe": self.recipe,
            "table": self.table,
            "stage": self.stage,
            "images": self.images,
            "seconds": self.seconds,
            **self.counts.as_json(),
            "driver_bytes": self.driver_bytes,
            "input_bytes": self.input_bytes,
            "planned_bytes_read": round(self.planned.read),
            "planned_bytes_written": round(self.planned.written + self.planned.scratch),
            "planned_requests": round(self.planned.requests),
            "n_log_n": self.planned.n_log_n,
            "settles": self.planned.settles,
        }


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    recipe: str
    rows: list[Row]
    seconds: float
    """By the clock, report included."""
    driver_bytes: int | None
    """Resident memory of the driver at most; None: it did the tasks, too."""
    kills: int = 0
    """Times that the driver was killed and started again."""
    compared: bool = False
    """Whether its tables were compared with those of a run that was not killed, and are the same."""


def run_recipe(
    recipe: str, images: int, scale: Scale, *, folder: Path | None = None, workers: int = 0, kills: int = 0
) -> Ran:
    """Make a faked pool, run a recipe over it as `curate run` does, and remove both.

    Args:
        folder: where temporary folders go; None: where the system has them.
        workers: processes of Dask; 0: all in one process.
        kills: times that the driver is killed (SIGKILL), in the making of tables that the seed draws, and started
            again; up to `COMPARED_IMAGES` the tables are then compared with those of a run that was not killed.

    Raises:
        RuntimeError: the command failed, or the tables are others.
    """
    with tempfile.TemporaryDirectory(prefix="scale-", dir=folder) as name:
        here = Path(name)
        config = make_config(recipe, images, here, scale, workers=workers)
        start = time.perf_counter()
        peak = _run(config, here, kills=kills, seed=scale.seed)
        seconds, rows = time.perf_counter() - start, read_rows(recipe, config, images, scale)
        compared = kills > 0 and images <= COMPARED_IMAGES
        if compared:
            _compare(config, here)
        return Ran(recipe, rows, seconds, peak if workers else None, kills, compared)


def _compare(config: RecipeConfig, folder: Path) -> None:
    """Make the tables once more, without an interruption.

    Raises:
        RuntimeError: some are others.
    """
    again = config.model_copy(update={"workdir": f"{config.workdir}-again"})
    _run(again, folder, kills=0, seed=0)
    one, other = digests(config), digests(again)
    if differing := [name for name, found in one.items() if found != other[name]]:
        raise RuntimeError(f"{', '.join(differing)}: the killed run left other rows than one that was not killed")


def read_rows(recipe: str, config: RecipeConfig, images: int, scale: Scale) -> list[Row]:
    """What each step of a finished run cost, and what its laws say for the same numbers."""
    store = Store(config.workdir)
    pipeline = find_recipe(config.recipe).outline(store, config)
    given = assumptions(recipe, images, scale, store)
    planned = {next(iter(step.stages)): demand for step, demand, _ in plan_demands(_as_resolved(pipeline), given)}
    rows = []
    for step in pipeline.steps:
        name = next(iter(step.stages))
        made = store.table(name).complete_manifest()
        tasks = Counts.sum(counts for phase, counts in made.counted.items() if phase != DRIVER)
        driver = store.table(list(step.stages)[-1]).complete_manifest().counted[DRIVER]  # of all tables of the step
        counts = Counts.sum([tasks, _without_peak(driver)])
        stage = unfaked([type(one).__name__ for one in step.stages.values()])
        inputs = _input_bytes(store, step, made, scale)
        rows.append(
            Row(recipe, name, stage, images, made.seconds, counts, driver.peak_task_bytes, inputs, planned[name])
        )
    return rows


def assumptions(recipe: str, images: int, scale: Scale, store: Store) -> Assumptions:
    """What the laws cannot know, as the run found it."""
    sizes = scale.sizes(recipe, images)
    kept = store.table("duplicates").complete_manifest().figures["kept"]
    near = [name for name in ("internal/candidates/near", "internal/neighbors/copy") if store.table(name).is_complete()]
    return Assumptions(
        images=images,
        curated=sizes.get("curated", 0),
        heldout=sizes.get("heldout", 0),
        kept=kept / images,
        selected=store.table("selection").num_rows(),
        image_bytes=scale.image_bytes,
        doubted=min(1, 2 * _rows(store, "internal/candidates/pairs") / max(1, _rows(store, near[0]))),
        chosen=_rows(store, "internal/chosen/copy") / images,
        name_bytes=NAME_BYTES,
        own_bytes=OWN_BYTES,
        bordered=BORDERED,
        file_images=CONTAINER_IMAGES,
        pairs=_rows(store, near[0]) / images,
        hash_pairs=_rows(store, "internal/neighbors/pdq") / images,
    )


def _rows(store: Store, name: str) -> int:
    """Rows of a table; 0: the recipe has none of that name."""
    table = store.table(name)
    return table.num_rows() if table.is_complete() else 0


def digests(config: RecipeConfig) -> dict[str, str]:
    """By table that the recipe declares: the digests of the rows of its parts."""
    store = Store(config.workdir)
    names = find_recipe(config.recipe).outline(store, config).names
    return {name: " ".join(part.content for part in store.table(name).parts()) for name in names}


def _as_resolved(pipeline: Pipeline) -> Pipeline:
    """The pipeline with what `auto` fields became: the plan is held to its laws, not to what it cannot know."""
    for step in pipeline.steps:
        for name, stage in step.stages.items():
            step.stages[name] = resolved_stage(stage, pipeline.store.table(name).complete_manifest())
    return pipeline


def _without_peak(counts: Counts) -> Counts:
    return Counts.of_json(counts.as_json() | {"peak_task_bytes": 0})


def _input_bytes(store: Store, step: Step, made: Manifest, scale: Scale) -> int:
    """Bytes of the tables that a step reads, and of the images that it opens."""
    names = {name for inputs in made.inputs.values() for name in inputs}
    tables = sum(part.num_bytes for name in names for part in store.table(name).parts())
    lead = next(iter(step.stages.values()))
    opened = (made.rows_in or 0) if isinstance(lead, SharedMap) else made.rows if isinstance(lead, WriteShards) else 0
    return tables + opened * scale.image_bytes


# -- the driver ------------------------------------------------------------------------------------------------


def _run(config: RecipeConfig, folder: Path, *, kills: int, seed: int) -> int:
    """`curate run` until it ends well, killed in the making of `kills` tables on the way; returns its peak memory."""
    path, workdir = folder / "config.yaml", Path(config.workdir)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    names = find_recipe(config.recipe).outline(Store(config.workdir), config).names
    drawn = random.Random(seed).sample(range(1, len(names) - 1), kills) if kills else []
    peak = 0
    for victim in [*(names[place] for place in sorted(drawn)), None]:
        with _driver(path, folder) as driver:
            while driver.poll() is None:
                peak = max(peak, _high_water(driver.pid))
                if victim is not None and _has_begun(workdir / victim):
                    driver.kill()
                    driver.wait()
                time.sleep(POLL_SECONDS)
        if driver.returncode != (0 if victim is None else -signal.SIGKILL):
            raise RuntimeError(f"curate run {path} ended with {driver.returncode}: {_last(folder)}")
    return peak


@contextlib.contextmanager
def _driver(config: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`curate run`, which leaves no worker behind."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    with (folder / LOG).open("ab") as log:
        driver = subprocess.Popen(
            [sys.executable, "-m", "curate", "run", str(config)],
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )
        try:
            yield driver
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()


def _has_begun(table: Path) -> bool:
    """Whether the first part of a table in the making is there, also one of a hidden phase."""
    return any(table.rglob("part-*.parquet"))


def _high_water(pid: int) -> int:
    """Bytes of resident memory that a process held at most since this was last set back; 0: it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _last(folder: Path) -> str:
    return (folder / LOG).read_text(encoding="utf-8", errors="replace")[-2000:]
