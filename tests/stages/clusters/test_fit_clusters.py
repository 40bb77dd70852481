"""Clusters of planted concepts: fitted once, on a sample or on all images, as a tree where asked."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from curate.config import Settings, identity, parse
from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import ExecutorConfig, InProcess, start_executor
from curate.engine.finished import open_finished
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.engine.show import Numbers
from curate.engine.store import Store
from curate.errors import ConfigError
from curate.ops.clusters.kmeans import run_lloyd
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.clusters.fit_clusters import FitClusters, TreeFigures
from curate.stages.clusters.levels import tree_section
from curate.stages.search.centroids import read_parents
from tests.stages.clusters.clustered import clustered, pool_vectors
from tests.stages.planted import PlantedCatalog, PlantedVectors, make, planted


def test_tree_has_a_parent_for_every_node_and_counts_only_fitted_images(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12, 3), num_resamplings=2))
    table = p.store.table("centroids")
    assert [level.clusters for level in TreeFigures.of(table).levels] == [12, 3]
    (parents,) = read_parents(table)
    assert set(parents.tolist()) == {0, 1, 2}
    rows = table.read_all().to_pandas()
    pool_vectors = 2 * 51
    assert rows.groupby("level")["num_images"].sum().tolist() == [pool_vectors, pool_vectors]


def test_more_clusters_than_images_names_the_largest_valid_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"levels=\[150\]: 102 images are left to cluster; .* at most 102"):
        clustered(tmp_path, FitClusters(levels=(150,)))


def test_more_clusters_than_listed_images_are_an_error_before_any_vector_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"levels=\[500\]: there are 240 images; .* at most 240"):
        clustered(tmp_path, FitClusters(levels=(500,)))
    assert not list((tmp_path / "vectors").rglob("part-*.parquet"))


def test_auto_is_resolved_from_the_images_that_are_left(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels="auto_flat"))
    manifest = p.store.table("centroids").manifest()
    assert manifest is not None
    assert manifest.config["levels"] == "auto_flat"
    assert manifest.resolved["levels"] == [102 // 20]


def test_five_levels_resample_the_fifth_as_the_fourth(tmp_path: Path) -> None:
    five, given = (5, 4, 3, 2, 1), (0, 10, 5, 3, 3)
    tables = []
    for name, fit in (("a", FitClusters(levels=five)), ("b", FitClusters(levels=five, points_per_centroid=given))):
        p = clustered(tmp_path / name, fit.model_copy(update={"num_resamplings": 1}))
        tables.append(p.store.table("centroids").read_all())
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (FitClusters(levels=(3, 12)), r"levels=\[3, 12\]: .* leaves first, each smaller"),
        (FitClusters(levels=(12, 3), points_per_centroid=(0,)), r"points_per_centroid=\[0\]: .* each of 2 levels"),
    ],
)
def test_levels_that_do_not_descend_are_an_error_before_any_compute(
    fit: FitClusters, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        clustered(tmp_path, fit)
    assert not list(tmp_path.rglob("part-*.parquet"))


def test_auto_levels_that_the_given_resampling_does_not_fit_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"points_per_centroid=\[0, 3\]: .* each of 1 levels"):
        clustered(tmp_path, FitClusters(levels="auto", points_per_centroid=(0, 3)))


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("num_groups", [1, 3, 64])
def test_lloyd_over_parts_equals_lloyd_over_one_array(spherical: bool, num_groups: int, tmp_path: Path) -> None:
    """Both begin with the leaves of a sample of 24 images, which Lloyd over all 102 then moves."""
    fit = FitClusters(levels=(12,), max_points_per_cluster=2, spherical=spherical, tolerance=0, num_groups=num_groups)
    on_sample = clustered(tmp_path / "sample", fit)
    on_all = clustered(tmp_path / "all", fit.model_copy(update={"fit": "all"}))
    rows = on_sample.store.table("centroids").read_all()
    seeds, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    expected = run_lloyd(pool_vectors(on_all), seeds, num_iterations=20, spherical=spherical, tolerance=0)
    found = on_all.store.table("centroids").read_all()
    centroids, _ = unpack(found["centroid"], VectorSpec.of(found.schema))
    assert expected.iterations > 1
    assert centroids == pytest.approx(expected.centroids, abs=1e-5)
    assert found["num_images"].to_pylist() == expected.sizes.tolist()
    assert sum(found["inertia"].to_pylist()) == pytest.approx(expected.inertia, rel=1e-5)
    assert (
        expected.inertia < 0.9 * run_lloyd(pool_vectors(on_all), seeds, num_iterations=0, spherical=spherical).inertia
    )


def test_tree_over_all_images_counts_them_all(tmp_path: Path) -> None:
    fit = FitClusters(levels=(12, 3), num_resamplings=2, fit="all", max_points_per_cluster=3, num_iterations=2)
    rows = clustered(tmp_path, fit).store.table("centroids").read_all().to_pandas()
    assert rows.groupby("level")["num_images"].sum().tolist() == [2 * 51, 2 * 51]
    assert rows.groupby("level").size().tolist() == [12, 3]


class Killed(BaseException):
    pass


class Fragile(InProcess):
    """Dies after two tasks."""

    def run(self, root: str, tasks: Any) -> Any:
        for number, done in enumerate(super().run(root, tasks)):
            if number or self.tired:
                raise Killed
            self.tired = True
            yield done

    tired = False


def fit_all(root: Path) -> Pipeline:
    p, catalog, vectors = planted(root)
    fit = FitClusters(levels=(12, 3), num_resamplings=1, fit="all", max_points_per_cluster=2, num_groups=3)
    p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    return p


def test_killed_in_every_round_and_under_dask_the_centroids_are_equal(tmp_path: Path) -> None:
    make(fit_all(tmp_path / "whole"))
    attempts = 0
    while True:
        try:
            attempts += 1
            fit_all(tmp_path / "killed").run(Fragile(1), Flags())
            break
        except Killed:
            continue
    assert attempts > 8
    with start_executor(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        fit_all(tmp_path / "dask").run(executor, Flags())
    files = [tmp_path / name / "centroids" / "part-00000.parquet" for name in ("whole", "killed", "dask")]
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_resampled_leaves_cannot_be_fitted_to_all_images(tmp_path: Path) -> None:
    fit = FitClusters(levels=(12, 3), points_per_centroid=(5, 2), num_resamplings=3, fit="all")
    with pytest.raises(ConfigError, match=r"fit=all with points_per_centroid=\[5, 2\]: .* set its first number to 0"):
        clustered(tmp_path, fit)


def test_sample_stays_within_its_bytes(tmp_path: Path) -> None:
    fit = FitClusters(levels=(1,), sample_bytes=40 * 4 * 16)
    rows = clustered(tmp_path / "a", fit).store.table("centroids").read_all(["num_images"])
    assert 40 <= sum(rows["num_images"].to_pylist()) <= 42  # rounded up in both parts
    with pytest.raises(ConfigError, match=r"sample_bytes=2560: holds 40 vectors .* least 51"):
        clustered(tmp_path / "b", fit.model_copy(update={"sample_share": 0.5}))


def test_a_sample_too_small_for_32_images_a_leaf_is_an_error_before_any_vector_is_made(tmp_path: Path) -> None:
    fit = FitClusters(levels=(12,), sample_bytes=70 * 4 * 16)  # 2 cells of 2 leaves
    message = (
        r"sample_bytes=4480: holds 70 vectors .* enough for 4 leaves, and 12 are wanted: .* to 4, or set it to 8192"
    )
    with pytest.raises(ConfigError, match=message):
        clustered(tmp_path, fit)
    assert not list((tmp_path / "vectors").rglob("part-*.parquet"))


def test_figures_of_each_level_follow_from_its_rows(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12, 3), num_resamplings=2))
    table = p.store.table("centroids")
    rows = table.read_all()
    levels, sizes = rows["level"].to_numpy(), rows["num_images"].to_numpy()
    centroids, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    below = pool_vectors(p)
    for level, wanted in enumerate((12, 3)):
        own, figures = centroids[levels == level], TreeFigures.of(table).levels[level]
        distances = ((below[:, None].astype(float) - own[None]) ** 2).sum(-1).min(1)
        assert figures.inertia == pytest.approx(distances.sum(), rel=1e-4)
        full = np.sort(sizes[levels == level])
        assert (figures.clusters, figures.empty) == (wanted, 0)
        assert [figures.smallest, figures.median, figures.largest] == full[[0, wanted // 2, -1]].tolist()
        assert figures.imbalance == pytest.approx(wanted * (full**2).sum() / full.sum() ** 2, abs=1e-4)
        below = own


def test_device_asks_for_a_gpu_and_enters_no_fingerprint() -> None:
    on_gpu = FitClusters(device="cuda")
    assert on_gpu.resources() == {"GPU": 1}
    assert FitClusters(device="cpu").resources() == {}
    assert identity(on_gpu) == identity(FitClusters())


def sampled(root: Path, fit: FitClusters) -> tuple[int, int]:
    """Images fitted and centroids found, of two parts of 60 images that have 2 and 51 vectors left."""
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool")))
    vectors = p.add("vectors", PlantedVectors(keep_first=(3, 60)), catalog=catalog)
    p.add("centroids", fit, embeddings=vectors, catalog=catalog)
    make(p)
    sizes = p.store.table("centroids").read_all(["num_images"])["num_images"].to_numpy()
    return int(sizes.sum()), len(sizes)


@pytest.mark.parametrize("levels", [20, 53])
def test_sample_follows_the_images_left_in_each_part(levels: int, tmp_path: Path) -> None:
    fitted, found = sampled(tmp_path, FitClusters(levels=(levels,), max_points_per_cluster=1, spherical=False))
    assert levels <= fitted <= levels + 2  # rounded up in both parts
    assert found >= levels - 1  # a duplicate may leave one empty


def test_errors_name_the_key_that_was_typed(tmp_path: Path) -> None:
    for number, (given, message) in enumerate(
        (
            ({"levels": [500]}, r"^clusters\.levels=\[500\]: there are 240 images"),
            ({"levels": [3, 12]}, r"^clusters\.levels=\[3, 12\]: "),
            ({"levels": [12], "sample_bytes": 700}, r"^clusters\.sample_bytes=700: "),
            ({"levels": [12, 3], "points_per_centroid": [1]}, r"^clusters\.points_per_centroid=\[1\]: "),
        )
    ):
        with pytest.raises(ConfigError, match=message):
            clustered(tmp_path / str(number), parse(Mounted, {"clusters": given}, where="x.yaml").clusters)


class Mounted(Settings):
    clusters: FitClusters


@pytest.mark.parametrize("fit", ["sample", "all"])
def test_law_counts_the_products_of_every_iteration(fit: Literal["sample", "all"]) -> None:
    vectors = Shape(10**6, 1000, 0, row_bytes=40, dim=16)
    stage = FitClusters(levels=(100, 10), fit=fit, num_iterations=5, max_points_per_cluster=200)
    demand, made = stage.cost({"embeddings": vectors}, Assumptions(images=10**6))
    on_sample = 2 * (100 * 200) * 100 * 16 * (5 + 8)  # seeding costs 8 iterations
    above = 2 * 100 * 10 * 16 * (5 + 8 + 1)  # and at last each centroid below finds its own
    assert demand.serial_products == on_sample + above
    assert demand.products == (5 * 2 * 10**6 * 100 * 16 if fit == "all" else 0)
    sampled = 100 * 200 * 16 * 4  # written, and read twice; in rounds, the sums of the leaves
    assert demand.read == pytest.approx(vectors.num_bytes * (6 if fit == "all" else 1) + 2 * sampled, rel=0.02)
    assert (made.rows, made.lists) == (110, 100)


def test_report_shows_every_level_of_the_tree(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12, 3)))
    run = open_finished(p.store, "toy", {}, p.steps)
    stage, table = run.only(FitClusters) or pytest.fail("not made")
    (section,) = stage.show(table, run)
    expected = tree_section("centroids", TreeFigures.of(table).levels)
    assert section.title == expected.title
    assert [b for b in section.blocks if isinstance(b, Numbers)] == [
        b for b in expected.blocks if isinstance(b, Numbers)
    ]
