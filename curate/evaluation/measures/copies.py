"""Copies: edited copies are planted and searched for."""

from curate.evaluation import scores
from curate.evaluation.copies import choose_pictures, embed_copies, score_copies
from curate.evaluation.measures.measured import Measured
from curate.evaluation.scores import Score


def take(run: Measured) -> list[Score]:
    """Micro average precision, and recall at a precision of 90 %."""
    seed = run.asked.seed
    rows, is_reference = choose_pictures(len(run.images), seed=seed, where=run.images.name)
    copies = embed_copies(run.backbone, run.images, rows, seed=seed)
    found = score_copies(run.train.unit[rows], copies, is_reference, seed=seed)
    protocol = f"planted on {len(rows)} pictures, {is_reference.sum()} of them references"
    num = found.num_queries
    return [
        scores.of_bootstrap("copies", "micro AP", protocol, found.micro_ap, found.micro_ap_draws, num=num),
        scores.of_bootstrap("copies", "recall@P90", protocol, found.recall_at_90, found.recall_draws, num=num),
    ]
