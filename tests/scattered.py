"""What a stage scatters, by bucket, for tests that call it alone."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from curate.engine.shuffle import Scattered


def by_bucket(scattered: Iterable[Scattered]) -> dict[int, list[dict[str, Any]]]:
    """Rows of each bucket, in the order in which they were sent."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for bucket, rows in scattered:
        for one, row in zip(np.broadcast_to(bucket, rows.num_rows).tolist(), rows.to_pylist(), strict=True):
            found[one].append(row)
    return dict(found)
