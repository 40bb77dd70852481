"""Reading files of object stores by ranges: the right bytes, in few requests, and hardly any others."""

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ranges import BLOCK_BYTES, HOLE_BYTES, HOLE_SHARE, RangeFile, Span, plan_blocks
from curate.sealing import TAIL_BYTES, DamagedBytes, SealedWriter, open_parquet


class Remote:
    """An object of a store that answers ranges and suffixes, and notes them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, list[tuple[int | None, int | None]]()

    def cat_file(self, path: str, *, start: int | None, end: int | None) -> bytes:
        self.asked.append((start, end))
        assert start is None or start < len(self.data), "416"
        return self.data[start:end]

    def size(self, path: str) -> int:
        self.asked.append((None, None))
        return len(self.data)

    def open(self, blocks: list[Span] | None = None, *, suffixes: bool = True) -> RangeFile:
        return RangeFile(self, "file", suffixes=suffixes, blocks=blocks or [])


spans = st.lists(st.tuples(st.integers(0, 40 << 20), st.integers(0, 3 << 20)), max_size=60)


@given(spans)
def test_blocks_cover_what_is_wanted_and_little_else(places: list[tuple[int, int]]) -> None:
    wanted = [(start, start + length) for start, length in places]
    blocks = plan_blocks(wanted)
    assert all(start < stop for start, stop in blocks)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(blocks))
    assert _union([*wanted, *blocks]) == _union(blocks)
    num_wanted = _union(wanted)
    assert (
        num_wanted
        <= sum(stop - start for start, stop in blocks)
        <= num_wanted * (1 + HOLE_SHARE) + len(blocks) * HOLE_BYTES
    )
    longest = max((stop - start for start, stop in wanted), default=0)
    assert all(stop - start <= max(BLOCK_BYTES, longest) for start, stop in blocks)


def _union(wanted: list[Span]) -> int:
    total, last = 0, 0
    for start, stop in sorted(wanted):
        total += max(0, stop - max(start, last))
        last = max(last, stop)
    return total


def test_neighbors_are_fetched_at_once_and_what_lies_between_far_ones_is_not() -> None:
    remote = Remote(np.random.default_rng(0).bytes(1 << 20))
    wanted = [(0, 1000), (1512, 3000), (3000, 4000), (500_000, 500_100), (500_050, 510_000)]
    file = remote.open(plan_blocks(wanted))
    for start, stop in wanted:
        file.seek(start)
        assert file.read(stop - start) == remote.data[start:stop]
    assert remote.asked == [(0, 4000), (500_000, 510_000)]
    file.seek(800_000)
    assert file.read(10) == remote.data[800_000:800_010]  # nobody foresaw it: these bytes alone
    assert remote.asked[2:] == [(800_000, 800_010)]


def test_end_and_beyond_read_as_of_any_file() -> None:
    remote, plain = Remote(bytes(range(100))), io.BytesIO(bytes(range(100)))
    for suffixes in (True, False):
        file = remote.open(suffixes=suffixes)
        for place, whence, size in ((-10, 2, 30), (0, 1, 5), (200, 0, 5), (20, 0, -1), (5, 0, 0), (0, 2, 1)):
            assert file.seek(place, whence) == plain.seek(place, whence)
            assert file.read(size) == plain.read(size)
            assert file.tell() == plain.tell() or place == 200


def sealed(num_rows: int) -> tuple[bytes, pa.Table]:
    rows = pa.table(
        {"n": pa.array(range(num_rows)), "v": [np.random.default_rng(n).bytes(200) for n in range(num_rows)]}
    )
    file = io.BytesIO()
    writer = SealedWriter(file, rows.schema, compression="NONE", use_dictionary=False)
    for start in range(0, num_rows, 1000):
        writer.write_table(rows.slice(start, 1000))
    writer.close()
    return file.getvalue(), rows


def test_small_sealed_file_is_one_request_and_a_large_one_little_more() -> None:
    data, rows = sealed(200)
    remote = Remote(data)
    assert open_parquet(remote.open(), pre_buffer=True).read() == rows
    assert remote.asked == [(-TAIL_BYTES, None)]
    data, rows = sealed(4000)
    remote = Remote(data)
    file = open_parquet(remote.open(), pre_buffer=True)
    assert file.read() == rows
    assert len(remote.asked) <= 3
    read = sum((stop or len(data)) - (start if start >= 0 else len(data) + start) for start, stop in remote.asked)
    assert read <= len(data) + TAIL_BYTES
    remote.asked.clear()
    assert file.read_row_group(2, columns=["n"]) == rows.slice(2000, 1000).select(["n"])
    ((start, stop),) = remote.asked
    assert stop - start <= 3 * TAIL_BYTES


def test_foreign_file_is_asked_for_its_length_once(tmp_path: Path) -> None:
    rows = pa.table({"n": pa.array(range(100_000))})
    pq.write_table(rows, tmp_path / "a.parquet", compression="NONE", use_dictionary=False)
    remote = Remote((tmp_path / "a.parquet").read_bytes())
    assert open_parquet(remote.open(suffixes=False), pre_buffer=True).read() == rows
    assert remote.asked.count((None, None)) == 1
    assert len(remote.asked) == 3


@pytest.mark.parametrize("place", [10, 300_000, -70_000, -3000, -20])
def test_wrong_bit_in_any_place_is_found_without_the_length(place: int) -> None:
    data, _ = sealed(4000)
    wrong = bytearray(data)
    wrong[place] ^= 1
    with pytest.raises((DamagedBytes, pa.ArrowInvalid)):
        open_parquet(Remote(bytes(wrong)).open(), pre_buffer=True).read()


def test_file_that_lacks_bytes_in_its_middle_is_damaged() -> None:
    data, _ = sealed(4000)
    with pytest.raises(DamagedBytes):
        open_parquet(Remote(data[:200_000] + data[200_700:]).open(), pre_buffer=True).read()
