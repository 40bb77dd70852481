"""How batches are dealt to processes and passes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curate.errors import ConfigError


@dataclass(frozen=True)
class BatchSplit:
    """The part of every batch that one process gets: a contiguous slice of each micro-batch.

    A batch is `batch_size` consecutive samples. It is cut into `accumulate` equal micro-batches, one for each forward
    pass, and each of these into one slice for each process. So all processes together see the batch that a single
    process would see, in order.
    """

    batch_size: int  # images of an iteration, of all processes together
    accumulate: int = 1  # micro-batches of an iteration
    rank: int = 0
    size: int = 1  # processes

    def __post_init__(self) -> None:
        """Check that every process gets as many images.

        Raises:
            ConfigError: they do not.
        """
        step = self.accumulate * self.size
        if self.batch_size % step:
            fitting = [n * step for n in (self.batch_size // step, self.batch_size // step + 1) if n]
            raise ConfigError(
                f"batch_size {self.batch_size} cannot be dealt evenly to {self.accumulate} passes (accumulate) of "
                f"{self.size} processes; set batch_size={' or '.join(map(str, fitting))}"
            )

    @property
    def num_images(self) -> int:
        """Images of one micro-batch on one process."""
        return self.batch_size // (self.accumulate * self.size)

    def owns(self, samples: np.ndarray) -> np.ndarray:
        """Which of the sample numbers are this process's; they may be of any stream made of whole batches."""
        return samples // self.num_images % self.size == self.rank

    def micro_batches(self, start: int) -> Iterator[list[int]]:
        """This process's sample numbers of each micro-batch from sample number `start` on, without end."""
        start += self.rank * self.num_images
        while True:
            yield list(range(start, start + self.num_images))
            start += self.size * self.num_images
