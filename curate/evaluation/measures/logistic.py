"""Logistic: regression on unit features, its penalty chosen on training rows."""

from curate.evaluation import scores
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score


def take(run: Measured) -> list[Score]:
    """The accuracy, and the penalty that was chosen."""
    train, test, protocol = run.halves()
    accuracy, strength = logistic_accuracy(
        train.unit, train.labels, test.unit, test.labels, seed=run.asked.seed, device=run.device
    )
    return [scores.of_accuracy("logistic", "L-BFGS", protocol, accuracy, chosen=f"C={strength:.3g}")]
