"""`curate train auto`: what is known of the images and the machine, and the settings that follow, kept in a file.

The picks of `automatic.py` become a file `config.yaml` in the output, with the reason of each, before the first
iteration. Once there is a checkpoint they are read from it, so that a run goes on as it began on any machine; and
without `auto` the file is a config as any other.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from curate.config import merge, parse, read_yaml
from curate.errors import ConfigError, SourceError, WorkdirError
from curate.feed.settings import FeedSettings
from curate.feed.shards import ShardIndex, read_index
from curate.feed.sizes import Sides
from curate.locking import hold
from curate.memory import machine_memory
from curate.models.convert.source import load_source
from curate.models.device import resolve_device
from curate.models.nets.config import ViTConfig
from curate.models.nets.trained import inner
from curate.trainer.automatic import Circumstances, MemoryOf, StartingPoint, pick_settings
from curate.trainer.checkpoint import list_checkpoints
from curate.trainer.config import TrainConfig
from curate.trainer.effective import resolve_auto
from curate.trainer.given_backbone import model_fields
from curate.trainer.identity import refuse_foreign_files
from curate.trainer.memory import estimate_memory

RECORD = "config.yaml"
"""Name of the file in the output."""
FEW_IMAGES = 500
"""Short trainings on a CPU learned from 898 digits, and after those on 145 photographs k-NN told less than before
(`docs/benchmarks.md`)."""
GROUPS = 64
"""Row groups whose images' sizes are read, spread evenly over all."""


@dataclass(frozen=True)
class Settled:
    """The settings of a training, and what is told of them."""

    values: dict[str, Any]
    """As a config file holds them, with shards and output."""
    lines: list[str] = field(default_factory=list)
    """A line for every pick: key, value, reason; and advice. Of a training that goes on, where they are from."""
    begun: bool = False
    """Whether they are those of a training that has checkpoints."""


def settle(given: Mapping[str, Any], *, processes: int = 1, images: int | None = None) -> Settled:
    """The settings of a training by what the user gives, or those with which the one in the output began.

    Args:
        given: keys of a config, `shards` and `output` among them.
        processes: that train together.
        images: number of images, where the shards are not at hand; `crops.global_size` must then be given.

    Raises:
        ConfigError: a setting that is given does not fit, or nothing fits into the memory.
        SourceError: shards are missing or damaged, or do not say how large their images are.
        WeightsError: the backbone to go on from is missing or damaged.
        WorkdirError: the output holds a training that did not begin by `auto`.
    """
    given = dict(given)
    if isinstance(given.get("objective"), str):
        given["objective"] = {"kind": given["objective"]}
    if images is None:
        for name in ("shards", "output"):
            if not given.get(name):
                raise ConfigError(f"auto: {name} is required, but not given; set --{name} or {name}=FOLDER")
        if list_checkpoints(Path(given["output"]) / "checkpoints"):
            return _begun(Path(given["output"]), given)
    known = find_circumstances(given, processes=processes, images=images)
    picked = pick_settings(known, given, memory_of=_estimator(known))
    lines = [f"{key}: {_shown(value)}  # {reason}" for key, value, reason in picked.picks]
    return Settled(picked.values, [*lines, *_advice(known)])


def _advice(known: Circumstances) -> list[str]:
    if not known.short or known.num_images >= FEW_IMAGES:
        return []
    return [
        f"{known.num_images} images are few to learn from scratch on a CPU: after 145 photographs a backbone told less "
        "than before; --init NAME goes on from one that has learned"
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _begun(folder: Path, given: Mapping[str, Any]) -> Settled:
    record = folder / RECORD
    if not record.is_file():
        raise WorkdirError(
            f"output={folder}: holds checkpoints of a training that did not begin by auto; go on with its own config, "
            "or set another output=FOLDER"
        )
    return Settled(merge(read_yaml(record), given), [f"settings are those of {record}"], begun=True)


def record(settled: Settled) -> None:
    """Write the settings into the output, where its training has not begun.

    Raises:
        WorkdirError: the folder holds other files, is held by another training, or cannot be written.
    """
    if settled.begun:
        return
    folder = Path(settled.values["output"])
    refuse_foreign_files(folder)
    with hold(folder, setting="output", work="training"):
        text = "".join(f"# {line}\n" for line in ("Picked by `curate train auto`:", *settled.lines))
        text += yaml.safe_dump(settled.values, sort_keys=False, allow_unicode=True, width=110)
        new = folder / f"{RECORD}.new"
        new.write_text(text, encoding="utf-8")
        new.replace(folder / RECORD)


def find_circumstances(given: Mapping[str, Any], *, processes: int = 1, images: int | None = None) -> Circumstances:
    """What is known of the images and the machine; errors are those of `settle`."""
    device = resolve_device(str(given.get("device", "auto")))
    gpu = device.type == "cuda"
    side = (given.get("crops") or {}).get("global_size")
    if images is None:
        index = read_index(str(given["shards"]), parse(FeedSettings, given.get("feed") or {}, where="auto: feed"))
        images, side = index.num_images, side or short_side(index)
    if side is None:
        raise ConfigError("auto: the shards are not at hand, so crops.global_size must say the side of the crops")
    init = given.get("init_from")
    sharing = min(processes, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return Circumstances(
        num_images=images,
        short_side=int(side),
        memory=torch.cuda.get_device_properties(device).total_memory if gpu else machine_memory() // sharing,
        gpu=gpu,
        processes=processes,
        start=None if init is None else starting_point(str(init), given.get("init_weights")),
    )


def short_side(index: ShardIndex) -> int:
    """Median of the shorter sides of the images in some row groups, pixels.

    Raises:
        SourceError: the shards do not say how large their images are.
    """
    chosen = np.unique(np.linspace(0, len(index.groups) - 1, GROUPS).astype(int))
    found = np.concatenate([index.read_sizes(index.groups[i]) for i in chosen]).min(axis=1)
    found = found[found > 0]
    if not len(found):
        raise SourceError(
            "auto: columns width and height of the shards are null throughout; set crops.global_size=PIXELS"
        )
    return int(np.median(found))


def starting_point(source: str, weights: str | None = None) -> StartingPoint:
    """What is known of the backbone that `init_from` and `init_weights` name.

    Raises:
        WeightsError: it is missing or damaged.
        ConfigError: it cannot be trained on.
    """
    loaded = load_source(source, weights=weights)
    config, blocks = loaded.network.config, getattr(inner(loaded.network), "blocks", None) or ()
    # The stages of an EfficientNet are called blocks too; low-rank changes and layer decay were tried on ViTs.
    depth = len(blocks) if all(hasattr(block, "attn") for block in blocks) else 0
    return StartingPoint(
        model_fields(config),
        patch_size=config.patch_size,
        image_size=loaded.info.image_size,
        depth=depth,
        masks=isinstance(config, ViTConfig),
        rotary=isinstance(config, ViTConfig) and config.positions == "rotary",
        pixels=(loaded.info.mean, loaded.info.std),
    )


def _estimator(known: Circumstances) -> MemoryOf:
    """Bytes of a process that trains by settings, which need not be complete."""

    def estimate(values: Mapping[str, Any]) -> int:
        config = parse(TrainConfig, {"shards": "", "output": "", **values}, where="auto")
        effective = resolve_auto(config, num_images=known.num_images, num_samples=known.num_images)
        sides = Sides(config.crops.global_size, config.crops.local_size)
        chosen = config.precision
        precision = chosen if chosen != "auto" else "bf16" if known.gpu else "fp32"
        return estimate_memory(config, effective, sides=sides, precision=precision, processes=known.processes).total

    return estimate
