"""The matrix of formats x depths x faults: every verdict, and every pixel beside what was written and beside OpenCV."""

import pytest

from benchmarks.formats import Case, bench_formats, cases, check
from curate.ops.images import formats
from curate.ops.images.decoders import has_decoder


def test_every_file_of_the_matrix_is_right() -> None:
    assert all(has_decoder(form) for form in formats.READ), "install the extras: pip install -e '.[dev]'"
    figures, wrong = bench_formats()
    assert wrong == []
    assert sum(figure.value for figure in figures) > 750
    assert {figure.name for figure in figures} >= formats.READ.keys()
    compared = sum(int(figure.note.split()[0]) for figure in figures)
    assert compared > 70


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_wrong_pixel_and_a_wrong_verdict_are_found(form: str) -> None:
    case = next(case for case in cases() if case.form == form and case.wanted is not None)
    assert case.wanted is not None
    other = Case(form, "", case.data, 255 - case.wanted, near=1)
    assert "of 255 from what was written" in check(other).found
    assert "accepted (None), not corrupt" in check(Case(form, "", case.data, reject="corrupt")).found
