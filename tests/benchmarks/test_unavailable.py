"""The measurement of errors that pass, on a small pool."""

import pytest

from benchmarks.unavailable import Pool, bench_unavailable


def test_nothing_is_lost_after_the_second_run_and_the_first_tells_what_is_open() -> None:
    pytest.importorskip("aiohttp")
    figures = {figure.name: figure for figure in bench_unavailable(20, share=0.6)}
    told = figures["open after the first run"]
    assert told.value == told.peer_value > 0
    assert told.note.startswith(f"{told.value} of 20 images")
    assert figures["first run ends with exit status 3"].value == 1
    assert figures["open after the second run"].value == 0
    assert figures["not accepted after the second run"].value == 0
    assert figures["tables equal to a run without a failure"].value == 4


def test_share_of_the_pool_fails_by_every_kind_on_both_sides() -> None:
    pool = Pool.make(200, share=0.3, seed=1)
    assert len(pool.web) + len(pool.down) + len(pool.store) == 200
    assert len(pool.web_faults) + len(pool.down) + len(pool.store_faults) == 60
    assert {faults[0].rstrip("*") for faults in pool.web_faults.values()} == {"503", "429 0"}
    assert {faults[0].rstrip("*") for faults in pool.store_faults.values()} == {"403", "503", "expired", "refused"}
    lasting = [faults for each in (pool.web_faults, pool.store_faults) for faults in each.values() if "*" in faults[0]]
    assert pool.away == len(lasting) + len(pool.down)
