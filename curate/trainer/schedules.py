"""Values that change with the iteration, each in closed form: there is no table and no state to resume."""

import math


def warmup_cosine(
    step: int, *, start: float, end: float, num_steps: int, warmup: int = 0, warmup_start: float = 0.0
) -> float:
    """Linear from `warmup_start` to `start` over `warmup` steps, then half a cosine down (or up) to `end`.

    Args:
        step: iteration, from 0; at `num_steps` and beyond the value is `end`.
        num_steps: iterations in all, warm-up included.
    """
    if step < warmup:
        return warmup_start + (start - warmup_start) * step / warmup
    if step >= num_steps:
        return end
    progress = (step - warmup) / (num_steps - warmup)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def linear_then_constant(step: int, *, start: float, end: float, num_steps: int) -> float:
    """Linear from `start` to `end` over `num_steps` steps, `end` from there on."""
    if step >= num_steps:
        return end
    return start + (end - start) * step / num_steps
