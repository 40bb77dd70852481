"""Splits: k-NN and logistic regression over random splits of one set."""

from curate.evaluation import scores
from curate.evaluation.knn import knn_accuracy, possible_ks
from curate.evaluation.logistic import logistic_accuracy
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score
from curate.evaluation.splits import TRAIN_SHARE, stratified_split

SPLIT_NEIGHBORS = 10
"""Neighbors that vote."""


def take(run: Measured) -> list[Score]:
    """Mean accuracies over the splits."""
    nearest, logistic = [], []
    unit, labels = run.train.unit, run.train.labels
    for number in range(run.asked.num_splits):
        seed = run.asked.seed + number
        learned = stratified_split(labels, train_share=TRAIN_SHARE, seed=seed)
        four = unit[learned], labels[learned], unit[~learned], labels[~learned]
        (k,) = possible_ks(int(learned.sum()), (SPLIT_NEIGHBORS,))
        nearest.append(knn_accuracy(*four, k).value)
        logistic.append(logistic_accuracy(*four, seed=seed, device=run.device)[0].value)
    protocol = f"{run.asked.num_splits} splits 7:3 within each class"
    found = ((f"knn, k={k}", nearest), ("logistic", logistic))
    return [scores.of_splits(figure, protocol, values, test_share=1 - TRAIN_SHARE) for figure, values in found]
