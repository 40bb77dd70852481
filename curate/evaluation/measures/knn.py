"""k-NN: the class that the nearest pictures vote for."""

from curate.evaluation import scores
from curate.evaluation.knn import knn_sweep, possible_ks
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score


def take(run: Measured) -> list[Score]:
    """The accuracy for each number of neighbors."""
    train, test = run.train, run.test
    ks = possible_ks(len(train.labels) - (test is None))
    test_x, test_y = (None, None) if test is None else (test.unit, test.labels)
    found = knn_sweep(train.unit, train.labels, test_x, test_y, ks, device=run.device)
    return [scores.of_accuracy("knn", f"k={k}", run.protocol, accuracy) for k, accuracy in found.items()]
