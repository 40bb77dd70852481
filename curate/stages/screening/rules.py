"""Rules on scores: what an image must not be.

A rule looks at one column of scores and gives the column's name as its reason. Of several rules that an image breaks
the first one is recorded, in the order of the config. A score that was not measured (null) breaks no rule.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Discriminator, Tag, model_validator

from curate.config import Settings
from curate.ops.screening.where import parse_where
from curate.tables import SCORE


class Bounds(Settings):
    """The scores that an image may have."""

    above: float | None = None
    """Scores above it are rejected."""
    below: float | None = None
    """Scores below it are rejected."""
    with_copies: bool = False
    """Whether all copies of the image go with it, whatever their own scores."""

    @model_validator(mode="after")
    def _some_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("give above, below or both; where a column of true and false is to be false, write true")
        return self

    @property
    def text(self) -> str:
        """Such as `above 0.8`."""
        given = (("above", self.above), ("below", self.below))
        return " or ".join(f"{name} {bound:g}" for name, bound in given if bound is not None)

    def broken(self, score: pa.ChunkedArray) -> np.ndarray:
        """(N,) bool: which scores are out of bounds."""
        mask = np.zeros(len(score), bool)
        for bound, beyond in ((self.above, pc.greater), (self.below, pc.less)):
            if bound is not None:
                mask |= pc.fill_null(beyond(score.cast(pa.float64()), bound), False).to_numpy()
        return mask


def _kind(given: Any) -> str | None:
    if isinstance(given, Bounds | dict):
        return "bounds"
    return "true" if isinstance(given, bool) else "preset" if given == "preset" else None


Drop = Annotated[
    Annotated[Bounds, Tag("bounds")] | Annotated[Literal["preset"], Tag("preset")] | Annotated[bool, Tag("true")],
    Discriminator(
        _kind,
        custom_error_type="rule",
        custom_error_message="no rule; give bounds such as {above: 0.8}, preset or true",
    ),
]
"""What the config says of a score: bounds; preset, those that belong to it; or true: images of which it is true go."""


class ListRule(Settings):
    """What is done with the images that a list names."""

    name: str
    """Name of the list."""
    with_copies: bool = True
    """Whether all copies of a listed image go with it."""


class Rule(NamedTuple):
    """A rule on the scores of one column, checked against its type."""

    column: str
    bounds: Bounds
    flag: bool = False
    """The column is true or false, and must be false."""

    @property
    def text(self) -> str:
        """Such as `nudity above 0.8`."""
        return f"{self.column} is true" if self.flag else f"{self.column} {self.bounds.text}"


TRUE = Bounds(above=0.5)
"""Of a column of true and false what must be false."""


def resolve_bounds(given: Drop, field: pa.Field) -> Bounds | str:
    """The bounds that the config means for a column of scores; a text: why there are none."""
    boolean = pa.types.is_boolean(field.type)
    if given is False:
        return "=false: leave the rule out, or give bounds"
    if given is True:
        return TRUE if boolean else f"=true: the score is {field.type}, give bounds such as {{above: 0.5}}"
    if isinstance(given, Bounds):
        if boolean:
            return ": true or false, which has no bounds; write true"
        number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        return given if number else f": holds {field.type}, which has no bounds; use `where`"
    preset = (field.metadata or {}).get(SCORE, b"")
    if not preset:
        return "=preset: there is none for this score; give bounds such as {above: 0.5}"
    return Bounds(**json.loads(preset))


def list_copies(lists: tuple[ListRule, ...]) -> Mapping[str, bool]:
    """By name of a list: whether copies of its images go too."""
    return {one.name: one.with_copies for one in lists}


def where_names(text: str) -> tuple[str, ...]:
    """The columns of which a condition speaks, in order.

    Raises:
        ValueError: the text is no condition.
    """
    return parse_where(text).names
