"""`curate sweep`: what each threshold for copies would keep and drop, by all evidence together.

Thresholds do not act alone: chains of pairs are split, hashes and equal bytes join what the embedding does not,
held-out images take whole groups with them. So nothing is estimated: for each value the tables that it changes are
made, up to the verdicts, in a store that lies over the workdir (`engine/store.py`, folder `.sweep`), exactly as
`--update` would make them, and are counted. The workdir stays as it is. A value costs what its tables cost; where pairs
are verified and it lies above what has been verified, no picture is opened. Without verification each value searches
once more.

Memory: that of deduplication, and a bit an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import progress, workdir
from curate.config import apply_overrides
from curate.engine.executors import InProcess
from curate.engine.finished import Finished
from curate.engine.freshness import Flags
from curate.engine.image_ids import Parts
from curate.engine.pipeline import Pipeline
from curate.engine.store import SWEEP, Store
from curate.engine.table import Table
from curate.engine.work import Step
from curate.errors import ConfigError, TableError
from curate.pipelines.copies import Copies, CurationConfig
from curate.recipe import RecipeConfig, check_config, find_recipe
from curate.report.score_sweep import ScoreSweep, sweep_score
from curate.report.sweep import Example, Key, Swept
from curate.stages.copies.contamination import ImageSet
from curate.stages.copies.deduplicate import Deduplicate, DeduplicateFigures
from curate.updating import end_switch

POOL, HELDOUT = "copies.threshold", "copies.heldout_threshold"
MEASURED = "copies.calibration.thresholds."
STEP = 0.05
"""Between two thresholds that are tried."""
STRICT = (0.97, 0.99)
"""Thresholds that are tried beside them."""
PRECISIONS = (0.95, 0.98, 0.99, 0.995)
"""Precisions that are tried where copies are planted to measure the threshold."""
NUM_EXAMPLES = 4
"""Images of each value that are shown."""
VERDICTS = ["image_id", "verdict", "partner_id", "similarity", "kind"]


@dataclass(frozen=True)
class _Wanted:
    """A key of the config, and what is tried of it."""

    key: str
    now: float | str | None
    values: tuple[float | str | None, ...]
    """From the strictest on; without the value of now."""


def sweep(store: Store, *, keys: Sequence[str] = ()) -> list[Swept]:
    """Every threshold that may be chosen, the strictest first, and the one of now.

    Args:
        keys: of the config; none: all that there are.

    Raises:
        TableError: the verdicts on copies are not there, or not those of the current settings.
        ConfigError: the recipe looks for no copies.
    """
    with store.lock():
        end_switch(store)
        run = workdir.open_tables(store)
        config = check_config(run.config, where=store.join(workdir.RUN))
        if not isinstance(config, CurationConfig):
            raise ConfigError(f"{store.root}: recipe {run.recipe!r} has no threshold for copies")
        judged = run.only(Deduplicate)
        if judged is None:
            raise TableError(
                f"{store.root}: the verdicts on copies of its settings are not there; run its config first"
            )
        wanted = [one for one in _wanted(config.copies, run.parts) if not keys or one.key in keys]
        store.remove(SWEEP)
        try:
            with progress.track("sweep", sum(len(one.values) for one in wanted), unit="thresholds") as advance:
                return [row for one in wanted for row in _Sweeping(run, config, judged[1], one, advance).rows()]
        finally:
            store.remove(SWEEP)


def sweep_of_score(run: Finished, name: str) -> ScoreSweep:
    """The thresholds of one score, of its table alone.

    Raises:
        TableError: the run has no scores.
        ConfigError: it has no such score, or one that is no number.
    """
    return sweep_score(run, name, command=lambda key: _command(run, key))


def _wanted(copies: Copies, parts: Parts) -> Iterator[_Wanted]:
    compared = bool(parts.num_images(["heldout"]))
    if copies.threshold == "auto":
        chosen = copies.calibration.thresholds
        for name, given in (("precision", chosen.precision), ("heldout_precision", chosen.heldout_precision)):
            if name == "precision" or compared:
                others = sorted(set(PRECISIONS) - {given}, reverse=True)
                yield _Wanted(f"{MEASURED}{name}", given, tuple(others))
        return
    own, heldout = copies.given
    if copies.verifies:
        rule = copies.rule()
        low, low_heldout, strict = rule.floor.threshold, rule.floor.heldout_threshold, [rule.sure]
    else:
        search = copies.unverified_search()
        assert search.threshold is not None
        assert search.heldout_threshold is not None
        low, low_heldout, strict = search.threshold, search.heldout_threshold, []
    known: tuple[str, ...] = ("known",) if own is not None else ()
    yield _Wanted(POOL, "known" if own is None else own, (*_grid(low, own, strict), *known))
    if compared:
        nothing: tuple[None, ...] = (None,) if heldout is not None else ()
        yield _Wanted(HELDOUT, heldout, (*_grid(low_heldout, heldout, strict), *nothing))


def _grid(low: float, now: float | None, more: Sequence[float]) -> list[float]:
    """Thresholds from the strictest down to `low`, those of `more` among them, and that of now left out."""
    steps = np.arange(np.ceil(round(low / STEP, 6)), 1 / STEP) * STEP
    values = {round(low, 6), *STRICT, *more, *(round(float(step), 6) for step in steps)}
    return sorted((value for value in values if value != now and low <= value < 1), reverse=True)


class _Sweeping:
    """Trying the values of one key."""

    def __init__(self, run: Finished, config: RecipeConfig, table: Table, wanted: _Wanted, advance: Any) -> None:
        self.run, self.config, self.table, self.wanted, self.advance = run, config, table, wanted, advance
        self.going = ImageSet(run.parts)
        """Images that went at a stricter value."""
        self.verdict = "benchmark" if "heldout" in wanted.key else "duplicate"

    def rows(self) -> Iterator[Swept]:
        """One for each value, and first that of now."""
        key = self.wanted.key
        yield self._row(self.table, Key(key, self.wanted.now, now=True), ())
        for value in self.wanted.values:
            made = self._try(value)
            if made is not None:
                examples = () if isinstance(value, str) or value is None else tuple(self._going_now(made))
                yield self._row(made, Key(key, value, now=False), examples)
            self.advance(1)

    def _row(self, table: Table, key: Key, examples: tuple[Example, ...]) -> Swept:
        found = DeduplicateFigures.of(table)
        evidence = dict[str, int]()
        for kinds in found.copies_by_evidence.values():
            for kind, number in kinds.items():
                evidence[kind] = evidence.get(kind, 0) + number
        return Swept(
            key=key,
            kept=found.kept,
            dropped=found.duplicate,
            contaminated=found.benchmark,
            largest=found.largest_component,
            evidence=dict(sorted(evidence.items())),
            command=_command(self.run, key),
            examples=examples,
        )

    def _try(self, value: float | str | None) -> Table | None:
        """The verdicts of a value; None: it cannot be reached."""
        text = "null" if value is None else str(value)
        values = apply_overrides(self.config.model_dump(mode="json"), [f"{self.wanted.key}={text}"])
        config = check_config(values, where=workdir.RUN)
        over = self.run.store.over(SWEEP)
        pipeline = Pipeline(over, seed=config.seed, within=config.sources.network)
        find_recipe(config.recipe).declare(pipeline, config)
        pipeline.steps = _leading_to(pipeline.steps, self.table.name)
        try:
            with over.keeping(), config.sources.network.used():
                pipeline.run(InProcess(config.executor.threads), Flags(update=True))
        except ConfigError:  # no threshold reaches a precision
            return None
        return over.table(self.table.name)

    def _going_now(self, table: Table) -> list[Example]:
        """Some images that go at this value and stay at every stricter one, drawn alike in every run."""
        rng, chosen = self.run.rng(f"sweep {self.wanted.key}"), list[tuple[float, Example]]()
        for part in table.parts():
            rows = table.read(part.number, VERDICTS)
            rows = rows.filter(pc.equal(rows["verdict"], self.verdict))
            ids = rows["image_id"].to_numpy()
            rows = rows.filter(pa.array(~self.going.has(ids), pa.bool_()))
            self.going.add(ids)
            drawn = rng.random(len(rows))
            for at in np.argsort(drawn)[:NUM_EXAMPLES].tolist():
                row = rows.slice(at, 1).to_pylist()[0]
                chosen.append((drawn[at], Example(row["image_id"], row["partner_id"], row["similarity"], row["kind"])))
            chosen = sorted(chosen, key=lambda one: one[0])[:NUM_EXAMPLES]
        return [example for _, example in chosen]


def _leading_to(steps: Sequence[Step], table: str) -> list[Step]:
    """Those steps that a table is made of, directly or not."""
    needed, kept = {table}, list[Step]()
    for step in reversed(steps):
        if needed & step.stages.keys():
            kept.append(step)
            needed |= {name for names in step.inputs.values() for name in names or ()}
    return kept[::-1]


def _command(run: Finished, key: Key) -> str:
    """What applies a value: a command line, or a call where the run was one."""
    record = workdir.open_record(run.store)
    if record.command is not None:
        return workdir.command_line(record.command, key.override, "--update")
    nested: Any = key.value
    for step in reversed(key.name.split(".")):
        nested = {step: nested}
    changes = ", ".join(f"{name}={value!r}" for name, value in nested.items())
    return f"curate.run(CONFIG, workdir={run.store.root!r}, {changes}, update=True)"
