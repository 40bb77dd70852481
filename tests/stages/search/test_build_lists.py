"""Inverted lists: who is stored where, how many lists a query probes, and that splitting a large list loses nothing."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.vectors import normalize
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.fit_lists import FitLists
from tests.stages.planted import make
from tests.stages.search.searches import SEARCH, declare_measured, found_among, join, joined


def num_probes(root: Path, **how: object) -> object:
    """What `auto` was resolved to."""
    p = declare_measured(root, **how)
    make(p)
    manifest = p.store.table("lists").manifest()
    assert manifest is not None
    return manifest.resolved["num_probes"]


def test_every_vector_is_stored_once_and_probes_as_many_lists_as_it_should(tmp_path: Path) -> None:
    rows = join(tmp_path, num_lists=6, num_probes=3, search=SEARCH).store.table("lists").read_all().to_pandas()
    assert rows[rows.home].groupby("image_id").size().unique().tolist() == [1]
    seen = rows.groupby("image_id").list_id.agg(["size", "nunique"])
    assert seen["size"].eq(3).all()  # its own list, and two more; held-out images are not stored, but probe three
    assert seen["nunique"].eq(3).all()


def test_both_vectors_of_an_image_are_stored_and_probe(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole, second = normalize(rng.standard_normal((60, 4))).tolist(), normalize(rng.standard_normal((60, 4))).tolist()
    given = [[tuple(row) for row in whole[part : part + 20]] for part in (0, 20, 40)]
    within = [
        [tuple(row) if n % 3 == 0 else None for n, row in enumerate(second[part : part + 20])] for part in (0, 20, 40)
    ]
    lists = {"fit": FitLists(num_lists=5), "build": BuildLists(num_probes=2)}
    search = {"threshold": 0.9, "heldout_threshold": 0.9}
    found_among(tmp_path, ("pool", "curated", "heldout"), given, within=within, **lists, **search)
    rows = Store(tmp_path).table("lists").read_all().to_pandas()
    by_image = rows.groupby("image_id")
    for image_id, own in by_image:
        part, row = image_id >> 32, image_id & 0xFFFFFFFF
        views = {np.float32(x[part][row]).tobytes() for x in (given, within) if x[part][row] is not None}
        assert set(own.vector) == views
        assert own.groupby("vector").list_id.nunique().eq(2).all()
        assert own.groupby("vector").home.sum().eq(0 if part == 2 else 1).all()
        assert len(own) == 2 * len(views)
    assert len(by_image) == 60


@pytest.mark.parametrize(("num_lists", "most"), [(1, 20), (3, 30)])
def test_large_lists_are_split_and_nothing_is_lost(tmp_path: Path, num_lists: int, most: int) -> None:
    given = {"num_lists": num_lists, "num_probes": num_lists, "search": SEARCH}
    found, *_ = joined(tmp_path, **given, max_list_rows=most)
    rows = Store(tmp_path).table("lists").read_all(["list_id", "home"])
    stored, list_id = rows["home"].to_numpy(), rows["list_id"].to_numpy()
    assert list_id.max() >= 4 * num_lists - 1
    assert np.bincount(list_id[stored]).max() < 2 * most
    assert np.bincount(list_id[~stored]).max() < 3 * most  # nearest lists are not probed by equal shares
    whole, *_ = joined(tmp_path / "whole", **given)
    assert found == whole


def test_lists_that_have_no_queries_are_never_split(tmp_path: Path) -> None:
    join(tmp_path, num_lists=2, num_probes=1, search=SEARCH, stored=("pool",), queries=(), max_list_rows=5)
    rows = Store(tmp_path).table("lists").read_all(["list_id", "home"])
    assert set(rows["list_id"].to_pylist()) == {0, 1}
    assert rows["home"].to_numpy().all()


def test_auto_takes_the_fewest_probes_that_reach_the_target(tmp_path: Path) -> None:
    loose, strict = (num_probes(tmp_path / f"{t}", num_lists=20, target_recall=t) for t in (0.3, 0.999))
    assert isinstance(loose, int)
    assert isinstance(strict, int)
    assert loose < strict


def test_too_few_pairs_choose_the_default(tmp_path: Path) -> None:
    assert num_probes(tmp_path, num_queries=1) == 4


def test_more_probes_than_lists_name_the_largest_valid_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^num_probes=7: there are 6 lists; set it from 1 to 6"):
        join(tmp_path, num_lists=6, num_probes=7, search=SEARCH)


def test_rows_of_the_law_are_those_of_a_real_run(tmp_path: Path) -> None:
    rows = join(tmp_path, num_lists=6, num_probes=3, search=SEARCH).store.table("lists").num_rows()
    vectors, given = Shape(2 * 51, 51, 51, row_bytes=72, dim=16), Assumptions(images=102)
    demand, made = BuildLists(num_probes=3).cost({"embeddings": vectors, "centroids": Shape(6, lists=6)}, given)
    assert made.rows == rows
    assert (made.stored, made.lists) == (3 * 51, 6)
    assert demand.written == rows * (72 + 1) < demand.scratch
    assert demand.note == "6 lists, 3 probes"
