"""The benchmark of junk tells shares before and after it was looked for."""

import pytest

from benchmarks.junk import bench_junk


def test_looking_for_junk_lowers_the_share_of_junk_in_the_draw() -> None:
    drawn, pool, found, precise = bench_junk(num_each=12, num_photos=80)
    assert pool.value == pytest.approx(36 / 116)
    assert drawn.peer_value is not None
    assert drawn.value <= drawn.peer_value
    assert 0 <= found.value <= 1
    assert 0 <= precise.value <= 1
    assert "text" in found.note
