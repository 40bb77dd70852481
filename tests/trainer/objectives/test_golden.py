import pytest

from tests.trainer.objectives.golden import CASES, measure, read_golden


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_dinov2_is_still_the_one_of_its_authors(case):
    wanted, found = read_golden()[case], measure(case)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    assert found["terms"] == pytest.approx(wanted["terms"], rel=1e-6)
    assert found["gradients"].keys() == wanted["gradients"].keys()
    for name, (norm, product) in wanted["gradients"].items():
        assert found["gradients"][name] == pytest.approx([norm, product], abs=1.6e-6 * norm), name
