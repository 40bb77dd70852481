"""Settings of guides: columns of the shards that features are to tell, or to hide. Importing this costs no torch."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from curate.config import Settings

if TYPE_CHECKING:
    from curate.trainer.config import TrainSettings

ADVERSARY_HIDDEN = 256
"""Width of an adversary's hidden layer by default: what a linear one cannot read, this one often can."""

ADVERSARY_RATE = 10.0
"""Factor on an adversary's learning rate by default. On pictures with a planted tint, of which a linear probe of 40
images told 93 % without a guide, it told 90 % at factor 1 and 55 % at 10 (`tests/trainer/test_guides.py`)."""


class GuideSettings(Settings):
    """A column of the shards whose value a small head reads from the student's class token of each global crop."""

    column: str = Field(min_length=1)
    """Name of the column. Its distinct values are classes, found when the training starts: text, whole numbers or true
    and false, 10,000 at most. Images without a value count in the objective alone."""
    adversarial: bool = False
    """Whether the features are to hide the value: the head learns to read it, and the backbone gets the head's gradient
    reversed. Otherwise they are to show it."""
    weight: float = Field(default=1.0, gt=0.0)
    """Weight of the head's cross-entropy, a mean over the images of a pass that have a value; for the backbone of an
    adversarial guide times the ramp."""
    hidden: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Width of a hidden layer of the head; 0: it is linear. auto: 0, so that the value can be read linearly, and 256
    where it is to be hidden."""
    rate: Literal["auto"] | Annotated[float, Field(gt=0.0)] = "auto"
    """Factor on the learning rate of the head. auto: 1, and 10 where the value is to be hidden, since a head that is
    slower than the backbone that evades it keeps nothing from showing."""
    ramp: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Iterations over which the reversed gradient of an adversarial guide grows from 0 to its full strength, by
    2 / (1 + exp(-10 p)) - 1 at the share p of them; auto: those of the run, as published, which then cannot be made
    longer when it is resumed."""

    @property
    def key(self) -> str:
        """Name of the head among the student's networks, in which neither dots nor slashes may stand."""
        return "guide_" + re.sub(r"\W", "_", self.column)

    @property
    def width(self) -> int:
        """Width of the hidden layer; 0: none."""
        if self.hidden == "auto":
            return ADVERSARY_HIDDEN if self.adversarial else 0
        return self.hidden

    @property
    def lr_factor(self) -> float:
        """Factor on the learning rate of the head."""
        if self.rate == "auto":
            return ADVERSARY_RATE if self.adversarial else 1.0
        return self.rate

    def ramp_of(self, iterations: int) -> int:
        """Iterations of the ramp in a run of so many."""
        return iterations if self.ramp == "auto" else self.ramp


def check_guides(guides: Sequence[GuideSettings], training: "TrainSettings") -> None:
    """Compare guides with one another and with the rest of the training's settings.

    Raises:
        ValueError: they do not go together.
    """
    seen: dict[str, str] = {}
    for guide in guides:
        if guide.key in seen:
            raise ValueError(
                f"objective.guides: columns {seen[guide.key]!r} and {guide.column!r} are one, or differ only in signs; "
                "a column has one guide"
            )
        seen[guide.key] = guide.column
    if guides and training.students:
        raise ValueError("objective.guides guide one student; leave them out, or students")
