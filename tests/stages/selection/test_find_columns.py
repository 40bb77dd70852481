"""FindColumns by groups of parts, against one look at all images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine import stage as stage_module
from curate.engine.cost import ID_BYTES, Assumptions, Shape
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.stages.selection import own_columns
from curate.stages.selection.find_columns import FindColumns, OwnColumns
from curate.stages.selection.own_columns import ColumnKinds
from curate.tables import CATALOG, IMAGES, SELECTION
from tests.stages.planted import given_catalog, given_table

PARTS, ROWS = 7, 12
VALUES: list[Any] = [1, 2**60, 0.5, "text", True, None]


def planted(root: Path, *, names: int) -> list[dict[str, Any]]:
    """Parts whose images have some of so many own columns, the first names more often; every third image is not
    selected. Returns the own columns of those that are."""
    rng = np.random.default_rng(4)
    images, chosen, own = [], [], []
    for part in range(PARTS):
        images.append([])
        chosen.append([])
        for row in range(ROWS):
            picked = {int(names * u * u) for u in rng.random(6)}
            extra = {f"c{name:03}": VALUES[(name + rng.integers(2)) % len(VALUES)] for name in sorted(picked)}
            image_id = part << 32 | row
            images[-1].append({"image_id": image_id, "num_bytes": part + row, "extra": json.dumps(extra)})
            if row % 3:
                chosen[-1].append({"image_id": image_id, "clusters": [], "origins": [], "repeats": 1})
                own.append(extra)
    given_catalog(root, [("pool", "pool", ROWS)] * PARTS)
    given_table(root, "images", IMAGES, images)
    given_table(root, "selection", SELECTION, chosen)
    return own


def found(root: Path) -> OwnColumns:
    p = Pipeline(Store(root), seed=0)
    schemas = {"selection": SELECTION, "catalog": CATALOG, "images": IMAGES}
    p.add("own_columns", FindColumns(), **{name: Ref(name, schema) for name, schema in schemas.items()})
    p.run(InProcess(1), Flags())
    return OwnColumns.of(p.store.table("own_columns"))


@pytest.mark.parametrize("groups", [1, 3, 256])
def test_groups_find_what_one_look_finds(groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "MAX_GROUPS", groups)
    monkeypatch.setattr(own_columns, "MAX_COLUMNS", 8)
    own, whole = planted(tmp_path, names=30), ColumnKinds()
    whole.add(own)
    columns = found(tmp_path)
    assert columns.kinds == whole.columns()
    assert len(columns.kinds) == 8
    assert (columns.num_left_out, columns.left_out) == (len(whole.left_out()), whole.left_out()[0])
    assert columns.num_bytes == sum(part + row for part in range(PARTS) for row in range(ROWS) if row % 3)
    assert (columns.classes, columns.mixed, columns.uncounted) == ({}, (), False)


def test_too_many_names_are_looked_at_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "MAX_GROUPS", 2)
    monkeypatch.setattr(own_columns, "MAX_COLUMNS", 3)
    monkeypatch.setattr(own_columns, "MAX_COUNTED", 16)
    own, whole = planted(tmp_path, names=60), ColumnKinds(only=["c000", "c001", "c002"])
    whole.add(own)
    columns = found(tmp_path)
    assert columns.uncounted
    assert columns.kinds == whole.columns()  # of every image, also of those seen before a name was dropped


def test_cost_is_one_reading_of_what_is_selected() -> None:
    images = Shape(pool=10**6, row_bytes=100, widths={"extra": 40, "num_bytes": 2})
    inputs = {
        "selection": Shape(pool=10**6, row_bytes=12),
        "catalog": Shape(pool=10**6, row_bytes=60),
        "images": images,
    }
    demand, _ = FindColumns().cost(inputs, Assumptions(images=10**6))
    assert demand.rows == 10**6
    assert (42 + 2 * ID_BYTES) * 10**6 < demand.read < 75 * 10**6  # of the images two columns, by whole blocks
