"""The accuracy of a training beside that of its initial weights."""

from dataclasses import dataclass

from curate.evaluation.accuracy import Accuracy, paired_stderr


@dataclass(frozen=True)
class Improvement:
    """Answers to the same questions by the initial weights and by the trained ones."""

    initial: Accuracy
    trained: Accuracy

    @property
    def gain(self) -> float:
        """By how much the accuracy rose."""
        return self.trained.value - self.initial.value

    @property
    def gain_stderr(self) -> float:
        """Standard error of `gain`, paired, since both answer the same questions."""
        return paired_stderr(self.initial, self.trained)
