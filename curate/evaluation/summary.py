"""Evaluations as a table for people and as JSON for programs, one alone or two beside each other."""

import json
from typing import Any

from curate.evaluation.evaluate import Evaluation
from curate.evaluation.scores import Score, ScoreDifference

HEAD = ("measure", "figure", "score, %", "answers", "protocol", "chosen on training images")
COMPARED_HEAD = ("measure", "figure", "first, %", "second, %", "second - first, %", "answers", "protocol")


def score_differences(first: Evaluation, second: Evaluation) -> list[ScoreDifference]:
    """`second` minus `first`, figure by figure, of two evaluations with the same seed and pictures."""
    known = {score.name: score for score in first.scores}
    return [ScoreDifference(known[score.name], score) for score in second.scores]


def evaluation_rows(found: Evaluation, second: Evaluation | None = None) -> list[tuple[str, ...]]:
    """Rows of the table under `HEAD`; with a second evaluation those under `COMPARED_HEAD`."""
    if second is None:
        return [_cells(score) for score in found.scores]
    return [_compared_cells(difference) for difference in score_differences(found, second)]


def _cells(score: Score) -> tuple[str, ...]:
    value = _told(score.value, score.stderr, score.unit)
    return score.measure, score.figure, value, str(score.num), score.protocol, score.chosen


def _compared_cells(difference: ScoreDifference) -> tuple[str, ...]:
    first, second = difference.first, difference.second
    values = (_told(score.value, score.stderr, score.unit) for score in (first, second))
    gain = _told(difference.value, difference.stderr, first.unit, sign="+")
    return first.measure, first.figure, *values, gain, str(first.num), first.protocol


def _told(value: float, stderr: float, unit: str, *, sign: str = "") -> str:
    """A figure with its error: a share in percent, an error in its unit."""
    if unit:
        return f"{value:{sign}.3f} +- {stderr:.3f} {unit}"
    return f"{100 * value:{sign}.1f} +- {100 * stderr:.1f}"


def describe_evaluation(found: Evaluation) -> str:
    """One line that says which model was measured on which images."""
    weights = f" ({found.weights[:12]})" if found.weights else ""
    test = "" if found.test is None else f"; tested on {found.num_test} images of {found.test}"
    counts = found.data
    if found.num_images:
        counts = f"{found.num_images} images of {found.data} in {found.num_classes} classes"
    return f"{found.model}{weights}, {found.precision}: {counts}{test}; seed {found.seed}"


def evaluation_json(found: Evaluation, second: Evaluation | None = None) -> str:
    """The evaluation as JSON; with a second one also the figures of that one and the paired differences."""
    values = _json_ready(found)
    if second is not None:
        differences = [
            {"measure": d.first.measure, "figure": d.first.figure, "value": d.value, "stderr": d.stderr}
            for d in score_differences(found, second)
        ]
        values |= {"compared": _json_ready(second), "differences": differences}
    return json.dumps(values, indent=2)


def _json_ready(found: Evaluation) -> dict[str, Any]:
    return vars(found) | {"scores": [_json_score(score) for score in found.scores]}


def _json_score(score: Score) -> dict[str, Any]:
    kept = ("measure", "figure", "protocol", "value", "stderr", "num", "chosen", "unit")
    values: dict[str, Any] = {name: getattr(score, name) for name in kept}
    return values | ({"values": score.parts.tolist()} if score.measure == "splits" else {})
