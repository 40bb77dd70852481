"""Linear: the best of a grid of heads trained by SGD."""

from curate.evaluation import scores
from curate.evaluation.linear import linear_accuracy
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score


def take(run: Measured) -> list[Score]:
    """The accuracy of the head that is best on held-out training rows."""
    train, test, protocol = run.halves()
    accuracy, head = linear_accuracy(train, test, seed=run.asked.seed, device=run.device)
    return [scores.of_accuracy("linear", "SGD grid", protocol, accuracy, chosen=str(head))]
