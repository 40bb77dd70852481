"""Which images the rules reject, as deduplication and selection take it from the table of `Screen`."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.table import Table
from curate.ops.copies.condemned import Screened
from curate.ops.copies.decided import Decided, is_among

LISTED = "listed"
"""The column of scores that names the list which an image is on, and the reason of such a reject."""
JUDGED_BY = ["image_id", "reject", "with_copies"]
"""What is read of the scores."""


class Rejected(NamedTuple):
    """What rules reject, and what a person keeps all the same."""

    screened: Screened
    saved: dict[str, int]
    """Images by reason."""


def read_rejected(scores: Table | None, decided: Decided | None) -> Rejected:
    """What the rules reject and no decision of a person saves. Memory: 25 bytes a rejected image.

    Args:
        scores: the table of `Screen`; None: the run screens nothing.
    """
    if scores is None:
        return Rejected(Screened.nothing(), {})
    stay = np.empty(0, np.int64) if decided is None else np.union1d(decided.keep, decided.represent)
    found: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool))]
    saved = Counter[str]()
    for part in scores.scan(JUDGED_BY):
        rows = part.filter(part["reject"].is_valid())
        ids, listed = rows["image_id"].to_numpy(), pc.equal(rows["reject"], LISTED).to_numpy()
        going = listed | ~is_among(ids, stay)
        saved += Counter(rows["reject"].filter(pa.array(~going)).to_pylist())
        found.append((ids[going], rows["with_copies"].to_numpy()[going], listed[going]))
    ids, copies, listed = (np.concatenate(column) for column in zip(*found, strict=True))
    return Rejected(Screened(ids, ids[copies], ids[copies & listed]), dict(sorted(saved.items())))
