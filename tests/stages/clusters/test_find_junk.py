"""FindJunk: planted junk is found, and told with its pictures."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished, open_finished
from curate.engine.pipeline import Pipeline
from curate.engine.show import Gallery, Heading, Histogram, Text
from curate.engine.store import Store
from curate.engine.table import Table
from curate.ops.vectors import normalize
from curate.stages.clusters.assign import Assign
from curate.stages.clusters.find_junk import BINS, FindJunk, JunkFigures, _bin, bounds_of
from curate.stages.clusters.fit_clusters import FitClusters
from curate.stages.clusters.measure_density import MeasureDensity
from curate.stages.search.build_lists import BuildLists
from curate.stages.search.fit_lists import FitLists
from curate.stages.search.neighbors import FindNeighbors
from tests.stages.planted import GivenVectors, PlantedCatalog, make

DIM, ROWS = 32, 240
K = 5


def pool(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(2, ROWS, DIM) vectors of two parts, and what each is: 0 a concept, 1 a tight mode, 2 noise."""
    kind = rng.choice(3, (2, ROWS), p=[0.88, 0.06, 0.06])
    concept = normalize(rng.standard_normal((8, DIM)))[rng.integers(0, 8, (2, ROWS))]
    near = normalize((concept + 0.16 * rng.standard_normal(concept.shape)).reshape(-1, DIM)).reshape(concept.shape)
    mode = normalize(rng.standard_normal((1, DIM)))[0]
    tight = normalize((mode + 0.03 * rng.standard_normal(concept.shape)).reshape(-1, DIM)).reshape(concept.shape)
    noise = normalize(rng.standard_normal((2 * ROWS, DIM))).reshape(concept.shape)
    return np.where((kind == 0)[..., None], near, np.where((kind == 1)[..., None], tight, noise)), kind


def searched(root: Path, vectors: np.ndarray, stage: FindJunk) -> Pipeline:
    p = Pipeline(Store(root), seed=0)
    catalog = p.add("catalog", PlantedCatalog(roles=("pool", "pool", "curated"), rows=ROWS))
    given_rows = tuple(tuple(map(tuple, part)) for part in (*vectors.tolist(), vectors[0].tolist()))
    embeddings = p.add("vectors", GivenVectors(vectors=given_rows), catalog=catalog)
    clusters = p.add("centroids", FitClusters(levels=(12,)), embeddings=embeddings, catalog=catalog)
    leaves = p.add("assignments", Assign(), embeddings=embeddings, centroids=clusters)
    coarse = p.add("density/centroids", FitLists(stored=("pool",)), embeddings=embeddings, catalog=catalog)
    build = BuildLists(stored=("pool",), queries=("pool",))
    roles = {"queries": ("pool",), "answers": ("pool",)}
    nearest = FindNeighbors(threshold=-1, heldout_threshold=-1, max_neighbors=K, lists=build, **roles)
    pairs = p.add("density/neighbors", nearest, embeddings=embeddings, centroids=coarse, catalog=catalog)
    density = p.add("density/images", MeasureDensity(num_neighbors=K), neighbors=pairs, catalog=catalog)
    p.add("junk", stage, density=density, assignments=leaves, catalog=catalog)
    make(p)
    return p


def seen(p: Pipeline) -> tuple[Finished, FindJunk, Table]:
    run = open_finished(p.store, "toy", {"seed": 0}, p.steps)
    stage, table = run.only(FindJunk) or pytest.fail("not made")
    return run, stage, table


def test_planted_junk_is_found_and_concepts_stay(tmp_path: Path) -> None:
    vectors, kind = pool(np.random.default_rng(0))
    table = searched(tmp_path, vectors, FindJunk()).store.table("junk")
    assert [part.rows for part in table.parts()] == [ROWS, ROWS, 0]
    rows = table.read_all()
    found, what = rows["junk"].to_numpy(), kind.ravel()
    assert found[what == 1].all()
    assert found[what == 2].mean() > 0.9
    assert found[what == 0].mean() < 0.03
    figures = JunkFigures.of(table)
    assert figures.junk == found.sum()
    assert figures.too_alike == pytest.approx((what == 1).sum(), abs=0.03 * len(what))
    assert figures.low < np.median(rows["density"].to_numpy()) < figures.high


def test_densities_and_coherences_are_those_of_brute_force(tmp_path: Path) -> None:
    vectors, _ = pool(np.random.default_rng(1))
    rows = searched(tmp_path, vectors, FindJunk(low=-1, high=1)).store.table("junk").read_all()
    x = vectors.reshape(-1, DIM).astype(np.float32)
    cosine = x @ x.T
    np.fill_diagonal(cosine, -np.inf)
    wanted = np.sort(cosine, axis=1)[:, -K:].mean(axis=1)
    assert rows["density"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    leaf = np.concatenate([Store(tmp_path).table("assignments").read(part)["cluster_id"].to_numpy() for part in (0, 1)])
    means = np.array([wanted[leaf == one].mean() for one in leaf])
    assert rows["coherence"].to_numpy() == pytest.approx(means, abs=1e-4)
    assert not rows["junk"].to_numpy().any()


def test_report_shows_junk_by_its_reason(tmp_path: Path) -> None:
    vectors, _ = pool(np.random.default_rng(0))
    run, stage, table = seen(searched(tmp_path, vectors, FindJunk()))
    (section,) = stage.show(table, run)
    chart, text, alike, alike_pictures, other, other_pictures = section.blocks
    figures, rows = JunkFigures.of(table), table.read_all().to_pandas()
    assert isinstance(chart, Histogram)
    assert [int(series.values.sum()) for series in chart.series] == [(~rows.junk).sum(), rows.junk.sum()]
    assert [marker.at for marker in chart.markers] == [figures.low, figures.high]
    assert isinstance(text, Text)
    expected = f"{figures.junk} images kept out of the balanced draw, {figures.too_alike} of them as more alike"
    assert text.text.startswith(expected)
    assert (alike, other) == (Heading("Kept out: too alike"), Heading("Kept out: like nothing else"))
    dense = rows.junk & ((rows.density > figures.high) | (rows.coherence > figures.high))
    for block, ids in ((alike_pictures, rows.image_id[dense]), (other_pictures, rows.image_id[rows.junk & ~dense])):
        assert isinstance(block, Gallery)
        assert {picture.image_id for picture in block.pictures} <= set(ids)
        assert len(block.pictures) == min(48, len(ids))
        assert block.more == len(ids) - len(block.pictures)


def test_explain_tells_why_an_image_was_left_out(tmp_path: Path) -> None:
    vectors, _ = pool(np.random.default_rng(0))
    run, stage, table = seen(searched(tmp_path, vectors, FindJunk()))
    figures, rows = JunkFigures.of(table), table.read_all().to_pandas()
    for junk, verdict in ((True, "left out of the balanced draw as junk"), (False, "like the pool")):
        row = rows[rows.junk == junk].iloc[0]
        cosines = f"mean cosine to its neighbors {row.density:.3f}, in its cluster {row.coherence:.3f}"
        assert list(stage.explain(run.place(int(row.image_id)), table, run)) == [
            f"{verdict}: {cosines}",
            f"usual is {figures.low:.3f} to {figures.high:.3f}",
        ]
    assert list(stage.explain(run.place(2 << 32), table, run)) == []  # junk is not looked for among curated images


def test_law_has_a_row_for_each_measured_image() -> None:
    inputs = {"density": Shape(500, row_bytes=12), "assignments": Shape(500, 100, row_bytes=16, lists=10)}
    demand, made = FindJunk().cost(inputs, Assumptions(images=1000))
    assert made.rows == 500
    assert demand.rows == 2 * 500


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(1, 4))
def test_bounds_are_those_of_numpy(seed: int, z: float) -> None:
    rng = np.random.default_rng(seed)
    density = np.clip(rng.normal(rng.uniform(0.2, 0.8), 0.08, 501), -0.5, 0.99)
    value = np.log(1 - density)
    median = np.median(value)
    mad = np.median(np.abs(value - median))
    low, high = 1 - np.exp(median + z * 1.4826 * mad), 1 - np.exp(median - z * 1.4826 * mad)
    found = bounds_of(np.bincount(_bin(density), minlength=BINS), z)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.low == pytest.approx(max(-1, low), abs=0.05)


def test_nothing_measured_is_no_junk() -> None:
    assert bounds_of(np.zeros(BINS), 3.0) == (-1.0, 1.0)


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_where_all_images_are_alike_none_is_junk_and_a_warning_says_so(tmp_path: Path, noise: float) -> None:
    """As a backbone that has collapsed makes them."""
    rng = np.random.default_rng(0)
    one = normalize(rng.standard_normal((1, DIM)))[0]
    vectors = normalize((one + noise * rng.standard_normal((2 * ROWS, DIM))).reshape(-1, DIM)).reshape(2, ROWS, DIM)
    run, stage, table = seen(searched(tmp_path, vectors, FindJunk()))
    assert not table.read_all()["junk"].to_numpy().any()
    (warning,) = stage.warn(table, run)
    assert "nothing tells junk from them" in warning
    assert "has the backbone collapsed?" in warning


def test_a_usual_pool_brings_no_warning(tmp_path: Path) -> None:
    run, stage, table = seen(searched(tmp_path, pool(np.random.default_rng(0))[0], FindJunk()))
    assert list(stage.warn(table, run)) == []
