"""The settings that `curate train auto` picks: what to train, how large and how long, from the images and the machine.

Recipes fail on small data unless model, prototypes, warm-up, momentum and KoLeo follow the number of images: on 10,000
images a ViT-S by LeJEPA reaches 85.4 % (k-NN), by DINOv2's and DINOv3's recipes as they are 31.5 % and 39.2 %
(arXiv:2511.08544 and the table around it). So every number here follows from the number of images, their size and the
machine. A rule is a few lines with its source beside it, and looks at what the user has given before it: whoever
overrides the iterations gets the warm-up of so many iterations.

Nothing here reads a file or asks the machine; importing this costs no torch. What must be known is `Circumstances`,
which `settling.py` finds out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

from curate.errors import ConfigError
from curate.models.info import IMAGENET_MEAN, IMAGENET_STD
from curate.trainer import short_runs
from curate.trainer.effective import auto_learning_rate, auto_momentum, auto_prototypes
from curate.trainer.picks import Picked, copied

PROTOTYPES = ("dinov2", "dinov3")
"""Objectives whose prototypes are picked."""
LEJEPA_IMAGES = 100_000
"""Images up to which LeJEPA is trained from scratch; above, batches and prototypes suffice for DINOv2."""
PRESETS = ((0, "tiny"), (2_000, "small"), (500_000, "base"), (1_000_000, "large"), (100_000_000, "giant"))
"""Number of images from which a preset is trained from scratch. Sources: ViT-S on 10,000 images, the comparison above;
ViT-L on ImageNet-1k's 1.28 million and ViT-g on 142 million, DINOv2, arXiv:2304.07193."""
CPU_LOCAL = 2
"""Local crops on a CPU, of a backbone that goes on and of objectives without prototypes."""
PATCHES = {True: 8, False: 4}
"""Patches along the side of a small global crop: on a GPU, and on a CPU, where 16 patches an image do in train/tiny."""
MOST_PATCH = {True: 16, False: 8}
"""Largest side of a patch in pixels: of the 768 values of a patch of 16 the 96 dims on a CPU hold an eighth."""
CPU_SIDE, GPU_SIDE = 96, 224
"""Largest side of a global crop in pixels: 224 in DINOv2; a CPU does some hundredth of a GPU's work."""
CPU_IMAGES = 250_000
"""Most images shown on a CPU: of the order of an hour of the tiny ViT on two cores."""
SOURCE_PIXELS = 16
"""Least side in the image's own pixels of what a local crop shows: fewer show no object."""
LARGEST_BATCH = {"lejepa": 512, "dinov2": 2048, "dinov3": 2048}
"""Images of an iteration at most: 2048 in DINOv2's short recipe; LeJEPA works with small batches."""
CPU_BATCH, CPU_LARGE_BATCH, TOWER_BATCH, MODEL_BATCH, LEAST_BATCH = 64, 16, 64, 64, 16
"""Images of an iteration: at most on a CPU; on a CPU where a backbone is given, of which 16 take a ViT-S a second; at
most of timm's models, whose memory is not estimated; those that a model must leave memory for to be chosen; and at
least."""
STEPS_OF_AN_EPOCH = 16
"""Iterations of an epoch at least: a batch that shows most of the images at once leaves nothing to average over."""
SHARES = {True: 0.75, False: 0.5}
"""Share of the memory that a training may take: of a GPU, which needs up to 20 % for buffers and fragments; and of a
host, which holds encoded images too."""
LORA_IMAGES = 10_000
"""Images from which all weights of a given backbone learn; on fewer, low-rank changes of them do."""
LORA_RATE = 2e-3
"""Learning rate of these at batch 1024: 2.5e-4 for 16 images, of the order of 1e-4 that LoRA is usually tuned to. At
1e-4, a rate for whole matrices, 40 iterations leave a ViT-S all but as it was, since the changes start at 0."""
LEAST_ITERATIONS, MOST_ITERATIONS, LONGEST_CONTINUED = 1_000, 625_000, 25_000
"""Iterations at least; at most, as in DINOv2's long recipe; and at most of a run that goes on from a backbone, as in
train/continue_vits14."""


@dataclass(frozen=True)
class StartingPoint:
    """The backbone of `init_from`."""

    model: Mapping[str, Any]
    """Fields of `ModelSettings` that build it."""
    patch_size: int
    """Side of its patches in pixels."""
    image_size: int
    """Side in pixels of the images that it is made for."""
    depth: int
    """Number of blocks of a transformer; 0: it has no row of them."""
    masks: bool = False
    """Whether it is a ViT of ours, with a mask token."""
    rotary: bool = False
    """Whether its positions are rotary, as DINOv3's."""
    pixels: tuple[Sequence[float], Sequence[float]] | None = None
    """Mean and standard deviation by which its pictures are normalized; None: those of ImageNet."""


@dataclass(frozen=True)
class Circumstances:
    """What the picks follow from."""

    num_images: int
    """Rows of the shards."""
    short_side: int
    """Median of the images' shorter sides, pixels."""
    memory: int
    """Bytes of the GPU, or of the host for each of its processes: all of it, not what is free at the moment."""
    gpu: bool
    """Whether it is trained on GPUs."""
    processes: int = 1
    """Processes that train together."""
    start: StartingPoint | None = None
    """The backbone to go on from; None: from scratch."""

    @property
    def short(self) -> bool:
        """Whether fresh weights are trained on a CPU, for some thousands of iterations at most."""
        return self.start is None and not self.gpu


MemoryOf = Callable[[Mapping[str, Any]], int]
"""Bytes of a process that trains by settings."""


def pick_settings(known: Circumstances, given: Mapping[str, Any], *, memory_of: MemoryOf) -> Picked:
    """All settings of a training that are not given, each with its reason.

    Args:
        known: images and machine.
        given: the user's own settings, nested as in a YAML file.
        memory_of: estimates what settings take.

    Raises:
        ConfigError: the smallest model and batch do not fit into the memory.
    """
    picked = Picked(given)
    kind = pick_objective(picked, known)
    pick_crops(picked, known)
    pick_model(picked, known, memory_of)
    batch = pick_batch(picked, known, memory_of)
    iterations = pick_iterations(picked, known, batch)
    if known.start is None:
        pick_depths(picked, iterations)
    else:
        pick_adapting(picked, known)
    pick_optimizer(picked, known, kind, iterations)
    pick_targets(picked, known, kind, batch, iterations)
    return picked


def pick_objective(picked: Picked, known: Circumstances) -> str:
    """LeJEPA from scratch on little data and a GPU, as it needs no prototypes; else the objective of DINO's family."""
    if known.start is not None and known.start.masks:
        kind = "dinov3" if known.start.rotary else "dinov2"
        reason = "the objective of such backbones, so that cls and patches stay what they are"
    elif known.start is not None:
        kind, reason = "lejepa", "a backbone of timm has no mask token"
    elif known.short:
        kind, reason = short_runs.OBJECTIVE, "a CPU, whose few iterations LeJEPA learns nothing in"
    elif known.num_images <= LEJEPA_IMAGES:
        kind, reason = "lejepa", f"{known.num_images:,} images; DINOv2 needs more than {LEJEPA_IMAGES:,}"
    else:
        kind, reason = "dinov2", f"{known.num_images:,} images, more than {LEJEPA_IMAGES:,}"
    found: str = picked.pick("objective.kind", kind, reason)
    return found


def pick_crops(picked: Picked, known: Circumstances) -> None:
    """Sides and scales of the crops, and the side of a patch: crops no larger than the images, of 8 x 8 patches at
    least, local ones of 3/7 of the side (DINOv2's 96 of 224)."""
    most, where = (GPU_SIDE, "a GPU") if known.gpu else (CPU_SIDE, "a CPU")
    if known.start is None:
        wanted = min(picked.get("crops.global_size") or known.short_side, most)
        along = PATCHES[known.gpu]
        largest = MOST_PATCH[known.gpu]
        why = f"{along} patches or more along {wanted} pixels, and {largest} pixels at most"
        patch = picked.pick("model.patch_size", min(largest, fitting_patch(wanted, along)), why)
    else:
        wanted, patch = min(known.start.image_size, most), known.start.patch_size
        where += f", and its images of {known.start.image_size} pixels"
        pick_pixels(picked, known.start)
    side = picked.pick(
        "crops.global_size",
        max(2, wanted // patch) * patch,
        f"the images' shorter side is {known.short_side}; at most {most} on {where}; patches of {patch}",
    )
    kind = picked.get("objective.kind")
    if kind in ("sit", "distill_features"):
        picked.pick("crops.num_local", 0, f"objective {kind} looks at global crops alone")
        return
    least = 2 if side // patch > 2 else 1  # one token would be all there is of a crop
    local = max(least, round(side * 3 / 7 / patch)) * patch
    picked.pick("crops.local_size", local, "3/7 of the global crop, whole patches; 96 of 224 in DINOv2")
    low = round(min(0.25, max(0.05, (SOURCE_PIXELS / known.short_side) ** 2)), 3)
    why = f"a local crop shows {SOURCE_PIXELS} pixels of the image at least, 5 % of its area as in DINOv2, or a quarter"
    picked.pick("crops.local_scale", [low, max(0.32, round(2 * low, 3))], why)
    picked.pick("crops.global_scale", [max(0.32, round(2 * low, 3)), 1.0], "from where local crops end")
    if known.short:
        picked.take(short_runs.CROPS)
    if known.short and kind in PROTOTYPES:
        picked.pick("crops.num_local", 0, "a CPU, where they take most of the time")
    elif not known.gpu:
        picked.pick("crops.num_local", CPU_LOCAL, "a CPU, where they take most of the time")
    elif kind == "lejepa":
        picked.pick("crops.num_local", 6, "2 global and 6 local views in LeJEPA, arXiv:2511.08544")


def pick_pixels(picked: Picked, start: StartingPoint) -> None:
    """Normalize crops as the given backbone knows its pictures, where that is not ImageNet's way."""
    if start.pixels is None or tuple(map(tuple, start.pixels)) == (IMAGENET_MEAN, IMAGENET_STD):
        return
    for name, value in zip(("mean", "std"), start.pixels, strict=True):
        picked.pick(f"crops.{name}", list(value), "as the pictures of the given backbone are normalized")


def fitting_patch(side: int, along: int) -> int:
    """Side of a patch for crops of `side` pixels with `along` patches or a few more on a side: 2 to 16 pixels."""
    return max(2, min(16, side // along))


def pick_model(picked: Picked, known: Circumstances, memory_of: MemoryOf) -> None:
    """The given backbone's architecture; or the largest preset that the number of images bears and the memory holds."""
    if known.start is not None:
        for name, value in known.start.model.items():
            picked.pick(f"model.{name}", value, "of the backbone to go on from")
        return
    wanted = [name for least, name in PRESETS if known.num_images >= least]
    wanted = wanted if known.gpu else wanted[:1]
    reason = f"{known.num_images:,} images" if known.gpu else "a CPU; larger ones take days"
    if known.gpu and not picked.has("model.preset"):
        batch = int(picked.get("batch_size") or _dealt(known, MODEL_BATCH))
        fitting = [name for name in wanted if _fits(picked, known, memory_of, {"model": {"preset": name}}, batch=batch)]
        if fitting and fitting[-1] != wanted[-1]:
            reason += f"; {wanted[-1]} with {batch} images needs more memory than there is"
        wanted = fitting or wanted[:1]
    preset = picked.pick("model.preset", wanted[-1], reason)
    if preset == "tiny" and not known.gpu:
        picked.take(short_runs.MODEL)
    if not str(preset).startswith(("dinov3_", "convnext_")):
        picked.pick("model.num_registers", 4 if known.gpu else 0, "keeps patches clean in long runs, arXiv:2309.16588")


def pick_batch(picked: Picked, known: Circumstances, memory_of: MemoryOf) -> int:
    """The largest power of two for each process that fits, that leaves an epoch some iterations, and that is proven.

    Raises:
        ConfigError: even the smallest does not fit.
    """
    least = _dealt(known, LEAST_BATCH)
    if picked.has("batch_size"):
        return int(picked.pick("batch_size", least, ""))
    kind = picked.get("objective.kind")
    most, reason = LARGEST_BATCH.get(kind, 512), f"no more are known to help objective {kind}"
    limits = [(known.num_images // STEPS_OF_AN_EPOCH, f"{STEPS_OF_AN_EPOCH} iterations an epoch at least")]
    if not known.gpu:
        small = CPU_BATCH if known.start is None else CPU_LARGE_BATCH
        limits.append((small * known.processes, "a CPU"))
    limits += [] if known.start is None or known.start.masks else [(TOWER_BATCH * known.processes, "a model of timm")]
    for limit, why in limits:
        most, reason = (limit, why) if limit < most else (most, reason)
    batch = max(least, known.processes * 2 ** max(0, (most // known.processes).bit_length() - 1))
    while batch >= least and not _fits(picked, known, memory_of, {}, batch=batch):
        batch, reason = batch // 2, "as many as fit into the memory"
    if batch < least:
        raise ConfigError(
            f"auto: {least} images an iteration do not fit into {known.memory / 2**30:.1f} GiB; set crops.global_size, "
            "model.preset or batch_size smaller, or activation_checkpointing=true"
        )
    found: int = picked.pick("batch_size", batch, reason)
    return found


def _dealt(known: Circumstances, images: int) -> int:
    """The least batch of so many images or more that is a power of two for each process."""
    return known.processes * max(2, 2 ** ((images - 1) // known.processes).bit_length())


def _fits(picked: Picked, known: Circumstances, memory_of: MemoryOf, change: Mapping[str, Any], *, batch: int) -> bool:
    """Whether the settings so far, with a change, take no more than a training's share of the memory."""
    values = copied(picked.values)
    for name, fields in change.items():
        values[name] = {**values.get(name, {}), **fields}
    values["batch_size"] = batch
    values["objective"] = {**values["objective"], "koleo_group": None}  # of another batch, where it is given
    return memory_of(values) <= SHARES[known.gpu] * known.memory


def pick_iterations(picked: Picked, known: Circumstances, batch: int) -> int:
    """Length of the run, by the images that it shows."""
    seen, reason = shown_images(known.num_images), "200 epochs up to ImageNet-1k, as in its short recipe; fewer beyond"
    if known.start is not None:
        seen, reason = seen // 10, "a tenth of what a run from scratch shows, at most 25,000 iterations"
        seen = min(seen, LONGEST_CONTINUED * batch)
    if not known.gpu and seen > CPU_IMAGES:
        seen, reason = CPU_IMAGES, f"{CPU_IMAGES:,} images shown on a CPU"
    wanted = round(seen / batch)
    if wanted > MOST_ITERATIONS:
        wanted, reason = MOST_ITERATIONS, "as many as DINOv2's long recipe has; more take months"
    if wanted < LEAST_ITERATIONS:
        wanted, reason = LEAST_ITERATIONS, "fewer do not let heads and averages settle"
    iterations: int = picked.pick("iterations", wanted, reason)
    picked.pick(
        "checkpoint_every", max(100, min(1000, iterations // 10)), "ten in a run, 100 to 1,000 iterations apart"
    )
    return iterations


def shown_images(num_images: int) -> int:
    """Images that a run from scratch shows: 200 epochs up to ImageNet-1k's 1.28 million (256 million images in DINOv2's
    short recipe), then a power of their number that reaches the long recipe's 1.92 billion at 142 million."""
    known, most = 1_280_000, 200
    return round(most * min(num_images, known) * max(1.0, num_images / known) ** 0.428)


def pick_depths(picked: Picked, iterations: int) -> None:
    """Stochastic depth and LayerScale of fresh weights, by the length of the run."""
    long, larger = iterations >= 50_000, picked.get("model.preset") in ("large", "giant")
    drop = 0.3 if long and larger else 0.1 if long else 0.0
    picked.pick("model.drop_path", drop, f"{iterations:,} iterations; 0.3 in DINOv2 is for ViT-L in long runs")
    picked.pick(
        "model.layer_scale", 1e-5 if long else 1.0, "1e-5 as in DINOv2 would leave the blocks of short runs idle"
    )


def pick_adapting(picked: Picked, known: Circumstances) -> None:
    """What of a given backbone learns: less of it the fewer the images are, so that it gets no worse."""
    picked.pick("heads", "warm-up", "fresh heads settle before they move the backbone")
    picked.pick("model.drop_path", 0.0 if known.num_images < LEJEPA_IMAGES else 0.1, "few iterations need little of it")
    fixed = picked.has("last_blocks") or (picked.has("lora") and picked.get("lora") is None)
    if known.start is not None and known.start.depth and known.num_images < LORA_IMAGES and not fixed:
        why = f"{known.num_images:,} images do not bear a change of all weights; low-rank ones, arXiv:2106.09685"
        picked.pick("lora.rank", 8, why)


def pick_optimizer(picked: Picked, known: Circumstances, kind: str, iterations: int) -> None:
    """Learning rate, its warm-up, weight decay, layer decay."""
    if picked.get("lora.rank") is not None:
        rate, batch, why = LORA_RATE, 1024, "low-rank changes, which start at none and bear higher rates"
    elif known.start is not None:
        rate, batch, why = 1e-4, 1024, "well below a run from scratch, as in train/continue_vits14"
    elif kind == "lejepa":
        rate, batch, why = 5e-4, 256, "LeJEPA, arXiv:2511.08544"
    else:
        rate, batch, why = auto_learning_rate(known.num_images), 1024, "DINOv2, by the number of images"
    picked.pick("optimizer.base_lr", rate, why)
    picked.pick("optimizer.lr_batch", batch, "batch of that learning rate")
    picked.pick("optimizer.warmup_iterations", iterations // 10, "a tenth of the run, as in DINOv2's short recipe")
    if kind == "lejepa":
        picked.pick("optimizer.weight_decay", [0.05, 0.05], "LeJEPA, arXiv:2511.08544")
    if known.start is not None and known.start.depth:
        picked.pick("optimizer.layer_decay", 0.75, "early blocks move least, as in fine-tuning, arXiv:2111.06377")
    elif known.start is None and kind in PROTOTYPES:
        picked.pick("optimizer.layer_decay", 0.9, "DINOv2's short recipe")
    if known.start is None and iterations < 50_000:
        picked.pick("optimizer.patch_embed_lr", 1.0, "short runs need their patches soon; 0.2 in DINOv2")


def pick_targets(picked: Picked, known: Circumstances, kind: str, batch: int, iterations: int) -> None:
    """The teacher's average, and prototypes and KoLeo of the objectives that have them."""
    momentum = auto_momentum(iterations, batch)
    why = "averages over as many images as DINOv2's 0.992, over 5 % of the run at most"
    if known.start is not None:
        momentum = max(momentum, min(0.999, 1 - 5 / iterations))
        why = "slow, since what the backbone knows is worth keeping: 0.999, over a fifth of the run at most"
    picked.pick("objective.teacher_momentum", round(momentum, 6), why)
    if kind not in PROTOTYPES:
        return
    prototypes, why = few_prototypes(known.num_images), "58 sqrt(images), but 8 images each at least"
    if known.short:
        prototypes = min(prototypes, short_runs.MOST_PROTOTYPES)
        why = "no more than a batch on a CPU has images, so that these must share them"
        picked.take(short_runs.HEADS)
    picked.pick("objective.prototypes", prototypes, why)
    images = batch // (picked.get("accumulate") or 1)
    group = gcd(16, images)
    why = "16 images in DINOv3: in larger groups the nearest neighbor is more often of the same kind"
    picked.pick("objective.koleo_group", group if group > 1 else None, why)


def few_prototypes(num_images: int) -> int:
    """Number of prototypes, a power of two: `auto_prototypes`, but an eighth of the images at most, and 64 at least."""
    eighth = max(1, num_images // 8)
    return min(auto_prototypes(num_images), max(64, 2 ** (eighth.bit_length() - 1)))
