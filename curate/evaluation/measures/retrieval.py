"""Retrieval: pictures of the class of a query, ranked by cosine."""

from curate.evaluation import scores
from curate.evaluation.measures.measured import Measured
from curate.evaluation.retrieval import RECALL_AT, retrieve_by_class
from curate.evaluation.scores import Score


def take(run: Measured) -> list[Score]:
    """Mean average precision, and recall at some ranks."""
    train, test = run.train, run.test
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = retrieve_by_class(train.unit, train.labels, test_x, test_y, seed=run.asked.seed, device=run.device)
    recalls = [
        scores.of_items("retrieval", f"recall@{k}", run.protocol, found.recalled[k].astype(float)) for k in RECALL_AT
    ]
    return [scores.of_items("retrieval", "mAP", run.protocol, found.average_precision), *recalls]
