"""Vectors in columns and out of them again."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import TableError
from curate.ops.vectors import VectorSpec, normalize, pack, to_float32, unpack
from curate.tables import embeddings_schema


@given(st.lists(st.booleans(), max_size=20), st.sampled_from(["float16", "float32", "bits"]), st.data())
def test_what_is_packed_is_unpacked_but_for_the_null_rows(valid, dtype, data) -> None:
    rng = np.random.default_rng(len(valid))
    bits = dtype == "bits"
    x = rng.integers(0, 256, (len(valid), 2), np.uint8) if bits else rng.normal(size=(len(valid), 16)).astype(dtype)
    column = pack(x, valid=np.array(valid, bool))
    start = data.draw(st.integers(0, len(valid)))
    cuts = pa.chunked_array([column[:start], column[start:]])
    for stored, kept in ((column[start:], valid[start:]), (cuts, valid)):
        vectors, rows = unpack(stored, VectorSpec(dtype, 16, "model", ""))
        assert rows.tolist() == np.flatnonzero(kept).tolist()
        assert vectors.tobytes() == x[len(valid) - len(kept) :][rows].tobytes()
        assert vectors.shape == (len(rows), x.shape[1])


def test_no_chunks_are_no_vectors() -> None:
    vectors, rows = unpack(pa.chunked_array([], pa.binary(8)), VectorSpec("float32", 2, "model", ""))
    assert (vectors.shape, rows.shape) == ((0, 2), (0,))


def test_the_spec_is_that_of_the_schema_and_absent_elsewhere() -> None:
    spec = VectorSpec.of(embeddings_schema(8, dtype="float16", model="m", weights="w"))
    assert spec == VectorSpec("float16", 8, "m", "w")
    with pytest.raises(TableError, match="lists: its schema says nothing about vectors"):
        VectorSpec.of(pa.schema([pa.field("x", pa.int64())]), where="lists")


def test_cosine_of_bits_counts_the_equal_ones() -> None:
    packed = np.random.default_rng(0).integers(0, 256, (5, 4), np.uint8)
    bits = np.unpackbits(packed, axis=1)
    x = to_float32(packed, VectorSpec("bits", 32, "pdq", ""))
    hamming = (bits[:, None] != bits[None]).sum(axis=2)
    assert x @ x.T == pytest.approx(1 - 2 * hamming / 32, abs=1e-6)


def test_normalized_rows_have_unit_norm_and_zeros_stay() -> None:
    x = normalize(np.array([[3, 4], [0, 0], [1e-15, 0]]))
    assert x.dtype == np.float32
    assert x == pytest.approx(np.array([[0.6, 0.8], [0, 0], [1, 0]]))
