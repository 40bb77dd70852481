"""The seam for training on several processes: whatever is combined over ranks goes through here."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class World:
    """The processes that train together. This form has one, so combining over ranks changes nothing."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if self.size != 1:
            raise ValueError(f"a world of {self.size} processes; this trainer runs in one")

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values` over all ranks, on every rank."""
        return values

    def max(self, values: Tensor) -> Tensor:
        """Elementwise maximum of `values` over all ranks, on every rank."""
        return values
