"""Inspect: facts and a verdict for every image of the catalog."""

import json
from collections import Counter
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.config import Execution
from curate.engine.stage import Input, Map, each
from curate.engine.store import Table
from curate.errors import TooManyRejects
from curate.ops.images.inspect import ImageLimits, Inspected
from curate.sources.read import Read
from curate.tables import CATALOG, IMAGES


class Inspect(Map):
    """Reads and decodes each image: sha256, size, format, PDQ hash, quality figures, and why it is rejected."""

    inputs: ClassVar[dict[str, Input]] = {"catalog": each(CATALOG)}

    limits: ImageLimits = ImageLimits()
    """What an image must be."""
    decode_side: Annotated[int, Field(ge=64)] = 256
    """Pixels of the short side that decoding keeps at least: facts and hashes are those of the picture at that
    size, so it must suffice for every embedding of the pass. Smaller is faster for large JPEG files."""
    max_reject_fraction: Annotated[float, Field(ge=0, le=1), Execution()] = 0.5
    """Rejected share of all images above which the run stops."""

    def output_schema(self, **inputs: Any) -> pa.Schema:
        return IMAGES

    def summarize(self, table: Table, **inputs: Any) -> dict[str, Any]:
        reasons: Counter[str] = Counter()
        for rows in table.scan(["reject"]):
            counts = pc.value_counts(rows["reject"].drop_null())
            reasons.update({c["values"]: c["counts"] for c in counts.to_pylist()})
        rejected, rows = sum(reasons.values()), table.num_rows()
        if rejected > self.max_reject_fraction * rows:
            raise TooManyRejects(
                f"images: {rejected} of {rows} images were rejected ({dict(reasons.most_common())}), more than "
                f"max_reject_fraction={self.max_reject_fraction} allows; look at the columns reject and detail of "
                f"{table.store.root}/images, or run again with inspect.max_reject_fraction=1"
            )
        return {"accepted": rows - rejected, "rejected": dict(reasons.most_common())}


def image_row(read: Read, seen: Inspected | None, pdq: tuple[bytes, int] | None) -> dict[str, Any]:
    """The columns of `tables.IMAGES` but the id; `seen` is None where the image could not be read."""
    extra = json.dumps(read.extra, ensure_ascii=False, sort_keys=True) if read.extra else None
    row = dict.fromkeys(IMAGES.names[1:])
    if seen is None:
        return row | {"reject": read.reject, "detail": read.error, "extra": extra}
    facts = {name: getattr(seen, name) for name in IMAGES.names if hasattr(seen, name)}
    if pdq is not None:
        facts |= {"pdq": pdq[0], "pdq_quality": pdq[1]}
    return row | facts | {"extra": extra}


def accepted_mask(images: pa.Table) -> np.ndarray:
    """(N,) bool: not rejected."""
    return images["reject"].is_null().to_numpy()
