"""A hint where the 16-bit pictures of a pool use few of their bits, so that they are read as nearly black.

A picture's own maximum is not its depth: a night scene of 16 bits is dark too. Only many pictures together tell, and by
the time they are seen, each has been hashed and embedded. So nothing is scaled unasked: the report says what it found
and which setting scales the pictures.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished, pick
from curate.engine.image_ids import part_of, row_of
from curate.engine.table import Table
from curate.errors import CurateError
from curate.ops.images.decode import RejectedImage
from curate.ops.images.decoding import count_bits
from curate.sources.reading import read_bytes
from curate.stages.images.catalog import source_of

NUM_LOOKED_AT = 32
"""Pictures that are read again."""
DARK = 8.0
"""Largest deviation of luma, 0..128, of a picture whose 16-bit samples use 12 bits."""
LEAST_SHARE = 0.05
"""Share of dark pictures among PNG and TIFF files from which on some of all these files are looked at."""


def warn_of_few_bits(table: Table, run: Finished) -> Iterator[str]:
    """Sentences on the pool's pictures; none where they use their bits, or are no longer there to be looked at."""
    rows = run.sample(table, ["image_id", "format", "luma_std", "reject"], role="pool").rows
    rows = rows.filter(pc.is_in(rows["format"], pa.array(["PNG", "TIFF"])))
    judged = pc.or_(rows["reject"].is_null(), pc.equal(rows["reject"], "uniform").fill_null(False))
    rows = rows.filter(judged)
    num_dark = pc.sum(pc.less_equal(rows["luma_std"], DARK)).as_py() or 0
    if run.catalog is None or num_dark <= LEAST_SHARE * len(rows):
        return
    chosen = pick(np.arange(len(rows)), NUM_LOOKED_AT, run.rng("few bits"))
    used = list(_bits_used(run.catalog, rows.take(chosen)["image_id"].to_numpy()))
    few = [bits for bits in used if 8 < bits <= 12]
    if 2 * len(few) <= len(used):
        return
    bits = 10 if max(few) <= 10 else 12
    yield (
        f"{table.name}: the samples of {len(few)} of {len(used)} 16-bit pictures looked at stay below {1 << bits}; "
        f"where the camera gives {bits} bits, set significant_bits of their source, as in "
        f"sources.pool={{path: DIR, significant_bits: {bits}}}: they are read as nearly black now"
    )


def _bits_used(catalog: Table, ids: np.ndarray) -> Iterator[int]:
    """Bits that each 16-bit picture needs whose source leaves them open; what cannot be read or decoded is left out."""
    for part in np.unique(part_of(ids)).tolist():
        rows = catalog.read(part)
        source = source_of(rows)
        if source.significant_bits != "auto":
            continue
        try:
            for read in read_bytes(rows.take(row_of(ids[part_of(ids) == part])), source):
                bits = None if read.data is None else _bits_of(read.data)
                if bits is not None:
                    yield bits
        except CurateError:  # the source is gone: the report has other things to tell
            continue


def _bits_of(data: bytes) -> int | None:
    try:
        return count_bits(data)
    except RejectedImage:
        return None
