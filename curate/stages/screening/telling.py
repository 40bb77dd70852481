"""What a run tells of its screening: the step on the way, rules with their figures, scores about their thresholds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished, Sample
from curate.engine.numbers import count, plural, share
from curate.engine.show import (
    LIST_REJECTED,
    Block,
    Check,
    FlowStep,
    Gallery,
    Heading,
    Histogram,
    Marker,
    Numbers,
    Picture,
    Section,
    Series,
    Text,
)
from curate.engine.table import Table
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.rules import Rule
from curate.tables import CURATED, POOL, ROLES, SCORE_CHECK, SCORE_META, SENSITIVE, is_score

NUM_BINS = 50
"""Bins of a histogram of scores."""
SHOWN = 18
"""Pictures on either side of a threshold."""
SHOWN_VALUES = 12
"""Values of a score that is no number, the most frequent ones."""
MANY = 0.5
"""Share of the pool above which rejects are a warning."""
LICENSES = ("license", "licence")
"""How names of columns begin that tell of licenses."""


def flow(rejected: Mapping[str, Mapping[str, int]], run: Finished, before: FlowStep | None) -> Iterator[FlowStep]:
    """The step of the rules; images that a person keeps all the same are not counted as kept out."""
    if before is None:
        return
    saved = _saved(run)
    drops = {reason: number - saved.get(reason, 0) for reason, number in rejected.get(ROLES[POOL], {}).items()}
    listed = sum(rejected.get(ROLES[CURATED], {}).values())
    yield FlowStep(
        "within the rules",
        before.pool - sum(drops.values()),
        None if before.curated is None or not listed else before.curated - listed,
        tuple((reason.replace("_", " "), number) for reason, number in drops.items() if number),
        note=f"{plural(sum(saved.values()), 'image')} kept by your decision" if saved else "",
        kept_out="by rules",
        station=True,
    )


def _saved(run: Finished) -> dict[str, int]:
    """Images that rules reject and a person keeps, by reason."""
    from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures  # it reads what this room rejects

    judged = run.only(Deduplicate)
    return {} if judged is None else DeduplicateFigures.of(judged[1]).saved


def facts(table: Table, counts: Mapping[str, int], rules: Sequence[Rule], *, digits: int) -> Iterator[tuple[str, str]]:
    """Each rule with what it rejected, and each score with what made it."""
    schema, told = table.schema(), {rule.text: rule.column for rule in rules}
    for text in dict.fromkeys((*told, *counts)):
        column = told.get(text, "")
        by = f", score by {made_by(schema.field(column), digits)}" if column else ""
        yield "Rules", f"{text}: {plural(counts.get(text, 0), 'image')} kept out{by}"
    for field in filter(is_score, schema):
        yield "Scores", f"{field.name}: {field.metadata[b'doc'].decode()}, by {made_by(field, digits)}"


def made_by(field: pa.Field, digits: int = 12) -> str:
    """The model of a score and the digest of its weights, in words."""
    model, weights = (field.metadata.get(key, b"").decode() for key in SCORE_META)
    return f"{model}, weights {weights[:digits]}" if weights else model or "arithmetic on what is there"


def warn(table: Table, rejected: Mapping[str, Mapping[str, int]], run: Finished) -> Iterator[str]:
    """Of rules that take much of the pool."""
    total, pool = sum(rejected.get(ROLES[POOL], {}).values()), run.parts.num_images([ROLES[POOL]])
    if total > MANY * pool:
        reasons = ", ".join(f"{reason}: {count(number)}" for reason, number in rejected[ROLES[POOL]].items())
        yield (
            f"{table.name}: rules reject {count(total)} of {plural(pool, 'image')} of the pool ({reasons}); `curate "
            "sweep --score NAME` tells what other thresholds would take"
        )


def checks(schema: pa.Schema, rules: Sequence[Rule], asked: Sequence[str]) -> Iterator[Check]:
    """What rules have looked for."""
    ruled = {rule.column for rule in rules} | set(asked) | ({LISTED} & set(schema.names))
    yield from (check for name, check in _checked(schema) if name in ruled)
    if any(name.lower().startswith(LICENSES) for name in asked):
        yield "licenses"


def gaps(schema: pa.Schema, rules: Sequence[Rule], asked: Sequence[str]) -> Iterator[tuple[Check, str]]:
    """What was measured and led to nothing."""
    done = set(checks(schema, rules, asked))
    for name, check in _checked(schema):
        if check not in done:
            yield check, f"{check}: measured as {name}, but no rule goes by it"


def _checked(schema: pa.Schema) -> Iterator[tuple[str, Check]]:
    for field in filter(is_score, schema):
        check = field.metadata.get(SCORE_CHECK, b"").decode()
        yield from ((field.name, known) for known in get_args(Check) if known == check)


def explain(row: Mapping[str, Any], schema: pa.Schema) -> Iterator[str]:
    """The scores of one image, and the rule that rejects it."""
    measured = [field for field in schema if is_score(field) and row[field.name] is not None]
    if row["reject"] is not None:
        field = next((one for one in measured if one.name == row["reject"]), None)
        by = "" if field is None else f"; the score is by {made_by(field)}"
        copies = "; its copies go too" if row["with_copies"] else ""
        yield f"rejected: {row['reject']}: {row['detail']} (rule: {row['rule']}){by}{copies}"
    elif measured:
        yield "no rule rejects it"
    if measured:
        yield f"scores: {', '.join(f'{field.name} {_shown(row[field.name])}' for field in measured)}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


# -- the report ----------------------------------------------------------------------------------------------


def show(
    table: Table, run: Finished, counts: Mapping[str, int], rules: Sequence[Rule], *, blurred: bool
) -> Iterator[Section]:
    """Figures of the rules, then each score: a histogram with its rules, and pictures about the threshold."""
    schema = table.schema()
    fields = [field for field in schema if is_score(field) and field.name != LISTED]
    blocks: list[Block] = []
    pool = run.parts.num_images([ROLES[POOL]])
    ruled = {rule.text: schema.field(rule.column) for rule in rules}
    told = [
        (text, counts.get(text, 0), share(counts.get(text, 0), pool), made_by(ruled[text]) if text in ruled else "")
        for text in dict.fromkeys((*ruled, *counts))
    ]
    if told:
        blocks += [Numbers(("rule", "images kept out", "of the pool", "score by"), tuple(told))]
        blocks += [Text(f"Listed by {LIST_REJECTED}; other thresholds are tried by curate sweep WORKDIR --score NAME.")]
    sample = run.sample(table, ["image_id", "reject", *(field.name for field in fields)], role=ROLES[POOL])
    for field in fields:
        mine = [rule for rule in rules if rule.column == field.name]
        blocks += _score(field, mine, sample, blurred=blurred and SENSITIVE in field.metadata)
    if blocks:
        yield Section("Screening", (*blocks, *([Text(sample.note)] if sample.note else [])))


def _score(field: pa.Field, rules: Sequence[Rule], sample: Sample, *, blurred: bool) -> Iterator[Block]:
    """One score: what it is, how often which values are, and what its rules take."""
    rows = sample.rows.filter(sample.rows[field.name].is_valid())
    if not len(rows):
        return
    yield Heading(field.name)
    measured = "" if len(rows) == len(sample.rows) else f" Measured of {plural(len(rows), 'image')}."
    yield Text(f"{_sentence(field.metadata[b'doc'].decode())} By {made_by(field)}.{measured}")
    if not (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
        found = sorted(rows[field.name].value_counts().to_pylist(), key=lambda one: -one["counts"])[:SHOWN_VALUES]
        yield Numbers(("value", "images"), tuple((str(one["values"]).lower(), one["counts"]) for one in found))
        return
    values = rows[field.name].cast(pa.float64()).to_numpy()
    yield histogram(field, rules, values, rows["reject"].is_valid().to_numpy())
    seen = pc.not_equal(rows["reject"], LISTED).fill_null(True).to_numpy()  # what a list names is never shown
    ids, values = rows["image_id"].to_numpy()[seen], values[seen]
    for rule in rules:
        for word, bound in (("above", rule.bounds.above), ("below", rule.bounds.below)):
            if bound is not None:
                yield from around(ids, values, bound, rejects=word, blurred=blurred)


def _sentence(doc: str) -> str:
    return f"{doc[:1].upper()}{doc[1:].rstrip('.')}."


def histogram(field: pa.Field, rules: Sequence[Rule], values: np.ndarray, rejected: np.ndarray) -> Histogram:
    """Values (N,) of images that stay and of those that some rule rejects (N,) bool, with the rules' bounds."""
    bounds = [bound for rule in rules for bound in (rule.bounds.above, rule.bounds.below) if bound is not None]
    low, high = min([float(values.min()), *bounds]), max([float(values.max()), *bounds])
    edges = np.linspace(low, high if high > low else low + 1, NUM_BINS + 1)
    series = [
        Series("within the rules", np.histogram(values[~rejected], edges)[0], "a"),
        Series("rejected", np.histogram(values[rejected], edges)[0], "d"),
    ]
    markers = [Marker(f"{bound:g}", bound, "b") for bound in bounds]
    return Histogram(edges, series, markers, x_label=field.name, counted="images")


def around(image_ids: np.ndarray, values: np.ndarray, bound: float, *, rejects: str, blurred: bool) -> Iterator[Block]:
    """Pictures on either side of a threshold, the nearest first.

    Args:
        rejects: above or below, what the rule takes.
    """
    beyond = values > bound if rejects == "above" else values < bound
    within = f"up to {bound:g}" if rejects == "above" else f"from {bound:g} on"
    sides = ((f"{rejects} {bound:g}, kept out", beyond, LIST_REJECTED), (f"{within}, within the rule", ~beyond, ""))
    for words, mask, rest in sides:
        places = np.flatnonzero(mask)
        if len(places):
            nearest = places[np.argsort(np.abs(values[places] - bound), kind="stable")[:SHOWN]]
            pictures = tuple(Picture(int(image_ids[at]), (f"{values[at]:.4g}",)) for at in nearest.tolist())
            note = "; blurred, screen.show_sensitive=true shows them as they are" if blurred else ""
            yield Text(f"Nearest to the threshold, {words}{note}:")
            yield Gallery(pictures, more=len(places) - len(pictures), blurred=blurred, rest=rest)
