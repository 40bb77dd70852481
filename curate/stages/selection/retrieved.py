"""Rows of `retrieved`: how they are made, and in which order they lie."""

from typing import Any

import numpy as np
import pyarrow as pa

from curate.engine.image_ids import Parts
from curate.ops.codes import names_of
from curate.tables import CURATED, RETRIEVED

ORIGINS = ("sample", "cluster")
"""Values of `origin`: the two routes of retrieval."""


def retrieved_rows(queries: Any, image_ids: Any, similarity: Any, *, origin: str, sets: pa.Array) -> pa.Table:
    """Rows of one route, from columns of equal length."""
    origins = names_of(np.zeros(len(sets), np.int32), [origin])
    return pa.Table.from_arrays([queries, image_ids, similarity, origins, sets], schema=RETRIEVED)


def in_order(rows: pa.Table) -> pa.Table:
    """By image, then strongest first: the order in which `selection` tells why an image was chosen."""
    keys = [("image_id", "ascending"), ("similarity", "descending"), ("set", "ascending"), ("origin", "ascending")]
    return rows.sort_by([*keys, ("query_id", "ascending")])


def source_names(parts: Parts) -> list[str]:
    """Names of the sources, in the order of the config; empty where a source has no images."""
    names = dict(zip(parts.rank.tolist(), parts.source, strict=True))
    return [names.get(rank, "") for rank in range(max(names, default=-1) + 1)]


def curated_sets(parts: Parts) -> dict[str, list[int]]:
    """Curated sources in the order of the config, with the numbers of their parts."""
    found: dict[str, list[int]] = {}
    for number in sorted(parts.numbers(CURATED), key=lambda number: (parts.rank[number], number)):
        found.setdefault(parts.source[number], []).append(number)
    return found
