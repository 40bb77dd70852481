import pytest

from curate.errors import ConfigError
from curate.models.thresholds import Thresholds, copy_thresholds, verification


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


def test_verification_needs_a_calibrated_model() -> None:
    known = verification("lite0-copy")
    assert known.floor < copy_thresholds("lite0-copy").heldout_threshold
    with pytest.raises(ConfigError, match=r"sscd: no calibrated values to verify copies with; set copies.verify=false"):
        verification("sscd")
