import pytest

from curate.errors import ConfigError
from curate.models.thresholds import Thresholds, copy_thresholds, verification


def test_sscd_has_the_thresholds_of_the_paper() -> None:
    assert copy_thresholds("sscd") == Thresholds(self_=0.6, relative=0.45)


def test_given_values_come_before_the_calibrated_ones() -> None:
    assert copy_thresholds("sscd", given_self=0.7) == Thresholds(0.7, 0.45)
    assert copy_thresholds("sscd", given_relative=0.0) == Thresholds(0.6, 0.0)
    assert copy_thresholds("timm/x", given_self=0.9, given_relative=0.8) == Thresholds(0.9, 0.8)


@pytest.mark.parametrize(("given", "missing"), [({}, "self"), ({"given_self": 0.9}, "relative")])
def test_a_model_without_calibration_needs_both(given: dict[str, float], missing: str) -> None:
    with pytest.raises(ConfigError, match=f"timm/x: no calibrated {missing} threshold .* set both"):
        copy_thresholds("timm/x", **given)


def test_verification_needs_a_calibrated_model() -> None:
    known = verification("lite0-copy")
    assert known.floor < copy_thresholds("lite0-copy").relative
    with pytest.raises(ConfigError, match=r"sscd: no calibrated values to verify copies with; set copies.verify=false"):
        verification("sscd")
