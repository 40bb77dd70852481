"""The sweep over thresholds, against components found by scipy on the pairs above each."""

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from curate.engine.freshness import Flags
from curate.engine.store import Store
from curate.engine.table import Manifest
from curate.recipe import load_config
from curate.report.sweep import as_rows, searches, sweep, write_sweep
from curate.running import run_config
from curate.samples.pool import make_pool
from curate.tables import ROLES
from curate.workdir import open_record, open_tables


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("sweep")
    make_pool(root / "s", num_images=60, seed=5, curated_each=1, num_heldout=8)
    values = [f"sources.{role}={root}/s/{role}" for role in ROLES]
    run_config(load_config("dedup", [*values, f"workdir={root}/run", "executor.threads=1"]), Flags())
    return Store(f"{root}/run")


def manifests(store: Store) -> dict[str, Manifest]:
    return {name: store.table(name).complete_manifest() for name in open_record(store).tables}


def test_searches_are_the_loosest_of_each_kind(store: Store) -> None:
    found = {table.name for _, table in searches(open_tables(store))}
    assert found == {"internal/candidates/near", "internal/neighbors/aligned", "internal/neighbors/pdq"}


def test_every_threshold_equals_components_of_its_pairs(store: Store) -> None:
    opened = open_tables(store)
    found = sweep(opened)
    assert len(found) > 20
    assert any(row.dropped for row in found)
    for row in found:
        pairs = store.table(row.search).read_all().to_pandas()
        pairs = pairs[pairs["similarity"] >= np.float32(row.threshold)]
        pool, heldout = (opened.has_role(pairs["query_id"].to_numpy(), role) for role in ("pool", "heldout"))
        image = opened.has_role(pairs["image_id"].to_numpy(), "pool")
        own = pairs[pool & image]
        nodes, place = np.unique(own[["query_id", "image_id"]].to_numpy(), return_inverse=True)
        a, b = place.reshape(-1, 2).T
        number, label = connected_components(coo_matrix((np.ones(len(a)), (a, b)), (len(nodes), len(nodes))))
        assert row.dropped == len(nodes) - number
        assert row.largest == max(1, np.bincount(label).max(initial=0))
        assert row.pairs == len({tuple(sorted(pair)) for pair in own[["query_id", "image_id"]].to_numpy().tolist()})
        assert row.heldout == pairs[heldout & image]["image_id"].nunique()


def test_page_shows_pairs_and_tables_stay(store: Store) -> None:
    before = manifests(store)
    rows, page = write_sweep(open_tables(store))
    text = Path(page).read_text()
    assert text.count("<img") > 10
    assert all(f"{row.threshold:.4g}" in text for row in rows)
    assert as_rows(rows)[0].keys() == {"search", "threshold", "pairs", "dropped", "largest", "heldout"}
    assert manifests(store) == before
