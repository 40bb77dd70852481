"""Select: which curated sources enter, and caps too large for the pool."""

from pathlib import Path
from typing import Any

import pytest

from curate.errors import ConfigError
from curate.stages.select import Balance, Select
from curate.tables import ASSIGNMENTS, CATALOG, DUPLICATES, IMAGES, NEIGHBORS
from tests.stages.planted import given_table

SOURCES = [("web", "pool"), ("pets", "curated"), ("birds", "curated")]


def tables(root: Path) -> dict[str, Any]:
    """Three images a source: all accepted, those of the pool kept and in one cluster."""
    catalog = given_table(root, "catalog", CATALOG, [])
    manifest = catalog.manifest()
    parts = [{"source": name, "role": role, "rows": 3} for name, role in SOURCES]
    metrics = {"parts": parts, "sources": [name for name, _ in SOURCES]}
    catalog.write_manifest(type(manifest)(**{**manifest.__dict__, "metrics": metrics}))
    ids = [[part << 32 | row for row in range(3)] for part in range(3)]
    kept = [{"image_id": i, "component_id": i, "verdict": "kept"} for i in ids[0]]
    assigned = [{"image_id": i, "cluster_id": 0, "similarity": 0.5} for i in ids[0]]
    return {
        "catalog": catalog,
        "images": given_table(root, "images", IMAGES, [[{"image_id": i} for i in column] for column in ids]),
        "duplicates": given_table(root, "duplicates", DUPLICATES, [kept, [], []]),
        "neighbors": [given_table(root, "neighbors", NEIGHBORS, [[]])],
        "retrieved": None,
        "assignments": given_table(root, "assignments", ASSIGNMENTS, [assigned, [], []]),
        "centroids": None,
    }


@pytest.mark.parametrize(
    ("include", "parts"), [(True, [0, 1, 2]), (False, [0]), (("birds",), [0, 2]), (("birds", "pets"), [0, 1, 2])]
)
def test_curated_sources_enter_all_none_or_by_name(include: bool | tuple[str, ...], parts: list[int], tmp_path) -> None:
    given = tables(tmp_path)
    stage = Select(include_curated=include).resolve(**given)
    (rows,) = stage.combine(None, **given)
    assert rows["image_id"].to_pylist() == [part << 32 | row for part in parts for row in range(3)]


def test_unknown_curated_source_is_an_error(tmp_path: Path) -> None:
    message = r"select.include_curated: 'cats' is no curated source; they are \['birds', 'pets'\]"
    with pytest.raises(ConfigError, match=message):
        Select(include_curated=("pets", "cats")).resolve(**tables(tmp_path))


def test_cap_larger_than_the_pool_names_the_largest_valid_one(tmp_path: Path) -> None:
    given = tables(tmp_path)
    assert Select(cap=3).resolve(**given) == Select(cap=3)
    for balance in (None, Balance()):
        with pytest.raises(ConfigError, match=r"select.cap=4: 3 pool images are left; set it to 3 or less"):
            Select(cap=4, balance=balance).resolve(**given)
