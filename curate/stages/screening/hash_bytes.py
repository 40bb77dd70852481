"""HashBytes: MD5 and SHA-1 of the encoded images, for lists that know no other hashes."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa

from curate.engine.cost import ID_BYTES, Assumptions, Demand, Shape, Shapes
from curate.stages.images.pictures import PictureStage, Seen
from curate.tables import DIGESTS

DIGEST_BYTES = 16 + 20
"""Bytes of both."""


class HashBytes(PictureStage):
    """Hashes the bytes of every image that could be read, in the pass that decodes them."""

    stands_alone: ClassVar[bool] = True

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return DIGESTS

    def prepare(self, seen: Seen) -> Mapping[str, bytes] | None:
        if seen.read.data is None:
            return None
        names = ("md5", "sha1")
        return {name: hashlib.new(name, seen.read.data, usedforsecurity=False).digest() for name in names}

    def cost(self, inputs: Shapes, given: Assumptions) -> tuple[Demand, Shape]:
        """Beside reading and decoding, which the stage that judges images counts."""
        listed: Shape = inputs["catalog"]
        made = listed._replace(row_bytes=ID_BYTES + DIGEST_BYTES, columns=3, widths={})
        return Demand(written=made.num_bytes), made
