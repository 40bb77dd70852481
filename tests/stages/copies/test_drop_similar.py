"""DropSimilar: the verdicts of a plain loop over clusters, in-process and under Dask, and what it tells of them."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.cost import Assumptions, Shape
from curate.engine.executors import ExecutorConfig, start_executor
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline
from curate.ops.vectors import normalize
from curate.stages.copies.drop_similar import DropSimilar, DropSimilarFigures
from curate.stages.search.centroids import read_centroids
from tests.engine.test_finished import opened
from tests.engine.test_pipeline import contents
from tests.stages.copies.semdedup import declare, judged
from tests.stages.planted import all_vectors, make


def expected(p: Pipeline, *, keep: str, eps: float) -> dict[int, tuple[int, float]]:
    """Dropped image -> (partner, similarity), cluster by cluster, pair by pair."""
    ids, x = all_vectors(p)
    pool = np.isin(ids >> 32, (0, 1))
    ids, x = ids[pool], x[pool]
    centers = normalize(read_centroids(p.store.table("centroids")))
    cluster, found = (x @ centers.T).argmax(axis=1), {}
    for number in range(len(centers)):
        members = np.flatnonzero(cluster == number)
        to_centroid = x[members] @ centers[number]
        order = members[np.argsort(to_centroid if keep == "hard" else -to_centroid, kind="stable")]
        for place, image in enumerate(order.tolist()):
            cosine = [(float(x[image] @ x[other]), int(ids[other])) for other in order[:place]]
            if cosine and max(cosine)[0] > 1 - eps:
                found[int(ids[image])] = (max(cosine)[1], max(cosine)[0])
    return found


@pytest.mark.parametrize("keep", ["hard", "easy"])
def test_verdicts_equal_a_loop(tmp_path: Path, keep: str) -> None:
    p = declare(tmp_path, keep=keep)
    make(p)
    wanted = expected(p, keep=keep, eps=0.15)
    assert 5 < len(wanted) < 100
    for row in p.store.table("verdicts").read_all().to_pylist():
        if row["image_id"] in wanted:
            partner, similarity = wanted[row["image_id"]]
            assert (row["verdict"], row["partner_id"], row["kind"]) == ("similar", partner, "embedding")
            assert row["similarity"] == pytest.approx(similarity, abs=1e-5)
        else:
            assert row == {"partner_id": None, "similarity": None, "kind": None, "direct": None} | judged(
                row["image_id"]
            )


def test_what_a_person_decided_comes_before_likeness(tmp_path: Path) -> None:
    p = declare(tmp_path / "before")
    make(p)
    similar = expected(p, keep="hard", eps=0.15)
    kept, represents, alone, apart, *_ = sorted(similar)
    pair = sorted([apart, similar[apart][0]])
    said = [
        (kept, "keep", None),
        (represents, "represent", None),
        (alone, "not-copies", None),
        (pair[0], "not-copies", pair[1]),
    ]
    rows = [dict(zip(("image_id", "decision", "other_id"), row, strict=True)) for row in said]
    decided = declare(tmp_path / "after", decided=sorted(rows, key=lambda row: row["image_id"]))
    make(decided)
    found = {
        row["image_id"] for row in decided.store.table("verdicts").read_all().to_pylist() if row["verdict"] == "similar"
    }
    freed = {i for i, (partner, _) in similar.items() if alone in (i, partner)} | {kept, represents, apart}
    assert found == similar.keys() - freed


def test_dask_gives_equal_bytes(tmp_path: Path) -> None:
    make(declare(tmp_path / "one"))
    with start_executor(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        declare(tmp_path / "dask").run(executor, Flags())
    assert contents(tmp_path / "dask") == contents(tmp_path / "one")


def test_images_that_went_are_counted_and_explained(tmp_path: Path) -> None:
    p = declare(tmp_path)
    make(p)
    run = opened(p)
    stage, table = run.only(DropSimilar)
    rows = {row["image_id"]: row for row in table.read_all().to_pylist()}
    similar = [image_id for image_id, row in rows.items() if row["verdict"] == "similar"]
    kept = sum(row["verdict"] == "kept" for row in rows.values())
    (step,) = stage.flow(table, run, None)
    assert (step.name, step.pool) == ("not look-alikes", kept)
    assert step.drops == (("alike to a preferred one of its cluster", len(similar)),)
    assert DropSimilarFigures.of(table).similar == len(similar)
    assert stage.headline(table, run) == f"{kept} kept"
    partner, cosine = rows[similar[0]]["partner_id"], rows[similar[0]]["similarity"]
    story = list(stage.explain(run.place(similar[0]), table, run))
    assert story == [f"dropped: alike to {run.name_image(partner)}, cosine {cosine:.4f}"]
    stays = next(image_id for image_id, row in rows.items() if row["verdict"] == "kept")
    assert not list(stage.explain(run.place(stays), table, run))
    assert not list(stage.explain(run.place(3 << 32), table, run))


def test_cost_grows_with_the_pool() -> None:
    inputs = {"ranked": Shape(pool=1000, row_bytes=32), "duplicates": Shape(pool=1000, row_bytes=8, columns=8)}
    demand, made = DropSimilar().cost(inputs, Assumptions(images=1000))
    assert (made.rows, demand.rows, demand.written) == (1000, 3000, 40_000)
    assert 1000 * (32 + 8) < demand.read < 2 * 1000 * (32 + 8)  # ranks on their way, verdicts as they were
