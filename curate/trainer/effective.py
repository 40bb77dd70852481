"""The numbers that a run trains with: what each `auto` becomes on these images, and what the settings amount to."""

import math
from typing import Literal

from curate.config import Settings
from curate.errors import ConfigError
from curate.trainer.config import TrainConfig
from curate.trainer.objectives.settings import PrototypeSettings


class Effective(Settings):
    """What each `auto` became, and what the numbers amount to."""

    num_images: int
    """Number of rows of the shards."""
    num_samples: int
    """Samples of an epoch: images times their repeats."""
    prototypes: int
    """Number of prototypes of a head, or of images that are told apart one by one; 0 for objectives without both."""
    teacher_temperature_iterations: int
    """Iterations over which the teacher's temperature rises."""
    teacher_momentum: float
    """Momentum of the teacher's moving average at the start."""
    warmup_iterations: int
    """Iterations over which the learning rate rises."""
    freeze_last_layer_iterations: int
    """Iterations before the prototypes learn."""
    learning_rate: float
    """Peak of the learning rate: `base_lr` scaled to the batch."""
    lr_scale: float
    """Factor from a `base_lr` to the learning rate of this batch size."""
    epochs: float
    """Number of times that every sample is shown."""
    images_seen: int
    """Number of samples over the whole run."""


def resolve_auto(config: TrainConfig, *, num_images: int, num_samples: int, prototypes: int | None = None) -> Effective:
    """Replace every `auto` by a number.

    Args:
        prototypes: of the heads that the run starts from or distills; None: fresh heads.

    Raises:
        ConfigError: the warm-up leaves no iteration for the cosine, or prototypes contradict the given heads.
    """
    iterations, objective, optimizer = config.iterations, config.objective, config.optimizer
    warmup = _count(optimizer.warmup_iterations, iterations // 10)
    if warmup >= iterations:
        raise ConfigError(f"optimizer.warmup_iterations is {warmup} of {iterations} iterations; it must be smaller")
    momentum, base_lr = objective.teacher_momentum, optimizer.base_lr
    num_prototypes, rise = objective.outputs(num_images), 0
    if isinstance(objective, PrototypeSettings):
        num_prototypes = _count(objective.prototypes, prototypes or auto_prototypes(num_images))
        rise = _count(objective.teacher_temperature_iterations, iterations * 3 // 10)
    if prototypes is not None and num_prototypes != prototypes:
        raise ConfigError(
            f"objective.prototypes is {num_prototypes}, the given heads have {prototypes}; set it to that or to auto"
        )
    ratio = config.batch_size / optimizer.lr_batch
    scale = ratio if optimizer.lr_scaling == "linear" else ratio**0.5
    return Effective(
        num_images=num_images,
        num_samples=num_samples,
        prototypes=num_prototypes,
        teacher_temperature_iterations=rise,
        teacher_momentum=auto_momentum(iterations, config.batch_size) if momentum == "auto" else momentum,
        warmup_iterations=warmup,
        freeze_last_layer_iterations=_count(optimizer.freeze_last_layer_iterations, iterations // 100),
        learning_rate=(auto_learning_rate(num_images) if base_lr == "auto" else base_lr) * scale,
        lr_scale=scale,
        epochs=iterations * config.batch_size / num_samples,
        images_seen=iterations * config.batch_size,
    )


def auto_learning_rate(num_images: int) -> float:
    """Learning rate at batch 1024: 4e-3 up to ImageNet-1k's 1.28 million images (short recipe); beyond it a power
    of the number of images that reaches 2e-4 at LVD-142M (long recipe)."""
    short, long = (1.28e6, 4e-3), (142e6, 2e-4)
    slope = math.log(long[1] / short[1]) / math.log(long[0] / short[0])
    return short[1] * max(1.0, num_images / short[0]) ** slope


def auto_prototypes(num_images: int) -> int:
    """Power of two nearest 58 sqrt(images), between 256 and 131072: 65536 at ImageNet-1k's 1.28 million."""
    exponent = round(math.log2(58 * num_images**0.5))
    return 2 ** min(max(exponent, 8), 17)


def auto_momentum(iterations: int, batch_size: int) -> float:
    """Momentum that averages over as many images at any batch as 0.992 does at 2048; in short runs over 5 % of the run,
    so that the teacher can follow.

    Source: the scaling rule of averages, Busbridge et al. 2023, arXiv:2307.13813.
    """
    return min(0.992 ** (batch_size / 2048), max(0.9, 1 - 20 / iterations))


def _count(value: Literal["auto"] | int, auto: int) -> int:
    return auto if value == "auto" else value
