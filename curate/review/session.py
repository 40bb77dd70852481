"""A run under review: its queues, pages, pictures and decisions, as server and export take them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from curate.decisions import FILE, KINDS, Decision, Kind
from curate.engine.finished import Finished
from curate.engine.store import Store
from curate.errors import CurateError, TableError
from curate.review.items import PAGE_ITEMS, Image, Page, Pages
from curate.review.marks import Mark, Marks, as_mark
from curate.review.originals import Originals
from curate.review.queues import Queues
from curate.text import visible_line

ONE_IMAGE: tuple[Kind, ...] = ("keep", "drop", "represent")
"""Decisions about one image of the pool."""

MOST_PARTED = 400
"""Images of a group that one step may declare to be no copies."""


class Refused(CurateError):
    """A decision that cannot be made; the text says why."""


class Session:
    """What the page asks for."""

    def __init__(self, run: Finished, *, apply: str) -> None:
        """
        Args:
            apply: the command that applies the decisions.

        Raises:
            TableError: the run has no verdicts yet.
        """
        self.run, self.apply = run, apply
        self.queues = Queues(run)
        self.pages = Pages(run, self.queues)
        self.originals = Originals(run)
        self.marks = Marks(decisions_path(run))
        self._judged = self._digest()

    @property
    def workdir(self) -> Store:
        """The workdir of the run, also while an update is put in its place."""
        return self.run.store.below or self.run.store

    def summary(self) -> dict[str, Any]:
        """What the page shows around the items."""
        queues = [
            {"name": queue.name, "section": queue.section, "title": visible_line(queue.title), "about": queue.about}
            | {"count": len(queue.items)}
            for queue in self.queues.all.values()
        ]
        return {
            "run": visible_line(self.run.name),
            "recipe": visible_line(self.run.recipe),
            "queues": queues,
            "pageItems": PAGE_ITEMS,
            "file": visible_line(self.marks.path),
            "apply": self.apply,
            "decisions": len(self.marks.all()),
            "undo": self.marks.num_undo,
        }

    def page(self, queue: str, number: int, filter_: str = "") -> Page:
        """A page of a queue; see `Pages.page`.

        Raises:
            TableError: a run has made the verdicts anew meanwhile.
        """
        if self._digest() != self._judged:
            raise TableError("the verdicts were made anew meanwhile; end `curate review` and start it again")
        found = self.pages.page(queue, number, self.marks.all(), filter_=filter_)
        self.originals.know(int(image["id"]) for item in found["items"] for image in item["images"])
        return found

    def _digest(self) -> str | None:
        return self.run.store.table(self.queues.verdicts.name).manifest_digest()

    def members(self, queue: str, number: int, start: int) -> list[Image]:
        """More images of an item."""
        return self.pages.members(queue, number, start, self.marks.all())

    def decide(self, kind: str, image_id: int, other_id: int | None) -> dict[str, Any]:
        """Write a decision about an image or, with `other_id`, about a pair.

        Raises:
            Refused: it means nothing for such images.
        """
        decision, images = self._decision(kind, image_id, other_id)
        self.marks.write([decision])
        return self._done([decision], images)

    def part(self, queue: str, number: int) -> dict[str, Any]:
        """Write that no image of a group is a copy of another, as one step.

        Raises:
            Refused: the group is too large for that, or nothing of it lies in the pool.
        """
        items = self.queues[queue].items
        ids = items.images(items.item(number)) if 0 <= number < len(items) else np.zeros(0, np.int64)
        if len(ids) > MOST_PARTED:
            raise Refused(f"a group of {len(ids):,} images is too large for that; choose a stricter threshold")
        images = [image for image in self.pages.images([ids], []).values() if image["role"] == "pool"]
        decisions = [Decision(image["name"], "not-copies") for image in images if not image["reason"]]
        if not decisions:
            raise Refused("there is no image of the pool to decide about")
        self.marks.write(decisions)
        return self._done(decisions, ids.tolist())

    def undo(self, shown: Sequence[int]) -> dict[str, Any]:
        """Take the last step back; `shown` are images whose decisions the page wants to know."""
        return self._done(self.marks.undo(), shown)

    def forget(self, about: tuple[str, str], shown: Sequence[int]) -> dict[str, Any]:
        """Take one decision out of the file."""
        self.marks.forget(about)
        return self._done([], shown)

    def decisions(self) -> list[Mark]:
        """Every decision of the file, the newest first."""
        return [as_mark(one) for one in reversed(self.marks.all())]

    def _decision(self, kind: str, image_id: int, other_id: int | None) -> tuple[Decision, list[int]]:
        ids = [image_id] if other_id is None else [image_id, other_id]
        images = self.pages.images([np.array(ids, np.int64)], [])
        if kind not in KINDS or len(images) < len(set(ids)):
            raise Refused(f"decision {visible_line(kind)!r} of images {ids}: there is no such decision or image")
        if any(image["reason"] for image in images.values()):
            raise Refused("a rejected image stays out whatever is decided; change the limits in `inspect`")
        if kind in ONE_IMAGE:
            if images[image_id]["role"] != "pool":
                raise Refused(f"{images[image_id]['role']} images stay as they are; choose an image of the pool")
            return Decision(images[image_id]["name"], kind), [image_id]
        if other_id == image_id:
            raise Refused("an image is no pair with itself")
        if other_id is not None and images[image_id]["role"] != "pool":
            image_id, other_id = other_id, image_id
        if images[image_id]["role"] != "pool":
            raise Refused("decisions are about images of the pool; choose one of them")
        other = "" if other_id is None else images[other_id]["name"]
        return Decision(images[image_id]["name"], "not-copies", other), ids

    def _done(self, decisions: Iterable[Decision], shown: Sequence[int]) -> dict[str, Any]:
        known = self.marks.all()
        images = self.pages.images([np.array(shown, np.int64)], known)
        marks: dict[str, list[Mark]] = {image["id"]: image["marks"] for image in images.values()}
        return {
            "done": [as_mark(decision) for decision in decisions],
            "decisions": len(known),
            "undo": self.marks.num_undo,
            "marks": marks,
        }


def decisions_path(run: Finished) -> str:
    """The file of decisions: the config's own, else the one in the workdir."""
    given = run.config.get("decisions", "auto")
    return (run.store.below or run.store).join(FILE) if given in (None, "auto") else str(given)
