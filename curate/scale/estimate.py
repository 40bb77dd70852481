"""Time, memory, storage and price of every table of a recipe, for numbers of images and machines: `curate plan`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curate.engine.cost import Assumptions, Demand, Shape
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.recipe import RecipeConfig, find_recipe
from curate.scale.hardware import Hardware, Processor

SECONDS_PER_PART = 0.005
"""Of the driver, for each part of a table; `python -m benchmarks parts`."""


@dataclass(frozen=True)
class Machines:
    """What a plan may use."""

    hardware: Hardware
    cores: int
    gpus: int

    @property
    def number(self) -> int:
        """Machines that hold so many cores and GPUs."""
        by_gpu = math.ceil(self.gpus / self.hardware.gpus) if self.gpus else 0
        return max(1, by_gpu, math.ceil(self.cores / self.hardware.cores))


def machines(hardware: Hardware, *, cores: int, gpus: int) -> Machines:
    """So many cores and GPUs of one kind of machine; 0 cores: those of as many machines as hold the GPUs.

    Raises:
        ConfigError: GPUs of machines that have none, or less than one core.
    """
    if cores < 0 or gpus < 0:
        raise ConfigError(f"--cpus {cores} --gpus {gpus}: neither can be negative")
    if gpus and hardware.gpu is None:
        raise ConfigError(f"--gpus {gpus}: {hardware.name} has none; give --hardware a100, or a file with its rates")
    number = math.ceil(gpus / hardware.gpus) if gpus else 1
    return Machines(hardware, cores or number * hardware.cores, gpus)


@dataclass(frozen=True)
class Estimate:
    """One table, or the tables of one pass, on these machines."""

    table: str
    stage: str
    seconds: float
    bound: str
    """What takes most of it: CPU, GPU, reading, writing, one process, or parts."""
    memory: float
    """Bytes of the largest task."""
    stored: float
    """Bytes that stay."""
    scratch: float
    """Bytes beside them while the table is made."""
    rows: float
    """Of the first table of the step."""
    gpu: bool
    """Whether GPUs are used."""
    note: str
    """Of the law."""


def plan_scale(config: RecipeConfig, given: Assumptions, machines: Machines) -> list[Estimate]:
    """One estimate a step, in the order of the recipe; neither weights nor images need be here.

    Raises:
        ConfigError: the size of a model is not known without its weights.
    """
    outline = find_recipe(config.recipe).outline(Store(config.workdir), config)
    shapes: dict[str, Shape] = {}
    found = []
    for step in outline.steps:
        inputs = {
            key: None if names is None else [shapes[name] for name in names] for key, names in step.inputs.items()
        }
        demands = []
        for name, stage in step.stages.items():
            demand, shapes[name] = stage.cost(_known(stage, inputs), given)
            demands.append(demand)
        rows = shapes[next(iter(step.stages))].rows
        found.append(_estimate(step.stages, demands, rows, machines))
    return found


def _known(stage: Stage, inputs: Mapping[str, list[Shape] | None]) -> dict[str, Any]:
    """The shapes of the inputs that a stage declares: one, a list where it takes many, None where left out."""
    found: dict[str, Any] = {}
    for key, spec in stage.inputs.items():
        shapes = inputs.get(key)
        found[key] = shapes if spec.many or shapes is None else shapes[0]
    return found


def _estimate(stages: dict[str, Stage], demands: list[Demand], rows: float, used: Machines) -> Estimate:
    """Of one step; the stages of a pass work side by side."""
    hw, cores, number, demand = used.hardware, used.cores, used.number, Demand.sum(demands)
    gpu = hw.gpu if used.gpus and any(getattr(s, "device", "cpu") != "cpu" for s in stages.values()) else None
    on_cpu = demand.megapixels / hw.decode + demand.pairs / hw.registration + demand.rows / hw.rows
    if gpu is None:
        on_cpu += demand.forward / hw.core.forward + demand.products / hw.core.products
    side_by_side = {
        "CPU": on_cpu / cores,
        "GPU": _seconds_on(gpu, demand) / max(1, used.gpus),
        "reading": demand.read / (hw.read * number),
        "writing": (demand.written + demand.scratch) / (hw.write * number),
    }
    alone = min(cores, hw.cores)
    serial_rate = gpu.products if gpu else hw.core.products * alone
    after_another = {
        "one process": demand.serial_rows / hw.rows + demand.serial_products / serial_rate,
        "parts": demand.tasks * SECONDS_PER_PART,
    }
    every = side_by_side | after_another
    return Estimate(
        table=" + ".join(stages),
        stage=" + ".join(type(stage).__name__ for stage in stages.values()),
        seconds=max(side_by_side.values()) + sum(after_another.values()),
        bound=max(every, key=every.__getitem__),
        memory=demand.memory,
        stored=demand.written,
        scratch=demand.scratch,
        rows=rows,
        gpu=gpu is not None,
        note=demand.note,
    )


def _seconds_on(gpu: Processor | None, demand: Demand) -> float:
    return 0.0 if gpu is None else demand.forward / gpu.forward + demand.products / gpu.products


@dataclass(frozen=True)
class Total:
    """Of all tables, one after the other."""

    seconds: float
    gpu_hours: float
    """All GPUs, while tables are made that use them."""
    core_hours: float
    """All cores, all the time."""
    stored: float
    peak_stored: float
    """Bytes, with what is removed again."""
    memory: float
    price: float | None
    """Of the hours, and a month of storage; None: no prices are known."""


def total(estimates: Sequence[Estimate], machines: Machines) -> Total:
    """Sum up a plan."""
    hw = machines.hardware
    seconds = sum(e.seconds for e in estimates)
    gpu_hours = machines.gpus * sum(e.seconds for e in estimates if e.gpu) / 3600
    core_hours = machines.cores * seconds / 3600
    stored, peak = 0.0, 0.0
    for one in estimates:
        stored += one.stored
        peak = max(peak, stored + one.scratch)
    per_hour = (hw.gpu.price if hw.gpu else 0.0) * gpu_hours + hw.core.price * core_hours
    price = per_hour + hw.storage_price * stored / 1e12
    return Total(
        seconds, gpu_hours, core_hours, stored, peak, max((e.memory for e in estimates), default=0), price or None
    )


def as_json(estimates: Sequence[Estimate], machines: Machines, given: Assumptions) -> str:
    """Everything that a plan was made of and what came out, for programs."""
    document = {
        "assumptions": given.model_dump(),
        "hardware": machines.hardware.model_dump(),
        "cores": machines.cores,
        "gpus": machines.gpus,
        "tables": [asdict(estimate) for estimate in estimates],
        "total": asdict(total(estimates, machines)),
    }
    return json.dumps(document, indent=2)


def describe_assumptions(given: Assumptions, machines: Machines) -> str:
    """What was assumed, in words."""
    gpus = f", {machines.gpus} GPUs" * bool(machines.gpus)
    return (
        f"{given.images:,} images, {given.curated:,} curated, {given.heldout:,} held out; {given.image_bytes:,} bytes "
        f"and {given.megapixels} megapixels each, {given.pairs:g} pairs of copies an image, {given.kept:.0%} kept; "
        f"{machines.number} x {machines.hardware.name}: {machines.cores} cores{gpus}"
    )


HEAD = ("table", "stage", "time", "bound by", "largest task", "stored", "note")


def cells(estimates: Sequence[Estimate], machines: Machines) -> list[tuple[str, ...]]:
    """The rows of the table, the sum last."""
    rows = [(e.table, e.stage, duration(e.seconds), e.bound, size(e.memory), size(e.stored), e.note) for e in estimates]
    whole = total(estimates, machines)
    hours = [f"{whole.gpu_hours:,.0f} GPU hours"] * bool(machines.gpus) + [f"{whole.core_hours:,.0f} core hours"]
    price = [] if whole.price is None else [f"price {whole.price:,.0f}"]
    note = ", ".join([*hours, f"{size(whole.peak_stored)} at most", *price])
    return [*rows, ("all", "", duration(whole.seconds), "", size(whole.memory), size(whole.stored), note)]


def duration(seconds: float) -> str:
    """Such as 41 s, 12 min, 3.4 h, 2.1 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if unit == 3600 or seconds < 10 else 0}f} {name}"
    return f"{seconds / 86400:.1f} d"


def size(num_bytes: float) -> str:
    """Such as 2.1 GB, in powers of ten; empty for nothing."""
    for limit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {name}"
    return f"{num_bytes / 1e3:.0f} kB" if num_bytes else ""
