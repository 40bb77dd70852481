"""Leaf clusters of all images, and what the report and `explain` tell of them."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from curate.config import identity
from curate.engine.cost import Assumptions, Shape
from curate.engine.finished import Finished, open_finished
from curate.engine.image_ids import part_of
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.show import Beside, Gallery, Heading, Numbers, Section, Text
from curate.engine.stage import Batches, Input, Map, each
from curate.engine.table import Table
from curate.ops.clusters.balance import size_figures
from curate.ops.vectors import VectorSpec, unpack
from curate.stages.clusters.assign import SHOWN, Assign, AssignFigures
from curate.stages.clusters.fit_clusters import FitClusters
from curate.tables import ASSIGNMENTS, SELECTION
from tests.stages.clusters.clustered import clustered
from tests.stages.planted import all_vectors, make


class EverySecond(Map):
    """A selection of every second assigned image."""

    inputs: ClassVar[dict[str, Input]] = {"assignments": each(ASSIGNMENTS)}

    def output_schema(self, **inputs: object) -> pa.Schema:
        return SELECTION

    def run(self, part: int, *, assignments: pa.Table) -> Batches:
        rows = assignments.take(np.arange(0, len(assignments), 2)).to_pylist()
        chosen = [
            {"image_id": r["image_id"], "clusters": [0, r["cluster_id"]], "origins": [], "repeats": 1} for r in rows
        ]
        yield pa.RecordBatch.from_pylist(chosen, schema=SELECTION)


def seen(p: Pipeline) -> tuple[Finished, Assign, Table]:
    run = open_finished(p.store, "toy", {"seed": 0}, p.steps)
    stage, table = run.only(Assign) or pytest.fail("not made")
    return run, stage, table


def sections(p: Pipeline) -> dict[str, Section]:
    run, stage, table = seen(p)
    return {section.title: section for section in stage.show(table, run)}


def test_every_image_gets_its_nearest_centroid(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12,)))
    rows = p.store.table("centroids").read_all()
    centroids, _ = unpack(rows["centroid"], VectorSpec.of(rows.schema))
    ids, x = all_vectors(p)
    assigned = p.store.table("assignments").read_all()
    assert assigned["image_id"].to_pylist() == ids.tolist()
    cosines = x @ centroids.T
    assert np.allclose(assigned["similarity"].to_numpy(), cosines.max(1), atol=1e-5)
    assert (assigned["cluster_id"].to_numpy() == cosines.argmax(1)).all()


def test_figures_count_leaves_that_nobody_chose(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12,)))
    table = p.store.table("assignments")
    counts = np.bincount(table.read_all(["cluster_id"])["cluster_id"].to_numpy(), minlength=12)
    assert AssignFigures.of(table).leaves.model_dump() == size_figures(counts, 12)


def test_report_adds_the_assigned_images_to_the_levels_of_their_tree(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12, 3)))
    run, *_ = seen(p)
    fit, tree = run.only(FitClusters) or pytest.fail("not made")
    (levels,) = fit.show(tree, run)
    (row,) = sections(p)["Levels of the clusters"].blocks
    heads = [block.head for block in levels.blocks if isinstance(block, Numbers)]
    assert isinstance(row, Numbers)
    assert [row.head] == heads  # tables of equal heads are joined on the page
    assert row.rows[0][:2] == ("leaves in assignments, all images", 12)


def test_report_shows_the_largest_clusters_nearest_images_first(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(12,)))
    rows = p.store.table("assignments").read_all().to_pandas()
    rows = rows[part_of(rows.image_id.to_numpy()) < 2].sort_values(["similarity", "image_id"], ascending=[False, True])
    sizes = rows.groupby("cluster_id").size()
    text, *blocks = sections(p)["Clusters"].blocks
    assert text == Text("The 3 largest clusters, then random ones.")
    headings, beside = blocks[::2], blocks[1::2]
    assert len(headings) == 8
    largest = sizes.sort_index().sort_values(ascending=False, kind="stable").index[:3].tolist()
    for heading, pictures, cluster in zip(headings, beside, largest, strict=False):
        assert heading == Heading(f"Cluster {cluster}: {sizes[cluster]} images")
        assert isinstance(pictures, Beside)
        near = pictures.columns[0][1]
        assert isinstance(near, Gallery)
        expected = rows[rows.cluster_id == cluster].image_id.tolist()
        assert [picture.image_id for picture in near.pictures] == expected[:SHOWN]
        others = [p.image_id for column in pictures.columns[1:] for p in column[1].pictures]  # type: ignore[union-attr]
        assert set(others) <= set(expected[SHOWN:])


def test_report_tells_how_many_images_of_a_cluster_were_selected(tmp_path: Path) -> None:
    p = clustered(tmp_path, FitClusters(levels=(3,)))
    p.add("selection", EverySecond(), assignments=Ref("assignments", ASSIGNMENTS))
    make(p)
    chosen = p.store.table("selection").read_all().to_pandas()
    chosen = chosen[part_of(chosen.image_id.to_numpy()) < 2].clusters.map(lambda path: path[-1]).value_counts()
    blocks = sections(p)["Clusters"].blocks
    told = {block.text.split(": ")[0]: block.text for block in blocks if isinstance(block, Heading)}
    assert {name: text.rpartition(", ")[2] for name, text in told.items()} == {
        f"Cluster {cluster}": f"{number} selected" for cluster, number in chosen.items()
    }


def test_explain_names_the_cluster_of_an_image_that_has_one(tmp_path: Path) -> None:
    run, stage, table = seen(clustered(tmp_path, FitClusters(levels=(12,))))
    row = table.read(2).to_pylist()[5]
    expected = f"{row['cluster_id']}, similarity {row['similarity']:.4f} to its centroid"
    assert list(stage.explain(run.place(row["image_id"]), table, run)) == [expected]
    assert list(stage.explain(run.place(2 << 32), table, run)) == []  # has no vector


def test_device_asks_for_a_gpu_and_enters_no_fingerprint() -> None:
    on_gpu = Assign(device="cuda")
    assert on_gpu.resources() == {"GPU": 1}
    assert Assign(device="cpu").resources() == {}
    assert identity(on_gpu) == identity(Assign())


def test_law_compares_every_image_with_every_leaf() -> None:
    vectors = Shape(1000, 100, 0, row_bytes=40, dim=16)
    demand, made = Assign().cost({"embeddings": vectors, "centroids": Shape(55, lists=50)}, Assumptions(images=1000))
    assert demand.products == 2 * 1100 * 50 * 16
    assert (made.pool, made.curated) == (1000, 100)
