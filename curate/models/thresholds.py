"""How similar two images must be to count as copies: values that belong to one model and hold for no other."""

from dataclasses import dataclass

from curate.errors import ConfigError
from curate.ops.images.hashes import MATCH_BITS, bits_to_cosine


@dataclass(frozen=True)
class Thresholds:
    """Cosine similarities; two images are joined by an edge when theirs is at least as large."""

    threshold: float
    """Between two images of the pool."""
    heldout_threshold: float
    """Between an image of the pool and a held-out one."""


HASH_THRESHOLD = bits_to_cosine(MATCH_BITS)
"""Cosine of two PDQ hashes, as vectors of +-1, that differ in as many bits as copies may."""
STRONG_HASH = bits_to_cosine(31)
"""The same at the distance that PDQ's authors publish: pictures of one layout, too, are hardly ever so near."""
NEAREST_HASH = bits_to_cosine(16)
"""The same where hashes of several different pictures are near, as those of frames of one camera may be."""

COPY_THRESHOLDS = {
    "sscd": Thresholds(threshold=0.6, heldout_threshold=0.45),  # DINOv2, arXiv:2304.07193, appendix A
    # Measured by `python -m benchmarks copies` on planted copies, beside PDQ at 40 bits or fewer.
    "lite0-copy": Thresholds(threshold=0.92, heldout_threshold=0.9),
    "pdq": Thresholds(threshold=HASH_THRESHOLD, heldout_threshold=HASH_THRESHOLD),
}
"""By model id: calibrated on planted copies, or taken from a paper."""


@dataclass(frozen=True)
class Verification:
    """Which pairs are verified by laying one image over the other, see `stages/copies/verified_pairs.py`."""

    floor: float
    """Smallest cosine similarity of a pair that is tried; in crowds `crowd_floor` is."""
    alike: float
    """Cosine from which on two images look alike, see `FindCrowds`."""
    sure: float
    """Cosine from which on there is nothing to verify."""
    crowd_floor: float
    """Smallest cosine similarity of a pair of images in crowds that is tried: copies of pages are less alike."""


SSCD_VERIFICATION = Verification(floor=0.4, alike=0.55, sure=0.75, crowd_floor=0.3)
"""Of SSCD and its int8 and distilled forms. On 338 photographs and 1,014 planted copies of them, with PDQ at 31 bits:
precision 0.998 and recall 0.968 (int8), 0.999 and 0.977 (distilled)."""
VERIFICATION = {
    "lite0-copy": Verification(floor=0.7, alike=0.8, sure=0.92, crowd_floor=0.6),  # `python -m benchmarks copies`
    "sscd": SSCD_VERIFICATION,
}
"""By model id. What a tried pair must reach does not depend on the model: `REGISTRATION`."""

REGISTRATION = Thresholds(threshold=0.5, heldout_threshold=0.45)
"""Score from which on a pair that was laid over each other is one of copies, see `ops/copies/registration.py`; chosen
on copies planted on the bundled photographs."""


@dataclass(frozen=True)
class CopyRule:
    """What is known of copies in the vectors of one model: of those that are not listed here, its file declares it."""

    thresholds: Thresholds
    """Cosine similarities from which pairs count."""
    verification: Verification | None = None
    """Which pairs are verified; None: none."""


def verification(model: str, *, declared: CopyRule | None = None) -> Verification:
    """Which pairs of the model are verified.

    Args:
        declared: what the model's own file declares.

    Raises:
        ConfigError: the model has none.
    """
    if declared is not None and declared.verification is not None:
        return declared.verification
    if model not in VERIFICATION:
        raise ConfigError(
            f"{model}: it is not known which of its pairs to verify; set copies.verify=false, or use a model that has "
            f"them: {', '.join(sorted(VERIFICATION))}"
        )
    return VERIFICATION[model]


@dataclass(frozen=True)
class VerifiedRule:
    """Cosines by which pairs are found, verified and counted, see `verified`."""

    search: Thresholds
    """From which on the search finds pairs; in crowds all of them are verified."""
    floor: Thresholds
    """From which on pairs are verified elsewhere."""
    sure: float
    """From which on they are not, but in crowds."""
    certain: Thresholds
    """From which on pairs count unverified, but in crowds."""
    least: float | None
    """From which on verified pairs of pool and curated images count; None: all."""
    heldout_least: float | None
    """The same of pairs with held-out images."""


def verified(given: float | None, heldout: float | None, *, known: Verification) -> VerifiedRule:
    """What given thresholds mean where pairs are verified: a pair below one never counts, whatever it is laid over.

    - At or above the model's `sure` a pair counts unverified, from the larger of both values on.
    - Between the threshold and `sure` it is doubtful: it counts if the pictures agree.
    - A threshold below `floor`, which is the smallest cosine that is verified without one, lowers that too, and one
      below `crowd_floor` the search: then more pairs are laid over each other, and pictures opened for it. Any other
      threshold is applied to pairs that have been verified anyway, so that changing it opens no picture.
    - In crowds no cosine decides. There, too, a pair counts from the threshold on, if it stands out.
    - Without a threshold of its own a pair with a held-out image counts as it does for the model, at any threshold of
      the pool: whoever is stricter with the pool does not want more of the benchmark in it. It is verified as far down
      as the pool's.

    Args:
        given: for pairs of pool and curated images; None: the model's values.
        heldout: for pairs with a held-out image.
    """
    own = [given] if given is not None else []
    asked = [heldout] if heldout is not None else own
    return VerifiedRule(
        search=Thresholds(min([known.crowd_floor, *own]), min([known.crowd_floor, *asked])),
        floor=Thresholds(min([known.floor, *own]), min([known.floor, *asked])),
        sure=known.sure,
        certain=Thresholds(max([known.sure, *own]), max(known.sure, known.sure if heldout is None else heldout)),
        least=given,
        heldout_least=heldout,
    )


def unverified(given: float | None, heldout: float | None, *, known: Thresholds | None) -> Thresholds | None:
    """The thresholds where they alone decide; None: they are neither given nor known.

    Without one of its own, the held-out threshold is the model's, and never stricter than the pool's: it lies at least
    as far below that as the model's two values are apart.
    """
    if given is None and known is None:
        return None
    pool = known.threshold if given is None and known is not None else given
    assert pool is not None
    if heldout is None:
        gap = 0.0 if known is None else known.threshold - known.heldout_threshold
        heldout = pool if known is None else min(known.heldout_threshold, round(pool - gap, 6))
    return Thresholds(pool, max(heldout, -1.0))


def copy_thresholds(
    model: str,
    *,
    threshold: float | None = None,
    heldout_threshold: float | None = None,
    declared: CopyRule | None = None,
) -> Thresholds:
    """The thresholds to use: given ones first, then those that belong to the model.

    Args:
        declared: what the model's own file declares.

    Raises:
        ConfigError: one is neither given nor known for this model.
    """
    known = declared.thresholds if declared is not None else COPY_THRESHOLDS.get(model)
    if known is not None:
        threshold = known.threshold if threshold is None else threshold
        heldout_threshold = known.heldout_threshold if heldout_threshold is None else heldout_threshold
    if threshold is None or heldout_threshold is None:
        missing = "threshold" if threshold is None else "heldout_threshold"
        raise ConfigError(
            f"{model}: no calibrated {missing} for copies; set copies.threshold to a number or to auto, which measures "
            f"it, or use a model that has one: {', '.join(sorted(COPY_THRESHOLDS))}"
        )
    return Thresholds(threshold, heldout_threshold)
