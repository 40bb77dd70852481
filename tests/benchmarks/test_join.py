"""The benchmark of the join, small: its truth, its recall, and the same edges from faiss."""

import numpy as np
import pytest

from benchmarks.join import COPIES, Job, faiss_search, make, pipeline, recall_of_table, true_pairs
from curate.ops.vectors import VectorSpec, to_float32, unpack


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    found = Job(str(tmp_path_factory.mktemp("join")), 70_000, 128, 3, 0.75, 0, 2)
    for name in ("vectors", "centroids", "neighbors"):
        make(found, name)
    return found


def test_truth_equals_all_products_of_the_sampled_queries(job: Job) -> None:
    truth = true_pairs(job)
    rows = pipeline(job).store.table("vectors").read_all()
    x = to_float32(unpack(rows["vector"], VectorSpec.of(rows.schema))[0], VectorSpec.of(rows.schema))
    ids = rows["image_id"].to_numpy()
    query = np.searchsorted(ids, np.unique(truth.query_ids)[:50])
    q, image = np.nonzero(x[query] @ x.T >= np.float32(0.75))
    expected = {(int(ids[query[a]]), int(ids[b])) for a, b in zip(q, image, strict=True) if query[a] != b}
    found = set(zip(truth.query_ids.tolist(), truth.image_ids.tolist(), strict=True))
    assert expected == {pair for pair in found if pair[0] in set(ids[query].tolist())}
    assert truth.num_edges > COPIES * 2000 * 0.5


def test_the_table_and_faiss_find_the_same_share(job: Job) -> None:
    truth = true_pairs(job)
    own, peer = recall_of_table(job, truth), faiss_search(job, truth)
    assert own.num_pairs > 100
    assert own.recall > 0.8
    assert own.recall == pytest.approx(peer["recall"], abs=0.01)
