"""The items of one page of a queue: which they are, and what is said of their images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import numpy as np
import pyarrow.compute as pc

from curate.answers.rows import Wanted, list_images
from curate.decisions import Decision
from curate.engine.finished import Finished
from curate.engine.numbers import plural
from curate.review.facts import Facts, read_facts
from curate.review.marks import Mark, MarkIndex
from curate.review.queues import Queue, Queues
from curate.stages.copies.contamination import ImageSet
from curate.stages.copies.copy_groups import evidence
from curate.tables import ROLES

PAGE_ITEMS = 50
"""Items of a page."""
MOST_IMAGES = 48
"""Images of an item that come with its page; the others are asked for."""
MOST_FILTERS = 4
"""Results of filters that are held, a bit an image each."""
SEARCHED = ("source", "key", "uri", "reason", "detail", "evidence")
"""Columns of a listing that a filter looks through."""


class Image(Facts):
    """An image with the decisions about it."""

    marks: list[Mark]


class Item(TypedDict):
    """What a person decides about: a group, a pair or an image."""

    number: int
    """Its place in the queue, from 0."""
    title: str
    images: list[Image]
    more: int
    """Images that are not among them."""


class Page(TypedDict):
    """Some items of a queue."""

    queue: str
    page: int
    """From 0."""
    pages: int
    total: int
    """Items of the queue that fit the filter."""
    items: list[Item]


class Pages:
    """Pages of all queues of a run."""

    def __init__(self, run: Finished, queues: Queues) -> None:
        self._run, self._queues = run, queues
        self._fitting: dict[str, ImageSet] = {}

    def page(self, queue: str, number: int, decisions: Iterable[Decision], *, filter_: str = "") -> Page:
        """A page of the items of which an image fits the filter.

        Args:
            number: of the page, from 0; one behind the last gives the last.
            filter_: a part of a source's name, key, uri, reason or evidence, in capitals or not; empty: all items.
        """
        found = self._queues[queue]
        numbers = self._fitting_items(found, filter_.strip().casefold())
        pages = max(1, -(-len(numbers) // PAGE_ITEMS))
        number = min(max(number, 0), pages - 1)
        shown = numbers[number * PAGE_ITEMS : (number + 1) * PAGE_ITEMS].tolist()
        chosen = {at: found.items.images(found.items.item(at))[:MOST_IMAGES] for at in shown}
        images = self.images(chosen.values(), decisions, partners=found.section == "Dropped")
        items = [_item(found, at, ids.tolist(), images) for at, ids in chosen.items()]
        return Page(queue=queue, page=number, pages=pages, total=len(numbers), items=items)

    def members(self, queue: str, number: int, start: int, decisions: Iterable[Decision]) -> list[Image]:
        """More images of an item, from the one of number `start` on."""
        items = self._queues[queue].items
        if not 0 <= number < len(items):
            return []
        ids = items.images(items.item(number))[max(start, 0) :][:MOST_IMAGES]
        return list(self.images([ids], decisions).values())

    def images(
        self, ids: Iterable[np.ndarray], decisions: Iterable[Decision], *, partners: bool = False
    ) -> dict[int, Image]:
        """Images by id, in the order given, behind them with `partners` those that stay for them."""
        wanted = np.concatenate([np.zeros(0, np.int64), *ids])
        index = MarkIndex(decisions)
        found = read_facts(self._run, self._queues.verdicts, wanted)
        if partners:
            others = {int(facts["partner"]) for facts, _ in found.values() if facts["partner"] is not None}
            found |= read_facts(self._run, self._queues.verdicts, np.array(sorted(others - found.keys()), np.int64))
        order = [one for one in dict.fromkeys([*wanted.tolist(), *found]) if one in found]
        return {one: Image(**found[one][0], marks=index.of(found[one][1])) for one in order}

    def _fitting_items(self, queue: Queue, text: str) -> np.ndarray:
        """(N,) int64: numbers of the items of which an image fits."""
        if not text:
            return np.arange(len(queue.items), dtype=np.int64)
        fitting = self._images_with(text).has(queue.items.ids)
        return np.flatnonzero(queue.items.with_any(fitting))

    def _images_with(self, text: str) -> ImageSet:
        """The images of which the catalog or the verdicts say this, found by reading all of their names."""
        if text not in self._fitting:
            found = ImageSet(self._run.parts)
            for rows in list_images(self._run, Wanted.all, ["image_id", *SEARCHED], roles=ROLES):
                fits = np.zeros(len(rows), bool)
                for name in SEARCHED:
                    column = pc.match_substring(rows[name], text, ignore_case=True)
                    fits |= pc.fill_null(column, False).to_numpy(zero_copy_only=False)
                found.add(rows["image_id"].to_numpy()[fits])
            while len(self._fitting) >= MOST_FILTERS:
                del self._fitting[next(iter(self._fitting))]
            self._fitting[text] = found
        return self._fitting[text]


def _item(queue: Queue, number: int, ids: Sequence[int], images: Mapping[int, Image]) -> Item:
    shown = [images[one] for one in ids if one in images]
    size = len(queue.items.images(queue.items.item(number)))
    if queue.section == "Dropped" and shown and shown[0]["partner"] is not None:
        partner = images.get(int(shown[0]["partner"]))
        shown = [partner, *shown] if partner else shown
    return Item(number=number, title=_title(queue, number, shown, size), images=shown, more=size - len(ids))


def _title(queue: Queue, number: int, shown: Sequence[Image], size: int) -> str:
    if queue.doubtful is not None:
        margin, similarity = (float(column[number]) for column in (queue.doubtful.margin, queue.doubtful.similarity))
        verdict = "A copy" if margin >= 0 else "Not a copy"
        return f"{verdict} by {abs(margin):.2g}: {similarity:.4g} {queue.doubtful.kind}"
    if queue.name == "groups":
        return plural(size, "image")
    if queue.name == "contamination":
        return f"{plural(size - 1, 'image')} with a held-out one"
    if queue.section == "Dropped":
        return _evidence(shown[-1]) if shown else ""
    return (shown[0]["detail"] if shown else "") or queue.title


def _evidence(image: Image) -> str:
    if image["similarity"] is None:
        return image["verdict"]
    return evidence({"kind": image["evidence"], "similarity": image["similarity"], "direct": image["direct"]})
