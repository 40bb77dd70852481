import pytest

from curate.engine.numbers import count, plural, rate, seconds, share


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 10**6, "< 0.1 %"),
        (10**6 - 1, 10**6, "> 99.9 %"),
        (1, 3, "33.3 %"),
        (0, 0, "0 %"),
    ],
)
def test_share_never_rounds_to_nothing_or_to_everything(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_units_grow_with_the_number() -> None:
    assert [seconds(s) for s in (0.04, 119, 120, 7200)] == ["0.0 s", "119.0 s", "2.0 min", "2.0 h"]
    assert count(1234567) == "1,234,567"
    assert [plural(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]


def test_rates_have_a_decimal_only_where_it_matters() -> None:
    assert [rate(2.5), rate(99.94), rate(2500.4)] == ["2.5", "99.9", "2,500"]
