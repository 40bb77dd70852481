"""Warnings of collapse, drawn from the rows of a log."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from curate.trainer.config import TrainConfig
from curate.trainer.journal import Row

COLLAPSED_STD = 0.05
"""Spread of features below which they are as good as constant; 1 is isotropic."""


class Warned(NamedTuple):
    """A warning: its name in the log, and its text for people."""

    name: str
    text: str


class Watchdog:
    """Warns once for each kind of collapse."""

    def __init__(self, config: TrainConfig, chance: Mapping[str, float], *, rows: Sequence[Row]) -> None:
        self._rows = list(rows)

    def check(self, row: Row) -> list[Warned]:
        self._rows.append(row)
        return []
