"""The page of `curate sweep`: what each threshold keeps and drops, and images that go from there on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.engine.finished import Finished
from curate.engine.show import Block, Curves, Gallery, Heading, Line, Numbers, Picture, Text
from curate.report.markup import el
from curate.report.page import SWEEP_FILE, document
from curate.report.pictures import Pictures
from curate.report.render import render_blocks
from curate.report.sections import outdated

HEAD = ("value", "kept", "copies dropped", "largest group", "with held-out images", "")
NOW = "as it is"


@dataclass(frozen=True)
class Key:
    """A key of the config and a value of it."""

    name: str
    value: float | str | None
    now: bool
    """Whether it is the value that the run was made with."""

    @property
    def override(self) -> str:
        """As the command line takes it."""
        return f"{self.name}={self.text}"

    @property
    def text(self) -> str:
        """The value as the command line takes it."""
        return "null" if self.value is None else f"{self.value:g}" if isinstance(self.value, float) else str(self.value)


@dataclass(frozen=True)
class Example:
    """An image of the pool that goes at a value, and the one because of which it does."""

    image_id: int
    partner_id: int
    similarity: float
    kind: str


@dataclass(frozen=True)
class Swept:
    """What one value would do, all evidence together."""

    key: Key
    kept: int
    """Images of the pool that stay."""
    dropped: int
    """Images kept out as copies of another."""
    contaminated: int
    """Images kept out since their group of copies touches a held-out image."""
    largest: int
    """Images of the largest group."""
    evidence: dict[str, int]
    """Of the dropped ones, by what showed that they are copies."""
    command: str
    """What applies the value."""
    examples: tuple[Example, ...] = ()
    """Some images that go at this value and stay at every stricter one."""

    def cells(self) -> tuple[str, ...]:
        """Value, kept, dropped, largest group and contaminated, as text."""
        counts = (f"{number:,}" for number in (self.kept, self.dropped, self.largest, self.contaminated))
        return (self.key.text, *counts, NOW if self.key.now else "")

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        names = ("kept", "dropped", "contaminated", "largest", "evidence", "command")
        told = {"key": self.key.name, "value": self.key.value, "now": self.key.now}
        return told | {name: getattr(self, name) for name in names}


def by_key(rows: Sequence[Swept]) -> dict[str, list[Swept]]:
    """The rows of each key, in their order."""
    found: dict[str, list[Swept]] = {}
    for row in rows:
        found.setdefault(row.key.name, []).append(row)
    return found


def write_sweep(run: Finished, rows: Sequence[Swept]) -> str:
    """Write `report/sweep.html`; returns its path."""
    pictures, blocks = Pictures(run), []
    for name, found in by_key(rows).items():
        blocks.append(el("section", el("h2", name), render_blocks(list(_section(found)), pictures)))
    text = (
        "Each row is what the run would keep with that value, by all evidence together: equal bytes, hashes and the "
        "embedding, verified where the run verifies. Nothing of the run was changed."
    )
    head = el(
        "header",
        el("h1", f"Thresholds of {run.name}"),
        el("p", text, class_="lead"),
        *(el("p", line) for line in outdated(run)),
    )
    page = document(f"{run.name}: thresholds", el("body", head, el("main", blocks)), pictures)
    run.store.write_bytes(SWEEP_FILE, page.encode())
    return run.store.join(SWEEP_FILE)


def _section(rows: Sequence[Swept]) -> Iterator[Block]:
    heldout = "heldout" in rows[0].key.name
    numbered = [row for row in rows if isinstance(row.key.value, float)]
    at = np.array([row.key.value for row in numbered], float)
    order = np.argsort(at)
    if len(numbered) > 1:
        counts = np.array([row.contaminated if heldout else row.dropped for row in numbered], float)
        label = "images with held-out ones" if heldout else "images dropped as copies"
        line = Line(label, counts[order], "a", at[order])
        yield Curves([line], x_label=rows[0].key.name, y_label=label, from_zero=True)
    yield Numbers(HEAD, tuple(_numbers(row) for row in rows))
    if len(rows) > 1:
        yield Text(f"To apply a row, for example: {example_of(rows).command}")
    for stricter, row in zip([None, *numbered], numbered, strict=False):
        if row.examples:
            stay = "" if stricter is None else f" and stay at {stricter.key.text}"
            yield Heading(f"Images that go at {row.key.text}{stay}")
            for one in row.examples:
                left = Picture(one.image_id, (f"{one.similarity:.3f} by {one.kind}",))
                yield Gallery((left, Picture(one.partner_id, mark="heldout" if heldout else "kept")), group=True)


def _numbers(row: Swept) -> tuple[Any, ...]:
    counts = (row.kept, row.dropped, row.largest, row.contaminated)
    return (row.key.text, *counts, NOW if row.key.now else "")


def example_of(rows: Sequence[Swept]) -> Swept:
    """The row whose command stands for those of all."""
    return next((row for row in rows if not row.key.now), rows[0])
