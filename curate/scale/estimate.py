"""Time, memory, storage and price of every table of a recipe, for numbers of images and machines: `curate plan`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curate.engine.cost import Assumptions, Demand, Shape
from curate.engine.demands import around
from curate.engine.numbers import size
from curate.engine.pipeline import Pipeline
from curate.engine.stage import Stage
from curate.engine.store import Store
from curate.engine.work import Step
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
    alone: float
    """Of the seconds, those that one process works alone, whatever the machines."""
    memory: float
    """Bytes of the largest task."""
    read: float
    """Bytes read, from the store and the sources."""
    requests: float
    """Requests to both."""
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


def plan_demands(pipeline: Pipeline, given: Assumptions) -> list[tuple[Step, Demand, Shape]]:
    """What each step demands, and the shape of its first table; neither weights nor images need be here."""
    shapes: dict[str, Shape] = {}
    found = []
    for step in pipeline.steps:
        inputs = {
            key: None if names is None else [shapes[name] for name in names] for key, names in step.inputs.items()
        }
        demands, made = [], []
        for name, stage in step.stages.items():
            demand, shapes[name] = stage.cost(_known(stage, inputs), given)
            demands.append(demand)
            made.append(shapes[name])
        stated = Demand.sum(demands)
        engine = around(list(step.stages.values()), inputs, made, stated)
        found.append((step, Demand.phases([stated, engine]), made[0]))
    return found


def plan_scale(config: RecipeConfig, given: Assumptions, machines: Machines) -> list[Estimate]:
    """One estimate a step, in the order of the recipe.

    Raises:
        ConfigError: the size of a model is not known without its weights.
    """
    store = Store(config.workdir)
    # Whether there are decisions is not asked of an object store: a plan needs no key to it.
    pipeline = find_recipe(config.recipe).outline(store, config, recorded=None if store.is_local else ())
    return [
        estimate_step(step.stages, demand, made.rows, machines) for step, demand, made in plan_demands(pipeline, given)
    ]


def _known(stage: Stage, inputs: Mapping[str, list[Shape] | None]) -> dict[str, Any]:
    """The shapes of the inputs that a stage declares: one, a list where it takes many, None where left out."""
    found: dict[str, Any] = {}
    for key, spec in stage.inputs.items():
        shapes = inputs.get(key)
        found[key] = shapes if spec.many or shapes is None else shapes[0]
    return found


def estimate_step(stages: dict[str, Stage], demand: Demand, rows: float, used: Machines) -> Estimate:
    """Of one step; the stages of a pass work side by side."""
    hw, cores, number = used.hardware, used.cores, used.number
    gpu = hw.gpu if used.gpus and any(getattr(s, "device", "cpu") != "cpu" for s in stages.values()) else None
    on_cpu = demand.megapixels / hw.decode + demand.pairs / hw.registration + demand.rows / hw.rows
    if gpu is None:
        on_cpu += demand.forward / hw.core.forward + demand.products / hw.core.products
    others = max(0, cores - 1)  # processes beside the one that the laws count, as many as there can be
    read, requests = demand.read + others * demand.process_read, demand.requests + others * demand.process_requests
    side_by_side = {
        "CPU": on_cpu / cores,
        "GPU": _seconds_on(gpu, demand) / max(1, used.gpus),
        "reading": (read - demand.serial_read) / (hw.read * number),
        "writing": (demand.written + demand.scratch) / (hw.write * number),
    }
    alone = min(cores, hw.cores)
    serial_rate = gpu.products if gpu else hw.core.products * alone
    after_another = {
        "one process": demand.serial_rows / hw.rows
        + demand.serial_products / serial_rate
        + demand.serial_read / hw.read,
        "parts": demand.tasks * SECONDS_PER_PART,
    }
    every = side_by_side | after_another
    return Estimate(
        table=" + ".join(stages),
        stage=" + ".join(type(stage).__name__ for stage in stages.values()),
        seconds=max(side_by_side.values()) + sum(after_another.values()),
        bound=max(every, key=every.__getitem__),
        alone=after_another["one process"],
        memory=demand.memory,
        read=read,
        requests=requests,
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
    alone: float
    """Of the seconds, those that one process works alone."""
    read: float
    requests: float
    stored: float
    peak_stored: float
    """Bytes, with what is removed again."""
    memory: float
    price: float | None
    """Of the hours, of the requests, and of a month of storage; None: no prices are known."""


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
    requests = sum(e.requests for e in estimates)
    price = per_hour + hw.storage_price * stored / 1e12 + hw.request_price * requests / 1e6
    return Total(
        seconds=seconds,
        gpu_hours=gpu_hours,
        core_hours=core_hours,
        alone=sum(e.alone for e in estimates),
        read=sum(e.read for e in estimates),
        requests=requests,
        stored=stored,
        peak_stored=peak,
        memory=max((e.memory for e in estimates), default=0),
        price=price or None,
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
        f"and {given.megapixels} megapixels each, {given.pairs:g} pairs of copies and {given.hash_pairs:g} of near "
        f"hashes an image, {given.kept:.0%} kept; "
        f"{machines.number} x {machines.hardware.name}: {machines.cores} cores{gpus}"
    )


ALONE_FROM = 0.01
"""Share of a step's time from which on the plan tells how long one process works alone."""
HEAD = ("table", "stage", "time", "bound by", "largest task", "read", "requests", "stored", "note")


def cells(estimates: Sequence[Estimate], machines: Machines) -> list[tuple[str, ...]]:
    """The rows of the table, the sum last."""
    rows = [
        (
            *(e.table, e.stage, duration(e.seconds), e.bound, size(e.memory), size(e.read)),
            *(amount(e.requests), size(e.stored), ", ".join(filter(None, [_alone(e), e.note]))),
        )
        for e in estimates
    ]
    whole = total(estimates, machines)
    hours = [f"{whole.gpu_hours:,.0f} GPU hours"] * bool(machines.gpus) + [f"{whole.core_hours:,.0f} core hours"]
    price = [] if whole.price is None else [f"price {whole.price:,.0f}"]
    alone = f"one process: {duration(whole.alone)}"
    note = ", ".join([*hours, alone, f"{size(whole.peak_stored)} at most", *price])
    of_all = (size(whole.memory), size(whole.read), amount(whole.requests), size(whole.stored))
    return [*rows, ("all", "", duration(whole.seconds), "", *of_all, note)]


def _alone(estimate: Estimate) -> str:
    """That a step, or a part of it, is done by one process; empty where that is not worth a word."""
    if estimate.alone < ALONE_FROM * estimate.seconds:
        return ""
    return f"one process: {duration(estimate.alone)}"


def amount(number: float) -> str:
    """Such as 950, 12 k, 3.4 M, in powers of ten; empty for nothing."""
    for limit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= limit:
            return f"{number / limit:.1f} {name}"
    return f"{number / 1e3:.0f} k" if number >= 1e4 else f"{number:.0f}" if number else ""


def duration(seconds: float) -> str:
    """Such as 41 s, 12 min, 3.4 h, 2.1 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if unit == 3600 or seconds < 10 else 0}f} {name}"
    return f"{seconds / 86400:.1f} d"
