"""How vectors lie in tables: as fixed-size binary, with dtype and dim in the schema's metadata.

This is the only place that knows the layout. One column of N vectors is one contiguous buffer, which reads at memory
speed; slots of null rows hold arbitrary bytes and are never returned.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.errors import TableError
from curate.tables import VECTOR_META


@dataclass(frozen=True)
class VectorSpec:
    """What the vectors of a table are."""

    dtype: str
    """float16, float32 or bits"""
    dim: int
    """Values of a vector; bits are values too."""
    model: str
    """Name of the model that made them."""
    weights: str
    """Hash of the weights that made them; empty where there are none."""

    @classmethod
    def of(cls, schema: pa.Schema, *, where: str = "table") -> "VectorSpec":
        """Read the spec from a schema's metadata; `where` names the table in the error.

        Raises:
            TableError: the schema carries none.
        """
        metadata = schema.metadata or {}
        if any(key not in metadata for key in VECTOR_META):
            raise TableError(f"{where}: its schema says nothing about vectors; is this an embeddings table?")
        dtype, dim, model, weights = (metadata[key].decode() for key in VECTOR_META)
        return cls(dtype=dtype, dim=int(dim), model=model, weights=weights)


def pack(vectors: npt.NDArray[np.generic], *, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Turn rows into a fixed-size binary array.

    Args:
        vectors: (N, D) float16 or float32, or (N, D/8) uint8 of packed bits.
        valid: (N,) bool; False rows become null. None: all are valid.
    """
    rows = np.ascontiguousarray(vectors)
    width = rows.shape[1] * rows.itemsize
    null_bitmap = None
    if valid is not None and not valid.all():
        null_bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
        rows = np.where(valid[:, None], rows, np.zeros((), rows.dtype))  # equal bytes whatever the model left
    return pa.Array.from_buffers(pa.binary(width), len(rows), [null_bitmap, pa.py_buffer(rows)])


def unpack(column: pa.Array | pa.ChunkedArray, spec: VectorSpec) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the non-null rows, without a copy where the column has no nulls.

    Returns:
        vectors: (M, D) in the stored dtype; (M, D/8) uint8 for bits.
        rows: (M,) int64, their row numbers in the column.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # no chunks at all
            column = pa.array([], column.type)
    dtype = np.dtype(np.uint8 if spec.dtype == "bits" else spec.dtype)
    width = spec.dim // 8 if spec.dtype == "bits" else spec.dim
    data = column.buffers()[1]
    start = column.offset * width
    if data is None:
        flat = np.empty(0, dtype)
    else:
        flat = np.frombuffer(data, dtype)[start : start + len(column) * width]
    vectors = flat.reshape(len(column), width)
    if column.null_count == 0:
        return vectors, np.arange(len(column), dtype=np.int64)
    rows = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)).astype(np.int64)
    return vectors[rows], rows


def to_float32(vectors: np.ndarray, spec: VectorSpec) -> np.ndarray:
    """(M, D) float32 of unit norm, as the join needs them.

    Args:
        vectors: as `unpack` gives them. Floats are taken to be of unit norm; bits become +-1/sqrt(D), so that the
            cosine is 1 - 2 * Hamming / D.
    """
    if spec.dtype == "bits":
        signs = np.unpackbits(np.ascontiguousarray(vectors), axis=1)[:, : spec.dim].astype(np.float32)
        return (signs * 2 - 1) / np.float32(np.sqrt(spec.dim))
    return vectors.astype(np.float32)


def normalize(vectors: np.ndarray) -> np.ndarray:
    """(N, D) float32, the rows brought to unit L2 norm; zero rows stay zero."""
    x = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norms, np.finfo(np.float32).tiny)
