"""`curate train --plan`: what a configuration amounts to, before anything is written."""

from collections.abc import Iterator, Mapping

import torch

from curate.feed.labels import Labels
from curate.feed.shards import read_index
from curate.feed.split import BatchSplit
from curate.models.device import resolve_device, resolve_precision
from curate.trainer.config import TrainConfig
from curate.trainer.effective import Effective
from curate.trainer.guides import describe_guides, read_guides
from curate.trainer.memory import Memory, estimate_memory
from curate.trainer.phases import GramEvent, Timeline
from curate.trainer.schedules import describe
from curate.trainer.start import resolve_start

GIB = 2**30
NAMES = {
    "base_lr": "learning rate",
    "weight_decay": "weight decay",
    "teacher_momentum": "teacher momentum",
    "teacher_temperature": "teacher temperature",
    "backbone": "backbone's rate, factor",
}
"""Schedules by the names that people know; others go by their own."""


def plan_training(config: TrainConfig, *, processes: int = 1, images: int | None = None) -> list[str]:
    """The plan of a run, in lines for people; nothing is written.

    Args:
        processes: that are to share it.
        images: number of images of the shards; None: the shards are looked at.

    Raises:
        ConfigError: a setting does not fit the data, or the number of processes.
        SourceError: shards are missing or damaged.
        WeightsError: heads to start from are missing or damaged.
    """
    BatchSplit(config.batch_size, config.accumulate, 0, processes)
    labels: dict[str, Labels] = {}
    if images is None:
        index = read_index(config.shards, config.feed)
        num_images, num_samples = index.num_images, index.num_samples
        labels = read_guides(index, config)
    else:
        num_images = num_samples = images
    effective = resolve_start(config, num_images=num_images, num_samples=num_samples)
    return describe_plan(config, effective, labels, processes=processes)


def describe_plan(
    config: TrainConfig, effective: Effective, labels: Mapping[str, Labels], *, processes: int = 1
) -> list[str]:
    """The plan of a run in lines: its phases, guides, schedules and crops, and the memory of each of its processes."""
    timeline = Timeline(config, effective, seed=config.seed)
    return [
        f"{config.iterations} iterations of {config.batch_size} images on {processes} processes: "
        f"{effective.images_seen} images seen, {effective.epochs:.1f} epochs of {effective.num_images} images",
        *_phases(config, timeline),
        *describe_guides(config, labels),
        "schedules, by iteration:",
        *(f"  {line}" for line in _schedules(timeline)),
        "crops, side in pixels:",
        *(f"  {line}" for line in _crops(timeline)),
        *_memory(config, effective, timeline, processes),
    ]


def _phases(config: TrainConfig, timeline: Timeline) -> Iterator[str]:
    if not timeline.phases:
        yield "one phase"
    for number, phase in enumerate(timeline.phases):
        gram = "" if phase.settings.gram is None else ", with Gram anchoring"
        yield f"phase {number}: iterations {phase.start} to {phase.end - 1}{gram}"
    for event in timeline.gram_events:
        yield f"Gram teacher before iteration {event.step}: {_source(event)}"


def _source(event: GramEvent) -> str:
    told = {"run": "the run's own teacher of that moment", "file": f"the weights of {event.file}", "none": "none"}
    return told[event.source]


def _schedules(timeline: Timeline) -> Iterator[str]:
    for name, schedule in timeline.schedules.items():
        if len(schedule) > 1 or schedule[0].first != schedule[0].last or name in NAMES:
            yield f"{NAMES.get(name, name)}: {describe(schedule)}"


def _crops(timeline: Timeline) -> Iterator[str]:
    plan = timeline.sizes
    before: object = None
    for start, choices in zip(plan.starts, plan.choices, strict=True):
        if choices == before:
            continue
        before, whole = choices, sum(one.probability for one in choices)
        for one in choices:
            gram = "" if one.gram_size is None else f", Gram teacher {one.gram_size}"
            often = "" if len(choices) == 1 else f", {one.probability / whole:.0%} of the batches"
            yield f"from {start}: global {one.global_size}, local {one.local_size}{gram}{often}"


def _memory(config: TrainConfig, effective: Effective, timeline: Timeline, processes: int) -> Iterator[str]:
    """Of the sizes that take most."""
    precision = resolve_precision(config.precision, resolve_device(config.device))
    every = dict.fromkeys(one for choices in timeline.sizes.choices for one in choices)
    found = [
        estimate_memory(config, effective, sides=sides, precision=precision, processes=processes) for sides in every
    ]
    largest = max(found, key=lambda one: one.total)
    tokens = sorted({one.tokens for one in found if one.tokens})
    yield f"student: {largest.parameters / 1e6:.1f} million weights"
    if tokens:
        yield f"tokens of the student in an iteration: {' or '.join(f'{number:,}' for number in tokens)}"
    yield f"memory of a process in {precision}, estimated, {_shared(config, processes)}:"
    yield from (f"  {line}" for line in _parts(largest))


def _shared(config: TrainConfig, processes: int) -> str:
    return f"states divided by {processes} (FSDP)" if config.parallel == "fsdp" else "states whole (DDP or one)"


def _parts(memory: Memory) -> Iterator[str]:
    yield f"weights, gradients, moments: {memory.states / GIB:.2f} GiB"
    if memory.frozen:
        yield f"frozen teachers: {memory.frozen / GIB:.2f} GiB"
    if memory.activations:
        yield f"what the backward pass needs: {memory.activations / GIB:.2f} GiB"
    else:
        yield "what the backward pass needs: unknown for models of timm"
    yield f"scores over prototypes: {memory.scores / GIB:.2f} GiB"
    yield f"together: {memory.total / GIB:.2f} GiB"
    if torch.cuda.is_available():
        yield f"this GPU has {torch.cuda.get_device_properties(0).total_memory / GIB:.0f} GiB"
