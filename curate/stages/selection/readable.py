"""Looking at the pictures of a shard as its readers will, while it is written."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.ops.images.decoding import make_picture_readable
from curate.ops.images.readers import ForReaders
from curate.tables import HF_IMAGE


def make_rows_readable(rows: pa.Table, *, repair: bool) -> pa.Table:
    """Rows of a shard with `reader_warning` and `repaired`, and where `repair` is wanted with repaired pictures.

    A row that says it was repaired, in an earlier shard, keeps saying so.
    """
    looked_at = [_look_at(row, repair) for row in rows.select(["image", "repaired"]).to_pylist()]
    paths = pc.struct_field(rows["image"], "path").to_pylist()
    pictures = [{"bytes": fit.data, "path": path} for fit, path in zip(looked_at, paths, strict=True)]
    columns: dict[str, pa.Array] = {"image": pa.array(pictures, HF_IMAGE)}
    columns["reader_warning"] = pa.array([fit.warning for fit in looked_at], pa.string())
    columns["repaired"] = pa.array([fit.repaired for fit in looked_at], pa.string())
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows


def _look_at(row: dict[str, Any], repair: bool) -> ForReaders:
    fit = make_picture_readable(row["image"]["bytes"], repair=repair)
    return fit._replace(repaired=fit.repaired or row["repaired"])
