"""The external sort beside one in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.answers import by_group as module
from curate.answers.by_group import KEYS, by_group
from curate.errors import CurateError
from curate.tables import LISTED

KEYED = pa.schema([LISTED.field(name) for name in (*KEYS, "key")])


def grouped(seed: int, num_rows: int, num_groups: int, batch_rows: int) -> list[pa.RecordBatch]:
    """Rows in the order of their ids; groups anywhere."""
    rng = np.random.default_rng(seed)
    columns = {
        "group": rng.integers(0, num_groups, num_rows),
        "verdict": rng.choice(["kept", "dropped", "contaminated"], num_rows),
        "image_id": np.sort(rng.choice(10 * num_rows + 1, num_rows, replace=False)),
        "key": [f"{number}.jpg" for number in range(num_rows)],
    }
    return pa.table(columns, KEYED).to_batches(max_chunksize=batch_rows)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    num_rows=st.integers(0, 400),
    num_groups=st.integers(1, 60),
    batch_rows=st.integers(1, 90),
    run_bytes=st.integers(1, 20_000),
    piece=st.integers(1, 5),
)
def test_rows_are_sorted_whatever_fits_into_memory(
    seed: int, num_rows: int, num_groups: int, batch_rows: int, run_bytes: int, piece: int
) -> None:
    batches = grouped(seed, num_rows, num_groups, batch_rows)
    rows = [row for batch in batches for row in batch.to_pylist()]
    expected = sorted(rows, key=lambda row: (row["group"], row["verdict"] != "kept", row["image_id"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_ROWS", 7)
        patch.setattr(module, "PIECE_BATCHES", piece)
        found = [
            row for batch in by_group(lambda schema: iter(batches), KEYED, run_bytes=run_bytes) for row in batch.to_pylist()
        ]
    assert found == expected


def test_only_the_columns_that_are_asked_for_come_back_and_the_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    asked = pa.schema([LISTED.field("key")])
    found = by_group(lambda schema: (batch.select(schema.names) for batch in grouped(0, 100, 5, 9)), asked, run_bytes=999)
    assert next(found).schema.equals(asked)
    assert [*tmp_path.rglob("*")]
    found.close()  # type: ignore[attr-defined]  # as whoever stops reading does
    assert [*tmp_path.rglob("*")] == []


def test_a_full_disk_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Iterator[None]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(CurateError, match="no space left to sort groups of copies; set TMPDIR to a folder with more"):
        list(by_group(lambda schema: iter(grouped(0, 100, 5, 9)), KEYED, run_bytes=99))
