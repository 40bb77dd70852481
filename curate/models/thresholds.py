"""Similarities from which on two images are copies: they belong to a model, and hold for no other."""

from dataclasses import dataclass

from curate.errors import ConfigError
from curate.ops.images.hashes import MATCH_BITS, bits_to_cosine


@dataclass(frozen=True)
class Thresholds:
    """Cosines; an edge joins two images at or above them."""

    self_: float
    """Between two images of the pool."""
    relative: float
    """Between an image of the pool and a held-out one."""


COPY_THRESHOLDS = {
    "sscd": Thresholds(self_=0.6, relative=0.45),  # DINOv2, arXiv:2304.07193, appendix A
    "lite0-copy": Thresholds(self_=0.92, relative=0.9),  # `python -m benchmarks copies`, joined by PDQ at <= 40 bits
    "pdq": Thresholds(self_=bits_to_cosine(MATCH_BITS), relative=bits_to_cosine(MATCH_BITS)),  # beside lite0-copy
}
"""By model id; calibrated on planted copies or taken from a paper."""


@dataclass(frozen=True)
class Verification:
    """How pairs of a model are verified, see `stages/copies/verify.py`."""

    floor: float
    """Cosine from which on a pair is tried."""
    threshold: float
    """Score from which on a tried pair counts."""
    heldout_threshold: float
    """The same for a pair with a held-out image."""


VERIFICATION = {
    "lite0-copy": Verification(floor=0.8, threshold=0.79, heldout_threshold=0.79),  # `python -m benchmarks copies`
}
"""By model id; calibrated on planted copies of the bundled photographs."""


def verification(model: str) -> Verification:
    """What is known for the model.

    Raises:
        ConfigError: nothing is.
    """
    if model not in VERIFICATION:
        raise ConfigError(
            f"{model}: no calibrated values to verify copies with; set copies.verify=false, or use a model that has "
            f"them: {', '.join(sorted(VERIFICATION))}"
        )
    return VERIFICATION[model]


def copy_thresholds(model: str, *, given_self: float | None = None, given_relative: float | None = None) -> Thresholds:
    """The thresholds to use: given ones first, then those that belong to the model.

    Raises:
        ConfigError: one is neither given nor known for this model.
    """
    known = COPY_THRESHOLDS.get(model)
    chosen_self = given_self if given_self is not None or known is None else known.self_
    chosen_relative = given_relative if given_relative is not None or known is None else known.relative
    if chosen_self is None or chosen_relative is None:
        missing = "self" if chosen_self is None else "relative"
        raise ConfigError(
            f"{model}: no calibrated {missing} threshold for copies; set both thresholds in the config, "
            f"or use a model that has them: {', '.join(sorted(COPY_THRESHOLDS))}"
        )
    return Thresholds(chosen_self, chosen_relative)
