"""The first lines of a training's log: what the settings amount to on these images."""

import logging
from collections.abc import Mapping

from curate.feed.labels import Labels
from curate.trainer.config import TrainConfig
from curate.trainer.effective import Effective
from curate.trainer.guides import describe_guides

logger = logging.getLogger(__name__)


def announce(config: TrainConfig, effective: Effective, labels: Mapping[str, Labels], *, num_processes: int) -> None:
    """Log epochs, images seen, every value that `auto` became and the guides, and warn of a batch larger than the
    images."""
    logger.info(
        "pretraining on %d images: %d iterations of %d = %.1f epochs, %d images seen, %d processes",
        effective.num_images,
        config.iterations,
        config.batch_size,
        effective.epochs,
        effective.images_seen,
        num_processes,
    )
    if config.batch_size > effective.num_images:
        logger.warning(
            "batch_size %d is more than the %d images: a batch shows some of them twice",
            config.batch_size,
            effective.num_images,
        )
    logger.info(
        "peak learning rate %.3g, warm-up %d iterations, %d prototypes, teacher momentum %.4g, "
        "teacher temperature rises for %d iterations, prototypes frozen for %d",
        effective.learning_rate,
        effective.warmup_iterations,
        effective.prototypes,
        effective.teacher_momentum,
        effective.teacher_temperature_iterations,
        effective.freeze_last_layer_iterations,
    )
    for line in describe_guides(config, labels):
        logger.info("%s", line)
