"""Sealed Parquet files: read by everybody, and no bit of one can change unseen."""

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.sealing import BLOCK_BYTES, DamagedBytes, SealedWriter, check_parquet, is_sealed, open_parquet, says_damage

ROWS = pa.table(
    {
        "number": np.arange(60_000),
        "name": [str(number % 7) for number in range(60_000)],
        "vector": pa.array([bytes([number % 251] * 16) for number in range(60_000)], pa.binary(16)),
    }
)


def sealed(rows: pa.Table = ROWS, **options: object) -> bytes:
    file = io.BytesIO()
    writer = SealedWriter(file, rows.schema, **{"compression": "NONE", "use_dictionary": False, **options})
    writer.write_table(rows, row_group_size=15_000)
    writer.close({"key": "value"})
    return file.getvalue()


WHOLE = sealed()


def test_rows_and_metadata_are_read_by_us_and_by_others() -> None:
    assert len(WHOLE) > 4 * BLOCK_BYTES
    with open_parquet(io.BytesIO(WHOLE)) as file:
        assert file.read().equals(ROWS)
        assert file.metadata.metadata[b"key"] == b"value"
        assert file.read_row_group(2, columns=["name"]).equals(ROWS.slice(30_000, 15_000).select(["name"]))
    assert pq.read_table(io.BytesIO(WHOLE), page_checksum_verification=True).equals(ROWS)
    assert sealed() == WHOLE


def test_every_flipped_bit_is_found() -> None:
    """All positions of the seal, of the footer and of the first page header; a sample of the pages."""
    rng = random.Random(0)
    footer = int.from_bytes(WHOLE[-8:-4], "little") + 8 + 4 * 30 + 60
    for place in [*range(60), *rng.sample(range(len(WHOLE)), 150), *range(len(WHOLE) - footer, len(WHOLE))]:
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(pa.ArrowInvalid):
            check_parquet(io.BytesIO(damaged))
        if place % 10 == 0:
            with pytest.raises(pa.ArrowInvalid), open_parquet(io.BytesIO(damaged)) as file:
                file.read()


def test_damage_costs_the_columns_that_it_is_in() -> None:
    with open_parquet(io.BytesIO(WHOLE)) as file:
        column = file.metadata.row_group(1).column(2)
    damaged = bytearray(WHOLE)
    damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    with open_parquet(io.BytesIO(damaged)) as file:
        assert file.read(columns=["number"]).num_rows == 60_000
        with pytest.raises(DamagedBytes, match=r"bytes \d+ to \d+ are not as written"):
            file.read(columns=["vector"])


@pytest.mark.parametrize("length", [0, 3, 11, 100, BLOCK_BYTES, -1, -8, -70])
def test_a_file_that_was_cut_is_found(length: int) -> None:
    with pytest.raises(pa.ArrowInvalid):
        check_parquet(io.BytesIO(WHOLE[:length]))


def test_files_of_others_are_read_with_the_checksums_of_their_pages() -> None:
    for checked in (False, True):
        file = io.BytesIO()
        pq.write_table(ROWS, file, write_page_checksum=checked, compression="NONE", use_dictionary=False)
        assert not is_sealed(file)
        with open_parquet(file) as parquet:
            assert parquet.read().equals(ROWS)
            column = parquet.metadata.row_group(0).column(0)
        damaged = bytearray(file.getvalue())
        damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 1
        if checked:
            with pytest.raises(OSError, match="CRC checksum verification failed") as caught:
                check_parquet(io.BytesIO(damaged))
            assert says_damage(caught.value)


def test_rows_that_somebody_writes_again_take_no_seal_along() -> None:
    """A shard that was filtered must not look damaged."""
    file = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(WHOLE)).slice(3), file)
    assert not is_sealed(file)
    with open_parquet(file) as parquet:
        assert parquet.read().num_rows == 59_997


def test_an_empty_table_is_sealed_too() -> None:
    data = sealed(ROWS.slice(0, 0))
    assert is_sealed(io.BytesIO(data))
    check_parquet(io.BytesIO(data))


def test_a_seal_of_a_stranger_takes_no_memory() -> None:
    """Blocks of one byte would have a table four times as long as the file."""
    place = WHOLE.rindex(bytes.fromhex("63757261746520ec")) + 24
    forged = WHOLE[:place] + (1).to_bytes(4, "little") + WHOLE[place + 4 :]
    with pytest.raises(DamagedBytes, match="its checksums are not those that were written"):
        is_sealed(io.BytesIO(forged))


class Counting(io.BytesIO):
    """A file that notes what is read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[int] = []

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.reads.append(len(found))
        return found


def test_columns_side_by_side_take_one_read_and_a_small_file_one_in_all() -> None:
    file = Counting(WHOLE)
    with open_parquet(file) as parquet:
        assert len(file.reads) == 1
        parquet.read()
    assert len(file.reads) == 2
    assert sum(file.reads) < len(WHOLE) + BLOCK_BYTES
    small = Counting(sealed(ROWS.slice(0, 1000)))
    with open_parquet(small) as parquet:
        assert parquet.read().equals(ROWS.slice(0, 1000))
    assert small.reads == [len(small.getvalue())]
