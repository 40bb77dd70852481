"""Rows of some images in a table that has the catalog's parts: only the row groups that hold them are read."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.engine.image_ids import part_of
from curate.engine.table import Table


def read_rows(table: Table, image_ids: np.ndarray, columns: Sequence[str]) -> list[pa.Table]:
    """The rows of images by part, ascending; images without a row are left out, and so are parts without any.

    Args:
        image_ids: (N,) int64, in any order.
        columns: `image_id` is always among them.
    """
    wanted, names = np.unique(image_ids), ["image_id", *columns]
    there = {part.number for part in table.parts()}
    found = []
    for part in np.unique(part_of(wanted)).tolist():
        if part in there:
            with table.open(part) as file:
                found += _of_part(file, wanted[part_of(wanted) == part], names)
    return found


def _of_part(file: pq.ParquetFile, wanted: np.ndarray, names: list[str]) -> list[pa.Table]:
    column, pieces = file.schema_arrow.get_field_index("image_id"), []
    for group in range(file.num_row_groups):
        bounds = file.metadata.row_group(group).column(column).statistics
        if bounds is not None and not _any_within(wanted, bounds.min, bounds.max):
            continue
        rows = file.read_row_group(group, columns=names)
        places = np.flatnonzero(np.isin(rows["image_id"].to_numpy(), wanted))
        if len(places):
            pieces.append(rows.take(places))  # a copy: a slice would hold the whole row group
    return [pa.concat_tables(pieces)] if pieces else []


def _any_within(ascending: np.ndarray, low: int, high: int) -> bool:
    return bool(np.searchsorted(ascending, low) < np.searchsorted(ascending, high, side="right"))
