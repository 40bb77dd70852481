import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from curate.report.run import Run
from curate.report.sections import clusters
from curate.report.sections.funnel import rejects_by_role, steps
from curate.report.sections.warnings import curated_matches
from tests.report.workdir import Workdir


def test_every_step_says_why_images_left(workdir: Workdir) -> None:
    found = steps(Run.open(workdir.store))
    assert [(step.name, step.pool) for step in found] == [
        ("listed", 9),
        ("read", 9),
        ("accepted", 7),
        ("one of each copy", 6),
        ("clean of held-out images", 4),
        ("retrieved", 3),
        ("selected", 2),
        ("in the shards", 2),
    ]
    for before, after in itertools.pairwise(found):
        assert before.pool - sum(n for _, n in after.drops) == after.pool


def test_curated_images_are_counted_apart(workdir: Workdir) -> None:
    assert [step.curated for step in steps(Run.open(workdir.store))] == [2, 2, 2, None, None, None, 2, 2]


def test_rejects_belong_to_the_role_of_their_source(workdir: Workdir, tmp_path: Path) -> None:
    rejects = rejects_by_role(Run.open(workdir.store))
    assert rejects["pool"] == {"empty": 1, "noise": 1}
    assert not rejects["curated"]


def test_images_on_a_removal_list_are_the_last_drop(workdir: Workdir) -> None:
    table = workdir.store.table("shards/data")
    manifest = table.manifest()
    assert manifest is not None
    table.write_manifest(replace(manifest, rows=3))
    assert steps(Run.open(workdir.store))[-1].drops == [("on the removal list", 1)]


def test_with_a_balanced_route_retrieval_drops_nobody(workdir: Workdir) -> None:
    table = workdir.store.table("selection")
    manifest = table.manifest()
    assert manifest is not None
    metrics = {**manifest.metrics, "routes": {"balance": 1, "sample": 1}}
    table.write_manifest(replace(manifest, metrics=metrics))
    names = [step.name for step in steps(Run.open(workdir.store))]
    assert "retrieved" not in names
    assert names[-1] == "in the shards"


def test_cluster_sizes_count_pool_images_only(workdir: Workdir) -> None:
    sizes = clusters.cluster_sizes(Run.open(workdir.store))
    assert sizes is not None
    assert sizes.before.tolist() == [3, 1]
    assert sizes.after is not None
    assert sizes.after.tolist() == [1, 1]


def test_curated_images_that_resemble_heldout_ones_are_found(workdir: Workdir) -> None:
    expected = np.array([[workdir.ids["q2.jpg"], workdir.ids["h.jpg"]]])
    assert np.array_equal(curated_matches(Run.open(workdir.store)), expected)
