"""What there is to see of a run, in queues: groups of copies, contamination, doubtful pairs, what was left out and why.

A run of ten million images has more of them than a process should hold as objects. So a queue is arrays of numbers: the
ids of its images one item after the other, and where each item begins. They are filled in one pass over `duplicates`
and one over `images`, part by part; names, sizes and pictures are read for the items of one page alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.engine.finished import Finished
from curate.engine.image_ids import Parts
from curate.engine.table import Table
from curate.errors import TableError
from curate.review.doubtful import Doubtful, find_doubtful
from curate.stages.copies.deduplicate import EVIDENCE, Deduplicate
from curate.stages.copies.drop_similar import SIMILAR, DropSimilar
from curate.stages.images.inspect import Inspect
from curate.stages.screening.rejected import LISTED
from curate.stages.screening.screen import Screen
from curate.tables import POOL, REJECT_REASONS

KEPT, DUPLICATE, BENCHMARK, DROPPED, SCREENED = "kept", "duplicate", "benchmark", "dropped", "screened"
"""Verdicts of the tables."""
DECISION = "decision"
REASONS = {SIMILAR: "too like another image of its cluster", DECISION: "by your decision"}
"""Why an image was dropped, in words, beside the kinds of evidence."""


@dataclass(frozen=True)
class Items:
    """Images of items, one item after the other."""

    ids: np.ndarray
    """(M,) int64"""
    starts: np.ndarray
    """(N + 1,) int64, where each item begins, and the end of the last one"""
    order: np.ndarray | None = None
    """(N,) int64, items as they are shown; None: as they lie"""

    @classmethod
    def of_equal(cls, ids: np.ndarray) -> "Items":
        """Items of so many images each as `ids` (N, K) has columns."""
        num, width = ids.shape
        return cls(ids.reshape(-1), np.arange(num + 1, dtype=np.int64) * width)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def item(self, number: int) -> int:
        """The place in `starts` of the item that is shown as the one of this number, from 0."""
        return number if self.order is None else int(self.order[number])

    def images(self, item: int) -> np.ndarray:
        """(K,) int64: the images of an item, by its place in `starts`."""
        found: np.ndarray = self.ids[self.starts[item] : self.starts[item + 1]]
        return found

    def with_any(self, mask: np.ndarray) -> np.ndarray:
        """(N,) bool in the order shown: items of which an image is among those of `mask`, (M,) bool."""
        if len(self) == 0:
            return np.zeros(0, bool)
        found = np.add.reduceat(mask, self.starts[:-1]) > 0
        return found if self.order is None else found[self.order]


@dataclass(frozen=True)
class Queue:
    """Items that a person looks at one after the other."""

    name: str
    """As addresses and files have it: letters, digits and hyphens."""
    section: str
    """Heading above it and its like."""
    title: str
    about: str
    """What its items are, and in which order."""
    items: Items
    doubtful: Doubtful | None = None
    """Of pairs about a threshold, how they were judged."""


class Queues:
    """All queues of a run, by name."""

    def __init__(self, run: Finished) -> None:
        """
        Raises:
            TableError: the run has no verdicts yet.
        """
        found = run.only(Deduplicate)
        if found is None:
            raise TableError(
                f"{run.store.root}: has no verdicts about copies yet; run its recipe, and `curate review` shows them"
            )
        self._run, self._copies = run, found[1]
        self.all: dict[str, Queue] = {queue.name: queue for queue in self._find()}

    def __getitem__(self, name: str) -> Queue:
        return self.all[name]

    @cached_property
    def verdicts(self) -> Table:
        """The verdicts that the selection goes by."""
        similar = self._run.only(DropSimilar)
        return self._copies if similar is None else similar[1]

    def _find(self) -> Iterator[Queue]:
        groups, contaminated = find_groups(self._copies, self._run.parts)
        yield Queue("groups", "Copies", "Groups of copies", "What stays first. The largest group first.", groups)
        text = "The held-out image first, then the images of the pool that go because of it."
        yield Queue("contamination", "Copies", "Beside held-out images", text, contaminated)
        for doubtful in find_doubtful(self._run):
            title, text = EVIDENCE[doubtful.kind], "Pairs on either side of the threshold. The nearest to it first."
            name, items = f"doubtful-{doubtful.kind}", Items.of_equal(doubtful.ids)
            yield Queue(name, "Doubtful pairs", title, text, items, doubtful)
        for reason, ids in find_dropped(self.verdicts):
            title = REASONS.get(reason) or EVIDENCE.get(reason, reason)
            text = "Each beside the image that stays instead. The least alike first."
            yield Queue(f"dropped-{word(reason)}", "Dropped", title, text, Items.of_equal(ids[:, None]))
        inspected = self._run.only(Inspect)
        for reason, ids in find_rejected(inspected[1]) if inspected else ():
            title, text = reason.replace("_", " "), "In the order of the sources."
            yield Queue(f"rejected-{word(reason)}", "Rejected", title, text, Items.of_equal(ids[:, None]))
        yield from self._screened()

    def _screened(self) -> Iterator[Queue]:
        """What rules reject, but for what no screen should show: listed images, and sensitive ones unless asked."""
        found = self._run.only(Screen)
        if found is None:
            return
        stage, table = found
        hidden = {LISTED} | (set() if stage.show_sensitive else stage.sensitive(table.schema()))
        for reason, ids in find_rejected(table):
            if reason not in hidden:
                title, text = reason.replace("_", " "), "What a rule rejects, in the order of the sources."
                yield Queue(f"screened-{word(reason)}", "Rejected by rules", title, text, Items.of_equal(ids[:, None]))


def word(reason: str) -> str:
    """A reason as a part of a file's name, whatever a table of strangers says."""
    return re.sub(r"[^a-z0-9]+", "-", reason.lower())


# -- groups ------------------------------------------------------------------------------------------------------------


class _Members:
    """Images of groups, gathered batch by batch: 16 bytes each."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._keys: list[np.ndarray] = []
        """Twice the component, and one more for an image that goes: in this order a group begins with what stays."""
        self._ids: list[np.ndarray] = []
        self._leads: list[np.ndarray] = []
        """Component, and the image outside of the pool because of which one of it goes."""

    def add(self, rows: pa.Table) -> None:
        """Rows of `duplicates`."""
        component, ids = rows["component_id"].to_numpy(), rows["image_id"].to_numpy()
        partner = pc.fill_null(rows["partner_id"], -1).to_numpy()
        gone = pc.not_equal(rows["verdict"], KEPT).to_numpy()  # what a person kept may have a partner, too
        self._keys.append(component * 2 + gone)
        self._ids.append(ids)
        led = np.flatnonzero(gone & (partner >= 0))
        led = led[self._parts.role_of(partner[led]) != POOL]
        self._leads.append(np.stack([component[led], partner[led]], axis=1))

    def items(self) -> Items:
        """A group an item, the largest first; in it what stays first.

        A group of which nothing stays in the pool begins with the image outside of it because of which it goes: a
        held-out or a curated one. Ends the gathering.
        """
        keys, self._keys = _joined(self._keys), []
        ids, self._ids = _joined(self._ids), []
        order = np.argsort(keys, kind="stable")  # ids ascend already
        keys, ids = keys[order], ids[order]
        del order
        first = np.flatnonzero(np.diff(keys >> 1, prepend=-1))
        leads = np.concatenate([np.zeros((0, 2), np.int64), *self._leads])
        component, place = np.unique(leads[:, 0], return_index=True)
        led = first[(keys[first] & 1 == 1) & _within(component, keys[first] >> 1)]
        lead = leads[place[np.searchsorted(component, keys[led] >> 1)], 1]
        starts = np.append(first + np.searchsorted(led, first), len(ids) + len(led))
        return Items(np.insert(ids, led, lead), starts, np.argsort(-np.diff(starts), kind="stable"))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def find_groups(table: Table, parts: Parts) -> tuple[Items, Items]:
    """Groups of which an image goes for another one, and groups that go since they touch held-out images."""
    members, contaminated = _Members(parts), _Members(parts)
    lost = _distinct(_joined(list(_lost(table))))
    for rows in table.scan(["image_id", "component_id", "verdict", "partner_id"]):
        condemned = pc.equal(rows["verdict"], BENCHMARK)
        contaminated.add(rows.filter(condemned))
        rest = rows.filter(pc.invert(pc.is_in(rows["verdict"], pa.array([BENCHMARK, SCREENED]))))
        members.add(rest.filter(pa.array(_within(lost, rest["component_id"].to_numpy()))))
    del lost
    return members.items(), contaminated.items()


def _lost(table: Table) -> Iterator[np.ndarray]:
    for rows in table.scan(["component_id", "verdict"]):
        yield _distinct(rows.filter(pc.equal(rows["verdict"], DUPLICATE))["component_id"].to_numpy())


def _distinct(values: np.ndarray) -> np.ndarray:
    """Ascending ids, >= 0; `np.unique` hashes them, which takes twenty times as long where many end alike."""
    ascending = np.sort(values)
    return ascending[np.diff(ascending, prepend=-1) > 0]


def _within(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(N,) bool: which values are among ascending ones; `np.isin` would sort these again for every part."""
    places = np.searchsorted(ascending, values)
    places[places == len(ascending)] = 0
    return ascending[places] == values if len(ascending) else np.zeros(len(values), bool)


# -- single images -----------------------------------------------------------------------------------------------------


def find_dropped(table: Table) -> Iterator[tuple[str, np.ndarray]]:
    """By the evidence, or the verdict where that says more: images that go for another one, the least alike first."""
    ids, similarity = defaultdict[str, list[np.ndarray]](list), defaultdict[str, list[np.ndarray]](list)
    for rows in table.scan(["image_id", "verdict", "similarity", "kind"]):
        gone = rows.filter(pc.invert(pc.is_in(rows["verdict"], pa.array([KEPT, BENCHMARK, SCREENED]))))
        reason = pc.if_else(pc.equal(gone["verdict"], DUPLICATE), gone["kind"], gone["verdict"])
        reason = pc.if_else(pc.equal(gone["verdict"], DROPPED), DECISION, reason)
        for name, some in _by_value(gone, reason):
            ids[name].append(some["image_id"].to_numpy())
            similarity[name].append(pc.fill_null(some["similarity"], 1).to_numpy())
    for name in sorted(ids, key=lambda name: list(EVIDENCE).index(name) if name in EVIDENCE else len(EVIDENCE)):
        yield name, np.concatenate(ids[name])[np.argsort(np.concatenate(similarity[name]), kind="stable")]


def find_rejected(table: Table) -> Iterator[tuple[str, np.ndarray]]:
    ids = defaultdict[str, list[np.ndarray]](list)
    for rows in table.scan(["image_id", "reject"]):
        bad = rows.filter(pc.is_valid(rows["reject"]))
        for name, some in _by_value(bad, bad["reject"]):
            ids[name].append(some["image_id"].to_numpy())
    for name in sorted(ids, key=lambda name: REJECT_REASONS.index(name) if name in REJECT_REASONS else len(ids) + 99):
        yield name, np.concatenate(ids[name])


def _by_value(rows: pa.Table, column: pa.ChunkedArray) -> Iterable[tuple[str, pa.Table]]:
    for name in pc.unique(column).drop_null().to_pylist():
        yield name, rows.filter(pc.equal(column, name))
