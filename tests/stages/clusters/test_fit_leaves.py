"""Leaves that are fitted cell by cell: as good as those fitted at once, by any executor, after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Demand, Shape
from curate.engine.executors import InProcess
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.clusters import guide, split
from curate.ops.clusters.coarse import nearest_lists
from curate.ops.clusters.hierarchy import auto_levels
from curate.ops.clusters.kmeans import find_with_distance
from curate.ops.vectors import VectorSpec, unpack
from curate.pipelines.clusters import fit_clusters
from curate.stages.clusters import fit_clusters as stage
from curate.stages.clusters.assign import Assign, AssignFigures
from curate.stages.clusters.fit_cells import FitCells
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.fit_leaves import FitLeaves
from curate.stages.search.centroids import read_lists
from tests.stages.planted import PlantedCatalog, PlantedVectors, all_vectors, make

CELLS, LEAVES, CLUSTERS = (f"internal/centroids/{name}" for name in ("cells", "leaves", "clusters"))
ROLES = ("pool", "pool", "pool", "curated")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of about 10 leaves and groups of about 4, from 24 leaves on."""
    for module in (stage, split):
        monkeypatch.setattr(module, "SPLIT_FROM", 24)
        monkeypatch.setattr(module, "LEAVES_PER_CELL", 10)
    monkeypatch.setattr(guide, "GUIDED_FROM", 24)
    monkeypatch.setattr(guide, "GROUP_SIZE", 4)
    monkeypatch.setattr(guide, "GROUPS_VISITED", 5)


def declared(root: Path, fit: FitClusters, *, rows: int = 400) -> Pipeline:
    p = Pipeline(Store(root), seed=3)
    catalog = p.add("catalog", PlantedCatalog(roles=ROLES, rows=rows))
    vectors = p.add("vectors", PlantedVectors(), catalog=catalog)
    tree = fit_clusters(p, fit, embeddings=vectors, catalog=catalog)
    p.add("assignments", Assign(), embeddings=vectors, centroids=tree)
    return p


def leaves_of(p: Pipeline) -> np.ndarray:
    rows = p.store.table(CLUSTERS).read_all()
    vectors, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    return np.ascontiguousarray(vectors[rows["level"].to_numpy() == 0])


def contents(p: Pipeline) -> dict[str, list[str]]:
    names = (CELLS, LEAVES, CLUSTERS, "assignments")
    return {name: [part.content for part in p.store.table(name).parts()] for name in names}


SPLIT = FitClusters(levels=(60, 8), num_resamplings=2, sample_bytes=600 * 4 * 16)


def inertia(p: Pipeline) -> float:
    ids, x = all_vectors(p)
    pool = x[(ids >> 32) < 3]
    return float(find_with_distance(pool, leaves_of(p), spherical=True)[1].sum())


def test_leaves_of_cells_fit_nearly_as_well_as_leaves_fitted_at_once(small: None, tmp_path: Path) -> None:
    by_cells = declared(tmp_path / "a", SPLIT)
    make(by_cells)
    assert by_cells.store.table(CELLS).num_rows() == 6
    assert len(by_cells.store.table(LEAVES).parts()) == 3
    assert 58 <= len(leaves_of(by_cells)) <= 60
    rows = by_cells.store.table(CLUSTERS).read_all().to_pandas()
    num_pool = sum(part.rows for part in by_cells.store.table("assignments").parts()[:3])
    assert rows[rows.level >= 0].groupby("level")["num_images"].sum().tolist() == [num_pool, num_pool]
    assert sorted(rows[rows.level == 0].group_id.unique()) == rows[rows.level == -1].cluster_id.tolist()


def test_inertia_of_cells_is_within_a_few_percent_of_that_of_one_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = declared(tmp_path / "a", FitClusters(levels=(60, 8)))
    make(at_once)
    assert (at_once.store.table(CELLS).num_rows(), at_once.store.table(LEAVES).num_rows()) == (0, 0)
    monkeypatch.setattr(stage, "SPLIT_FROM", 24)
    monkeypatch.setattr(stage, "LEAVES_PER_CELL", 10)
    by_cells = declared(tmp_path / "b", FitClusters(levels=(60, 8)))
    make(by_cells)
    assert by_cells.store.table(CELLS).num_rows() == 6
    assert inertia(by_cells) < 1.05 * inertia(at_once)


def test_lloyd_over_all_images_goes_on_from_the_leaves_of_cells(small: None, tmp_path: Path) -> None:
    few = SPLIT.model_copy(update={"max_points_per_cluster": 4})
    on_sample, on_all = (declared(tmp_path / fit, few.model_copy(update={"fit": fit})) for fit in ("sample", "all"))
    make(on_sample)
    make(on_all)
    assert inertia(on_all) < inertia(on_sample)


def test_images_are_told_how_often_their_leaf_is_the_nearest(small: None, tmp_path: Path) -> None:
    p = declared(tmp_path, SPLIT)
    make(p)
    ids, x = all_vectors(p)
    exact, _ = find_with_distance(x, leaves_of(p), spherical=True)
    found = p.store.table("assignments").read_all().to_pandas().set_index("image_id").cluster_id
    agreement = (found.loc[ids].to_numpy() == exact).mean()
    assert agreement >= 0.99
    told = AssignFigures.of(p.store.table("assignments")).agreement
    assert told == pytest.approx(agreement, abs=0.02)


class Killed(BaseException):
    pass


class Fragile(InProcess):
    """Dies before its task of the given number, counted over all tables."""

    def __init__(self, last: int) -> None:
        super().__init__(1)
        self.left = last

    def run(self, root: str, tasks: Any) -> Any:
        for done in super().run(root, tasks):
            yield done
            self.left -= 1
            if self.left < 0:
                raise Killed


def test_killed_fit_resumes_to_equal_tables_and_loses_no_cell(small: None, tmp_path: Path) -> None:
    whole = declared(tmp_path / "whole", SPLIT)
    make(whole)
    num_cell_tasks = len(ROLES) + 1 + 1  # sample of each part, the cells, their table
    first = len(ROLES) + num_cell_tasks + 1  # vectors, cells, and one task that scatters so few
    killed = declared(tmp_path / "killed", SPLIT)
    with pytest.raises(Killed):
        killed.run(Fragile(first + 2), Flags())
    assert not killed.store.table(LEAVES).is_complete()
    there = {n: killed.store.table(LEAVES).footer(n) for n in killed.store.table(LEAVES).committed()}
    assert there
    again = declared(tmp_path / "killed", SPLIT)
    made: list[str] = []

    class Counting(InProcess):
        def run(self, root: str, tasks: Any) -> Any:
            made.extend(f"{next(iter(task.stages))}-{task.phase}-{task.part}" for task in tasks)
            return super().run(root, tasks)

    again.run(Counting(1), Flags())
    assert not [one for one in made if one in {f"{LEAVES}-run-{n}" for n in there}]
    assert contents(again) == contents(whole)


def test_other_levels_above_keep_the_leaves(small: None, tmp_path: Path) -> None:
    make(declared(tmp_path, SPLIT))
    assert declared(tmp_path, SPLIT).run(InProcess(1), Flags()) == []
    other = SPLIT.model_copy(update={"levels": (60, 5), "num_resamplings": 1})
    changed = declared(tmp_path, other).run(InProcess(1), Flags(frozenset({CLUSTERS})))
    assert changed == [CLUSTERS, "assignments"]


@pytest.mark.parametrize("dim", [384, 1024])
def test_cost_of_auto_levels_grows_as_n_log_n(dim: int) -> None:
    """From 100,000 to a billion images: products of fit and assignment, and bytes of the largest task of a cell."""
    fit = FitClusters(levels="auto", num_resamplings=10)
    sizes = [10**5, 4 * 10**5, 10**6, 4 * 10**6, 10**7, 10**8, 10**9]
    spent = [sum(d.products + d.serial_products for d in demands(fit, n, dim)) / (n * np.log(n)) for n in sizes]
    assert max(spent) < 1.3 * spent[0]
    for n in sizes:
        cells, leaves, *_ = demands(fit, n, dim)
        assert max(cells.memory, leaves.memory) < 1 << 30
        assert least_sample(fit, n, dim) >= min(32, n / auto_levels(n)[0])


def demands(fit: FitClusters, num_images: int, dim: int) -> list[Demand]:
    """Of cells, leaves, clusters and assignments."""
    given, vectors = Assumptions(images=num_images), Shape(num_images, row_bytes=2 * dim + 8, dim=dim)
    inputs: dict[str, Any] = {"embeddings": vectors}
    of_cells, inputs["cells"] = FitCells(clusters=fit).cost(inputs, given)
    of_leaves, inputs["leaves"] = FitLeaves(clusters=fit).cost(inputs, given)
    of_clusters, inputs["centroids"] = fit.cost(inputs, given)
    return [of_cells, of_leaves, of_clusters, Assign().cost(inputs, given)[0]]


def least_sample(fit: FitClusters, num_images: int, dim: int) -> float:
    """Images sampled for each leaf, where cells are equally large."""
    num_leaves = auto_levels(num_images)[0]
    cells = fit.num_cells(num_leaves, num_images, dim)
    room = fit.sample_bytes // (8 * dim) * max(1, cells)
    return min(num_images, num_leaves * fit.max_points_per_cluster, room) / num_leaves


class Backwards(InProcess):
    """Makes the parts of each phase last first, as a cluster may."""

    def run(self, root: str, tasks: Any) -> Any:
        return super().run(root, tasks[::-1])


def test_tables_do_not_depend_on_the_order_of_tasks(small: None, tmp_path: Path) -> None:
    fit = SPLIT.model_copy(update={"fit": "all", "num_iterations": 2})
    forwards, backwards = declared(tmp_path / "a", fit), declared(tmp_path / "b", fit)
    make(forwards)
    backwards.run(Backwards(2), Flags())
    assert contents(forwards) == contents(backwards)


def test_leaves_taken_as_inverted_lists_are_searched_by_their_groups(small: None, tmp_path: Path) -> None:
    p = declared(tmp_path, SPLIT)
    make(p)
    lists, (_, x) = read_lists(p.store.table(CLUSTERS)), all_vectors(p)
    assert len(lists.group_centroids) > 1
    assert (np.diff(lists.group) >= 0).all()
    exact = (x @ lists.centroids.T).argmax(axis=1)
    assert (nearest_lists(x, lists, 1)[:, 0] == exact).mean() >= 0.99


@pytest.mark.parametrize("num_images", [10**6, 10**9])
def test_plan_refuses_more_leaves_than_images_and_than_tasks_can_hold(num_images: int) -> None:
    inputs = {"embeddings": Shape(num_images, row_bytes=2056, dim=1024)}
    with pytest.raises(ConfigError, match=rf"levels=\[{num_images + 1}\]: there are {num_images} images; .* at most"):
        FitClusters(levels=(num_images + 1,)).cost(inputs, Assumptions(images=num_images))
    small = FitClusters(levels=(50_000,), sample_bytes=16 << 20)  # 4,096 vectors: 128 cells of 128 leaves
    with pytest.raises(ConfigError, match=r"16777216: holds 4096 .* to 16384, or set it to 29360128 or more"):
        small.cost(inputs, Assumptions(images=num_images))
    small.model_copy(update={"levels": (16_384,)}).cost(inputs, Assumptions(images=num_images))
    small.model_copy(update={"sample_bytes": 29_360_128}).cost(inputs, Assumptions(images=num_images))
