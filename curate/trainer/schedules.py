"""Values that change with the iteration, each in closed form: there is no table and no state to resume.

A schedule is a row of pieces, and the last one that has begun says the value. A phase changes a schedule by other
pieces from its first iteration on. What lies before stays, so that it can be compared: a run may go on under other
settings if the pieces of the iterations that it has done are equal.
"""

import math
from typing import Literal, NamedTuple

Shape = Literal["linear", "cosine", "logistic"]


class Piece(NamedTuple):
    """A way from one value to another, after which the other stays."""

    start: int
    """Iteration at which it begins, from 0."""
    stop: int
    """Iteration from which on the value is `last`; `start` for a constant."""
    first: float
    last: float
    shape: Shape = "linear"
    """Along a line; along half a cosine, which begins and ends flat; or 2 / (1 + exp(-10 p)) - 1 of the way at the
    share p of the time, which begins steeply and ends flat (Ganin and Lempitsky 2015, arXiv:1409.7495)."""

    def at(self, step: int) -> float:
        """The value of iteration `step`, which is not before `start`."""
        if step >= self.stop:
            return self.last
        if self.shape == "linear":
            return self.first + (self.last - self.first) * (step - self.start) / (self.stop - self.start)
        progress = (step - self.start) / (self.stop - self.start)
        if self.shape == "logistic":
            return self.first + (self.last - self.first) * (2 / (1 + math.exp(-10 * progress)) - 1)
        return self.last + 0.5 * (self.first - self.last) * (1 + math.cos(math.pi * progress))


Schedule = tuple[Piece, ...]
"""Pieces in order of their starts; the first begins at 0."""


def constant(value: float, start: int = 0) -> Piece:
    """`value` from `start` on."""
    return Piece(start, start, value, value)


def value_at(schedule: Schedule, step: int) -> float:
    """The value of iteration `step`, counted from 0."""
    return next(piece for piece in reversed(schedule) if piece.start <= step).at(step)


def warmup_cosine(start: float, end: float, *, num_steps: int, warmup: int = 0) -> Schedule:
    """Linear from 0 to `start` over `warmup` steps, then half a cosine down, or up, to `end` at `num_steps`."""
    rise = (Piece(0, warmup, 0.0, start),) if warmup else ()
    return (*rise, Piece(warmup, num_steps, start, end, "cosine"))


def warmup_constant(value: float, *, warmup: int = 0) -> Schedule:
    """Linear from 0 to `value` over `warmup` steps, constant from there on."""
    rise = (Piece(0, warmup, 0.0, value),) if warmup else ()
    return (*rise, constant(value, warmup))


def linear_then_constant(start: float, end: float, *, num_steps: int) -> Schedule:
    """Linear from `start` to `end` over `num_steps` steps, `end` from there on."""
    return (Piece(0, num_steps, start, end),)


def changed_from(schedule: Schedule, pieces: Schedule) -> Schedule:
    """`schedule` until the first of `pieces` begins, and these from there on."""
    return (*(piece for piece in schedule if piece.start < pieces[0].start), *pieces)


def begun(schedule: Schedule, step: int) -> list[Piece]:
    """The pieces that say the values of the iterations before `step`."""
    return [piece for piece in schedule if piece.start < step]


def describe(schedule: Schedule) -> str:
    """A schedule in words, such as `from 0: 0 to 0.0004 (linear) until 100000, from 100000: 0.0004`."""
    return ", ".join(map(_describe_piece, schedule))


def _describe_piece(piece: Piece) -> str:
    if piece.start == piece.stop or piece.first == piece.last:
        return f"from {piece.start}: {piece.last:.4g}"
    return f"from {piece.start}: {piece.first:.4g} to {piece.last:.4g} ({piece.shape}) until {piece.stop}"
