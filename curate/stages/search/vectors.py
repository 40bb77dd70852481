"""The vectors that searches and clusterings read: embeddings, or the perceptual hashes of images.

A stage that can search either has two optional inputs, `embeddings` and `hashes`, of which a recipe gives one. A hash
of 256 bits is a vector of 256 values +-1, so that cosine = 1 - 2 Hamming / 256 and one code serves both.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from curate.engine.cost import ID_BYTES, Shape, Shapes
from curate.engine.image_ids import Parts
from curate.engine.table import Table
from curate.errors import ConfigError
from curate.ops.images.hashes import DIHEDRAL, HASH_BYTES
from curate.ops.vectors import VectorSpec, pack, to_float32, unpack
from curate.stages.images.image_tally import HashTally, VectorTally
from curate.tables import IMAGES, ROLES, vector_metadata, vector_type

HASHES = pa.schema([IMAGES.field(name) for name in ("image_id", "pdq", "pdq_within_border")])
"""What a search by hashes reads of `images`."""
Role = Literal["pool", "curated", "heldout"]


class Vectors(NamedTuple):
    """The vectors of one part, nulls left out."""

    ids: np.ndarray
    """(N,) int64"""
    vectors: np.ndarray
    """(N, width) as stored"""
    spec: VectorSpec


def either(inputs: Mapping[str, Any]) -> Any:
    """The one of the inputs `embeddings` and `hashes` that is given."""
    return inputs["hashes"] if inputs.get("embeddings") is None else inputs["embeddings"]


def vector_spec(embeddings: pa.Schema | None, hashes: pa.Schema | None) -> VectorSpec:
    """What the vectors of the one input that is given are.

    Raises:
        ConfigError: none or both are given.
    """
    if (embeddings is None) == (hashes is None):
        raise ConfigError("lists: give either embeddings or hashes as their input")
    if embeddings is not None:
        return VectorSpec.of(embeddings)
    return VectorSpec(dtype="bits", dim=8 * HASH_BYTES, model="pdq", weights="")


def vectors_shape(inputs: Shapes) -> Shape:
    """The shape of the vectors of the one input that is given, for the laws of cost."""
    shape: Shape = either(inputs)
    if inputs.get("embeddings") is None:
        return shape._replace(row_bytes=ID_BYTES + HASH_BYTES, dim=8 * HASH_BYTES, columns=2, widths={})
    return shape


def num_forms(*, hashed: bool, dihedral: bool) -> int:
    """Forms in which an image searches: its hash also mirrored and turned, where `dihedral` says so."""
    return len(DIHEDRAL) if hashed and dihedral else 1


def read_views(embeddings: pa.Table | None, hashes: pa.Table | None, within: pa.Table | None) -> Vectors:
    """Ids and vectors of a part, and those of what borders surround after them: such an image has two.

    Args:
        within: a part of the embeddings of what borders surround; hashes have theirs beside them.
    """
    whole = read_vectors(embeddings, hashes)
    if hashes is not None:
        found, rows = unpack(hashes["pdq_within_border"], whole.spec)
        ids = hashes["image_id"].to_numpy()[rows]
    elif within is not None:
        found, rows = unpack(within["vector"], whole.spec)
        ids = within["image_id"].to_numpy()[rows]
    else:
        return whole
    return Vectors(np.concatenate([whole.ids, ids]), np.concatenate([whole.vectors, found]), whole.spec)


def read_vectors(embeddings: pa.Table | None, hashes: pa.Table | None) -> Vectors:
    """Ids and vectors of a part of embeddings, or of the hashes of a part of images."""
    table = embeddings if embeddings is not None else hashes
    assert table is not None
    spec = vector_spec(None if embeddings is None else embeddings.schema, None if hashes is None else hashes.schema)
    vectors, rows = unpack(table["vector" if embeddings is not None else "pdq"], spec)
    return Vectors(table["image_id"].to_numpy()[rows], vectors, spec)


def count_vectors(table: Table, roles: Iterable[Role], parts: Parts) -> int:
    """Vectors that are not null, of embeddings or of the hashes of images, in the parts of these roles."""
    if "vector" in table.schema().names:
        by_part = [part.vectors for part in VectorTally.by_part(table)]
    else:
        by_part = [part.hashes for part in HashTally.by_part(table)]
    return sum(by_part[part] for role in set(roles) for part in parts.numbers(ROLES.index(role)))


def share_of(wanted: int, count: int) -> float:
    """What share of `count` vectors gives the `wanted` number of them, at most all."""
    return min(1.0, wanted / max(1, count))


def sample_schema(spec: VectorSpec) -> pa.Schema:
    """Schema of the vectors that one part gives to a sample: one column `vector`, float32."""
    meta = vector_metadata(spec.dim, "float32", model=spec.model, weights=spec.weights)
    return pa.schema([pa.field("vector", vector_type(spec.dim, "float32"))], metadata=meta)


def sample_vectors(
    vectors: np.ndarray, spec: VectorSpec, share: float | None, *, seed: Sequence[int]
) -> pa.RecordBatch:
    """A random share of the vectors of one part, rounded up: parts that lost images weigh less than others."""
    assert share is not None
    count = min(len(vectors), int(np.ceil(share * len(vectors))))
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))
    return pa.RecordBatch.from_arrays([pack(to_float32(vectors[rows], spec))], schema=sample_schema(spec))
