"""SemDeDup through its stages: the verdicts of a plain loop over clusters, in-process and under Dask."""

from pathlib import Path

import numpy as np
import pytest

from curate.engine.executors import ExecutorConfig, InProcess, start_executor
from curate.engine.freshness import Flags
from curate.engine.pipeline import Pipeline, Ref
from curate.engine.store import Store
from curate.ops.vectors import normalize
from curate.stages.clusters.cluster import FitClusters
from curate.stages.copies.semdedup import DropSimilar, RankWithin
from curate.stages.search.lists import BuildLists, read_centroids
from curate.tables import DUPLICATES
from tests.engine.test_pipeline import contents
from tests.stages.planted import all_vectors, given_table, make, planted


def judged(image_id: int) -> dict[str, object]:
    gone = image_id % 11 == 3
    decided = {"partner_id": 0, "similarity": 1.0, "kind": "sha256", "direct": True} if gone else {}
    verdict = "duplicate" if gone else "kept"
    return {"image_id": image_id, "component_id": image_id, "component_size": 1, "verdict": verdict} | decided


def declare(root: Path, *, keep: str = "hard", eps: float = 0.15) -> Pipeline:
    p, catalog, vectors = planted(root)
    rows = [[judged(part << 32 | row) for row in range(60)] if part < 2 else [] for part in range(4)]
    given_table(root, "duplicates", DUPLICATES, rows)
    centres = p.add("centroids", FitClusters(levels=(5,)), embeddings=vectors, catalog=catalog)
    home = BuildLists(homes=("pool",), probes=(), num_probes=1)
    lists = p.add("lists", home, embeddings=vectors, centroids=centres, catalog=catalog)
    ranked = p.add("ranked", RankWithin(keep=keep), lists=lists, centroids=centres)
    p.add("verdicts", DropSimilar(eps=eps), ranked=ranked, duplicates=Ref("duplicates", DUPLICATES), catalog=catalog)
    return p


def expected(p: Pipeline, *, keep: str, eps: float) -> dict[int, tuple[int, float]]:
    """Dropped image -> (partner, similarity), cluster by cluster, pair by pair."""
    ids, x = all_vectors(p)
    pool = np.isin(ids >> 32, (0, 1))
    ids, x = ids[pool], x[pool]
    centres = normalize(read_centroids(p.store.table("centroids")))
    cluster, found = (x @ centres.T).argmax(axis=1), {}
    for number in range(len(centres)):
        members = np.flatnonzero(cluster == number)
        to_centroid = x[members] @ centres[number]
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


def test_sweep_tells_what_every_eps_would_keep_and_only_verdicts_are_made_again(tmp_path: Path) -> None:
    make(declare(tmp_path, eps=0.15))
    ranked = Store(tmp_path).table("ranked")
    sweep = {point["eps"]: point["kept"] for point in ranked.metrics["sweep"]}
    similarity = ranked.read_all()["similarity"].drop_null().to_numpy()
    assert sweep[0.15] == ranked.num_rows() - int((similarity > 1 - 0.15).sum())
    assert sorted(sweep.values(), reverse=True) == list(sweep.values())
    p = declare(tmp_path, eps=0.3)
    assert p.run(InProcess(1), Flags(frozenset({"verdicts"}))) == ["verdicts"]
    assert p.store.table("verdicts").metrics["similar"] >= ranked.num_rows() - sweep[0.3]


def test_dask_gives_equal_bytes(tmp_path: Path) -> None:
    make(declare(tmp_path / "one"))
    with start_executor(ExecutorConfig(kind="local", workers=2, threads=1)) as executor:
        declare(tmp_path / "dask").run(executor, Flags())
    assert contents(tmp_path / "dask") == contents(tmp_path / "one")
