import pytest

from curate.errors import ConfigError
from curate.models.thresholds import (
    HASH_THRESHOLD,
    NEAREST_HASH,
    STRONG_HASH,
    VERIFICATION,
    CopyRule,
    Thresholds,
    Verification,
    copy_thresholds,
    unverified,
    verification,
    verified,
)


def test_sscd_has_the_thresholds_of_the_paper() -> None:
    assert copy_thresholds("sscd") == Thresholds(threshold=0.6, heldout_threshold=0.45)


def test_given_values_come_before_the_calibrated_ones() -> None:
    assert copy_thresholds("sscd", threshold=0.7) == Thresholds(0.7, 0.45)
    assert copy_thresholds("sscd", heldout_threshold=0.0) == Thresholds(0.6, 0.0)
    assert copy_thresholds("timm/x", threshold=0.9, heldout_threshold=0.8) == Thresholds(0.9, 0.8)


@pytest.mark.parametrize(("given", "missing"), [({}, "threshold"), ({"threshold": 0.9}, "heldout_threshold")])
def test_a_model_without_calibration_needs_both(given: dict[str, float], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"timm/x: no calibrated {missing} for copies; set"):
        copy_thresholds("timm/x", **given)


@pytest.mark.parametrize("model", sorted(VERIFICATION))
def test_pairs_are_tried_below_what_counts_alone(model: str) -> None:
    known = verification(model)
    assert known.floor <= copy_thresholds(model).heldout_threshold
    assert known.floor < known.alike < known.sure


def test_verification_needs_a_model_whose_pairs_are_known() -> None:
    message = r"timm/x: it is not known which of its pairs to verify; set copies.verify=false, or use .*: .*lite0-copy"
    with pytest.raises(ConfigError, match=message):
        verification("timm/x")


def test_what_a_file_declares_is_verified_first() -> None:
    known, tried = Thresholds(0.9, 0.8), Verification(floor=0.3, alike=0.4, sure=0.95, crowd_floor=0.3)
    assert verification("timm/x", declared=CopyRule(known, tried)) == tried
    assert verification("sscd", declared=CopyRule(known)) == VERIFICATION["sscd"]


def test_hashes_that_count_alone_are_nearer_where_more_is_asked() -> None:
    assert HASH_THRESHOLD < STRONG_HASH < NEAREST_HASH < 1
    assert pytest.approx(1 - 2 * 31 / 256) == STRONG_HASH


TRIED = Verification(floor=0.7, alike=0.8, sure=0.9, crowd_floor=0.6)


@pytest.mark.parametrize(
    ("given", "heldout", "search", "floor", "certain"),
    [
        (None, None, (0.6, 0.6), (0.7, 0.7), (0.9, 0.9)),
        (0.8, None, (0.6, 0.6), (0.7, 0.7), (0.9, 0.9)),  # what has been verified is cut off later
        (0.95, None, (0.6, 0.6), (0.7, 0.7), (0.95, 0.9)),  # stricter with the pool, not with held-out images
        (0.65, None, (0.6, 0.6), (0.65, 0.65), (0.9, 0.9)),
        (0.5, None, (0.5, 0.5), (0.5, 0.5), (0.9, 0.9)),
        (0.5, 0.8, (0.5, 0.6), (0.5, 0.7), (0.9, 0.9)),
        (None, 0.5, (0.6, 0.5), (0.7, 0.5), (0.9, 0.9)),
        (0.8, 0.95, (0.6, 0.6), (0.7, 0.7), (0.9, 0.95)),
    ],
)
def test_a_given_threshold_lowers_what_is_verified_or_cuts_what_counts(
    given: float | None,
    heldout: float | None,
    search: tuple[float, float],
    floor: tuple[float, float],
    certain: tuple[float, float],
) -> None:
    rule = verified(given, heldout, known=TRIED)
    found = [(one.threshold, one.heldout_threshold) for one in (rule.search, rule.floor, rule.certain)]
    assert found == [search, floor, certain]
    assert (rule.least, rule.heldout_least, rule.sure) == (given, heldout, TRIED.sure)


@pytest.mark.parametrize("given", [None, *(number / 20 for number in range(-20, 21))])
@pytest.mark.parametrize("known", [None, Thresholds(0.6, 0.45), Thresholds(0.9, 0.9)])
def test_without_a_threshold_of_their_own_heldout_images_are_never_compared_more_strictly(
    given: float | None, known: Thresholds | None
) -> None:
    found = unverified(given, None, known=known)
    if given is None:
        assert found == known
        return
    assert found is not None
    assert found.threshold == given
    assert -1 <= found.heldout_threshold <= given
    if known is not None:
        assert found.heldout_threshold <= known.heldout_threshold


def test_a_given_heldout_threshold_is_taken_as_it_is() -> None:
    assert unverified(0.5, 0.9, known=Thresholds(0.6, 0.45)) == Thresholds(0.5, 0.9)
    assert unverified(None, 0.9, known=Thresholds(0.6, 0.45)) == Thresholds(0.6, 0.9)
