"""Files of scattered rows: every bit counts, and a task reads its own rows alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.engine import pieces
from curate.engine.pieces import PieceFiles
from curate.engine.store import Store
from curate.errors import DamagedPart, TableError
from tests.engine.test_shuffle import WORDS, words


def one_file(root: Path, sizes: dict[int, int]) -> PieceFiles:
    files = PieceFiles(Store(root), "t", WORDS)
    with files.begin(0, "of this") as file:
        for key, size in sizes.items():
            file.write(key, words(np.arange(size)).to_batches()[0])
        file.close()
    return files


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    files = one_file(tmp_path, {0: 50, 1: 3, 7: 20})
    path = tmp_path / files.file_name(0)
    whole = path.read_bytes()
    with files._opened(0) as file:
        index = files._index(0, file)
    start, stop = int(index.starts[0]), int(index.starts[-1] + index.entries["num_bytes"][-1])
    of_arrow = {*range(start), *range(stop, stop + 8)}  # both ends of a stream, which other readers need
    for place in set(range(0, len(whole), 7)) - of_arrow:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DamagedPart, match=r"t/part-00000.pieces: damaged \(.*; remove this file and run"):
            [list(files.read([0], key)) for key in (0, 1, 7)]
    for length in (0, 10, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedPart, match="part-00000.pieces: damaged"):
            list(files.read([0], 0))


def test_an_index_longer_than_the_first_read_is_read_whole(tmp_path: Path) -> None:
    files = one_file(tmp_path, dict.fromkeys(range(3000), 1))
    assert 3000 * pieces.ENTRY.itemsize > pieces.TAIL_BYTES
    for key in (0, 1234, 2999):
        assert [batch.num_rows for batch in files.read([0], key)] == [1]
    assert list(files.read([0], 3000)) == []


def test_files_are_arrow_streams_that_others_can_read(tmp_path: Path) -> None:
    files = one_file(tmp_path, {3: 40, 5: 2})
    with pa.ipc.open_stream((tmp_path / files.file_name(0)).read_bytes()) as stream:
        assert stream.read_all().equals(pa.concat_tables([words(np.arange(40)), words(np.arange(2))]))


def test_files_of_another_fingerprint_are_removed(tmp_path: Path) -> None:
    files = one_file(tmp_path, {0: 1})
    assert files.keep_fresh("of this") == {0}
    assert files.keep_fresh("of this", damaged=[0]) == set()
    assert not (tmp_path / files.file_name(0)).exists()
    one_file(tmp_path, {0: 1})
    assert files.keep_fresh("of another") == set()
    with pytest.raises(TableError, match=r"part-00000.pieces: no such file of scattered rows; run the pipeline again"):
        list(files.read([0], 0))
